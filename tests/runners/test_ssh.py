"""Commands and files over a real sshd: good, dead, hostile and slow."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from getpass import getuser
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.rack.model import Rack, Unit
from toolkit.runners.ssh import SIGNALLED, SshShell
from toolkit.settings import Settings


@pytest.fixture
def shell(settings: Settings) -> Iterator[SshShell]:
    """A shell on the bench rack."""
    with SshShell(settings, "bench", getuser()) as shell:
        yield shell


@pytest.fixture
def node(rack: Rack) -> Unit:
    """A node that answers."""
    return rack.nodes[0]


def test_a_command_answers_with_status_and_both_outputs(shell: SshShell, node: Unit) -> None:
    """Arguments arrive as they were given: nothing is expanded on the way."""
    result = shell.run(node, ["sh", "-c", 'echo "$1"; echo oops >&2; exit 7', "sh", "a b; $(id) 'c'"], 10)
    assert (result.status, result.stdout, result.stderr) == (7, b"a b; $(id) 'c'\n", b"oops\n")
    assert not result.truncated


def test_a_connection_is_used_again(shell: SshShell, node: Unit) -> None:
    """sshd gives every connection a process; two commands see the same one."""
    parents = {shell.run(node, ["sh", "-c", "echo $SSH_CONNECTION"], 10).stdout for _ in range(3)}
    assert len(parents) == 1


def test_a_connection_that_broke_is_opened_anew(shell: SshShell, node: Unit) -> None:
    """A node that was rebooted is not unreachable because our old connection is."""
    shell.run(node, ["true"], 10)
    with pytest.raises(UnreachableError):
        shell.run(node, ["sh", "-c", "kill -9 $PPID"], 10)
    assert shell.run(node, ["echo", "back"], 10).stdout == b"back\n"


def test_a_machine_that_is_slow_for_a_while_loses_no_errand(
    shell: SshShell, node: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second errand waits in vain for the first one's connection, and opens another; the first goes on to its end."""
    monkeypatch.setattr("toolkit.runners.ssh.STALE_SECONDS", 0.5)
    session = int(shell.run(node, ["sh", "-c", "echo $PPID"], 10).stdout)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(shell.run, node, ["sh", "-c", "sleep 1.5; echo $PPID"], 20)
        time.sleep(0.3)
        os.kill(session, signal.SIGSTOP)
        second = threads.submit(shell.run, node, ["sh", "-c", "echo $PPID"], 20)
        assert int(second.result().stdout) != session
        os.kill(session, signal.SIGCONT)
        assert int(first.result().stdout) == session


def test_many_threads_share_nodes(shell: SshShell, rack: Rack) -> None:
    """Side by side on both nodes; nobody gets another's answer."""
    answers: dict[int, bytes] = {}

    def ask(i: int) -> None:
        answers[i] = shell.run(rack.nodes[i % 2], ["echo", str(i)], 20).stdout

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert answers == {i: f"{i}\n".encode() for i in range(8)}


def test_more_errands_at_once_than_a_server_has_sessions_for_take_turns(
    shell: SshShell, node: Unit, tmp_path: Path
) -> None:
    """sshd opens ten sessions on a connection: two dozen commands and files beside one another all get through."""
    local = tmp_path / "local"
    local.write_bytes(b"x" * 1000)

    def errand(number: int) -> bytes:
        if number % 3 == 0:
            shell.put(node, local, f"{tmp_path}/remote{number}")
            return shell.read(node, f"{tmp_path}/remote{number}", 0, 10)
        return shell.run(node, ["sh", "-c", f"sleep 0.3; echo {number}"], 30).stdout

    with ThreadPoolExecutor(24) as pool:
        told = list(pool.map(errand, range(24)))
    assert told == [b"x" * 10 if n % 3 == 0 else f"{n}\n".encode() for n in range(24)]


def test_a_dead_port_is_unreachable_with_node_and_address(shell: SshShell, rack: Rack) -> None:
    """Who, where, while doing what."""
    with pytest.raises(UnreachableError, match=r"running true on node3 \(127\.0\.0\.1:\d+\)"):
        shell.run(rack.nodes[2], ["true"], 5)


def test_another_host_key_is_not_unreachable(shell: SshShell, settings: Settings, node: Unit, rack: Rack) -> None:
    """Somebody else answers at the address: not a dead node, and nothing is sent to it."""
    file = settings.known_hosts("bench")
    lines = file.read_text().splitlines()
    swapped = [f"{a.split()[0]} {' '.join(b.split()[1:])}" for a, b in zip(lines[:2], lines[1::-1], strict=True)]
    file.write_text("\n".join(swapped) + "\n")
    with pytest.raises(UndecidedError, match="not the one pinned") as caught:
        shell.run(node, ["true"], 5)
    assert not isinstance(caught.value, UnreachableError)
    assert "who answers" in caught.value.hint


def test_a_line_of_the_sites_authority_is_passed_over(shell: SshShell, settings: Settings, node: Unit) -> None:
    """`@cert-authority` is for ssh: the pinned key beside it counts, and one alone pins nothing for us."""
    file = settings.known_hosts("bench")
    pinned = file.read_text()
    authority = f"@cert-authority {' '.join(pinned.splitlines()[0].split())}\n"
    file.write_text(authority + pinned)
    assert shell.run(node, ["true"], 30).status == 0
    file.write_text(authority)
    shell.close()
    with pytest.raises(UndecidedError, match="no host key is pinned"):
        shell.run(node, ["true"], 30)


def test_a_node_without_a_pinned_key_is_not_spoken_to(shell: SshShell, settings: Settings, node: Unit) -> None:
    """Keys are pinned at imaging, never on first contact."""
    settings.known_hosts("bench").write_text("")
    with pytest.raises(UndecidedError, match="no host key is pinned"):
        shell.run(node, ["true"], 5)


def test_a_refused_key_says_so(shell: SshShell, settings: Settings, node: Unit) -> None:
    """A key the node does not know."""
    (settings.keys / "login").unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", settings.keys / "login"], check=True)
    with pytest.raises(UndecidedError, match="refuses our key"):
        shell.run(node, ["true"], 5)
    (settings.keys / "login").unlink()
    with pytest.raises(UsageError, match="no login key"):
        SshShell(settings, "bench", getuser()).run(node, ["true"], 5)


def test_a_hanging_command_ends_at_its_deadline(shell: SshShell, node: Unit) -> None:
    """And the connection serves the next."""
    started = time.monotonic()
    with pytest.raises(UnreachableError, match="no end within 1 s"):
        shell.run(node, ["sleep", "47"], 1)
    assert time.monotonic() - started < 3
    assert shell.run(node, ["echo", "on"], 10).stdout == b"on\n"


@pytest.mark.parametrize("stream", [1, 2])
def test_a_flood_is_cut_at_the_bound(shell: SshShell, node: Unit, stream: int) -> None:
    """64 MiB offered, 1 MiB taken, on either stream; the writer on the node is stopped by a closed channel."""
    command = f"head -c 67108864 /dev/zero >&{stream}; echo done >&2"
    result = shell.run(node, ["sh", "-c", command], 30, max_bytes=1024 * 1024)
    assert result.truncated
    assert result.status == SIGNALLED
    assert len(result.stdout) + len(result.stderr) == 1024 * 1024
    assert shell.run(node, ["echo", "on"], 10).stdout == b"on\n"


def test_output_of_exactly_the_bound_is_whole(shell: SshShell, node: Unit) -> None:
    """The bound is what may come, not one less."""
    result = shell.run(node, ["head", "-c", "300000", "/dev/zero"], 10, max_bytes=300_000)
    assert (result.status, len(result.stdout), result.truncated) == (0, 300_000, False)


def test_escapes_come_through_as_bytes(shell: SshShell, node: Unit) -> None:
    """Raw evidence stays raw; who prints it cleans it."""
    assert shell.run(node, ["printf", r"\033[31mred\007\377"], 10).stdout == b"\x1b[31mred\x07\xff"


def test_a_command_killed_by_a_signal_has_no_exit_status(shell: SshShell, node: Unit) -> None:
    """Never a 0."""
    assert shell.run(node, ["sh", "-c", "kill -9 $$"], 10).status == SIGNALLED


def test_a_file_arrives_whole_and_with_its_mode(shell: SshShell, node: Unit, tmp_path: Path) -> None:
    """Renamed over the old one; nothing stays beside it."""
    local, remote = tmp_path / "local", tmp_path / "remote" / "file"
    local.write_bytes(os.urandom(300_000))
    remote.parent.mkdir()
    remote.write_text("old")
    shell.put(node, local, str(remote), 0o755)
    assert remote.read_bytes() == local.read_bytes()
    assert remote.stat().st_mode & 0o777 == 0o755
    assert [f.name for f in remote.parent.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_told(shell: SshShell, node: Unit, tmp_path: Path) -> None:
    """The old file stays."""
    (tmp_path / "local").write_text("x")
    (tmp_path / "remote").mkdir()
    with pytest.raises(UndecidedError, match="writing"):
        shell.put(node, tmp_path / "local", str(tmp_path / "remote"))
    assert [f.name for f in tmp_path.iterdir() if f.name.startswith("remote")] == ["remote"]


def test_a_file_is_read_from_an_offset_to_its_end(shell: SshShell, node: Unit, tmp_path: Path) -> None:
    """As progress is followed: what is new, then nothing."""
    (tmp_path / "log").write_bytes(bytes(range(256)) * 1000)
    log = str(tmp_path / "log")
    assert shell.read(node, log, 255_990, 100) == bytes(range(246, 256))
    assert len(shell.read(node, log, 0, 100_000)) == 100_000
    assert shell.read(node, log, 256_000, 100) == b""
    assert shell.read(node, log, 999_999, 100) == b""
    with pytest.raises(FileNotFoundError):
        shell.read(node, str(tmp_path / "none"), 0, 1)


def test_only_regular_files_are_read(shell: SshShell, node: Unit, tmp_path: Path) -> None:
    """A FIFO would hang the reader, a device would never end."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UndecidedError, match="not a regular file"):
        shell.read(node, str(tmp_path / "fifo"), 0, 1)


def test_a_unit_without_a_host_is_a_usage_error(shell: SshShell, node: Unit) -> None:
    """There is nothing to speak to."""
    with pytest.raises(UsageError, match="no host"):
        shell.run(replace(node, host=None), ["true"], 1)

"""The run command's promises: once per id, one at a time, nothing lost or repeated when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from burnin import record
from burnin.journal import BusyError, Journal, JournalError
from burnin.record import Artifact, End, Measured, Start, WorkloadEnded


def wait_for(path: Path, text: str, seconds: float = 30) -> None:
    limit = time.monotonic() + seconds
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < limit, f"{text} never came"
        time.sleep(0.02)


def children_alive(group_leader: int) -> list[int]:
    """Processes whose parent is the suite."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == group_leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def test_a_run_that_ended_is_not_run_again(healthy) -> None:
    """The same id writes nothing, not a byte of any file."""

    def written() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in healthy.out.iterdir() if p.is_file()}

    before = written()
    assert healthy.run().returncode == 0
    assert written() == before and len(before) > 1


def test_a_folder_of_another_run_is_refused(healthy) -> None:
    """Two runs never mix in one file."""
    done = healthy.run("another")
    assert done.returncode == 4 and "holds run r1, not another" in done.stderr and "next:" in done.stderr


def test_killed_in_the_middle_and_started_again(node) -> None:
    """SIGKILL leaves no process and no end record; the same id runs to its end; no evidence is overwritten."""
    command = node.command(*node.arguments("r1"))
    first = subprocess.Popen(command, env=node.environment())
    wait_for(node.out / "records.jsonl", '"gpu_count"')
    limit = time.monotonic() + 20
    while len(children := children_alive(first.pid)) < 9:  # telemetry and eight GPUs
        assert time.monotonic() < limit
        time.sleep(0.005)

    second = node.run()
    assert second.returncode == 3 and "another process runs a suite" in second.stderr

    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < limit
        time.sleep(0.02)
    with (node.out / "records.jsonl").open("ab") as torn:
        torn.write(b'{"record":"progress","at":"2026-')
    assert not any(isinstance(r, End) for r in node.records())

    assert node.run("r1", "--deadline", "3").returncode == 0
    cut, whole = record.attempts(node.records())
    assert isinstance(whole[-1], End) and not any(isinstance(r, End) for r in cut)
    names = {r.name for r in whole if isinstance(r, Artifact)}
    assert names and all(n.startswith("attempt2-") for n in names)
    assert (node.out / "nvml_before.json").exists(), "the first attempt's evidence is still there"
    ends = [r.gpu for r in whole if isinstance(r, WorkloadEnded) and r.workload == "hbm"]
    assert sorted(ends, key=str) == sorted(range(8), key=str)


def test_sigterm_stops_everything_and_writes_no_end(node) -> None:
    """systemctl stop: nothing is left running, and the run is recognisably cut."""
    suite = subprocess.Popen(node.command(*node.arguments("r1")), env=node.environment())
    wait_for(node.out / "records.jsonl", '"gpu_count"')
    limit = time.monotonic() + 20
    while len(children := children_alive(suite.pid)) < 5:
        assert time.monotonic() < limit
        time.sleep(0.005)
    suite.terminate()
    assert suite.wait(20) == 143
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    assert not any(isinstance(r, End) for r in node.records())


@pytest.mark.root
def test_a_full_disk_is_told_and_leaves_nothing_running(node, tmp_path: Path) -> None:
    """Records that cannot be written stop the suite with what failed and what next."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        (small / "filler").write_bytes(b"x" * 48 * 1024)
        arguments = node.arguments("r1")
        arguments[arguments.index("--out") + 1] = str(small / "out")
        done = subprocess.run(
            node.command(*arguments), env=node.environment(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 4, done.stderr
        assert "No space left on device" in done.stderr and "next: free" in done.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "--suite", "quick", "--out", "/tmp/x"], "--run"),
        (["run", "--run", "../x", "--suite", "quick", "--out", "/tmp/x"], "letters, digits"),
        (["run", "--run", "a", "--suite", "forever", "--out", "/tmp/x"], "invalid choice"),
        (["run", "--run", "a", "--suite", "quick", "--out", "/tmp/x", "--begin-at", "99999999999"], "an hour ahead"),
        (["run", "--run", "a", "--suite", "quick", "--out", "/tmp/x", "--begin-at", "nan"], "an hour ahead"),
        (["run", "--run", "a", "--suite", "quick", "--out", "/tmp/x", "--gpu-stagger", "-1"], "between 0 and 3600"),
        (["run", "--run", "a", "--suite", "quick", "--out", "/tmp/x", "--env", "NOVALUE"], "NAME=VALUE"),
        ([], "required"),
    ],
)
def test_a_wrong_command_line_is_told(archive: Path, arguments: list[str], says: str) -> None:
    """argparse's own status and words."""
    done = subprocess.run([sys.executable, str(archive), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and says in done.stderr


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    """The lock is on the folder, held while the journal is open."""
    journal = Journal(tmp_path, "r")
    with pytest.raises(BusyError):
        Journal(tmp_path, "r")
    journal.close()
    Journal(tmp_path, "r").close()


def test_a_journal_refuses_a_file_that_is_not_its_own(tmp_path: Path) -> None:
    """A foreign file is not appended to."""
    (tmp_path / "records.jsonl").write_text("hello\n")
    with pytest.raises(JournalError, match="not a record file"):
        Journal(tmp_path, "r")
    assert (tmp_path / "records.jsonl").read_text() == "hello\n"


def test_a_torn_line_is_cut_and_whole_ones_are_kept(tmp_path: Path) -> None:
    """Half a line is no record; what came before it stays."""
    journal = Journal(tmp_path, "r")
    journal.append(Start("r", "t", "s", "v", ()))
    journal.append(Measured("t", "w", "m", "u", 1), durable=True)
    journal.close()
    with (tmp_path / "records.jsonl").open("ab") as stream:
        stream.write(b'{"record":"measurement","at":"t",' + b"x" * 5000)
    journal = Journal(tmp_path, "r")
    journal.append(Start("r", "t", "s", "v", ()))
    journal.close()
    with (tmp_path / "records.jsonl").open("rb") as stream:
        assert [type(r) for r in record.read(stream)] == [Start, Measured, Start]
    assert journal.attempt == 2

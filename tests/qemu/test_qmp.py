"""QMP: what QEMU's lines mean, and a conversation with a real QEMU that has no machine in it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from toolkit.virtual.qemu.qmp import Event, Greeting, Qmp, QmpError, Refused, Returned, parse
from toolkit.virtual.requirements import SEARCH_PATH

QEMU = shutil.which("qemu-system-x86_64", path=SEARCH_PATH)
GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"},'
    b' "capabilities": ["oob"]}}\n'
)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (GREETING, Greeting("7.2.22")),
        (b'{"return": {}, "id": 3}', Returned(3, {})),
        (b'{"return": []}', Returned(None, [])),
        (b'{"error": {"class": "GenericError", "desc": "no"}, "id": 4}', Refused(4, "GenericError", "no")),
        (b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}', Event("STOP")),
        (
            b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESET", "data": {"guest": true}}',
            Event("RESET", {"guest": True}),
        ),
    ],
)
def test_a_line_of_qemu_has_one_meaning(line, meaning):
    """Greeting, event, result and refusal, as QEMU 7.2 writes them."""
    assert parse(line) == meaning


@pytest.mark.parametrize("line", [b"", b"hello", b"[]", b"{}", b'{"QMP": {}}', b'{"error": "no"}', b"\xff"])
def test_nonsense_is_no_message(line):
    """It is an error that quotes what was said, never an empty result."""
    with pytest.raises(QmpError, match="no QMP message"):
        parse(line)


def test_a_refused_command_says_why():
    """The command's name and QEMU's own words; an event in between is kept for who waits for it."""
    ours, theirs = socket.socketpair()

    def peer() -> None:
        with theirs, theirs.makefile("rwb") as lines:
            lines.write(GREETING)
            lines.flush()
            for number, answer in ((1, b'"return": {}'), (2, b'"error": {"class": "GenericError", "desc": "not now"}')):
                lines.readline()
                lines.write(b'{"event": "STOP"}\n{%s, "id": %d}\n' % (answer, number))
                lines.flush()

    threading.Thread(target=peer, daemon=True).start()
    monitor = Qmp(ours)
    with pytest.raises(QmpError, match=r"QEMU refused system_reset: not now"):
        monitor.execute("system_reset")
    assert [monitor.events.get(timeout=5) for _ in range(3)] == [Event("STOP"), Event("STOP"), None]


def test_a_qemu_that_ends_is_told_to_everyone():
    """No greeting: the constructor does not wait for its deadline."""
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(QmpError, match="it has ended"):
        Qmp(ours)


@pytest.fixture
def monitor() -> Iterator[Qmp]:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed: apt-get install qemu-system-x86")
    ours, theirs = socket.socketpair()
    with theirs:
        argv = [QEMU, "-machine", "none", "-nodefaults", "-display", "none", "-S"]
        argv += ["-chardev", f"socket,id=q,fd={theirs.fileno()}", "-mon", "chardev=q,mode=control"]
        process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
    yield Qmp(ours)
    process.kill()
    process.wait()


def test_a_real_qemu_answers(monitor):
    """Version, state, a refusal in its own words, and its end as the last event."""
    assert monitor.version.count(".") == 2
    assert monitor.execute("query-status")["status"] == "prelaunch"
    with pytest.raises(QmpError, match="refused qom-set"):
        monitor.set_property("nic0", "bootindex", 0)
    monitor.execute("quit")
    assert monitor.events.get(timeout=10) == Event("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
    assert monitor.events.get(timeout=10) is None
    with pytest.raises(QmpError, match=r"it has ended|it is gone"):
        monitor.execute("query-status")

"""What an operator's process hears of a rack's daemon that dies while it is asked."""

import os
import socket
import threading
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError
from toolkit.virtual.control import Operation, Request, ask

STATUS = Request(Operation.STATUS)


def _listener(path: Path) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.bind(str(path))
    wire.listen(4)
    return wire


@pytest.mark.parametrize("reads_first", [True, False], ids=["after it read the question", "before it read it"])
def test_a_daemon_that_dies_while_it_is_asked_is_one_that_does_not_listen(tmp_path: Path, reads_first: bool) -> None:
    """Asked with the question read, the wire ends; with it unread, the kernel resets it."""
    path = tmp_path / "control.sock"
    listener = _listener(path)

    def dies() -> None:
        wire, _ = listener.accept()
        if reads_first:
            wire.recv(1 << 16)
        listener.close()
        wire.close()

    daemon = threading.Thread(target=dies)
    daemon.start()
    with pytest.raises(ConnectionRefusedError):
        ask(path, STATUS)
    daemon.join()


def test_a_daemon_that_lives_and_says_nothing_is_told_as_such(tmp_path: Path) -> None:
    """It is up, so nobody is told to start it."""
    path = tmp_path / "control.sock"
    with _listener(path) as listener:
        daemon = threading.Thread(target=lambda: os.close(listener.accept()[0].detach()))
        daemon.start()
        with pytest.raises(UndecidedError, match="does not answer"):
            ask(path, STATUS)
        daemon.join()

"""How an operator's process talks to a rack's daemon: one JSON line there, one back, over a UNIX socket."""

from __future__ import annotations

import errno
import json
import os
import socket
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from toolkit.errors import RackproofError, UndecidedError, UsageError
from toolkit.redfish import Power
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import Phase

_LINE_MAX_BYTES = 16 * 1024 * 1024
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node now. `memory_bytes` is what its machine holds; None while none runs or nothing counts it."""

    name: str
    power: Power
    phase: Phase
    faults: tuple[Fault, ...]
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class RackStatus:
    """A virtual rack now. Not `running`: no daemon answers, and `nodes` is empty."""

    rack: str
    running: bool
    nodes: tuple[NodeStatus, ...] = ()


class Operation(StrEnum):
    """What a daemon can be asked."""

    STATUS = "status"
    SET_FAULT = "set_fault"
    CLEAR_FAULT = "clear_fault"


@dataclass(frozen=True, slots=True)
class Request:
    """What to do: SET_FAULT takes `fault`; CLEAR_FAULT takes `node`, and `kind` or all of the node's."""

    operation: Operation
    fault: Fault | None = None
    node: str = ""
    kind: FaultKind | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon did. `usage_error` says what was wrong with the request; the rest is then empty."""

    rack: str = ""
    digest: str = ""
    nodes: tuple[NodeStatus, ...] = ()
    faults: tuple[Fault, ...] = ()
    usage_error: str = ""
    hint: str = ""


def ask(path: Path, request: Request) -> Answer:
    """Asks the daemon. FileNotFoundError or ConnectionRefusedError where none listens; UsageError when it refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
        wire.settimeout(_TIMEOUT_S)
        with _short(path) as address:
            wire.connect(address)
        try:
            wire.sendall(_encode(request))
            line = _read_line(wire)
        except OSError as error:
            if not _listens(path):  # it died with our question in its hands
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"{path}: {error}") from error
            raise UndecidedError(
                f"the virtual rack's daemon at {path} does not answer: {error}",
                "`rackproof virtual down`, then `rackproof virtual up`",
            ) from error
    answer = _adapter(Answer).validate_json(line)
    if not isinstance(answer, Answer):
        raise RackproofError(f"the daemon at {path} answered something else than an answer")
    if answer.usage_error:
        raise UsageError(answer.usage_error, answer.hint)
    return answer


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire, _short(path) as address:
        wire.settimeout(_TIMEOUT_S)
        try:
            wire.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Listens for requests; `handle` answers one."""

    daemon_threads = True

    def __init__(self, path: Path, handle: Callable[[Request], Answer]) -> None:
        path.unlink(missing_ok=True)
        self.handle = handle
        with _short(path) as address:
            super().__init__(address, _Handler)
        path.chmod(0o600)


class _Handler(socketserver.StreamRequestHandler):
    server: ControlServer

    def handle(self) -> None:
        line = self.rfile.readline(_LINE_MAX_BYTES)
        try:
            request = _adapter(Request).validate_json(line)
            answer = self.server.handle(request)
        except UsageError as error:
            answer = Answer(usage_error=error.message, hint=error.hint)
        except ValueError as error:
            answer = Answer(usage_error=f"not a request: {error}")
        self.wfile.write(_encode(answer))


def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _encode(message: Request | Answer) -> bytes:
    return json.dumps(_adapter(type(message)).dump_python(message, mode="json")).encode() + b"\n"


def _read_line(wire: socket.socket) -> bytes:
    with wire.makefile("rb") as stream:
        line = stream.readline(_LINE_MAX_BYTES)
    if not line.endswith(b"\n"):
        raise ConnectionError("the answer was cut short")
    return line


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """The socket's address through its folder's descriptor: a UNIX socket's path is at most 107 bytes long."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)

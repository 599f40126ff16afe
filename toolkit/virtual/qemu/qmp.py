"""QMP, QEMU's monitor protocol: one JSON object a line. Reference: docs/interop/qmp-spec.txt of QEMU."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import RackproofError

_LINE_MAX_BYTES = 1024 * 1024
_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first word of QEMU: its version, `7.2.22`."""

    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to the machine: `RESET`, `SHUTDOWN`, `STOP`, ..."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Returned:
    """A command's result."""

    number: int | None
    value: Any


@dataclass(frozen=True, slots=True)
class Refused:
    """A command that QEMU would not or could not carry out."""

    number: int | None
    kind: str
    text: str


Message = Greeting | Event | Returned | Refused


class QmpError(RackproofError):
    """QEMU refused a command, answered nonsense, or is gone."""


def parse(line: bytes) -> Message:
    """One line of QEMU. Raises QmpError for what is no message of the protocol."""
    try:
        raw = json.loads(line)
        match raw:
            case {"QMP": {"version": {"qemu": {"major": int(major), "minor": int(minor), "micro": int(micro)}}}}:
                return Greeting(f"{major}.{minor}.{micro}")
            case {"event": str(name)}:
                data = raw.get("data", {})
                return Event(name, data if isinstance(data, dict) else {})
            case {"return": value}:
                return Returned(_number(raw), value)
            case {"error": {"class": str(kind), "desc": str(text)}}:
                return Refused(_number(raw), kind, text)
    except ValueError:
        pass
    raise QmpError(f"QEMU said what is no QMP message: {line[:200]!r}")


def _number(raw: Mapping[str, Any]) -> int | None:
    number = raw.get("id")
    return number if isinstance(number, int) else None


class Qmp:
    """A connection to one machine's monitor. Events go to `events`; None there means that QEMU is gone."""

    def __init__(self, connection: socket.socket) -> None:
        """Waits for QEMU's greeting and asks for commands to be taken. Raises QmpError when it does not come."""
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._connection = connection
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._one = threading.Lock()
        self._sent = 0
        threading.Thread(target=self._read, name="qmp", daemon=True).start()
        greeting = self._answer("its greeting")
        if not isinstance(greeting, Greeting):
            raise QmpError(f"QEMU did not greet but said {greeting}")
        self.version = greeting.version
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Carries out one command; its result. Raises QmpError."""
        with self._one:
            self._sent += 1
            told: dict[str, object] = {"execute": command, "id": self._sent}
            if arguments:
                told["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
            try:
                self._connection.sendall(json.dumps(told).encode() + b"\n")
            except OSError as error:
                raise QmpError(f"QEMU: {command}: it is gone ({error})") from error
            while True:
                answer = self._answer(command)
                if isinstance(answer, Returned | Refused) and answer.number in (self._sent, None):
                    break  # an answer to an earlier command that was given up comes late: passed over
        if isinstance(answer, Refused):
            raise QmpError(f"QEMU refused {command}: {answer.text}")
        return answer.value

    def set_property(self, device: str, name: str, value: int) -> None:
        """Sets a property of the device with this id."""
        self.execute("qom-set", path=f"/machine/peripheral/{device}", property=name, value=value)

    def close(self) -> None:
        """Ends the connection; the machine goes on."""
        self._connection.close()

    def _answer(self, doing: str) -> Message:
        try:
            answer = self._answers.get(timeout=_DEADLINE_S)
        except queue.Empty:
            raise QmpError(f"QEMU: {doing}: no answer within {_DEADLINE_S:.0f} s") from None
        if answer is None:
            raise QmpError(f"QEMU: {doing}: it has ended")
        return answer

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                while line := lines.readline(_LINE_MAX_BYTES):
                    message = parse(line)
                    if isinstance(message, Event):
                        self.events.put(message)
                    else:
                        self._answers.put(message)
        except (OSError, QmpError):
            pass  # a monitor that speaks nonsense is as good as gone: both ends of the queue are told
        self._answers.put(None)
        self.events.put(None)

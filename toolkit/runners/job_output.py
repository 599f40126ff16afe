"""A burn-in's files out of a container's log: the other end of burnin/frames.py, which tells the format. Pure.

A log is read again and again, and parts of it twice; it may be rotated, cut off, mixed with other words, or written to
by somebody else. Lines are taken by their number, each once. What comes after a line that is missing waits for it; what
does not continue the chain of hashes makes the whole output worthless, for then nobody knows who wrote the rest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import zlib
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from toolkit.errors import UndecidedError
from toolkit.runners.carrier import RECORDS

MARK = b"@rackproof1 "
CHUNK_BYTES = 8192
MAX_LINE_BYTES = 16 * 1024
# Of all files together: what stages take of records and artifacts, and far over what 9 MiB of log hold in practice.
MAX_BYTES = 128 << 20
MAX_WAITING = 2048  # lines that came before one that is missing
_MAX_WORDS = 40
_LINE = re.compile(
    rb"@rackproof1 (\d{1,7}) (hello|records|artifact|end) ([A-Za-z0-9][A-Za-z0-9._-]{0,127}|-) (\d{1,4}) "
    rb"([0-9a-f]{64}) ([A-Za-z0-9+/]+={0,2})"
)


class ForgedError(UndecidedError):
    """Somebody else wrote among the lines, or the program lies. Nothing of the output is used."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A line that is one."""

    number: int
    kind: str
    name: str
    payload: bytes
    chain: str

    @property
    def head(self) -> str:
        """What the chain takes of it besides the payload."""
        return f"{self.number} {self.kind} {self.name} {len(self.payload)}\n"


def parse(line: bytes) -> Frame | None:
    """The frame of a line; None where it is none, or is damaged."""
    found = _LINE.fullmatch(line) if len(line) <= MAX_LINE_BYTES else None
    if found is None:
        return None
    size = int(found[4])
    try:
        packed = base64.b64decode(found[6], validate=True)
        unpacker = zlib.decompressobj()
        payload = unpacker.decompress(packed, CHUNK_BYTES + 1)
    except (binascii.Error, zlib.error):
        return None
    if len(payload) != size or size > CHUNK_BYTES or not unpacker.eof or unpacker.unused_data:
        return None
    return Frame(int(found[1]), found[2].decode(), found[3].decode(), payload, found[5].decode())


@dataclass(slots=True)
class Output:
    """What one container has told so far. `run`, `carrier` and `program` are those of the order, and of the pod.

    records    bytes of the record file, as they stand on the node
    artifacts  the other files, by name
    hello, end  the first and the last line's word; None until they came
    words      last lines that were none of ours: what a program said before it died
    """

    run: str
    carrier: str
    program: str
    records: bytearray = field(default_factory=bytearray)
    artifacts: dict[str, bytearray] = field(default_factory=dict)
    hello: dict[str, Any] | None = None
    end: dict[str, Any] | None = None
    words: deque[str] = field(default_factory=lambda: deque(maxlen=_MAX_WORDS))
    _chains: list[str] = field(default_factory=list)
    _waiting: dict[int, Frame] = field(default_factory=dict)
    _first: str = ""
    _size: int = 0

    def __post_init__(self) -> None:
        told = f"rackproof frames 1\n{self.run}\n{self.carrier}\n{self.program}\n"
        self._first = hashlib.sha256(told.encode()).hexdigest()

    @property
    def has_gap(self) -> bool:
        """Whether lines wait for one before them."""
        return bool(self._waiting)

    @property
    def taken(self) -> int:
        """Lines taken, in order."""
        return len(self._chains)

    def feed(self, log: bytes) -> None:
        """Takes the whole lines of a piece of the log. ForgedError where one cannot be trusted."""
        whole = log[: log.rfind(b"\n") + 1]
        for line in whole.split(b"\n"):
            frame = parse(line.rstrip(b"\r"))
            if frame is not None:
                self._place(frame)
                while (due := self._waiting.pop(len(self._chains), None)) is not None:
                    self._take(due)
            elif line.strip() and not line.startswith(MARK):
                self.words.append(line[:300].decode("utf-8", "replace"))

    def doubt(self) -> str:
        """Why this is not all; empty where it is. Of an output without forgery."""
        if self.hello is None:
            return "it has told nothing yet" if not self._waiting else "the beginning of its log is gone"
        if self._waiting:
            return f"line {len(self._chains)} of its log is missing: it was rotated away, or damaged"
        if self.end is None:
            return "its log has no end"
        status, left_out = self.end["status"], self.end["left_out"]
        if RECORDS in left_out:
            return f"its log had no room for all records: {left_out[RECORDS]}"
        return f"its program ended with status {status}" if status else ""

    def _place(self, frame: Frame) -> None:
        known = len(self._chains)
        if frame.number < known:
            if frame.chain != self._chains[frame.number]:
                raise self._forged(frame, "is there twice, and not the same")
            return
        twin = self._waiting.get(frame.number)
        if twin is not None and twin.chain != frame.chain:
            raise self._forged(frame, "is there twice, and not the same")
        if len(self._waiting) < MAX_WAITING or frame.number == known:
            self._waiting[frame.number] = frame

    def _take(self, frame: Frame) -> None:
        before = self._chains[-1] if self._chains else self._first
        if hashlib.sha256(f"{before}{frame.head}".encode() + frame.payload).hexdigest() != frame.chain:
            raise self._forged(frame, "does not continue the one before it")
        if self.end is not None:
            raise self._forged(frame, "comes after the end")
        if (frame.kind == "hello") != (frame.number == 0):
            raise self._forged(frame, "is a beginning in the middle" if frame.number else "is no beginning")
        self._size += len(frame.payload)
        if self._size > MAX_BYTES:
            raise self._forged(frame, f"is over {MAX_BYTES} bytes of all files")
        self._chains.append(frame.chain)
        match frame.kind:
            case "hello":
                self.hello = self._object(frame, _HELLO)
            case "end":
                self.end = self._ended(frame)
            case "records":
                self.records += frame.payload
            case _:
                self.artifacts.setdefault(frame.name, bytearray()).extend(frame.payload)

    def _ended(self, frame: Frame) -> dict[str, Any]:
        """The last line, held against what came before it."""
        told = self._object(frame, _END)
        sums = {"bytes": len(self.records), "sha256": hashlib.sha256(self.records).hexdigest()}
        if told["frames"] != len(self._chains) or told["records"] != sums or told["artifacts"] != len(self.artifacts):
            raise self._forged(frame, "tells other totals than what came")
        return told

    def _object(self, frame: Frame, fields: dict[str, type]) -> dict[str, Any]:
        try:
            told = json.loads(frame.payload)
        except (ValueError, RecursionError):
            raise self._forged(frame, "is no JSON") from None
        if not isinstance(told, dict) or set(told) != set(fields):
            raise self._forged(frame, f"has not the fields {', '.join(fields)}")
        if any(type(told[name]) is not kind for name, kind in fields.items()):
            raise self._forged(frame, "has a field of another kind")
        return told

    def _forged(self, frame: Frame, why: str) -> ForgedError:
        return ForgedError(
            f"line {frame.number} of the log of burn-in {self.run} {why}: somebody else writes into it, or its image "
            "is not what it should be"
        )


_HELLO: dict[str, type] = dict.fromkeys(("run", "carrier", "node", "program", "serial", "boot", "python"), str)
_END: dict[str, type] = {"status": int, "frames": int, "records": dict, "artifacts": int, "left_out": dict}

"""What a run says while it goes on, for readers in other processes: one small file a rack, beside the ledger.

It is no evidence and is never read as such: the ledger has what began and what ended, this has the words in between.
So it is not flushed to the disk, it may be lost, and it is gone when the driver has ended. A reader believes it only as
long as the process that wrote it holds the rack's lease. Its words come from nodes: they are cut here and escaped where
they are shown.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from toolkit.report.text import printable
from toolkit.settings import Settings

SCHEMA = "rackproof.dev/progress/v1"
EVERY_S = 0.5  # an eye is no quicker, and a rack of 72 nodes says thousands of lines a minute
MAX_LINES = 4_096  # of nodes and GPUs: more are left out
MAX_BYTES = 2 << 20
_WORDS = 160


@dataclass(frozen=True, slots=True)
class Line:
    """The newest word of a node (gpu None) or of one of its GPUs.

    done  0..1 where it is known; 1 says that the stage has its result
    at    when it was said
    """

    node: str
    gpu: int | None
    stage: str
    text: str
    done: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """All that the process driving a rack said last. `holder`: of the rack's lease, as the ledger names it."""

    rack: str
    holder: str
    at: datetime
    lines: tuple[Line, ...]


def progress_file(settings: Settings, rack: str) -> Path:
    """Where a rack's is, while it is driven from this installation."""
    return settings.home / "progress" / f"{rack}.json"


@dataclass(slots=True)
class ProgressWriter:
    """Takes words in and writes them, at most every EVERY_S. Safe across threads. It never ends a run: no OSError."""

    path: Path
    rack: str
    holder: str
    clock: Callable[[], datetime]
    _lines: dict[tuple[str, int], Line] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _written: float = float("-inf")
    _closed: bool = False
    _later: threading.Timer | None = None  # writes the word that came too soon after another

    def say(self, node: str, stage: str, text: str, done: float | None, gpu: int | None) -> None:
        """A node's or a GPU's newest word. One that ends a node's stage is written at once."""
        key = node, -1 if gpu is None else gpu
        with self._lock:
            if key in self._lines or len(self._lines) < MAX_LINES:
                self._lines[key] = Line(node, gpu, stage, printable(text, _WORDS), done, self.clock())
            wait = EVERY_S - (time.monotonic() - self._written)
            if wait <= 0 or (done == 1.0 and gpu is None):
                self._write()
            elif self._later is None:
                self._later = threading.Timer(wait, self._write_later)
                self._later.daemon = True
                self._later.start()

    def close(self) -> None:
        """The driver ends: what it said is over."""
        with self._lock, suppress(OSError):
            if self._later is not None:
                self._later.cancel()
            self._closed = True
            self.path.unlink(missing_ok=True)

    def _write_later(self) -> None:
        with self._lock:
            self._later = None
            self._write()

    def _write(self) -> None:
        if self._closed:
            return
        self._written = time.monotonic()
        lines = [[one.node, one.gpu, one.stage, one.text, one.done, one.at.isoformat()] for one in self._lines.values()]
        told = {"schema": SCHEMA, "rack": self.rack, "holder": self.holder, "at": self.clock().isoformat()}
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with suppress(OSError):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            aside.write_text(json.dumps(told | {"lines": lines}), encoding="utf-8")
            aside.replace(self.path)


def read_progress(path: Path) -> Progress | None:
    """What is said there; None where nothing is, or it does not read."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    if len(content) > MAX_BYTES:
        return None
    try:
        told = json.loads(content)
        if told["schema"] != SCHEMA:
            return None
        lines = tuple(_line(*one) for one in told["lines"][:MAX_LINES])
        return Progress(str(told["rack"]), str(told["holder"]), _time(told["at"]), lines)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _line(node: object, gpu: object, stage: object, text: object, done: object, at: object) -> Line:
    if not (gpu is None or isinstance(gpu, int)) or not (done is None or isinstance(done, int | float)):
        raise ValueError("not a number")
    share = None if done is None else min(1.0, max(0.0, float(done)))
    return Line(str(node)[:80], gpu, str(stage)[:40], printable(str(text), _WORDS), share, _time(at))


def _time(text: object) -> datetime:
    at = datetime.fromisoformat(str(text))
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC)

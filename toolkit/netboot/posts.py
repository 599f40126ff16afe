"""What nodes post: reports (JSON lines) and the log of the deploy ramdisk, bounded in size, in number and in rate.

Only an attempt of ours may post: its token is known from the moment that its seed is offered. Reports of progress are
counted apart, so that a chatty ramdisk cannot use up the lines that its end needs.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from toolkit.netboot.site import LOGS, REPORTS

REPORT_MAX_BYTES = 4096
REPORTS_PER_TOKEN = 64
PROGRESS_PER_TOKEN = 256
LOG_MAX_BYTES = 256 * 1024
LOG_BYTES_PER_TOKEN = 1024 * 1024
# Of one source address: a burst, then so many bytes a second. A node's reports and log are far under both.
SOURCE_BURST_BYTES = 4 * 1024 * 1024
SOURCE_BYTES_PER_S = 16 * 1024
SOURCE_BURST_POSTS = 64
SOURCE_POSTS_PER_S = 8.0
_SOURCES_KEPT = 4096
_PROGRESS = "progress"
_LOG_PART = b"\n--- posted again ---\n"


class Taken(IntEnum):
    """What became of a post, as HTTP says it."""

    KEPT = 204
    NOT_JSON = 400
    UNKNOWN = 404
    TOO_LARGE = 413
    TOO_MANY = 429


@dataclass(slots=True)
class _Allowance:
    """What a source may still post; it grows with time up to the burst."""

    posts: float
    size: float
    at: float


@dataclass
class Posts:
    """The posts of a provisioning root, for one process at a time."""

    provision: Path
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sources: OrderedDict[str, _Allowance] = field(default_factory=OrderedDict)

    def open(self, token: str) -> None:
        """From now on the attempt may post. Offering its seed does the same."""
        file = self._reports(token)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    def is_open(self, token: str) -> bool:
        """Whether it is an attempt of ours."""
        return self._reports(token).is_file() or (self.provision / "seeds" / f"{token}.tar").is_file()

    def add_report(self, token: str, source: str, body: bytes) -> Taken:
        """Appends one report. `token` is a file name without a slash; the caller has checked it."""
        with self._lock:
            refused = self._refusal(token, source, len(body), REPORT_MAX_BYTES)
            if refused is not None:
                return refused
            report = _object(body)
            if report is None:
                return Taken.NOT_JSON
            is_progress = report.get("event") == _PROGRESS
            lines = self._lines(token)
            # Ours are written by json.dumps: the event of a line of progress looks like this and like nothing else.
            progress = sum(1 for line in lines if _is_progress(line))
            count, most = (progress, PROGRESS_PER_TOKEN) if is_progress else (len(lines) - progress, REPORTS_PER_TOKEN)
            if count >= most:
                return Taken.TOO_MANY
            file = self._reports(token)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as stream:
                stream.write(json.dumps(report).encode() + b"\n")
            return Taken.KEPT

    def add_log(self, token: str, source: str, body: bytes) -> Taken:
        """Keeps a ramdisk's log; posted again, it is appended."""
        with self._lock:
            refused = self._refusal(token, source, len(body), LOG_MAX_BYTES)
            if refused is not None:
                return refused
            file = self.provision / LOGS / f"{token}.log"
            size = file.stat().st_size if file.is_file() else 0
            if size + len(_LOG_PART) + len(body) > LOG_BYTES_PER_TOKEN:
                return Taken.TOO_MANY
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("ab") as stream:
                stream.write((_LOG_PART if size else b"") + body)
            return Taken.KEPT

    def _refusal(self, token: str, source: str, size: int, most: int) -> Taken | None:
        if size > most:
            return Taken.TOO_LARGE
        if not self._allow(source, size):
            return Taken.TOO_MANY
        return None if self.is_open(token) else Taken.UNKNOWN

    def _allow(self, source: str, size: int) -> bool:
        now = self.clock()
        allowance = self._sources.pop(source, None) or _Allowance(SOURCE_BURST_POSTS, SOURCE_BURST_BYTES, now)
        passed = now - allowance.at
        allowance.posts = min(SOURCE_BURST_POSTS, allowance.posts + passed * SOURCE_POSTS_PER_S)
        allowance.size = min(SOURCE_BURST_BYTES, allowance.size + passed * SOURCE_BYTES_PER_S)
        allowance.at = now
        self._sources[source] = allowance
        if len(self._sources) > _SOURCES_KEPT:
            self._sources.popitem(last=False)
        if allowance.posts < 1 or allowance.size < size:
            return False
        allowance.posts -= 1
        allowance.size -= size
        return True

    def _lines(self, token: str) -> list[bytes]:
        file = self._reports(token)
        return file.read_bytes().splitlines() if file.is_file() else []

    def _reports(self, token: str) -> Path:
        return self.provision / REPORTS / f"{token}.jsonl"


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _is_progress(line: bytes) -> bool:
    found = _object(line)
    return found is not None and found.get("event") == _PROGRESS

"""What a node says while it is imaged: the deploy ramdisk's reports and the first boot's. Pure; none of it trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_REPORTS = 64
MAX_PROGRESS = 256  # counted apart: a chatty ramdisk cannot use up the lines that its end needs
MAX_REPORT_BYTES = 4096
_MAX_TEXT = 300
_TEXTS = ("serial", "code", "message", "expected", "found", "image", "host_key", "step")
_MAX_BYTES = 1 << 60


class ReportEvent(StrEnum):
    """What a node reports, in the order a good imaging does. REFUSED, HASH_MISMATCH, FAILED and BOOTED end one."""

    STARTED = "started"  # the ramdisk is up and has an address
    HOST_KEY = "host_key"  # the SSH host key that it made, to be signed
    ERASED = "erased"  # a disk was erased; `code` is the method, `message` what the device answered
    PROGRESS = "progress"  # how far a step is
    REFUSED = "refused"  # not the planned machine or disk; nothing was written
    HASH_MISMATCH = "hash_mismatch"  # what was downloaded is not the image; the disk was wiped
    FAILED = "failed"  # anything else
    WRITTEN = "written"  # image and seed are on the disk; it reboots
    BOOTED = "booted"  # the image runs and sshd is up


ENDINGS = frozenset({ReportEvent.REFUSED, ReportEvent.HASH_MISMATCH, ReportEvent.FAILED, ReportEvent.BOOTED})


@dataclass(frozen=True, slots=True)
class Report:
    """A node's word, bounded and printable; what it did not say is empty, or 0.

    code, message    of FAILED, REFUSED and ERASED
    expected, found  serials of REFUSED, hashes of HASH_MISMATCH; `found` of ERASED is the disk's serial
    image            of BOOTED
    host_key         of BOOTED and HOST_KEY
    step, percent    of PROGRESS, with `count` of `total` bytes
    """

    event: ReportEvent
    serial: str = ""
    code: str = ""
    message: str = ""
    expected: str = ""
    found: str = ""
    image: str = ""
    host_key: str = ""
    step: str = ""
    percent: int = 0
    count: int = 0
    total: int = 0


def parse_reports(lines: Iterable[str]) -> Iterator[Report]:
    """Reports of untrusted lines. A line that is none is passed over: whoever knows the token may write one."""
    others = progress = 0
    for line in lines:
        report = _report(line)
        if report is not None and report.event is ReportEvent.PROGRESS:
            progress += 1
            if progress > MAX_PROGRESS:
                continue
        else:
            others += 1
            if others > MAX_REPORTS:
                return
        if report is not None:
            yield report


def _report(line: str) -> Report | None:
    try:
        raw = json.loads(line[:MAX_REPORT_BYTES])
        event = ReportEvent(raw["event"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return Report(
        event,
        **{name: _text(raw.get(name)) for name in _TEXTS},
        percent=_number(raw.get("percent"), 100),
        count=_number(raw.get("bytes"), _MAX_BYTES),
        total=_number(raw.get("total"), _MAX_BYTES),
    )


def _text(value: Any) -> str:
    return "".join(c if c.isprintable() else " " for c in value[:_MAX_TEXT]).strip() if isinstance(value, str) else ""


def _number(value: Any, most: int) -> int:
    """A count from 0 to `most`; anything else is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0

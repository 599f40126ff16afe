"""When a line of a kernel log was written, in seconds of an epoch of its own: good for differences within one log."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime

_KMSG = re.compile(r"\d{1,3},\d{1,12},(\d{1,18}),")  # /dev/kmsg: priority, sequence, microseconds since boot
_BOOT = re.compile(r"\[\s{0,8}(\d{1,10}\.\d{6})(?:\]|\s)")
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?")
_WORDS = re.compile(
    r"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?: (\d{4})\])?"
)
_LEAP_YEAR = 2000  # syslog leaves the year out; differences within a log do not need it
_MONTHS = {name: number for number, name in enumerate(calendar.month_abbr) if name}


def seconds_of(line: str) -> float | None:
    """The line's time; None where it carries none, or one that is no date.

    The time since boot comes first where a line has two: it is the kernel's own.
    """
    head = line[:128]
    if kmsg := _KMSG.match(head):
        return int(kmsg[1]) / 1e6
    if boot := _BOOT.search(head):
        return float(boot[1])
    if iso := _ISO.search(head):
        year, month, day, hour, minute, second = (int(iso[n]) for n in range(1, 7))
        return _date(year, month, day, hour, minute, second, int((iso[7] or "0").ljust(6, "0")))
    if words := _WORDS.search(head):
        clock = (int(words[n]) for n in range(2, 6))
        return _date(int(words[6] or _LEAP_YEAR), _MONTHS[words[1]], *clock)
    return None


def _date(year: int, month: int, day: int, hour: int, minute: int, second: int, microsecond: int = 0) -> float | None:
    try:
        return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC).timestamp()
    except ValueError:
        return None

"""Which bytes of a file a request asks for (RFC 9110 section 14): a download that was cut goes on where it ended."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `first` up to and without `end` of a file of `size` bytes."""

    first: int
    end: int
    size: int

    @property
    def header(self) -> str:
        """Content-Range."""
        return f"bytes {self.first}-{self.end - 1}/{self.size}"


def span_of(header: str | None, size: int) -> Span | None:
    """What is asked for; all of it where no single range is. None: a range that the file does not have (416)."""
    whole = Span(0, size, size)
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or not (found[1] or found[2]):
        return whole
    if not found[1]:  # the last so many
        last = int(found[2])
        return Span(max(0, size - last), size, size) if last and size else None
    first = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if found[2] and int(found[2]) < first:
        return whole  # not a valid range: ignored
    return Span(first, end, size) if first < size else None

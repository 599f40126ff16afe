"""What the readers of the fabric's tools share: bounded text, lines one at a time, and doubts.

These tools write errors among their output and end with status 0 on a fabric they saw half of. Whatever a reader does
not understand is therefore a doubt: what the text does not name is then unknown, not absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_CHARACTERS = 64 * 1024 * 1024  # 16,384 HCAs with their switches are 12 MiB
MAX_LINES = 2 * 1024 * 1024
MAX_LINE = 4096  # a line of ibqueryerrors with every counter is 1 KiB
_SHOWN = 120
_KINDS = 24
ERRORS = "errors on the way"
_TROUBLE = re.compile(
    r"bad status \d|\b(?:ibwarn|iberror|ERR|Error|Duplicate|timed out|No such|[Ff]ailed|[Cc]an(?:'t|not))\b|\berror:"
)


class Doubts:
    """Doubts by kind: the first of each in its own words, the others counted."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def add(self, kind: str, detail: str = "") -> None:
        """One more of the kind. Kinds are few and ours; the detail may be of the tool and must be `shown`."""
        if kind in self._count:
            self._count[kind] += 1
        elif len(self._count) < _KINDS:
            self._first[kind], self._count[kind] = detail, 1

    def add_line(self, line: str) -> None:
        """A line that the reader has no use for: an error in the tool's words, or something else."""
        self.add(ERRORS if _TROUBLE.search(line) else "lines that were not understood", shown(line))

    def __bool__(self) -> bool:
        return bool(self._count)

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that were added."""
        return frozenset(self._count)

    def all(self) -> tuple[str, ...]:
        """One line a kind."""
        return tuple(self._line(kind, detail) for kind, detail in self._first.items())

    def _line(self, kind: str, detail: str) -> str:
        others = self._count[kind] - 1
        return kind + (f": {detail}" if detail else "") + (f" (and {others:,} more)" if others else "")


def shown(text: str) -> str:
    """A piece of a tool's output that may go to a terminal: quoted, escaped, at most 120 characters."""
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def decoded(data: bytes | str, doubts: Doubts) -> str:
    """The text, at most 64 Mi characters of it; bytes that are no UTF-8 become U+FFFD and a doubt."""
    text = data[:MAX_CHARACTERS].decode("utf-8", "replace") if isinstance(data, bytes) else data[:MAX_CHARACTERS]
    if len(data) > MAX_CHARACTERS:
        doubts.add(f"longer than {MAX_CHARACTERS >> 20} MiB: the rest was not read")
    at = text.find("�")
    if at >= 0:
        doubts.add("bytes that are no UTF-8", f"the first in line {text.count(chr(10), 0, at) + 1}")
    return text


def lines(text: str, doubts: Doubts) -> Iterator[str]:
    """Lines without their ends, one at a time. One that is longer than any tool's is left out; the last must end."""
    at = count = 0
    while at < len(text):
        count += 1
        if count > MAX_LINES:
            doubts.add(f"more than {MAX_LINES:,} lines: the rest was not read")
            return
        end = text.find("\n", at)
        if end < 0:
            doubts.add("the text ends in the middle of a line", shown(text[at : at + _SHOWN]))
            end = len(text)
        if end - at > MAX_LINE:
            doubts.add("lines longer than any this tool writes, not read", shown(text[at : at + _SHOWN]))
        else:
            yield text[at:end].rstrip("\r")
        at = end + 1


def full_guid(digits: str) -> str:
    """A GUID as the fabric's types have it: some tools print it without leading zeros."""
    return digits.lower().rjust(16, "0")

"""The table of nccl-tests: from lines as they arrive (tagged, torn, interleaved) to whole rows.

A row is printed in parts: size, count, type, operation and root; then the out-of-place half; then the in-place half.
Between the parts NCCL's own log, a launcher's tag or another rank's output may come. Formats differ by version:

    2.0-2.11    size count type [redop [root]] time algbw busbw error   time algbw busbw error
    2.13-       size count type redop root     time algbw busbw #wrong  time algbw busbw #wrong [#iters|timestamp]
    2.19.2- -I  ...                            #wrong i_min i_max i_p99 i_cv% time ... #wrong i_min ...
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

# Open MPI 4 `[1,0]<stdout>:`, Open MPI 5 `[prterun-node-77@1,0]<stdout>: `: put before every chunk a rank writes,
# so also into the middle of a row
_TAG = re.compile(r"(\[(?:[\w.\-]{1,128}@)?\d{1,9},\d{1,9}\]<std(?:out|err|diag)>): ?")
_SLURM_LABEL = re.compile(r"\s{0,6}(\d{1,6}):(?=\s)")  # srun --label
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_TYPES = (
    "int8|char|uint8|int32|int|uint32|int64|uint64|half|float16|float|float32|double|float64|bfloat16|bf16"
    "|f8e4m3|f8e5m2|fp8_e4m3|fp8_e5m2"
)
_ROW_START = re.compile(rf"(?<![\w.])(\d{{1,19}})\s{{1,64}}(\d{{1,19}})\s{{1,64}}({_TYPES})(?=\s|$)")
_OPERATIONS = frozenset({"sum", "prod", "max", "min", "avg", "mulsum", "none", "all"})
_HEADER = re.compile(r"\b(?:size\s{1,64}count|bytes\s{1,64}N)\s{1,64}type\b")
_NUMBER = re.compile(r"[+-]?(?:\d{1,24}(?:\.\d{0,24})?(?:[eE][+-]?\d{1,4})?|nan|inf)\Z")
# a value with another process's first word glued to it: `-1node7:`, `0node7:4711:4711`
_GLUED = re.compile(r"([+-]?\d{1,24}(?:\.\d{1,24})?)(?=[A-Za-z_])")
_BLANK_HALF = re.compile(r"\s{30,}")  # a half without values is printed as 32 blanks
_CHECKS = {"#wrong": "#wrong", "error": "error", "res": "error"}
MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Columns:
    """The measuring columns a header announces, from the first time on. `printed` counts all, `needed` up to the last
    check.
    """

    has_root: bool
    busbw: tuple[int, int]
    check: tuple[int, int]
    check_name: str
    printed: int

    @property
    def needed(self) -> int:
        """How many values make a whole row."""
        return self.check[1] + 1


_PLAIN = Columns(has_root=True, busbw=(2, 6), check=(3, 7), check_name="#wrong", printed=8)


@dataclass(frozen=True, slots=True)
class Half:
    """One half of a row: bus bandwidth in GB/s and the check column. None: N/A, or not a finite number."""

    busbw: float | None
    check: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One message size (bytes). A half is None where the test does not run it."""

    size: int
    out_of_place: Half | None
    in_place: Half | None

    @property
    def halves(self) -> tuple[Half, ...]:
        """The halves that were run."""
        return tuple(h for h in (self.out_of_place, self.in_place) if h)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as one process wrote it: the launcher's tag taken off, chunks of one stream put together."""

    stream: str
    text: str


def lines(text: str) -> Iterator[Line]:
    """Undoes what launchers do to lines. Untagged text passes through, one line at a time."""
    open_chunks: dict[str, str] = {}
    for raw in text.split("\n"):
        pieces = _TAG.split(_ESCAPE.sub("", raw.rstrip("\r")))
        if pieces[0].strip() or len(pieces) == 1:
            label = _SLURM_LABEL.match(pieces[0])
            yield Line(label[1], pieces[0][label.end() :]) if label else Line("", pieces[0])
        # a newline ends only the stream that wrote last; the others go on behind their next tag
        for stream, chunk in zip(pieces[1::2], pieces[2::2], strict=True):
            open_chunks[stream] = open_chunks.get(stream, "") + chunk
        if len(pieces) > 1:
            yield Line(pieces[-2], open_chunks.pop(pieces[-2]))
    for stream, chunk in open_chunks.items():
        yield Line(stream, chunk)


def columns_of(line: str) -> Columns | None:
    """The columns, if the line is a table's header."""
    match = _HEADER.search(line)
    if match is None:
        return None
    names = line[match.end() :].split()[:64]
    if "time" not in names and "cputime" not in names:
        return None
    first = next(i for i, name in enumerate(names) if name in ("time", "cputime"))
    measures = names[first:]
    busbw = [i for i, name in enumerate(measures) if name == "busbw"]
    check = [i for i, name in enumerate(measures) if name in _CHECKS]
    if len(busbw) < 2 or len(check) < 2:
        return None
    return Columns(
        "root" in names[:first], (busbw[0], busbw[1]), (check[0], check[1]), _CHECKS[measures[check[0]]], len(measures)
    )


@dataclass(slots=True)
class _Partial:
    size: int
    tokens: list[str]
    blank_half: bool
    pieces: int = 1


class Table:
    """Puts rows together from lines of any number of streams.

    `columns` is what the last header said; `torn` counts rows whose values could not be told apart.
    """

    def __init__(self) -> None:
        self.columns: Columns | None = None
        self.headers = 0
        self.rows: list[Row] = []
        self.torn = 0
        self._partial: dict[str, _Partial] = {}

    def feed(self, line: Line) -> None:
        """Takes the next line of a stream; a line that is no part of the table changes nothing."""
        columns = columns_of(line.text)
        if columns:
            self.columns = columns
            self.headers += 1
            self._partial.pop(line.stream, None)
            return
        start = _ROW_START.search(line.text)
        if start:
            self._partial[line.stream] = _start(int(start[1]), line.text[start.end() :])
        elif line.stream in self._partial:
            more = _values(line.text)
            self._partial[line.stream].tokens.extend(more)
            self._partial[line.stream].pieces += bool(more)
        else:
            return
        self._finish(line.stream, self._partial[line.stream])

    def _finish(self, stream: str, partial: _Partial) -> None:
        """Takes the row once it has all its values. One that never gets them was torn: it is no row."""
        columns = self.columns or _PLAIN
        tokens = partial.tokens[1:] if _has_root(partial.tokens, self.columns) else partial.tokens
        halves: list[Half | None] = [None, None]
        if partial.blank_half and len(tokens) == columns.needed // 2:
            halves[1] = _half(tokens, columns, 0)
        elif len(tokens) >= columns.needed:
            halves = [_half(tokens, columns, 0), _half(tokens, columns, 1)]
        else:
            return
        del self._partial[stream]
        # a number torn in two makes one value more: every value after it would be another column's
        torn = partial.pieces > 1 and len(tokens) not in (columns.needed, columns.printed)
        whole = all(h is None or _is_check(h.check, columns) for h in halves)
        if torn or not whole:
            self.torn += 1
        elif len(self.rows) < MAX_ROWS:
            self.rows.append(Row(partial.size, halves[0], halves[1]))


def _start(size: int, rest: str) -> _Partial:
    words = rest.split(None, 1)
    if words and words[0] in _OPERATIONS:
        rest = words[1] if len(words) > 1 else ""
    tokens = _values(rest)
    after_root = rest.lstrip()[len(tokens[0]) :] if tokens else ""
    return _Partial(size, tokens, _BLANK_HALF.match(after_root) is not None)


def _values(text: str) -> list[str]:
    """The values at the start of the text, up to the first word that is none."""
    found: list[str] = []
    for word in text.split()[:64]:
        if word == "N/A" or _NUMBER.match(word):
            found.append(word)
            continue
        glued = _GLUED.match(word)
        if glued:
            found.append(glued[1])
        break
    return found


def _has_root(tokens: list[str], columns: Columns | None) -> bool:
    if not tokens or "." in tokens[0] or tokens[0] == "N/A":
        return False
    if tokens[0] == "-1":
        return True
    return columns.has_root if columns else len(tokens) > _PLAIN.needed


def _half(tokens: list[str], columns: Columns, half: int) -> Half:
    return Half(finite(tokens[columns.busbw[half]]), finite(tokens[columns.check[half]]))


def _is_check(value: float | None, columns: Columns) -> bool:
    """Whether the value can stand in the check column: wrong values are whole and not negative."""
    return value is None or columns.check_name != "#wrong" or (value >= 0 and value == int(value))


def finite(text: str) -> float | None:
    """The number, or None where there is none or it is not finite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

"""Reads what nccl-tests and NCCL's debug log say, as far as the node needs it. Pure and strict.

A row counts only with exactly the columns its header promises; `N/A` is no number; a table without its header, its
units or both footers is not complete. The whole story (every version, torn and tagged output) is the toolkit's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

GIB = 1 << 30

_RANK = re.compile(r"#\s+Rank\s+(\d+)\s.*\bdevice\s+\d+\s+\[")
_REDUCED = re.compile(r"# Reducing maxBytes to (\d+)")
_OUT_OF_BOUNDS = re.compile(r"# Out of bounds values\s*:\s*(\d+)\s+\w+")
_AVERAGE = re.compile(r"# Avg bus bandwidth\s*:\s*\d")
_CHANNEL = re.compile(r"NCCL INFO Channel \S+ : .* via (\S+)")
_NVLS = re.compile(r"NCCL INFO (?:Connected NVLS tree|NVLS comm )")

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d{1,2})?")
_BUSBW, _WRONG = "busbw", "#wrong"
_FLAT = 1.05  # a curve that rises by less than a twentieth with every doubling of the size has reached its plateau
_ALIGNMENT = (
    16  # nccl-tests cuts each rank's share of the data to whole 16 bytes, so that rows may be that much smaller
)
# Paths from the worst to the best: a collective is as good as the worst one in it.
_WORST_FIRST = ("Socket", "NET/IB", "NET", "SHM", "P2P/indirect", "P2P")


@dataclass(frozen=True)
class Row:
    """One size: bus bandwidth in GB/s and wrong values, out of place and in place. None: not a number."""

    size: int
    busbw: tuple[float | None, float | None]
    wrong: tuple[int | None, int | None]


@dataclass(frozen=True)
class Table:
    """A test's output. `ranks` is None unless they are 0..n-1, once each, of one communicator."""

    rows: tuple[Row, ...]
    ranks: int | None
    largest_possible: int | None
    both_footers: bool

    def complete(self, smallest: int, largest: int) -> bool:
        """True when every size from `smallest`, doubling, to `largest` (or what memory allowed) has its row."""
        last = min(largest, self.largest_possible or largest)
        expected = []
        while smallest <= last:
            expected.append(smallest)
            smallest *= 2
        slack = _ALIGNMENT * (self.ranks or 1)
        return (
            self.both_footers
            and len(self.rows) == len(expected)
            and all(0 <= wanted - row.size < slack for wanted, row in zip(expected, self.rows, strict=True))
        )

    def plateau(self) -> tuple[Row, ...]:
        """The rows that bandwidth may be judged by: of 1 GiB and more; where memory allowed none, the flat end.

        Empty where the curve still rises at its end: then nothing can be said of what the fabric carries.
        """
        slack = _ALIGNMENT * (self.ranks or 1)
        large = tuple(row for row in self.rows if row.size > GIB - slack)
        if large:
            return large
        flat = len(self.rows) - 1
        while flat > 0 and _is_flat(self.rows[flat - 1], self.rows[flat]):
            flat -= 1
        return self.rows[flat:] if 0 <= flat < len(self.rows) - 1 else ()

    def busbw(self) -> tuple[float, float] | None:
        """(lowest, median) bus bandwidth of the plateau's rows in GB/s, in and out of place; None when one of them has
        no number. The average that is printed mixes all sizes, and is not read.
        """
        values = [value for row in self.plateau() for value in row.busbw]
        known = [value for value in values if value is not None]
        return (min(known), round(median(known), 2)) if known and len(known) == len(values) else None

    def wrong_values(self, in_place: bool = True) -> int | None:
        """Wrong values in all rows. None when there are none in those that were checked, and one was not.

        `in_place` False: for tests that cannot check the half that runs in place, and print N/A there.
        """
        values = [value for row in self.rows for value in (row.wrong if in_place else row.wrong[:1])]
        known = [value for value in values if value is not None]
        found = sum(known)
        return found if found or (known and len(known) == len(values)) else None


def table(text: str) -> Table:
    """The table in a test's standard output."""
    columns: list[str] = []
    rows: list[Row] = []
    ranks: list[int] = []
    reduced: int | None = None
    footers = 0
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            if rank := _RANK.match(line):
                ranks.append(int(rank[1]))
            elif limit := _REDUCED.search(line):
                reduced = int(limit[1])
            elif _OUT_OF_BOUNDS.match(line) or _AVERAGE.match(line):
                footers += 1
            columns = _columns(line) or columns
        elif row := _row(line.split(), columns):
            rows.append(row)
    one_communicator = ranks == list(range(len(ranks))) and bool(ranks)
    return Table(tuple(rows), len(ranks) if one_communicator else None, reduced, footers == 2)


def transport(debug: Iterable[str]) -> str | None:
    """How the ranks were joined, by NCCL's own lines: NVLS, P2P/CUMEM, P2P/IPC, SHM, NET/IB, Socket.

    The worst path that any channel takes; NVLS when no path is worse than P2P and the switches reduce. None when the
    log names neither. NCCL from 2.22 on connects what it uses: a run that only the switches reduce has no channel.
    """
    paths: set[str] = set()
    nvls = False
    for line in debug:
        if channel := _CHANNEL.search(line):
            paths.add(_path(channel[1]))
        nvls = nvls or bool(_NVLS.search(line))
    if not paths:
        return "NVLS" if nvls else None
    worst = min(paths, key=_badness)
    return "NVLS" if nvls and worst.startswith("P2P") and worst != "P2P/indirect" else worst


def _columns(line: str) -> list[str]:
    """Column names, if the line is the table's header: `# size count type ... #wrong time ... #wrong`."""
    names = line.replace("#wrong", " #wrong").split()[1:]
    return names if names[:2] == ["size", "count"] and names.count(_BUSBW) == 2 else []


def _row(values: list[str], columns: list[str]) -> Row | None:
    if not columns or len(values) != len(columns) or not values[0].isdecimal():
        return None
    busbw = [_number(v) for v, name in zip(values, columns, strict=True) if name == _BUSBW]
    wrong = [_count(v) for v, name in zip(values, columns, strict=True) if name == _WRONG]
    if len(wrong) != 2:  # an old version: its `error` column is a deviation, not a count
        wrong = [None, None]
    return Row(int(values[0]), (busbw[0], busbw[1]), (wrong[0], wrong[1]))


def _is_flat(smaller: Row, larger: Row) -> bool:
    pairs = list(zip(smaller.busbw, larger.busbw, strict=True))
    return all(a is not None and b is not None and b < a * _FLAT for a, b in pairs)


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _count(text: str) -> int | None:
    """nccl-tests prints the count with %g: a million is 1e+06."""
    value = _number(text)
    return int(value) if value is not None and value.is_integer() else None


def _path(word: str) -> str:
    """`P2P/CUMEM/read` is P2P/CUMEM, `NET/IB/0/GDRDMA` NET/IB, `NET/Socket/0` Socket, `SHM/direct/direct` SHM."""
    parts = word.split("/")
    if parts[0] == "NET":
        return "Socket" if parts[1:2] == ["Socket"] else "/".join(parts[:2])
    if parts[0] == "P2P":
        return "/".join(parts[:2])
    return parts[0]


def _badness(path: str) -> tuple[int, str]:
    """Position in the list of paths; one we do not know is worst of all, so that it shows."""
    for position, known in enumerate(_WORST_FIRST):
        if path == known or path.startswith(f"{known}/"):
            return position, path
    return -1, path

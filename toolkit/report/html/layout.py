"""Where things stand in the charts of a report: rectangles, ticks and words, in the units of an SVG's view box. Pure.

Colour never stands alone: every cell has its value or a letter, and behind every chart is its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.judge.verdict import Answer
from toolkit.rack.gate import Operator, Scope
from toolkit.report.html.values import CableCell, Limits, Point, Seat, Series

ROW, LABEL = 22, 74
CELL = {Scope.GPU: 50, Scope.HCA: 50, Scope.NODE: 90}
MISSING = "-"
# Dark text stands on all of these with a contrast over 7 : 1.
_LIGHT, _BLUE, _ORANGE, _RED = (0xF7, 0xFB, 0xFF), (0x9E, 0xCA, 0xE1), (0xFD, 0xBE, 0x85), (0xFC, 0xBB, 0xA1)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a map. `kind`: value, fail or missing; `title`: what it says when it is pointed at."""

    x: float
    y: float
    width: float
    fill: str
    kind: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Map:
    """A map of a metric: cells in the places of their parts, a row a node, the highest slot on top."""

    series: Series
    width: float
    height: float
    cells: tuple[Cell, ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]
    summary: str


def heat_map(series: Series) -> Map:
    """The metric's values in slot positions, as the elevation has them."""
    numbers = series.numbers
    low, high = min(numbers, default=0.0), max(numbers, default=0.0)
    wide = CELL.get(series.scope, 50)
    nodes = _from_the_top(p.subject.node for p in series.points)
    row_of = {node: number for number, node in enumerate(nodes)}
    cells = tuple(
        _cell(
            point,
            LABEL + point.column * wide,
            (row_of[point.subject.node] + 1) * ROW,
            wide - 2,
            _fill(series, point, low, high),
        )
        for point in series.points
    )
    columns = sorted({p.column for p in series.points})
    names = {p.column: p.subject.hca or str(p.subject.gpu if p.subject.gpu >= 0 else "") for p in series.points}
    return Map(
        series,
        LABEL + (max(columns) + 1) * wide,
        (len(nodes) + 1) * ROW + 4,
        cells,
        tuple(((row_of[node] + 1) * ROW + 15, node) for node in nodes),
        tuple((LABEL + column * wide + (wide - 2) / 2, names[column]) for column in columns),
        summary_of(series),
    )


def _from_the_top(nodes: Iterable[str]) -> list[str]:
    """Nodes that come in slot order as they stand in the elevation: the highest slot on top."""
    return list(dict.fromkeys(nodes))[::-1]


def _cell(point: Point, x: float, y: float, width: float, fill: str) -> Cell:
    text = number(point.value)
    if point.value is None:
        return Cell(x, y, width, "", "missing", MISSING, f"{point.who}: not on record")
    failed = point.answer is Answer.FAIL
    title = f"{point.who}: {text}" + (", fails its gate" if failed else "")
    return Cell(x, y, width, fill, "fail" if failed else "value", f"F {text}" if failed else text, title)


def _fill(series: Series, point: Point, low: float, high: float) -> str:
    if not isinstance(point.value, int | float):
        return ""
    if series.unit == "count":
        share, strong = (1.0 if point.value else 0.0), _RED
    else:
        share = 0.35 if high <= low else (point.value - low) / (high - low)
        strong = _ORANGE if series.unit in ("celsius", "watt") else _BLUE
    mixed = (round(a + (b - a) * share) for a, b in zip(_LIGHT, strong, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def number(value: object) -> str:
    """A value in four digits; a dash where there is none."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def summary_of(series: Series) -> str:
    """The chart in one sentence: what a reader who does not see it must know."""
    numbers, planned = series.numbers, len(series.points)
    if not numbers:
        return f"none of {planned} on record"
    failed = sum(p.answer is Answer.FAIL for p in series.points)
    words = f"{number(min(numbers))} to {number(max(numbers))} {series.unit}, median {number(float(median(numbers)))}"
    words += f"; {len(numbers)} of {planned} on record"
    return words + (f"; {failed} fail" if failed else "")


# Distributions

STRIP, BARS, BINS = 440.0, 44.0, 55
MARKED = 6
TOUCH = 12.0
# A share of the median below which nothing is called far, and robust standard deviations beyond which it is.
_LEAST_EFFECT, _FAR = 0.01, 5.0
_MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True, slots=True)
class Mark:
    """A point that is named: its number in the list below, where it stands, who it is.

    label  under its place: its number and those of others at the same place; empty where another has them
    """

    number: int
    x: float
    label: str
    words: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Line:
    """A limit or a ceiling. `row`: of its label, so that labels do not cover each other."""

    x: float
    row: int
    words: str
    anchor: str
    ceiling: bool


@dataclass(frozen=True, slots=True)
class Strip:
    """A distribution: bars of how many have a value, limits and ceiling as lines, outliers as numbered marks."""

    series: Series
    width: float
    height: float
    base: float
    bars: tuple[tuple[float, float, float, float], ...]  # x, y, width, height
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]
    more: int
    ends: tuple[str, str]
    summary: str


def strip(series: Series) -> Strip | None:
    """The metric's distribution; None where no number is on record."""
    numbers = series.numbers
    if not numbers:
        return None
    limits = [(float(m.limit), m) for m in series.limits if isinstance(m.limit, int | float)]
    top = [series.ceiling[1]] if series.ceiling else []
    every = [*numbers, *(limit for limit, _ in limits), *top]
    pad = (max(every) - min(every)) * 0.04 or abs(every[0]) * 0.02 or 1.0
    low, high = min(every) - pad, max(every) + pad

    def at(value: float) -> float:
        return (value - low) / (high - low) * STRIP

    lines = [_line(at(limit), row, _limit_words(m), False) for row, (limit, m) in enumerate(limits)]
    if series.ceiling:
        words = f"ceiling {series.ceiling[0]} {number(series.ceiling[1])}"
        lines.append(_line(at(series.ceiling[1]), len(lines), words, True))
    base = 8 + 13 * len(lines) + BARS
    named = outliers(series)
    marks = _marks(named[:MARKED], at, series.unit)
    bars = _bars([at(v) for v in numbers], base)
    ends = (number(low), number(high))
    more = max(0, len(named) - MARKED)
    return Strip(series, STRIP, base + 24, base, bars, tuple(lines), marks, more, ends, summary_of(series))


def _marks(named: Sequence[Point], at: Callable[[float], float], unit: str) -> tuple[Mark, ...]:
    """Numbered in their order; those at one place share one label."""
    placed = [(n, at(float(p.value)), p) for n, p in enumerate(named, 1) if isinstance(p.value, int | float)]
    marks: list[Mark] = []
    for n, x, p in placed:
        near = [other for other, place, _ in placed if abs(place - x) < TOUCH]
        label = ",".join(map(str, near)) if near[0] == n else ""
        marks.append(Mark(n, x, label, f"{p.who}: {number(p.value)} {unit}", p.answer is Answer.FAIL))
    return tuple(marks)


def _line(x: float, row: int, words: str, ceiling: bool) -> Line:
    return Line(x, row, words, "end" if x > STRIP / 2 else "start", ceiling)


def _limit_words(m: Limits) -> str:
    return f"{m.code} {'≥' if m.operator is Operator.AT_LEAST else '≤'} {number(m.limit)}"


def _bars(places: Iterable[float], base: float) -> tuple[tuple[float, float, float, float], ...]:
    wide = STRIP / BINS
    counts: dict[int, int] = {}
    for x in places:
        which = min(BINS - 1, int(x / wide))
        counts[which] = counts.get(which, 0) + 1
    most = max(counts.values())
    # By the root, so that one among hundreds is seen.
    return tuple(
        (which * wide, base - (h := BARS * math.sqrt(count / most)), wide - 1, h)
        for which, count in sorted(counts.items())
    )


def outliers(series: Series) -> tuple[Point, ...]:
    """Those that fail their gate, then those far from the others, the farthest first."""
    numbers = series.numbers
    if not numbers:
        return ()
    centre = float(median(numbers))
    sigma = _MAD_TO_SIGMA * float(median([abs(v - centre) for v in numbers]))
    bound = max(_FAR * sigma, _LEAST_EFFECT * abs(centre))

    def far(point: Point) -> float:
        return abs(float(point.value) - centre) if isinstance(point.value, int | float) else 0.0

    named = [p for p in series.points if p.answer is Answer.FAIL or far(p) > bound > 0]
    return tuple(sorted(named, key=lambda p: (p.answer is not Answer.FAIL, -far(p))))


# Cables

CABLE = 66


@dataclass(frozen=True, slots=True)
class CableMap:
    """A row a node, a column a rail, in each cell the port that the cable is planned to."""

    width: float
    height: float
    cells: tuple[Cell, ...]
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]


def cable_map(cables: Sequence[CableCell]) -> CableMap:
    """The planned cables of all HCAs."""
    nodes = _from_the_top(c.node for c in cables)
    row_of = {node: number for number, node in enumerate(nodes)}
    cells = tuple(Cell(LABEL + c.rail * CABLE, (row_of[c.node] + 1) * ROW, CABLE - 2, "", *_cable(c)) for c in cables)
    width = LABEL + (max((c.rail for c in cables), default=0) + 1) * CABLE
    rows = tuple(((row_of[node] + 1) * ROW + 15, node) for node in nodes)
    rails = sorted({c.rail for c in cables})
    columns = tuple((LABEL + rail * CABLE + (CABLE - 2) / 2, f"rail {rail}") for rail in rails)
    return CableMap(width, (len(nodes) + 1) * ROW + 4, cells, rows, columns)


def _cable(c: CableCell) -> tuple[str, str, str]:
    where = f"{c.node}:{c.hca} to {c.far}"
    if not c.fault:
        return "missing", f"? {c.far}", f"{where}: not known"
    if c.fault == "none":
        return "value", c.far, f"{where}: as designed"
    return "fail", f"F {c.far}", f"{where}: {c.fault}"


# Elevation


@dataclass(frozen=True, slots=True)
class Place:
    """A unit of the elevation, or (seat None) slots that nothing is planned for."""

    y: float
    seat: Seat | None
    gap: str = ""


def elevation(seats: Sequence[Seat]) -> tuple[float, tuple[Place, ...]]:
    """(height, places): the highest slot on top; slots without a unit are one line."""
    places: list[Place] = []
    y, above = 0.0, None
    for seat in sorted(seats, key=lambda s: -s.slot):
        if above is not None and above - seat.slot > 1:
            empty = f"slots {seat.slot + 1} to {above - 1}" if above - seat.slot > 2 else f"slot {above - 1}"
            places.append(Place(y, None, f"{empty}: nothing is planned"))
            y += ROW * 0.7
        places.append(Place(y, seat))
        y += ROW
        above = seat.slot
    return y + 2, tuple(places)

"""A value over time as a chart: points where they were measured, gates as lines, places told apart. Pure.

Colour never stands alone: a failing point is a square, a change of place is a line with words, a table is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from toolkit.rack.gate import Operator
from toolkit.report.html.layout import number
from toolkit.report.html.values import Limits

WIDTH, HEIGHT = 480.0, 150.0
TOP, BOTTOM = 26.0, 20.0
_LEAST_SPAN = timedelta(hours=1)
_MOST_POINTS = 400
_LABEL, _WORDS_WIDE = 13.0, 130.0


@dataclass(frozen=True, slots=True)
class Reading:
    """A value of a part: when, where it sat (`node/GPU`), by which run, read from which artifact."""

    at: datetime
    value: float
    place: str
    run: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A reading in the chart. `fails`: the gate's limit as it is now."""

    x: float
    y: float
    fails: bool
    title: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line with words at its end; `label_y` keeps words from covering each other."""

    y: float
    label_y: float
    words: str


@dataclass(frozen=True, slots=True)
class Moved:
    """Where the part came to another place."""

    x: float
    words: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One metric of one part. `dropped`: readings left out because more would be no wider than a pixel."""

    title: str
    unit: str
    readings: tuple[Reading, ...]
    dots: tuple[Dot, ...]
    line: str
    rules: tuple[Rule, ...]
    moves: tuple[Moved, ...]
    ends: tuple[str, str]
    scale: tuple[str, str]
    summary: str
    failing: int
    width: float = WIDTH
    height: float = HEIGHT
    top: float = TOP
    base: float = HEIGHT - BOTTOM

    @property
    def single(self) -> bool:
        """One reading is no trend."""
        return len(self.readings) == 1


def chart(title: str, unit: str, readings: Sequence[Reading], limits: Sequence[Limits]) -> Chart:
    """The readings, at least one, oldest first, with limits that are numbers."""
    shown = tuple(sorted(readings, key=lambda r: r.at))[-_MOST_POINTS:]
    bounds = [(float(m.limit), m) for m in limits if isinstance(m.limit, int | float)]
    low, high = _span([r.value for r in shown], [limit for limit, _ in bounds])
    began, ended = shown[0].at, shown[-1].at
    took = max(ended - began, _LEAST_SPAN)
    inner = HEIGHT - TOP - BOTTOM

    def across(at: datetime) -> float:
        # one reading, or several within a moment, stand in the middle
        return WIDTH / 2 if ended - began < _LEAST_SPAN / 60 else 8 + (at - began) / took * (WIDTH - 16)

    def down(value: float) -> float:
        return TOP + (high - value) / (high - low) * inner

    dots = tuple(_dot(r, across(r.at), down(r.value), bounds, unit) for r in shown)
    failing = sum(dot.fails for dot in dots)
    return Chart(
        title, unit, shown, dots, " ".join(f"{d.x:.1f},{d.y:.1f}" for d in dots), _rules(bounds, down),
        _moves(shown, across), (_day(began), _day(ended)), (number(high), number(low)), _summary(shown, unit, failing),
        failing,
    )  # fmt: skip


def _span(values: Sequence[float], limits: Sequence[float]) -> tuple[float, float]:
    """All readings and all limits, with room around them."""
    every = [*values, *limits]
    pad = (max(every) - min(every)) * 0.08 or abs(every[0]) * 0.05 or 1.0
    return min(every) - pad, max(every) + pad


def _dot(r: Reading, x: float, y: float, bounds: Sequence[tuple[float, Limits]], unit: str) -> Dot:
    over = [m.code for limit, m in bounds if _is_out(r.value, limit, m.operator)]
    verdict = f", outside {', '.join(over)} as it is now" if over else ""
    return Dot(x, y, bool(over), f"{r.at:%Y-%m-%d %H:%M}Z, {r.place}: {number(r.value)} {unit}{verdict}")


def _is_out(value: float, limit: float, operator: Operator) -> bool:
    return value < limit if operator is Operator.AT_LEAST else value > limit


def _rules(bounds: Sequence[tuple[float, Limits]], down: Callable[[float], float]) -> tuple[Rule, ...]:
    found: list[Rule] = []
    for limit, m in sorted(bounds, key=lambda b: -b[0]):
        y = down(limit)
        sign = "at least" if m.operator is Operator.AT_LEAST else "at most"
        last = found[-1].label_y if found else float("-inf")
        found.append(Rule(y, max(y - 4, last + _LABEL), f"{m.code}: {sign} {number(limit)}"))
    return tuple(found)


def _moves(shown: Sequence[Reading], across: Callable[[datetime], float]) -> tuple[Moved, ...]:
    found: list[Moved] = []
    for before, after in pairwise(shown):
        if before.place != after.place:
            x = (across(before.at) + across(after.at)) / 2
            covered = bool(found) and x - found[-1].x < _WORDS_WIDE  # its words stand in the table
            words = "" if covered else f"to {after.place}"
            found.append(Moved(x, words, "end" if x > WIDTH * 0.7 else "start"))
    return tuple(found)


def _summary(shown: Sequence[Reading], unit: str, failing: int) -> str:
    values = [r.value for r in shown]
    if len(values) == 1:
        words = f"{number(values[0])} {unit}, one reading on {_day(shown[0].at)}"
    else:
        words = (
            f"{number(min(values))} to {number(max(values))} {unit} in {len(values)} readings, "
            f"last {number(values[-1])} on {_day(shown[-1].at)}"
        )
    return words + (f"; {failing} outside today's gate" if failing else "")


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z"

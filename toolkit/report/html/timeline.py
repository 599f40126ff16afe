"""Runs of the last plan on a line of time, a row a node. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.rack.lifecycle import Outcome
from toolkit.report.html.values import Bar

WIDTH, LABEL, ROW = 900.0, 74.0, 18.0
_LEAST = 2.0
_LETTERS_FIT = 15.0
_KIND = {Outcome.PASSED: "passed", Outcome.FAILED: "failed", Outcome.ERROR: "error", None: "open"}
# Reads without colour: what did not pass has a sign before its stage's name.
_SIGN = {Outcome.PASSED: "", Outcome.FAILED: "F ", Outcome.ERROR: "? ", None: "… "}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A bar. `text`: how the stage's name begins, where it fits."""

    bar: Bar
    x: float
    y: float
    width: float
    kind: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """All runs of the last plan."""

    height: float
    drawn: tuple[Drawn, ...]
    rows: tuple[tuple[float, str], ...]
    began: datetime
    took: timedelta


def timeline(bars: Sequence[Bar], now: datetime, order: Sequence[str]) -> Timeline | None:
    """None where nothing has run. A run that is open lasts until now. `order`: of the nodes, from the top."""
    if not bars:
        return None
    began = min(bar.began for bar in bars)
    took = max(max(bar.ended or now for bar in bars) - began, timedelta(seconds=1))
    place = {node: number for number, node in enumerate(order)}
    nodes = sorted({bar.node for bar in bars}, key=lambda node: (place.get(node, len(place)), node))
    row_of = {node: number for number, node in enumerate(nodes)}
    drawn = tuple(_drawn(bar, row_of[bar.node], began, took, now) for bar in bars)
    rows = tuple((row_of[node] * ROW + 13, node or "rack") for node in nodes)
    return Timeline(len(nodes) * ROW + 22, drawn, rows, began, took)


def _drawn(bar: Bar, row: int, began: datetime, took: timedelta, now: datetime) -> Drawn:
    span = WIDTH - LABEL
    x = LABEL + (bar.began - began) / took * span
    wide = max(_LEAST, min(WIDTH - x, ((bar.ended or now) - bar.began) / took * span))
    text = f"{_SIGN[bar.outcome]}{bar.stage[:2]}"
    title = (
        f"{bar.node} {bar.stage}: {bar.outcome or 'did not end'} {bar.code}, {lasted((bar.ended or now) - bar.began)}"
    )
    fits = wide >= _LETTERS_FIT * (1 + len(_SIGN[bar.outcome]) / 2)
    return Drawn(bar, x, row * ROW + 2, wide, _KIND[bar.outcome], text if fits else "", title)


def lasted(took: timedelta) -> str:
    """`2 h 05 min`, `3 min 20 s`, `4.2 s`."""
    seconds = took.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

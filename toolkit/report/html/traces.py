"""Power and temperature over a node's burn-in, from the trace that it kept: read within bounds, thinned, never filled.

The trace is the node's own text: what does not read as numbers is told and not drawn.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

MAX_BYTES = 16 << 20
POINTS = 160  # more than that are no wider than a pixel
WIDTH, HEIGHT = 440.0, 70.0
_NAME = "nvml_samples.csv"


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over time. `points`: (seconds since the first sample, value), the extreme of each stretch."""

    title: str
    unit: str
    points: tuple[tuple[float, float], ...]

    @property
    def span(self) -> tuple[float, float]:
        """Least and most."""
        values = [value for _, value in self.points]
        return min(values), max(values)

    @property
    def path(self) -> str:
        """As an SVG path in a box of WIDTH by HEIGHT; time begins at the left."""
        low, high = self.span
        last = self.points[-1][0] or 1.0
        height = (high - low) or 1.0
        places = ((t / last * WIDTH, HEIGHT - (value - low) / height * HEIGHT) for t, value in self.points)
        return "M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in places)


@dataclass(frozen=True, slots=True)
class Trace:
    """A node's trace, or (no curves) why there is none to draw."""

    node: str
    evidence: str
    began: datetime | None
    seconds: float
    curves: tuple[Curve, ...]
    problem: str = ""


def trace_name(artifacts: Iterable[str]) -> str:
    """The name of the trace among a burn-in's artifacts; empty where it kept none."""
    return next((name for name in artifacts if name.endswith(_NAME)), "")


def trace_of(node: str, digest: str, content: bytes, gpus: int) -> Trace:
    """The node's power, summed over all its GPUs, and its hottest GPU and memory, sample by sample."""
    if len(content) > MAX_BYTES:
        return Trace(node, digest, None, 0.0, (), f"its trace has {len(content):,} bytes, more than {MAX_BYTES:,}")
    try:
        samples = _samples(content)
    except (ValueError, KeyError, csv.Error) as problem:
        return Trace(node, digest, None, 0.0, (), f"its trace does not read: {problem}")
    if len(samples) < 2:
        return Trace(node, digest, None, 0.0, (), "its trace has fewer than two samples")
    began = next(iter(samples))
    seconds = (max(samples) - began).total_seconds()
    told = [
        ("power of all GPUs", "W", {at: sum(p) / 1000 for at, s in samples.items() if len(p := s["power_mw"]) == gpus}),
        ("hottest GPU", "celsius", {at: max(t) for at, s in samples.items() if (t := s["gpu_celsius"])}),
        ("hottest HBM", "celsius", {at: max(t) for at, s in samples.items() if (t := s["hbm_celsius"])}),
    ]
    curves = tuple(
        Curve(title, unit, tuple(_thinned(began, values))) for title, unit, values in told if len(values) > 1
    )
    return Trace(node, digest, began, seconds, curves, "" if curves else "its trace has no power and no temperature")


_COLUMNS = ("power_mw", "gpu_celsius", "hbm_celsius")


def _samples(content: bytes) -> dict[datetime, dict[str, list[float]]]:
    """Readings of all GPUs by time. An empty field is a reading that was not had."""
    samples: dict[datetime, dict[str, list[float]]] = {}
    for row in csv.DictReader(io.StringIO(content.decode("ascii"))):
        at = datetime.fromisoformat(row["at"])
        if at.tzinfo is None:
            raise ValueError("a time without a zone")
        of = samples.setdefault(at, {column: [] for column in _COLUMNS})
        for column in _COLUMNS:
            if row[column] is None:
                raise ValueError("a line is cut short")
            if row[column]:
                value = float(row[column])
                if not math.isfinite(value):
                    raise ValueError(f"{column} is {value}")
                of[column].append(value)
    return dict(sorted(samples.items()))


def _thinned(began: datetime, values: Mapping[datetime, float]) -> Iterator[tuple[float, float]]:
    """Of each stretch of time its highest value: a spike is not lost."""
    told = [((at - began).total_seconds(), value) for at, value in values.items()]
    size = max(1, math.ceil(len(told) / POINTS))
    for first in range(0, len(told), size):
        yield max(told[first : first + size], key=lambda point: point[1])

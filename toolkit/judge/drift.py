"""Does a part get worse from one certification to the next? EWMA and CUSUM over a serial's history.

Every value is set against the mean of the same serial's earlier ones (Hawkins' self-starting chart, sigma known from
the peers), so that no run-in is needed and a part that always was a little slow is not drifting. An alarm is a reason
to measure again (`toolkit.judge.sequential`), never a finding. How rarely a healthy serial alarms is stated as a run
length, in certifications, and both charts are set to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from toolkit.judge.sequential import Noise

FEWEST = 4  # certifications: of three, each could be the odd one
RUN_LENGTH = 10_000.0  # of each chart: a rack of 72 certified monthly raises a false alarm in six years, at most
_REFERENCE = 0.5  # CUSUM's k, in sigmas: best for a step of one sigma, and near it up to three
_WEIGHT = 0.2  # EWMA's lambda: for steps of about one sigma, and for slow ramps
_CLIP = 4.0  # sigmas: one disturbed reading alarms nobody, and hardly moves the mean of what was before
_SIEGMUND = 1.166  # overshoot at both ends (Siegmund 1985, Sequential Analysis, 2.56)
_CELLS = 61


class Chart(StrEnum):
    """The two charts: a step shows first in one, a ramp in the other."""

    CUSUM = "CUSUM"
    EWMA = "EWMA"


class Trend(StrEnum):
    """What a history comes to."""

    STEADY = "steady"
    DRIFTING = "drifting"
    UNDECIDED = "undecided"  # too few certifications


@dataclass(frozen=True, slots=True)
class Drift:
    """A serial's history.

    chart    which chart alarmed first; None where none did
    alarm    index of the certification at which it alarmed; None likewise
    since    index of the first certification of the change, by the CUSUM's last rest at zero; None likewise
    change   mean since then less mean before, in the values' scale; None where nothing was before
    cusum    the chart's values, in sigmas, one a certification; `ewma` likewise
    """

    trend: Trend
    chart: Chart | None
    alarm: int | None
    since: int | None
    change: float | None
    cusum: tuple[float, ...]
    ewma: tuple[float, ...]
    why: str


def drift(history: Sequence[float], noise: Noise, run_length: float = RUN_LENGTH) -> Drift:
    """Judges a history in order of time: shifts against the peers of each certification, negative is worse.

    `noise` is of one certification's value. Raises ValueError for a value that is no number, or a noise of 0.
    """
    if noise.sigma <= 0:
        raise ValueError("values without noise cannot be told from a drift: take the peers' noise")
    if not all(math.isfinite(value) for value in history):
        raise ValueError("a certification without a number is left out, not counted as one")
    steps = _standardised(history, noise.cautious)
    cusum, ewma = _cusum(steps), _ewma(steps)
    if len(history) < FEWEST:
        why = f"{len(history)} certifications, and fewer than {FEWEST} show no trend"
        return Drift(Trend.UNDECIDED, None, None, None, None, cusum, ewma, why)
    limits = cusum_limit(run_length), ewma_limit(run_length)
    alarms = [
        (next((n for n, value in enumerate(values) if beyond(value)), None), chart)
        for chart, values, beyond in _charts(cusum, ewma, *limits)
    ]
    first = min(((n, chart) for n, chart in alarms if n is not None), default=None)
    if first is None:
        why = _why(f"no alarm in {len(history)} certifications", cusum, ewma, limits, noise, run_length)
        return Drift(Trend.STEADY, None, None, None, None, cusum, ewma, why)
    return _drifting(history, cusum, ewma, *first, _why("", cusum, ewma, limits, noise, run_length))


def _charts(
    cusum: Sequence[float], ewma: Sequence[float], most: float, least: float
) -> tuple[tuple[Chart, Sequence[float], Callable[[float], bool]], ...]:
    return (Chart.CUSUM, cusum, lambda c: c > most), (Chart.EWMA, ewma, lambda z: z < -least)


def _drifting(
    history: Sequence[float], cusum: tuple[float, ...], ewma: tuple[float, ...], alarm: int, chart: Chart, why: str
) -> Drift:
    """An alarm: since when, and by how much."""
    since = next((n + 1 for n in range(alarm, -1, -1) if cusum[n] == 0.0), 0)
    since = min(since, alarm)
    after = math.fsum(history[since:]) / len(history[since:])
    change = after - math.fsum(history[:since]) / since if since else None
    moved = "" if change is None else f", by {change:+.3g}"
    said = (
        f"{chart} alarmed at certification {alarm + 1} of {len(history)}; worse since certification {since + 1}{moved}"
    )
    return Drift(Trend.DRIFTING, chart, alarm, since, change, cusum, ewma, said + why)


def _why(
    said: str,
    cusum: Sequence[float],
    ewma: Sequence[float],
    limits: tuple[float, float],
    noise: Noise,
    run_length: float,
) -> str:
    seen = max(cusum), -min(ewma)
    shown = cusum_run_length(limits[0], 1.0)
    return (
        f"{said}; CUSUM reached {seen[0]:.2f} of {limits[0]:.2f}, EWMA {seen[1]:.2f} of {limits[1]:.2f}, in sigmas of"
        f" {noise.cautious:.3g} (cautiously from {noise.sigma:.3g}); set so that a steady serial alarms once in"
        f" {run_length:,.0f} certifications on each; a step of one sigma shows in about {shown:.0f}"
    )


def _standardised(history: Sequence[float], sigma: float) -> list[float]:
    """Each value against the mean of those before: independent and of variance 1 while nothing changes."""
    steps: list[float] = []
    mean = 0.0
    for n, value in enumerate(history):
        step = (value - mean) / sigma * math.sqrt(n / (n + 1)) if n else 0.0
        steps.append(max(-_CLIP, min(_CLIP, step)))
        # The mean takes in what is plausible of the value, so that one disturbed reading does not hide the next.
        reach = _CLIP * sigma * math.sqrt((n + 1) / n) if n else math.inf
        mean += max(-reach, min(reach, value - mean)) / (n + 1)
    return steps


def _cusum(steps: Sequence[float]) -> tuple[float, ...]:
    values: list[float] = []
    total = 0.0
    for step in steps:
        total = max(0.0, total - step - _REFERENCE)
        values.append(total)
    return tuple(values)


def _ewma(steps: Sequence[float]) -> tuple[float, ...]:
    """In sigmas of the steady chart: 0 at the start, so early alarms are rarer than later ones."""
    values: list[float] = []
    average = 0.0
    for step in steps:
        average += _WEIGHT * (step - average)
        values.append(average / math.sqrt(_WEIGHT / (2 - _WEIGHT)))
    return tuple(values)


def cusum_run_length(limit: float, shift: float = 0.0) -> float:
    """Certifications until the CUSUM alarms, on average, under a step of `shift` sigmas for the worse (Siegmund)."""
    drift_ = shift - _REFERENCE
    wide = limit + _SIEGMUND
    if abs(drift_) < 1e-9:
        return wide * wide
    return (math.exp(-2 * drift_ * wide) + 2 * drift_ * wide - 1) / (2 * drift_ * drift_)


@lru_cache(maxsize=64)
def cusum_limit(run_length: float) -> float:
    """The CUSUM's limit, in sigmas, for that run length of a steady serial."""
    return _solve(cusum_run_length, run_length)


def ewma_run_length(limit: float, shift: float = 0.0) -> float:
    """Certifications until the EWMA alarms, on average, under a step of `shift` sigmas for the worse.

    By a Markov chain of cells between the limit and as far on the good side (Brook and Evans 1972), where it reflects.
    """
    sigma = math.sqrt(_WEIGHT / (2 - _WEIGHT))
    low, high = -limit * sigma, limit * sigma
    width = (high - low) / _CELLS
    centres = [low + (i + 0.5) * width for i in range(_CELLS)]

    def below(edge: float, start: float) -> float:
        """Chance that the average falls below the edge from the start."""
        step = (edge - (1 - _WEIGHT) * start) / _WEIGHT + shift
        return 0.5 * math.erfc(-step / math.sqrt(2))

    edges = [low + i * width for i in range(_CELLS)] + [math.inf]
    rows = []
    for i, start in enumerate(centres):
        reached = [below(edge, start) for edge in edges]
        row = [(1.0 if i == j else 0.0) - (reached[j + 1] - reached[j]) for j in range(_CELLS)]
        rows.append([*row, 1.0])
    return _eliminated(rows)[_CELLS // 2]


def _eliminated(rows: list[list[float]]) -> list[float]:
    """Solves the rows, each with its right side last. A chain that always ends is diagonally dominant: no pivots."""
    count = len(rows)
    for i, row in enumerate(rows):
        pivot = row[i]
        for j in range(i, count + 1):
            row[j] /= pivot
        for other in rows[i + 1 :]:
            factor = other[i]
            for j in range(i, count + 1):
                other[j] -= factor * row[j]
    solution = [0.0] * count
    for i in range(count - 1, -1, -1):
        solution[i] = rows[i][count] - math.fsum(rows[i][j] * solution[j] for j in range(i + 1, count))
    return solution


@lru_cache(maxsize=64)
def ewma_limit(run_length: float) -> float:
    """The EWMA's limit, in its own sigmas, for that run length of a steady serial."""
    return _solve(ewma_run_length, run_length, rounds=18, most=8.0)


def _solve(length: Callable[[float], float], wanted: float, rounds: int = 40, most: float = 30.0) -> float:
    """The limit of a run length, by halving: longer runs need wider limits. Raises ValueError outside 20 to 1e7."""
    if not 20 <= wanted <= 1e7:
        raise ValueError(f"a run length of {wanted:g} certifications: from 20 to 10,000,000")
    low, high = 0.1, most
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) < wanted else (low, middle)
    return high

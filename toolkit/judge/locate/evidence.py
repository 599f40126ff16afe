"""Observations laid out for scoring: for every test the likelihood of each mode, for every segment its tests."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.judge.locate.fabric import Fabric, Path
from toolkit.judge.locate.observation import (
    CORRUPT,
    COUNTER_SHOWS,
    COUNTER_STRAY,
    ERRORS,
    FIRST_LEVEL,
    HANG,
    HEALTHY,
    LEVELS,
    MODES,
    Observation,
    is_low,
    log_likelihood,
)
from toolkit.judge.locate.parts import PRIOR, SegmentKind

Likelihood = tuple[float, ...]

# How a bad segment is bad, our judgement: half are slow, evenly over the levels.
_MODE_SHARE = (0.0, 0.2, *[0.5 / len(LEVELS)] * len(LEVELS), 0.1, 0.2)
_LOG_SHARE = tuple(math.log(share) if share else -math.inf for share in _MODE_SHARE)
_LOG_PRIOR = {kind: math.log(prior) for kind, prior in PRIOR.items()}
# Counts in more tests than this say no more: one cause may make a good part count in every test.
_MOST_COUNTER_HITS = 3
_COUNTER_HIT = math.log(COUNTER_SHOWS / COUNTER_STRAY) - math.log(1 - COUNTER_SHOWS)

# The mildest slowness that is worth a test, by kind of segment: one NVLink of 18 down; a tenth of anything else.
_MILDEST: Mapping[SegmentKind, int] = {SegmentKind.GPU: FIRST_LEVEL}
_MILDEST_ELSE = FIRST_LEVEL + 1


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything observed.

    likelihood   log likelihood of each mode, by test
    full, fatal  tests, by segment: those it may slow, those it can only hang or corrupt
    hits         tests in which the segment's parts counted errors as originators, by segment
    """

    fabric: Fabric
    observations: tuple[Observation, ...]
    likelihood: tuple[Likelihood, ...]
    paths: tuple[Path, ...]
    full: Mapping[int, Sequence[int]]
    fatal: Mapping[int, Sequence[int]]
    hits: Mapping[int, Sequence[int]]

    def low(self, segment: int) -> tuple[int, ...]:
        """Tests that speak against the segment: low, hung, corrupt, or with its counters moving."""
        tests = {t for t in self.full.get(segment, ()) if is_low(self.likelihood[t])}
        tests |= {t for t in self.fatal.get(segment, ()) if max(self.likelihood[t][CORRUPT:]) > self.likelihood[t][0]}
        return tuple(sorted(tests | set(self.hits.get(segment, ()))))

    def log_prior(self, segment: int) -> float:
        """Of the segment being bad, its moving counters included."""
        hits = min(len(self.hits.get(segment, ())), _MOST_COUNTER_HITS)
        return _LOG_PRIOR[self.fabric.segments[segment].kind] + hits * _COUNTER_HIT


def lay_out(fabric: Fabric, observations: Iterable[Observation]) -> Evidence:
    """The observations, by test and by segment."""
    seen = tuple(observations)
    paths = tuple(fabric.path(o.test) for o in seen)
    full: dict[int, list[int]] = defaultdict(list)
    fatal: dict[int, list[int]] = defaultdict(list)
    hits: dict[int, list[int]] = defaultdict(list)
    for t, (observation, path) in enumerate(zip(seen, paths, strict=True)):
        for s in path.full:
            full[s].append(t)
        for s in path.fatal:
            fatal[s].append(t)
        counting = {c.part for c in observation.counters if c.errors > 0 and c.originator}
        if counting:
            for s in {*path.full, *path.fatal}:
                if counting.intersection(fabric.segments[s].parts):
                    hits[s].append(t)
    return Evidence(fabric, seen, tuple(log_likelihood(o) for o in seen), paths, full, fatal, hits)


@dataclass(slots=True)
class Given:
    """The evidence with some faults taken as known: what is left to explain."""

    evidence: Evidence
    shown: list[int]  # the mode each test shows under the known faults
    gains: list[Likelihood]  # what each mode of one more fault would add, by test
    sums: dict[tuple[int, ...], list[float]] = field(default_factory=dict)

    @classmethod
    def nothing(cls, evidence: Evidence) -> Given:
        """No fault known."""
        gains = [tuple(x - row[HEALTHY] for x in row) for row in evidence.likelihood]
        return cls(evidence, [HEALTHY] * len(gains), gains)

    def plus(self, segment: int, mode: int) -> Given:
        """One more fault known."""
        more = Given(self.evidence, list(self.shown), list(self.gains))
        tests = list(self.evidence.full.get(segment, ()))
        if mode >= CORRUPT:
            tests += self.evidence.fatal.get(segment, ())
        for t in tests:
            if mode > more.shown[t]:
                more.shown[t] = mode
                row = self.evidence.likelihood[t]
                more.gains[t] = tuple(row[max(m, mode)] - row[mode] for m in range(MODES))
        return more

    def modes(self, segment: int) -> list[float]:
        """Log likelihood ratio of each mode of the segment, against the segment being healthy."""
        sums = self._slowing(tuple(self.evidence.full.get(segment, ())))
        for t in self.evidence.fatal.get(segment, ()):
            sums[CORRUPT] += self.gains[t][CORRUPT]
            sums[HANG] += self.gains[t][HANG]
        return sums

    def _slowing(self, tests: tuple[int, ...]) -> list[float]:
        """Sums over the tests, mode by mode. Segments that were tested alike share them: most are asked for again."""
        if tests not in self.sums:
            rows = [self.gains[t] for t in tests]
            self.sums[tests] = [*map(sum, zip(*rows, strict=True))] if rows else [0.0] * MODES
        return list(self.sums[tests])

    def odds(self, segment: int, modes: Sequence[float] | None = None) -> tuple[float, int]:
        """Log odds that the segment is bad too, and its likeliest mode."""
        weighted = [ratio + share for ratio, share in zip(modes or self.modes(segment), _LOG_SHARE, strict=True)]
        best = max(range(ERRORS, MODES), key=weighted.__getitem__)
        peak = weighted[best]
        total = peak + math.log(sum(math.exp(w - peak) for w in weighted[ERRORS:]))
        return total + self.evidence.log_prior(segment), best

    def unexplained(self, least: float = 3.0) -> list[int]:
        """Tests that one more fault would explain clearly better, worst first."""
        found = [(max(row), t) for t, row in enumerate(self.gains) if max(row) > least]
        return [t for _, t in sorted(found, key=lambda pair: (-pair[0], pair[1]))]

    def may_still_be(self, segment: int, modes: Sequence[float]) -> float:
        """Log likelihood ratio of the mode, of those worth a test, that the evidence has ruled out least."""
        first = _MILDEST.get(self.evidence.fabric.segments[segment].kind, _MILDEST_ELSE)
        return max(modes[first:])

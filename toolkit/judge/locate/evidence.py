"""Observations laid out for scoring. It grows round by round, and only what a new test touches is counted again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.judge.locate.fabric import Fabric, Path, Plane, Test
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
    Outcome,
    is_low,
    log_likelihood,
)
from toolkit.judge.locate.parts import PRIOR, SegmentKind
from toolkit.judge.locate.ways import Ways

Likelihood = tuple[float, ...]

# How a bad segment is bad, our judgement: half are slow, evenly over the levels.
_MODE_SHARE = (0.0, 0.15, 0.05, *[0.5 / len(LEVELS)] * len(LEVELS), 0.1, 0.2)
_LOG_SHARE = tuple(math.log(share) if share else -math.inf for share in _MODE_SHARE)
_LOG_PRIOR = {kind: math.log(prior) for kind, prior in PRIOR.items()}
# Counts in more tests than this say no more: one cause may make a good part count in every test.
_MOST_COUNTER_HITS = 3
_COUNTER_HIT = math.log(COUNTER_SHOWS / COUNTER_STRAY) - math.log(1 - COUNTER_SHOWS)

# The mildest slowness that is worth a test, by kind of segment: one NVLink of 18 down; a tenth of anything else.
_MILDEST: Mapping[SegmentKind, int] = {SegmentKind.GPU: FIRST_LEVEL}
_MILDEST_ELSE = FIRST_LEVEL + 1
# Wald's bound: a segment with a fault worth finding is set aside with at most this probability.
_MISS = 0.004
_CLEAR = math.log(_MISS)
_FORGOTTEN = -13.0  # log odds of about a millionth

UNEXPLAINED = 3.0  # a test that a fault would explain better than health by these odds (log) wants an explanation
SMALL_TEST = 5  # endpoints up to which a test says who has met whom


@dataclass(slots=True)
class Standing:
    """What is thought of the segments, each judged by itself beside the same known faults.

    probability   of being bad, for those above a millionth
    mode          likeliest mode, of the same
    open          no test has ruled them out: untested, or only by readings too few or too noisy
    """

    probability: dict[int, float]
    mode: dict[int, int]
    open: set[int]

    def copy(self) -> Standing:
        """One that changes apart."""
        return Standing(dict(self.probability), dict(self.mode), set(self.open))

    def drop(self, segment: int) -> None:
        """Forgets the segment: it is judged elsewhere."""
        self.probability.pop(segment, None)
        self.mode.pop(segment, None)
        self.open.discard(segment)

    def judge(self, segment: int, modes: Sequence[float], evidence: Evidence) -> None:
        """Takes the segment's log likelihood ratios in."""
        self.drop(segment)
        if max(modes[evidence.mildest[segment] :]) > _CLEAR:
            self.open.add(segment)
        prior = evidence.log_prior(segment)
        if segment not in evidence.full or max(modes[ERRORS:]) + prior < _FORGOTTEN:
            return
        odds, how = posterior_odds(modes, prior)
        if odds > _FORGOTTEN:
            self.probability[segment], self.mode[segment] = 1 / (1 + math.exp(-odds)), how


@dataclass(slots=True)
class Evidence:
    """Everything observed. `add` takes in a round; what was believed of it before is of the moment it was believed.

    likelihood   log likelihood of each mode, by test; `gains` are the same against health
    full, fatal  tests, by segment: those it may slow, those it can only hang or corrupt
    hits         tests in which the segment's parts counted errors as originators, by segment
    ratios       log likelihood ratio of each mode against health, no other fault known, by segment
    standing     what that makes of each segment
    wanting      tests that want an explanation
    readings     tests an endpoint was in, by plane and endpoint
    met          with whom an endpoint was in a small test, itself included
    mildest      mildest mode that is worth a test, by segment
    blocks       segments that tests of a block may slow down on, by block
    ways         who was seen on the way that was meant
    """

    fabric: Fabric
    observations: list[Observation] = field(default_factory=list)
    likelihood: list[Likelihood] = field(default_factory=list)
    gains: list[Likelihood] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    full: dict[int, list[int]] = field(default_factory=dict)
    fatal: dict[int, list[int]] = field(default_factory=dict)
    hits: dict[int, list[int]] = field(default_factory=dict)
    wanting: list[int] = field(default_factory=list)
    readings: dict[Plane, dict[int, int]] = field(default_factory=lambda: {p: defaultdict(int) for p in Plane})
    met: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    ways: Ways = field(default_factory=Ways)
    ratios: list[list[float]] = field(init=False)
    mildest: list[int] = field(init=False)
    standing: Standing = field(init=False)
    blocks: tuple[frozenset[int], ...] = field(init=False)
    _known: dict[Test, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        segments = self.fabric.segments
        self.ratios = [[0.0] * MODES for _ in segments]
        self.mildest = [_MILDEST.get(s.kind, _MILDEST_ELSE) for s in segments]
        self.standing = Standing({}, {}, set(range(len(segments))))
        self.blocks = tuple(self.fabric.segments_of(block) for block in self.fabric.blocks)

    @classmethod
    def of(cls, fabric: Fabric, observations: Iterable[Observation]) -> Evidence:
        """All observations at once."""
        evidence = cls(fabric)
        evidence.add(observations)
        return evidence

    def add(self, observations: Iterable[Observation]) -> None:
        """Takes in more observations."""
        touched: set[int] = set()
        for observation in observations:
            path = Path((), ()) if observation.outcome is Outcome.OFF_PATH else self.path(observation.test)
            self.ways.take(observation)
            self._append(observation, path)
            touched.update(path.full, path.fatal)
        for segment in touched:
            self.standing.judge(segment, self.ratios[segment], self)

    def path(self, test: Test) -> Path:
        """What the test crosses; asked for when it is weighed and again when it was run."""
        if test not in self._known:
            self._known[test] = self.fabric.path(test)
        return self._known[test]

    def _append(self, observation: Observation, path: Path) -> None:
        t = len(self.observations)
        row = log_likelihood(observation)
        gains = tuple(x - row[HEALTHY] for x in row)
        self.observations.append(observation)
        self.likelihood.append(row)
        self.gains.append(gains)
        self.paths.append(path)
        if max(gains) > UNEXPLAINED:
            self.wanting.append(t)
        ratios = self.ratios
        for s in path.full:
            self.full.setdefault(s, []).append(t)
            ratios[s] = [a + b for a, b in zip(ratios[s], gains, strict=True)]
        for s in path.fatal:
            self.fatal.setdefault(s, []).append(t)
            ratios[s][CORRUPT] += gains[CORRUPT]
            ratios[s][HANG] += gains[HANG]
        if observation.outcome is not Outcome.OFF_PATH:
            self._count(t, observation, path)

    def _count(self, t: int, observation: Observation, path: Path) -> None:
        """Counters that moved, and who was tested with whom."""
        counting = {c.part for c in observation.counters if c.errors > 0 and c.originator}
        for s in {*path.full, *path.fatal} if counting else ():
            if counting.intersection(self.fabric.segments[s].parts):
                self.hits.setdefault(s, []).append(t)
        members = observation.test.members
        readings = self.readings[observation.test.plane]
        for e in members:
            readings[e] += 1
            if len(members) <= SMALL_TEST:
                self.met[e].update(members)

    def low(self, segment: int) -> tuple[int, ...]:
        """Tests that speak against the segment: low, hung, corrupt, or with its counters moving."""
        tests = {t for t in self.full.get(segment, ()) if is_low(self.likelihood[t])}
        tests |= {t for t in self.fatal.get(segment, ()) if max(self.likelihood[t][CORRUPT:]) > self.likelihood[t][0]}
        return tuple(sorted(tests | set(self.hits.get(segment, ()))))

    def log_prior(self, segment: int) -> float:
        """Of the segment being bad, its moving counters included."""
        hits = min(len(self.hits.get(segment, ())), _MOST_COUNTER_HITS)
        return _LOG_PRIOR[self.fabric.segments[segment].kind] + hits * _COUNTER_HIT


def posterior_odds(modes: Sequence[float], log_prior: float) -> tuple[float, int]:
    """Log odds of being bad by the log likelihood ratio of each mode, and the likeliest mode."""
    weighted = [ratio + share for ratio, share in zip(modes, _LOG_SHARE, strict=True)]
    peak = max(weighted[ERRORS:])
    total = peak + math.log(sum([math.exp(w - peak) for w in weighted[ERRORS:]]))
    return total + log_prior, weighted.index(peak, ERRORS)

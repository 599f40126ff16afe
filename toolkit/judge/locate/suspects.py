"""From probabilities to words: convicted and suspected segments, the parts in them, why, and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.judge.locate.evidence import Evidence
from toolkit.judge.locate.exchange import Exchange, exchanges
from toolkit.judge.locate.fabric import Fabric
from toolkit.judge.locate.observation import (
    CORRUPT,
    COUNTER_SHOWS,
    COUNTER_STRAY,
    ERRORS,
    FIRST_LEVEL,
    HANG,
    INTERMITTENT,
    LEVELS,
    Observation,
    Outcome,
)
from toolkit.judge.locate.parts import PART_WEIGHT, Part, PartKind, Segment, SegmentKind
from toolkit.judge.locate.posterior import Belief, believe
from toolkit.judge.locate.ways import Unmeasured

CONVICTED = 0.99
SUSPECTED = 0.05
_LEAST_WITNESSES = 2  # a part is never blamed on one reading
_ONE_LANE_DOWN = FIRST_LEVEL
_SHOWN_WITNESSES = 4

_SETTLED_BY = {
    SegmentKind.GPU: "per-link byte and error counters of the GPU (nvidia-smi nvlink), then another GPU in its place",
    SegmentKind.SWITCH: "link diagnostics of every switch tray: bandwidth crosses all of its ASICs alike",
    SegmentKind.NODE: "pull the tray: all of its parts that were tested are slow together",
    SegmentKind.ATTACHMENT: "swap the cable with its neighbour on the leaf: a fault that moves is the cable's",
    SegmentKind.LEAF: "port counters of the leaf",
    SegmentKind.SPINE: "port counters of the spines: traffic is spread over all of them",
}


@dataclass(frozen=True, slots=True)
class Suspect:
    """A segment that may be bad.

    convicted   at least two readings speak against it, and nothing else explains them
    parts       the parts of the segment with their probabilities, likeliest first; they add up to `probability`
    why         readings that speak against it, in words
    settled_by  what would tell more
    """

    segment: Segment
    probability: float
    convicted: bool
    shows: str
    parts: tuple[tuple[Part, float], ...]
    why: tuple[str, ...]
    settled_by: str

    @property
    def part(self) -> Part:
        """The likeliest part."""
        return self.parts[0][0]


@dataclass(frozen=True, slots=True)
class Localisation:
    """The suspects, likeliest first, and what no test has ruled out.

    open         a fault that comes and goes is not meant by it: one that showed in none of these tests is ruled out
                 by no number of rounds, only by time under load with counters watched
    exchanges    convicted rails that one mistake in cabling would explain together: looked at before a part is pulled
    unmeasured   nodes whose tests took another way than was meant; nothing of it speaks against a part
    """

    suspects: tuple[Suspect, ...]
    open: tuple[Segment, ...]
    exchanges: tuple[Exchange, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()

    @property
    def convicted(self) -> tuple[Suspect, ...]:
        """Suspects proven by elimination."""
        return tuple(s for s in self.suspects if s.convicted)


def localise(fabric: Fabric, observations: Iterable[Observation]) -> Localisation:
    """What the observations say about parts."""
    return in_words(believe(fabric, observations))


def convicted(belief: Belief, segment: int) -> bool:
    """Whether the segment is proven bad by elimination: likely enough, and more than one reading against it."""
    return belief.probability.get(segment, 0.0) >= CONVICTED and len(belief.evidence.low(segment)) >= _LEAST_WITNESSES


def in_words(belief: Belief) -> Localisation:
    """The belief for people."""
    ranked = sorted(belief.probability.items(), key=lambda pair: (-pair[1], pair[0]))
    suspects = tuple(_suspect(belief, s, p) for s, p in ranked if p >= SUSPECTED)
    evidence, segments = belief.evidence, belief.evidence.fabric.segments
    crossed = exchanges(evidence, [s for s, _ in ranked if convicted(belief, s) and belief.mode[s] == HANG])
    still = tuple(segments[s] for s in sorted(belief.open))
    return Localisation(suspects, still, crossed, tuple(evidence.ways.report(evidence.fabric)))


def _suspect(belief: Belief, index: int, probability: float) -> Suspect:
    evidence = belief.evidence
    segment = evidence.fabric.segments[index]
    proven = convicted(belief, index)
    parts = tuple((part, share * probability) for part, share in _parts(evidence, index, belief.mode[index]))
    low = evidence.low(index)
    why = tuple(_reading(evidence, t) for t in low[:_SHOWN_WITNESSES])
    settled_by = _SETTLED_BY[segment.kind]
    if not proven:
        others = [
            evidence.fabric.segments[s].name
            for s, p in belief.probability.items()
            if s != index and p >= SUSPECTED and set(low) & set(evidence.low(s))
        ]
        with_whom = f"with a partner that is not {', '.join(others[:3])}" if others else "again"
        settled_by = f"a test of {segment.name} {with_whom}"
    return Suspect(segment, probability, proven, _shows(belief.mode[index]), parts, why, settled_by)


def _shows(mode: int) -> str:
    if mode == HANG:
        return "hangs"
    if mode == CORRUPT:
        return "corrupts data"
    if mode == INTERMITTENT:
        return "comes and goes"
    return "counts errors" if mode == ERRORS else f"about {LEVELS[mode - FIRST_LEVEL]:.0%} of its bandwidth"


def _parts(evidence: Evidence, index: int, mode: int) -> list[tuple[Part, float]]:
    """Parts of the segment with their shares, by counters and by what each kind of part is wont to do."""
    hits: dict[Part, int] = {}
    for t in evidence.hits.get(index, ()):
        for counter in evidence.observations[t].counters:
            if counter.originator and counter.errors > 0:
                hits[counter.part] = hits.get(counter.part, 0) + 1
    weights = {}
    for part in evidence.fabric.segments[index].parts:
        weight = PART_WEIGHT[part.kind]
        if part.kind is PartKind.NVLINK and mode in (_ONE_LANE_DOWN, INTERMITTENT):
            weight *= 10.0  # one of 18 links down is the one thing that leaves 17/18; what comes and goes is a link
        elif part.kind is PartKind.NVLINK and mode not in (ERRORS, _ONE_LANE_DOWN):
            weight /= 10.0
        weights[part] = weight * (COUNTER_SHOWS / COUNTER_STRAY) ** min(hits.get(part, 0), 1)
    total = math.fsum(weights.values())
    return sorted(((part, w / total) for part, w in weights.items()), key=lambda pair: -pair[1])


def _reading(evidence: Evidence, test: int) -> str:
    observation = evidence.observations[test]
    what = {Outcome.HANG: "hung", Outcome.DATA_ERROR: "returned wrong data"}.get(observation.outcome)
    if what is None:
        what = "gave no number" if observation.ratio is None else f"gave {observation.ratio:.0%} of what it should"
    # One counter may be put down to every part of its segment alike: the first of them stands for all.
    own = [c for c in observation.counters if c.originator and c.errors > 0]
    segments = evidence.fabric.segments
    place = {part: s for s in evidence.path(observation.test).full for part in segments[s].parts}
    alike = {(place.get(c.part, -1), c.errors): c for c in reversed(own)}
    counted = [f"{c.part} counted {c.errors}" for c in own if c in alike.values()]
    return f"{evidence.fabric.describe(observation.test)} {what}" + (f"; {', '.join(counted[:3])}" if counted else "")

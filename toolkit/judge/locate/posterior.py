"""How likely each segment is bad, given all observations. Sparse: none, one or a few faults explain everything.

A beam search over sets of faults finds the best explanation. A segment's probability then comes from exchange: each
fault of the best set is taken out and everything that could stand in its place is weighed, so that both ends of a
link stay suspects until a third partner tells them apart. Everything else is judged beside the best set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.judge.locate.evidence import Evidence, Standing, posterior_odds
from toolkit.judge.locate.fabric import Fabric
from toolkit.judge.locate.given import Given
from toolkit.judge.locate.observation import ERRORS, Observation

_MOST_FAULTS = 6
_BEAM = 6
_MOST_TESTS = 32  # unexplained tests whose paths are searched for the next fault
_BEHIND = 7.0  # a set that is a thousand times less likely than the best changes nothing that is shown

_Set = frozenset[int]


@dataclass(frozen=True, slots=True)
class Belief:
    """What the observations say. `evidence` may grow after it: act on a belief before more is added.

    probability   that the segment is bad, for those above a millionth, by segment
    mode          likeliest mode, for the segments of `probability`
    open          segments that no test has ruled out: untested, or only by readings too few or too noisy
    explanation   segments of the best single explanation
    """

    evidence: Evidence
    probability: dict[int, float]
    mode: dict[int, int]
    open: frozenset[int]
    explanation: frozenset[int]


@dataclass(slots=True)
class _Hypothesis:
    score: float
    faults: dict[int, int]
    given: Given


def believe(fabric: Fabric, observations: Iterable[Observation]) -> Belief:
    """The posterior, from nothing. No observations: nobody is a suspect, everything is open."""
    return weigh(Evidence.of(fabric, observations))


def weigh(evidence: Evidence) -> Belief:
    """The posterior of evidence that grows: what the last round did not touch is not counted again."""
    found = _search(evidence)
    best = max(found, key=lambda h: h.score)
    total = best.score + math.log(sum(math.exp(h.score - best.score) for h in found))
    weight: dict[int, float] = {}
    for hypothesis in found:
        for segment in hypothesis.faults:
            weight[segment] = weight.get(segment, 0.0) + math.exp(hypothesis.score - total)
    beside = _beside(evidence, best)
    probability, mode = beside.probability, beside.mode
    for segment, (share, how) in _exchanged(evidence, best).items():
        beam = weight.get(segment, 0.0)
        probability[segment] = min(share, beam) if segment in best.faults else max(share, beam)
        mode[segment] = how
    for segment, share in weight.items():
        if segment not in probability:
            probability[segment] = share
            mode[segment] = Given(evidence).odds(segment)[1]
    return Belief(evidence, probability, mode, frozenset(beside.open), frozenset(best.faults))


def _search(evidence: Evidence) -> list[_Hypothesis]:
    """Sets of faults that explain the evidence, the empty one included."""
    frontier = [_Hypothesis(0.0, {}, Given(evidence))]
    found: dict[_Set, _Hypothesis] = {frozenset(): frontier[0]}
    for _ in range(_MOST_FAULTS):
        floor = max(h.score for h in found.values()) - _BEHIND
        grown: dict[_Set, tuple[float, _Hypothesis, int, int]] = {}
        for parent in frontier:
            for segment in _candidates(parent.given) - parent.faults.keys():
                modes, prior = parent.given.modes(segment), evidence.log_prior(segment)
                if parent.score + max(modes[ERRORS:]) + prior < floor:
                    continue
                odds, mode = posterior_odds(modes, prior)
                key = frozenset((*parent.faults, segment))
                if key not in grown or grown[key][0] < parent.score + odds:
                    grown[key] = (parent.score + odds, parent, segment, mode)
        ranked = sorted((entry for entry in grown.values() if entry[0] > floor), key=_by_score)
        frontier = []
        for score, parent, segment, mode in ranked[:_BEAM]:
            child = _Hypothesis(score, {**parent.faults, segment: mode}, parent.given.plus(segment, mode))
            frontier.append(child)
            found[frozenset(child.faults)] = child
        if not frontier:
            break
    return list(found.values())


def _by_score(entry: tuple[float, _Hypothesis, int, int]) -> tuple[float, int]:
    return -entry[0], entry[2]


def _candidates(given: Given) -> set[int]:
    """Segments on the paths of what is unexplained, or whose counters moved."""
    segments = set(given.evidence.hits)
    for t in given.unexplained()[:_MOST_TESTS]:
        path = given.evidence.paths[t]
        segments.update(path.full)
        segments.update(path.fatal)
    return segments


def _exchanged(evidence: Evidence, best: _Hypothesis) -> dict[int, tuple[float, int]]:
    """For each fault of the best set: how the others, and nothing at all, would do in its place."""
    shares: dict[int, tuple[float, int]] = {}
    for fault in best.faults:
        rest = Given(evidence)
        for segment, mode in best.faults.items():
            if segment != fault:
                rest = rest.plus(segment, mode)
        instead = {s: rest.odds(s) for s in (_candidates(rest) | {fault}) - (best.faults.keys() - {fault})}
        peak = max(0.0, *(odds for odds, _ in instead.values()))
        total = math.exp(-peak) + sum(math.exp(odds - peak) for odds, _ in instead.values())
        for segment, (odds, mode) in instead.items():
            share = math.exp(odds - peak) / total
            if share > 1e-6 and share > shares.get(segment, (0.0, 0))[0]:
                shares[segment] = (share, mode)
    return shares


def _beside(evidence: Evidence, best: _Hypothesis) -> Standing:
    """Every segment outside the best set, judged beside it."""
    standing = evidence.standing.copy()
    for segment in best.given.touched() - best.faults.keys():
        standing.judge(segment, best.given.modes(segment), evidence)
    for segment in best.faults:
        standing.drop(segment)
    return standing

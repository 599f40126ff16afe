"""How likely each segment is bad, given all observations. Sparse: none, one or a few faults explain everything.

A beam search over sets of faults finds the best explanation. A segment's probability then comes from exchange: each
fault of the best set is taken out and everything that could stand in its place is weighed, so that both ends of a
link stay suspects until a third partner tells them apart. Everything else is judged beside the best set.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.judge.locate.evidence import Evidence, Given, lay_out
from toolkit.judge.locate.fabric import Fabric
from toolkit.judge.locate.observation import ERRORS, Observation

_MOST_FAULTS = 6
_BEAM = 6
_MOST_TESTS = 32  # unexplained tests whose paths are searched for the next fault
_BEHIND = 7.0  # a set that is a thousand times less likely than the best changes nothing that is shown
# Wald's bound: a segment with a fault worth finding is set aside with at most this probability.
_MISS = 0.004
_CLEAR = math.log(_MISS)

_FORGOTTEN = -13.0  # log odds of about a millionth

_Set = frozenset[int]


@dataclass(frozen=True, slots=True)
class Belief:
    """What the observations say.

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
    """The posterior. No observations: nobody is a suspect, everything is open."""
    evidence = lay_out(fabric, observations)
    found = _search(evidence)
    best = max(found, key=lambda h: h.score)
    total = best.score + math.log(sum(math.exp(h.score - best.score) for h in found))
    weight: dict[int, float] = {}
    for hypothesis in found:
        for segment in hypothesis.faults:
            weight[segment] = weight.get(segment, 0.0) + math.exp(hypothesis.score - total)
    probability, mode, still = _beside(evidence, best)
    for segment, (share, how) in _exchanged(evidence, best).items():
        beam = weight.get(segment, 0.0)
        probability[segment] = min(share, beam) if segment in best.faults else max(share, beam)
        mode[segment] = how
    for segment, share in weight.items():
        if segment not in probability:
            probability[segment] = share
            mode[segment] = Given.nothing(evidence).odds(segment)[1]
    return Belief(evidence, probability, mode, still, frozenset(best.faults))


def _search(evidence: Evidence) -> list[_Hypothesis]:
    """Sets of faults that explain the evidence, the empty one included."""
    frontier = [_Hypothesis(0.0, {}, Given.nothing(evidence))]
    found: dict[_Set, _Hypothesis] = {frozenset(): frontier[0]}
    for _ in range(_MOST_FAULTS):
        floor = max(h.score for h in found.values()) - _BEHIND
        grown: dict[_Set, tuple[float, _Hypothesis, int, int]] = {}
        for parent in frontier:
            for segment in _candidates(parent.given) - parent.faults.keys():
                modes = parent.given.modes(segment)
                if parent.score + max(modes[ERRORS:]) + evidence.log_prior(segment) < floor:
                    continue
                odds, mode = parent.given.odds(segment, modes)
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
        rest = Given.nothing(evidence)
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


def _beside(evidence: Evidence, best: _Hypothesis) -> tuple[dict[int, float], dict[int, int], frozenset[int]]:
    """Every segment outside the best set, judged beside it: probability, mode, and which are still open."""
    probability: dict[int, float] = {}
    mode: dict[int, int] = {}
    still = set()
    for s in range(len(evidence.fabric.segments)):
        if s in best.faults:
            continue
        modes = best.given.modes(s)
        if best.given.may_still_be(s, modes) > _CLEAR:
            still.add(s)
        if max(modes[ERRORS:]) + evidence.log_prior(s) < _FORGOTTEN or s not in evidence.full:
            continue
        odds, how = best.given.odds(s, modes)
        if odds > _FORGOTTEN:
            probability[s], mode[s] = 1 / (1 + math.exp(-odds)), how
    return probability, mode, frozenset(still)

"""Gates relative to peers: who is a suspect by them, whom to read again beside whom, and what that comes to. Pure.

`peers` compares and `sequential` settles; here a gate's limit becomes their rule, and a measurement their reading.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from toolkit.judge.compared import Compared, Standing
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.peers import FEWEST_PEERS, FEWEST_PLACES, Comparison, Peer, Position, Reading, Rule, compare
from toolkit.judge.peers import Standing as First
from toolkit.judge.sequential import NORMAL, Decision, Design, Noise, Progress, decide

CONTROLS = 6  # siblings read beside a suspect, others of them each round
CANDIDATES = 2 * CONTROLS
TOLERATED = 1 / 3  # of the limit: healthy parts may be that far apart
MOST_OF_POSITION = 0.03  # of a rate: what a node's place may take from all its GPUs alike
FEWEST_MATES = 3  # of one node, to say what they have in common
# Standard deviation of a healthy part's readings, for forecasts alone: 811 to 838 GB/s were published of repeats on
# GB200 (NVCRE validation documents), half of which range is 1.6 %. Tests reckon with what they measured.
PUBLISHED = Noise(0.016, 26)


def rule_of(limit: float) -> Rule:
    """What stands apart, by a gate's limit. ValueError for a share that is none."""
    return Rule(effect=limit, tolerated=TOLERATED * limit, position=min(MOST_OF_POSITION, (1 - limit) / 2))


def design_of(limit: float, noise: Noise = PUBLISHED) -> Design:
    """The sequential test of a suspect beside all its controls, of readings with that noise."""
    rule = rule_of(limit)
    return Design(rule.step(rule.effect), noise.against(CONTROLS), rule.step(rule.tolerated))


def must_be(limit: float) -> str:
    """A gate's limit in words."""
    return f"at most {100 * limit:g} % below its siblings' median"


def explained(limit: float, excused: bool) -> Iterator[str]:
    """How such a gate is answered, with its numbers."""
    rule, design = rule_of(limit), design_of(limit)
    between = (rule.effect + rule.tolerated) / 2
    z = NORMAL.inv_cdf(1 - rule.share)
    yield (
        f"suspect: below the median by {between:.2%} (half way from {rule.tolerated:.2%}, tolerated, to"
        f" {rule.effect:.2%}) or by {z:.2f} sigma of its siblings, whichever is more; what a slot does in"
        f" {FEWEST_PLACES} nodes and more is taken off, and in fewer both may be {rule.position:.2%} more"
    )
    yield (
        f"then read again beside {CONTROLS} siblings: with x = ln(its rate / their median), each reading adds"
        f" -{design.apart:.4g} (x + {(design.effect + design.tolerated) / 2:.4g}) / sigma^2; FAIL from a sum of"
        f" {design.worse_at:.2f} on, PASS from {design.alike_at:.2f} down, INCONCLUSIVE after {design.most} readings"
    )
    yield (
        f"at sigma {PUBLISHED.sigma:g}, as published of repeats: about {design.expected_readings(worse=True):.0f}"
        f" readings if worse, {design.expected_readings(worse=False):.0f} if alike; false alarms at most"
        f" {design.alpha / (1 - design.beta):.2g} a suspect"
    )
    few = "not asked, and the certificate says so" if excused else "INCONCLUSIVE"
    yield f"fewer than {FEWEST_PEERS} siblings: {few}, for of four two bad ones are as many as the good"


def reading(subject: Subject, value: float) -> Reading:
    """A reading with its place. A slot is one in every node; a tray's height cannot be told within one rack."""
    at = (Position("slot", str(subject.gpu), subject.node),) if subject.gpu >= 0 else ()
    return Reading(subject, value, at)


@dataclass(frozen=True, slots=True)
class Question:
    """One metric of all siblings, and the share below them that is worth a part.

    planned  everybody who is to be compared, whether it gave a number or not
    of       origin of each one's measurement
    """

    metric: str
    limit: float
    planned: tuple[Subject, ...]
    comparison: Comparison
    of: Mapping[Subject, str]

    @property
    def too_few(self) -> bool:
        """Whether there could be no comparison, had all of them given a number."""
        return len(self.planned) < FEWEST_PEERS


def question(metric: str, limit: float, planned: Iterable[Subject], told: Iterable[Measurement]) -> Question:
    """Compares. Two measurements of one subject are ambiguous, and words are no numbers: neither is a reading."""
    subjects = tuple(dict.fromkeys(planned))
    by_subject: dict[Subject, list[Measurement]] = {s: [] for s in subjects}
    for m in told:
        if m.metric == metric and m.subject in by_subject:
            by_subject[m.subject].append(m)
    one = {s: found[0] for s, found in by_subject.items() if len(found) == 1}
    values = {s: float(m.value) for s, m in one.items() if not isinstance(m.value, str)}
    comparison = compare([reading(s, value) for s, value in values.items()], rule_of(limit))
    return Question(metric, limit, subjects, comparison, {s: m.origin for s, m in one.items() if s in values})


@dataclass(frozen=True, slots=True)
class Trial:
    """A suspect to read again: stated before the first fresh reading."""

    question: Question
    suspect: Peer
    design: Design
    candidates: tuple[Subject, ...]
    count: int

    @property
    def key(self) -> tuple[str, float, Subject, str]:
        """What tells it from others, also after it was cut off."""
        q = self.question
        return q.metric, q.limit, self.suspect.subject, q.of[self.suspect.subject]

    def beside(self, turn: int, lost: Iterable[str] = ()) -> tuple[Subject, ...]:
        """The controls of a round, from 0: others each time. Empty where too few nodes are left to read."""
        gone = set(lost)
        left = [c for c in self.candidates if c.node not in gone]
        if len(left) < self.count:
            return ()
        return tuple(left[(turn * self.count + n) % len(left)] for n in range(self.count))

    def shift(self, values: Mapping[Subject, float], beside: Sequence[Subject]) -> float | None:
        """Of a round's readings, the suspect's against its controls; None where one of them is missing.

        What all GPUs of its node share is taken off, to a bound: it may be the node's place, and is not this GPU.
        """
        own = self.suspect.subject
        if any(s not in values for s in (own, *beside)):
            return None
        controls = [reading(s, values[s]) for s in beside]
        found = self.question.comparison.shift(reading(own, values[own]), controls)
        mates = [s for s in values if s.node == own.node and s != own and s not in beside and s.scope is own.scope]
        if own.gpu < 0 or len(mates) < FEWEST_MATES:
            return found
        shared = median(self.question.comparison.shift(reading(s, values[s]), controls) for s in mates)
        rule = self.question.comparison.rule
        excused = max(-rule.step(rule.position), shared) if shared < -rule.step(rule.tolerated) else 0.0
        return found - excused

    def progress(self, shifts: Iterable[float]) -> Progress:
        """Where it stands."""
        return decide(self.design, shifts)


def trials(asked: Question, free: Iterable[str], also: Iterable[Subject] = ()) -> list[Trial]:
    """A trial for every suspect on a node that may be loaded now; controls are on such nodes as well.

    also  who stands alike, and is to be read again all the same: it gets worse from one burn-in to the next
    """
    nodes, found, drifting = set(free), asked.comparison, set(also)
    tests = []
    for peer in (*found.suspects, *(p for p in found.peers if p.standing is First.ALIKE and p.subject in drifting)):
        candidates = _spread(c for c in found.controls(peer.subject) if c.node in nodes)[:CANDIDATES]
        count = min(CONTROLS, len(candidates))
        if peer.subject.node in nodes and count and found.noise is not None:
            tests.append(Trial(asked, peer, found.design(noise=found.noise.against(count)), candidates, count))
    return tests


def _spread(controls: Iterable[Subject]) -> tuple[Subject, ...]:
    """The best of each node, then the next best of each: what befalls a node befalls few of the controls."""
    taken: Counter[str] = Counter()
    turns: list[tuple[int, Subject]] = []
    for control in controls:
        turns.append((taken[control.node], control))
        taken[control.node] += 1
    return tuple(control for _, control in sorted(turns, key=lambda entry: entry[0]))


@dataclass(frozen=True, slots=True)
class Settled:
    """How a trial ended: `why` says what kept it from its end, where that was not the readings."""

    trial: Trial
    shifts: tuple[float, ...]
    why: str = ""


def standings(
    asked: Question, settled: Iterable[Settled], origin: str, drifts: Mapping[Subject, str] | None = None
) -> tuple[Compared, ...]:
    """Everybody's standing. A suspect without a trial is unsettled; nobody is passed over. `drifts`: words on whose
    history goes down.
    """
    by_suspect = {s.trial.suspect.subject: s for s in settled}
    peers = {p.subject: p for p in asked.comparison.peers}

    def one(subject: Subject) -> Compared:
        peer = peers.get(subject)
        standing, why = _standing(asked, peer, by_suspect.get(subject))
        shift = None if peer is None or peer.shift is None else _share(peer.shift)
        of = asked.of.get(subject, "")
        drift = (drifts or {}).get(subject, "")
        return Compared(asked.metric, subject, asked.limit, of, origin, standing, shift, why, drift)

    return tuple(one(s) for s in asked.planned)


def _standing(asked: Question, peer: Peer | None, settled: Settled | None) -> tuple[Standing, str]:
    if asked.too_few:
        few = f"{len(asked.planned)} of its kind were measured with it, itself included: fewer than {FEWEST_PEERS}"
        return Standing.TOO_FEW, f"{asked.metric} cannot be compared: {few}, of which two bad ones would outvote"
    if peer is None:
        return Standing.UNDECIDED, "it gave no number to compare"
    if peer.standing is First.UNDECIDED:
        return Standing.UNDECIDED, peer.why
    if peer.standing is First.ALIKE and settled is None:
        return Standing.ALIKE, peer.why
    if settled is None:
        return Standing.UNSETTLED, f"{peer.why}; a suspect, and it or its siblings were not free to be read again"
    return _of_trial(asked, peer, settled)


def _of_trial(asked: Question, peer: Peer, settled: Settled) -> tuple[Standing, str]:
    """In words that an operator acts on; the artifact has the test with all its numbers."""
    trial, shifts = settled.trial, settled.shifts
    at, design, centre = trial.progress(shifts), trial.design, asked.comparison.centre or math.nan
    first = (
        f"{peer.reading.value:g} against {centre:g}, the median of {len(asked.of)} ({_share(peer.shift or 0.0):+.1%})"
    )
    fresh = (
        f"{_share(median(shifts)):+.1%} in {len(shifts)} fresh readings beside {trial.count} of them" if shifts else ""
    )
    bounds = {Decision.WORSE: f"{design.worse_at:.1f} convicts", Decision.ALIKE: f"{design.alike_at:.1f} clears"}
    bound = bounds.get(at.decision, f"{design.worse_at:.1f} convicts, {design.alike_at:.1f} clears")
    ratio = f"log likelihood ratio {at.evidence:.1f}, where {bound}" if shifts else "not read again"
    standing = {Decision.WORSE: Standing.WORSE, Decision.ALIKE: Standing.CLEARED}.get(at.decision, Standing.UNSETTLED)
    return standing, "; ".join(words for words in (first, fresh, ratio, settled.why) if words)


def _share(shift: float) -> float:
    """A shift of logarithms as a share."""
    return math.expm1(shift)

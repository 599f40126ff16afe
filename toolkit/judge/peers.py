"""Compares siblings on one test: who stands apart from peers of the same SKU, by more than noise and position explain.

Location and spread are robust (median, MAD), so that the bad ones do not set the measure. What a position does to
everybody who holds it (a slot in every node, a height in every rack, warm inlet air) is taken off first, where it is
the same everywhere. Who is left far behind is a suspect, never a finding: `toolkit.judge.sequential` reads it again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from toolkit.judge.evidence import Subject
from toolkit.judge.sequential import NORMAL, Design, Noise, noise_of_peers, spread

FEWEST_PEERS = 5  # of four, two bad ones are as many as the good
FEWEST_PLACES = 4  # in which a position must do the same before it counts as the position's doing
LEAST_CELSIUS = 3.0  # between the cool and the warm third, for inlet air to be blamed for anything
_SWEEPS = 20
_SETTLED = 1e-9
_MOST_APART = 0.25  # where more than a quarter stands apart, the peers do not agree on what is normal


class Scale(StrEnum):
    """How values are compared."""

    RATIO = "ratio"  # rates: a part is so many percent slower, at any rate
    DIFFERENCE = "difference"  # temperatures: a part is so many degrees hotter


class Worse(StrEnum):
    """Which way is bad."""

    LOWER = "lower"
    HIGHER = "higher"


class Standing(StrEnum):
    """How a subject stands among its peers."""

    ALIKE = "alike"
    SUSPECT = "suspect"
    UNDECIDED = "undecided"  # too few peers, peers that do not agree, or no number


@dataclass(frozen=True, slots=True)
class Position:
    """Where a subject sits: level 3 of the factor `slot` at the place node7, level 12 of `height` at the place rack2.

    An effect belongs to a position only if it is there at most places; so a node's own slowness is never one.
    """

    factor: str
    level: str
    place: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a test gave for a subject; `inlet_celsius` is None where it was not measured."""

    subject: Subject
    value: float
    positions: tuple[Position, ...] = ()
    inlet_celsius: float | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What stands apart.

    effect      smallest shift worth a part: 0.03 is 3 % of a rate, or 3 units of a difference
    tolerated   shift that healthy parts may have
    position    shift that a position may cause: where too few places show it, the two above grow by it
    share       of healthy peers that noise may make suspects: what re-measuring costs
    """

    effect: float = 0.03
    tolerated: float = 0.01
    position: float = 0.03
    share: float = 0.05
    scale: Scale = Scale.RATIO
    worse: Worse = Worse.LOWER
    fewest: int = FEWEST_PEERS

    def __post_init__(self) -> None:
        most = 1.0 if self.scale is Scale.RATIO else math.inf
        sizes = 0 <= self.tolerated < self.effect and self.position >= 0 and self.effect + self.position < most
        if not (sizes and 0 < self.share < 0.5 and self.fewest >= 3):
            raise ValueError(f"no rule: {self}")

    def step(self, size: float) -> float:
        """A shift's size on the scale on which shifts add up."""
        if self.scale is Scale.DIFFERENCE:
            return size
        return -math.log1p(-size) if self.worse is Worse.LOWER else math.log1p(size)

    def text(self, shift: float) -> str:
        """A shift in words: with its sign as it is read on the instrument."""
        seen = shift if self.worse is Worse.LOWER else -shift
        return f"{math.expm1(seen):+.2%}" if self.scale is Scale.RATIO else f"{seen:+.3g}"


@dataclass(frozen=True, slots=True)
class Effect:
    """A shift that all at a position share, over so many places, and the error it is known with.

    It is shrunk by what its error may have made of it: an effect no larger than its error is none.
    """

    factor: str
    level: str
    shift: float
    places: int
    error: float


@dataclass(frozen=True, slots=True)
class Slope:
    """A shift for each degree of inlet air, seen between two temperatures; beyond them it excuses no more."""

    shift_per_celsius: float
    coolest: float
    warmest: float

    def shift(self, celsius: float, middle: float) -> float:
        """Of air that warm, against the middle."""
        return self.shift_per_celsius * (min(max(celsius, self.coolest), self.warmest) - middle)


@dataclass(frozen=True, slots=True)
class Peer:
    """A subject among its peers. `shift` is what is left after position, negative is worse; None without a number."""

    reading: Reading
    shift: float | None
    standing: Standing
    why: str

    @property
    def subject(self) -> Subject:
        """Who was read."""
        return self.reading.subject


@dataclass(frozen=True, slots=True)
class Comparison:
    """All peers, in the order of the readings, and what they were measured by.

    centre     median, in the value's unit
    noise      of one reading, differences between healthy parts included; None where nothing was compared
    least      shift from which on a subject is a suspect, negative; None likewise
    effects    of positions, and `slope` of inlet air, that were taken off
    confused   factors that too few places show to take them off: what they do looks like a part's doing
    """

    rule: Rule
    peers: tuple[Peer, ...]
    centre: float | None
    noise: Noise | None
    least: float | None
    effects: tuple[Effect, ...]
    slope: Slope | None
    confused: tuple[str, ...] = ()

    @property
    def suspects(self) -> tuple[Peer, ...]:
        """Those to measure again, worst first."""
        found = [(p.shift, n, p) for n, p in enumerate(self.peers) if p.standing is Standing.SUSPECT]
        return tuple(p for _, _, p in sorted(found, key=lambda entry: (entry[0] or 0.0, entry[1])))

    @property
    def notable(self) -> tuple[Effect, ...]:
        """Positions that cost everybody there as much as is worth a part: no part's fault, and still somebody's."""
        return tuple(e for e in self.effects if -e.shift >= self.rule.step(self.rule.effect))

    def controls(self, suspect: Subject) -> tuple[Subject, ...]:
        """Peers to read beside the suspect, best first: those that stand alike, in its positions, in air as warm.

        Take a few, and others of them each round: what is odd about a control is then odd once.
        """
        own = next(p.reading for p in self.peers if p.subject == suspect)
        levels = {(p.factor, p.level) for p in own.positions}

        def unlike(peer: Peer) -> tuple[int, float]:
            there = {(p.factor, p.level) for p in peer.reading.positions}
            known = own.inlet_celsius is not None and peer.reading.inlet_celsius is not None
            warm = abs((own.inlet_celsius or 0.0) - (peer.reading.inlet_celsius or 0.0)) if known else math.inf
            return len(levels - there), warm

        fine = [p for p in self.peers if p.standing is Standing.ALIKE and p.subject != suspect]
        return tuple(p.subject for p in sorted(fine, key=unlike))

    def design(self, alpha: float = 1e-4, beta: float = 1e-2, noise: Noise | None = None) -> Design:
        """The sequential test for a suspect. Noise is the peers', unless that of repeats is known."""
        known = noise or self.noise
        if known is None:
            raise ValueError("nothing was compared, so nobody is to be measured again")
        more = self.rule.position if self.confused else 0.0
        effect, tolerated = (self.rule.step(size + more) for size in (self.rule.effect, self.rule.tolerated))
        return Design(effect, known, tolerated, alpha, beta)

    def shift(self, reading: Reading, controls: Sequence[Reading]) -> float:
        """Of a fresh reading against controls of the same round, position taken off both: what `decide` takes."""
        if not controls:
            raise ValueError("a fresh reading is set against one control at least")
        own = self._placed(reading)
        return own - median([self._placed(c) for c in controls])

    def _placed(self, reading: Reading) -> float:
        scaled = _scaled(reading.value, self.rule)
        if scaled is None:
            raise ValueError(f"{reading.subject} read {reading.value}: no number that can be compared")
        known = {(e.factor, e.level): e.shift for e in self.effects}
        shift = scaled - math.fsum(known.get((p.factor, p.level), 0.0) for p in reading.positions)
        if self.slope is not None and reading.inlet_celsius is not None:
            shift -= self.slope.shift(reading.inlet_celsius, 0.0)
        return shift


def compare(readings: Sequence[Reading], rule: Rule | None = None) -> Comparison:
    """Every subject against all others. The order of the readings does not matter.

    Raises ValueError for a subject that was read twice: which reading counts is for the caller to say.
    """
    rule = rule or Rule()
    if len({r.subject for r in readings}) < len(readings):
        raise ValueError("a subject is there twice: one reading of each is compared")
    scaled = [_scaled(r.value, rule) for r in readings]
    kept = [n for n, value in enumerate(scaled) if value is not None]
    if len(kept) < rule.fewest:
        why = f"{len(kept)} peers gave a number, and fewer than {rule.fewest} cannot tell which of them is normal"
        peers = tuple(Peer(r, None, Standing.UNDECIDED, why) for r in readings)
        return Comparison(rule, peers, None, None, None, (), None)
    values = {n: value for n in kept if (value := scaled[n]) is not None}
    middle = median(values.values())
    left = {n: value - middle for n, value in values.items()}
    fit = _Fit.of(readings, left)
    noise = noise_of_peers(list(left.values()), min(len(fit.effects) + (fit.slope is not None), len(left) - 2))
    more = rule.position if fit.confused else 0.0
    between = (rule.step(rule.effect + more) + rule.step(rule.tolerated + more)) / 2
    least = -max(between, NORMAL.inv_cdf(1 - rule.share) * noise.sigma)
    centre = math.exp(middle) if rule.scale is Scale.RATIO else middle * (1 if rule.worse is Worse.LOWER else -1)
    judged = _Judged(rule, centre, noise, between, least, fit)
    agree = sum(shift <= least for shift in left.values()) <= _MOST_APART * len(left)
    peers = tuple(judged.peer(r, left.get(n), agree) for n, r in enumerate(readings))
    return Comparison(rule, peers, centre, noise, least, tuple(fit.effects.values()), fit.slope, fit.confused)


def _scaled(value: float, rule: Rule) -> float | None:
    """On the scale on which shifts add up, and so that less is worse; None for what is no number there."""
    if not math.isfinite(value) or (rule.scale is Scale.RATIO and value <= 0):
        return None
    scaled = math.log(value) if rule.scale is Scale.RATIO else value
    return scaled if rule.worse is Worse.LOWER else -scaled


@dataclass(slots=True)
class _Fit:
    """Effects of position, fitted by sweeps of medians (Tukey's median polish, for any number of factors)."""

    readings: Sequence[Reading]
    left: dict[int, float]
    effects: dict[tuple[str, str], Effect]
    slope: Slope | None = None
    warm: float = 0.0  # inlet air's middle
    confused: tuple[str, ...] = ()

    @classmethod
    def of(cls, readings: Sequence[Reading], left: dict[int, float]) -> _Fit:
        """Fits, and takes what was fitted off `left`."""
        fit = cls(readings, left, {})
        levels = fit._levels()
        few = {factor for (factor, _), places in levels.items() if len(places) < FEWEST_PLACES}
        fit.confused = tuple(sorted(few))
        for _ in range(_SWEEPS):
            moved = max((fit._sweep(key, members) for key, members in levels.items()), default=0.0)
            moved = max(moved, fit._incline())
            fit._centre()
            if moved < _SETTLED:
                break
        return fit

    def _levels(self) -> Mapping[tuple[str, str], Mapping[str, Sequence[int]]]:
        """By factor and level: the readings, by place."""
        levels: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for n in self.left:
            for p in self.readings[n].positions:
                levels[p.factor, p.level][p.place].append(n)
        return {key: levels[key] for key in sorted(levels)}

    def _sweep(self, key: tuple[str, str], places: Mapping[str, Sequence[int]]) -> float:
        """Takes the level's effect off anew; how far it moved."""
        before = self.effects[key].shift if key in self.effects else 0.0
        found = _consistent([median([self.left[n] for n in members]) + before for members in places.values()])
        shift = found[0] if found else 0.0
        for members in places.values():
            for n in members:
                self.left[n] += before - shift
        self.effects.pop(key, None)
        if found:
            self.effects[key] = Effect(*key, shift, len(places), found[1])
        return abs(shift - before)

    def _incline(self) -> float:
        """Takes inlet air's effect off anew; how far it moved, over the range seen."""
        known = [(c, n) for n in self.left if (c := self.readings[n].inlet_celsius) is not None and math.isfinite(c)]
        if len(known) < len(self.left) or len(known) < 3 * FEWEST_PLACES:
            return 0.0  # where some were not measured, nobody is excused
        self.warm = median([celsius for celsius, _ in known])
        before = self.slope
        if before is not None:
            for celsius, n in known:
                self.left[n] += before.shift(celsius, self.warm)
        self.slope = _resistant([(celsius, self.left[n]) for celsius, n in known])
        if self.slope is not None:
            for celsius, n in known:
                self.left[n] -= self.slope.shift(celsius, self.warm)
        reach = max(known)[0] - min(known)[0]
        old, new = (s.shift_per_celsius if s else 0.0 for s in (before, self.slope))
        return abs(new - old) * reach

    def _centre(self) -> None:
        middle = median(self.left.values())
        for n in self.left:
            self.left[n] -= middle


def _consistent(shifts: Sequence[float]) -> tuple[float, float] | None:
    """(shift, standard error) of a level by its places' median; None where there are too few to say, or no effect."""
    if len(shifts) < FEWEST_PLACES:
        return None
    shift = median(shifts)
    error = math.sqrt(math.pi / 2 / len(shifts)) * spread(shifts)
    shrunk = _shrunk(shift, error)
    return (shrunk, error) if shrunk else None


def _shrunk(shift: float, error: float) -> float:
    """Less by what noise is expected to have added (the positive part of James and Stein's estimate)."""
    return shift * max(0.0, 1 - (error / shift) ** 2) if shift else 0.0


def _resistant(points: Sequence[tuple[float, float]]) -> Slope | None:
    """Tukey's resistant line through the medians of the outer thirds; None where they hardly differ."""
    third = len(points) // 3
    ordered = sorted(c for c, _ in points)
    cool = [(c, y) for c, y in points if c <= ordered[third - 1]]
    warm = [(c, y) for c, y in points if c >= ordered[-third]]
    low, high = (median([c for c, _ in part]) for part in (cool, warm))
    if high - low < LEAST_CELSIUS:
        return None
    seen = median([y for _, y in warm]) - median([y for _, y in cool])
    error = math.sqrt(math.pi / 2 * sum(spread([y for _, y in part]) ** 2 / len(part) for part in (cool, warm)))
    rise = _shrunk(seen, error)
    return Slope(rise / (high - low), low, high) if rise else None


@dataclass(frozen=True, slots=True)
class _Judged:
    """Puts a subject's standing into words."""

    rule: Rule
    centre: float
    noise: Noise
    between: float
    least: float
    fit: _Fit

    def peer(self, reading: Reading, shift: float | None, agree: bool) -> Peer:
        if shift is None:
            why = f"{reading.value} is no number that can be compared"
            return Peer(reading, None, Standing.UNDECIDED, why)
        apart = shift <= self.least
        standing = Standing.SUSPECT if apart else Standing.ALIKE
        why = self._why(reading, shift)
        if not agree:
            standing = Standing.UNDECIDED
            why += f"; more than {_MOST_APART:.0%} of the peers stand apart, so none of them says what is normal"
        return Peer(reading, shift, standing, why)

    def _why(self, reading: Reading, shift: float) -> str:
        taken = [
            f"{e.factor} {e.level} is {self.rule.text(e.shift)} at {e.places} places"
            for p in reading.positions
            if (e := self.fit.effects.get((p.factor, p.level)))
        ]
        if self.fit.slope is not None and reading.inlet_celsius is not None:
            warm = self.fit.slope.shift(reading.inlet_celsius, self.fit.warm)
            taken.append(f"inlet air of {reading.inlet_celsius:g} C is {self.rule.text(warm)}")
        text, z = self.rule.text, NORMAL.inv_cdf(1 - self.rule.share)
        return (
            f"{reading.value:g} against {self.centre:g}, the median of {len(self.fit.left)}"
            + (f"; {', '.join(taken)}" if taken else "")
            + (f"; what {' and '.join(self.fit.confused)} does could not be told apart" if self.fit.confused else "")
            + f"; what is left is {text(shift)}, a suspect from {text(self.least)} on: the greater of"
            f" {text(-self.between)} and {z:.2f} x {text(-self.noise.sigma)}"
        )

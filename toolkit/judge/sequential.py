"""Is a suspect really worse, or was it unlucky once? Wald's sequential probability ratio test on fresh readings.

Readings are shifts: what is left of a reading after what its peers gave is taken off, negative is worse, in the peers'
scale (natural logarithm of the ratio, or units). The reading that raised the suspicion is never among them: it was
chosen for being low. Healthy parts differ too: up to `tolerated` a part counts as like its peers, from `effect` on as
worse, and in between it may be called either way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist, median

NORMAL = NormalDist()
MAD_TO_SIGMA = 1 / NORMAL.inv_cdf(0.75)  # 1.4826
# Mean of 1.4826 MAD of 2 to 9 normal values, its inverse (Croux and Rousseeuw 1992, COMPSTAT 1, 411).
_FEW = (1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)
_MAD_EFFICIENCY = 0.37  # a MAD of n values knows sigma as well as a standard deviation of 0.37 n
_MEDIAN_VARIANCE = math.pi / 2  # of a median, against a mean's
_CONFIDENCE = 0.8  # sigma is taken at its upper bound of this confidence: few peers know it badly
_OVERSHOOT = 0.583  # standard deviations of a step, by which a sum of them is past its bound (Siegmund 1985)
_LEAST_SIGMA = 1 / 20  # of the effect: no reading repeats better than that


def spread(values: Sequence[float]) -> float:
    """Robust standard deviation: MAD, made unbiased for normal values. 0 where more than half are equal, or one."""
    count = len(values)
    if count < 2:
        return 0.0
    centre = median(values)
    few = _FEW[count - 2] if count < 2 + len(_FEW) else count / (count - 0.8)
    return few * MAD_TO_SIGMA * median([abs(v - centre) for v in values])


@dataclass(frozen=True, slots=True)
class Noise:
    """How far one reading of a healthy part is from another.

    sigma     standard deviation, in the peers' scale
    degrees   how well it is known, in degrees of freedom
    """

    sigma: float
    degrees: float

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and math.isfinite(self.sigma) and self.degrees > 0):
            raise ValueError(f"no noise: sigma {self.sigma}, {self.degrees} degrees of freedom")

    @property
    def cautious(self) -> float:
        """Sigma's upper bound, by Wilson and Hilferty's chi-square."""
        ninth = 2 / (9 * self.degrees)
        quantile = max(0.05, 1 - ninth + NORMAL.inv_cdf(1 - _CONFIDENCE) * math.sqrt(ninth)) ** 3
        return self.sigma / math.sqrt(quantile)

    def against(self, controls: int) -> Noise:
        """Of a reading less the median of `controls` peers read in the same round: what slows all is taken off."""
        if controls < 1:
            raise ValueError("a reading is set against one control at least")
        more = 1.0 if controls < 3 else _MEDIAN_VARIANCE  # the median of one or two is their mean
        return Noise(self.sigma * math.sqrt(1 + more / controls), self.degrees)


def noise_of_peers(shifts: Sequence[float], fitted: int = 0) -> Noise:
    """Of one reading of each peer, differences between healthy parts included: an upper bound of what repeats do.

    `fitted` counts the effects that were taken off with the same readings.
    """
    free = len(shifts) - fitted
    if free < 2:
        raise ValueError(f"{len(shifts)} readings with {fitted} effects taken off say nothing of noise")
    return Noise(spread(shifts) * math.sqrt(len(shifts) / free), _MAD_EFFICIENCY * free)


def noise_of_repeats(repeats: Iterable[Sequence[float]]) -> Noise:
    """Of parts that were read more than once, each against its own mean: what differs between parts is left out."""
    scaled: list[float] = []
    degrees = 0
    for values in repeats:
        if len(values) > 1:
            centre = math.fsum(values) / len(values)
            scaled += [(v - centre) * math.sqrt(len(values) / (len(values) - 1)) for v in values]
            degrees += len(values) - 1
    if degrees < 2:
        raise ValueError("no part was read twice: nothing is known of repeats")
    return Noise(MAD_TO_SIGMA * median([abs(v) for v in scaled]), _MAD_EFFICIENCY * degrees)


class Decision(StrEnum):
    """What the readings come to."""

    WORSE = "worse"
    ALIKE = "alike"
    AGAIN = "measure again"
    UNSETTLED = "unsettled"  # as many readings as were planned, and neither


@dataclass(frozen=True, slots=True)
class Design:
    """A test, stated before the first reading.

    effect      smallest shift worth a part, positive
    noise       of one reading
    tolerated   shift that healthy parts may have
    alpha       chance that a part within what is tolerated is called worse: at most alpha / (1 - beta), by Ville's
                inequality
    beta        chance that a part worse by the effect is let go, about
    most        readings after which it stays unsettled
    """

    effect: float
    noise: Noise
    tolerated: float = 0.0
    alpha: float = 1e-4
    beta: float = 1e-2
    most: int = 24

    def __post_init__(self) -> None:
        if not (0 <= self.tolerated < self.effect and 0 < self.alpha < 0.5 and 0 < self.beta < 0.5 and self.most >= 2):
            raise ValueError(f"no test: {self}")

    @property
    def sigma(self) -> float:
        """Noise as it is reckoned with."""
        return max(self.noise.cautious, _LEAST_SIGMA * self.effect)

    @property
    def apart(self) -> float:
        """Between what is tolerated and what is worth a part."""
        return self.effect - self.tolerated

    @property
    def worse_at(self) -> float:
        """Log likelihood ratio from which the part is worse."""
        return math.log((1 - self.beta) / self.alpha)

    @property
    def alike_at(self) -> float:
        """Log likelihood ratio down to which the part is like its peers."""
        return math.log(self.beta / (1 - self.alpha))

    def weight(self, shift: float) -> float:
        """Log likelihood ratio of one reading. It never convicts alone: something else may have disturbed it."""
        ratio = -self.apart * (shift + (self.effect + self.tolerated) / 2) / self.sigma**2
        return min(ratio, self.worse_at / 2)

    def expected_readings(self, worse: bool) -> float:
        """Wald's average, of a part worse by the effect or just tolerated, with Siegmund's mean overshoot."""
        drift = self.apart**2 / (2 * self.sigma**2)
        over = _OVERSHOOT * self.apart / self.sigma
        a, b = self.worse_at + over, self.alike_at - over
        if worse:
            return max(2.0, ((1 - self.beta) * a + self.beta * b) / drift)
        return max(1.0, -(self.alpha * a + (1 - self.alpha) * b) / drift)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a test stands. `evidence` is the log likelihood ratio, worse over alike, after `readings` of them."""

    decision: Decision
    readings: int
    evidence: float
    why: str


def decide(design: Design, shifts: Iterable[float]) -> Progress:
    """The decision at the first reading that makes one; readings after it change nothing.

    Raises ValueError for a shift that is no number: a reading that failed is not a reading.
    """
    evidence, read = 0.0, 0
    decision = Decision.AGAIN
    for shift in shifts:
        if not math.isfinite(shift):
            raise ValueError(f"reading {read + 1} is {shift}: leave out what gave no number")
        evidence += design.weight(shift)
        read += 1
        if evidence >= design.worse_at:
            decision = Decision.WORSE
        elif evidence <= design.alike_at:
            decision = Decision.ALIKE
        elif read >= design.most:
            decision = Decision.UNSETTLED
        if decision is not Decision.AGAIN:
            break
    return Progress(decision, read, evidence, _why(design, decision, read, evidence))


def _why(design: Design, decision: Decision, read: int, evidence: float) -> str:
    if_worse, if_alike = design.expected_readings(worse=True), design.expected_readings(worse=False)
    noise = design.noise
    return (
        f"{decision} after {read} fresh readings: log likelihood ratio {evidence:.2f}, worse from"
        f" {design.worse_at:.2f} on, alike from {design.alike_at:.2f} down (effect {design.effect:.3g}, tolerated"
        f" {design.tolerated:.3g}, sigma {design.sigma:.3g} taken cautiously from {noise.sigma:.3g} with"
        f" {noise.degrees:.0f} degrees of freedom, alpha {design.alpha:g}, beta {design.beta:g}; about {if_worse:.0f}"
        f" readings if worse, {if_alike:.0f} if alike, {design.most} at most)"
    )

"""What a test said, and how likely each fault would have made it say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.locate.fabric import Test
from toolkit.judge.locate.parts import Part


class Outcome(StrEnum):
    """How a test ended. Errors of ours (unreachable host, bad launch) are not observations: leave them out.

    HANG is also what ends by a transport's own retries: nothing arrived. OFF_PATH: it took another way than its
    plane's, or none that was proven; whatever it measured is no measure of the parts it was meant for.
    """

    COMPLETED = "completed"
    OFF_PATH = "off_path"
    HANG = "hang"
    DATA_ERROR = "data_error"


@dataclass(frozen=True, slots=True)
class Counter:
    """Errors a part counted during the test.

    `originator` is False for a part that only passes on what another began (Xid 145 against 149): it convicts nobody.
    """

    part: Part
    errors: int
    originator: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """A test and what it said.

    ratio          bandwidth against what healthy hardware gives for this group; None unless it completed
    counters       of parts that counted errors; `counters_read` says that all on the path were read
    """

    test: Test
    outcome: Outcome
    ratio: float | None = None
    counters: tuple[Counter, ...] = ()
    counters_read: bool = False


# Modes, in order of dominance: of two faults on one path a test shows the later one.
HEALTHY = 0
ERRORS = 1  # counts errors, costs no bandwidth one could see
INTERMITTENT = 2  # comes and goes: slow or hung in some tests, well in the others
LEVELS = (17 / 18, 0.90, 0.83, 0.75, 0.65, 0.5, 0.35, 0.2, 0.07)  # share of the bandwidth that is left
# Half the way to the next level: what a level between two of them may be off.
_WIDTHS = (0.006, 0.02, 0.025, 0.03, 0.04, 0.05, 0.05, 0.05, 0.03)
FIRST_LEVEL = 3
CORRUPT = FIRST_LEVEL + len(LEVELS)
HANG = CORRUPT + 1
MODES = HANG + 1

# Published repeats of one collective on healthy hardware: 811 to 838 GB/s (GB200) and 923 to 932 (GB300), NVCRE
# validation docs. Half the wider range, taken as one standard deviation, and rounded up.
SPREAD = 0.017
_HEALTHY_CENTRE = 0.995  # a group runs at the pace of its slowest healthy member
_MOST = 1.04  # a reading above this says that the expectation is wrong, not that the part is better than good
# A test disturbed by something else may read anything. Our judgement: one in 500.
DISTURBED = 0.002
_SPREADS = tuple(math.hypot(SPREAD * level, width) for level, width in zip(LEVELS, _WIDTHS, strict=True))
_STRAY_HANG = 2e-4  # a hang for reasons outside the hardware
_STRAY_DATA_ERROR = 1e-6
_HANGS = 0.9  # a part that hangs does so in nine tests of ten
_CORRUPTS = 0.75  # one that corrupts does so in three of four: a clean test acquits it less
_FLAPS = 0.4  # one that comes and goes shows in this share of tests, our judgement, anywhere between nothing and all
_FLAP_HANGS = 0.2  # and hangs some of these
COUNTER_SHOWS = 0.7  # a bad part's counters move
COUNTER_STRAY = 2e-4  # a good part's do


def log_likelihood(observation: Observation) -> tuple[float, ...]:
    """Of the observation, for every mode of the worst segment on its path. Natural logarithms."""
    if observation.outcome is Outcome.OFF_PATH:
        return (0.0,) * MODES
    if observation.outcome is Outcome.HANG:
        stray = math.log(_STRAY_HANG)
        return (stray, stray, math.log(_FLAPS * _FLAP_HANGS), *[stray] * (HANG - FIRST_LEVEL), math.log(_HANGS))
    if observation.outcome is Outcome.DATA_ERROR:
        return (*[math.log(_STRAY_DATA_ERROR)] * CORRUPT, math.log(_CORRUPTS), math.log(_STRAY_DATA_ERROR))
    ratio = observation.ratio
    if ratio is None or not math.isfinite(ratio):
        return (0.0,) * MODES  # completed without a number: it says nothing
    ratio = min(ratio, _MOST)
    healthy = _log_density(ratio, _HEALTHY_CENTRE, SPREAD)
    quiet = math.log(1 - COUNTER_SHOWS) if observation.counters_read else 0.0
    slow = [_log_density(ratio, level, spread) for level, spread in zip(LEVELS, _SPREADS, strict=True)]
    flaps = math.log((1 - _FLAPS) * math.exp(healthy) + _FLAPS * (1 - _FLAP_HANGS))
    return (healthy, healthy + quiet, flaps, *slow, healthy + math.log(1 - _CORRUPTS), healthy + math.log(1 - _HANGS))


def is_low(likelihood: tuple[float, ...]) -> bool:
    """Whether some fault explains the observation clearly better than health (odds of seven to one)."""
    return max(likelihood[INTERMITTENT:]) > likelihood[HEALTHY] + 2.0


def _log_density(ratio: float, centre: float, spread: float) -> float:
    normal = math.exp(-0.5 * ((ratio - centre) / spread) ** 2) / (spread * math.sqrt(2 * math.pi))
    return math.log((1 - DISTURBED) * normal + DISTURBED)

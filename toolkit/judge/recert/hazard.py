"""How likely a part of a node is failing unseen: published rates, corrected by what the node itself has done.

A fault that a test can find is one that is there before it stops a job: a gray fault. Faults of a cause begin at a
rate; a share of them begins gray and stays so for a while, until it stops a job. What begins and stops the job at once
no test finds beforehand, and none is credited with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Cause(StrEnum):
    """Causes of unexpected interruptions, as the published table has them, those of hardware that a test can reach."""

    GPU = "gpu"  # faulty GPU, NVLink among it
    HBM = "hbm"
    SRAM = "sram"
    GPU_PROCESSOR = "gpu_processor"
    NETWORK = "network"  # switch, cable, NIC
    DATA_CORRUPTION = "data_corruption"
    THERMAL = "thermal"
    HOST = "host"  # CPU, memory, disk, power supply, chassis


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a cause before a node is known.

    per_gpu_hour  interruptions that it causes, per GPU and hour in service
    gray          share of them that a gray fault precedes, 0..1
    gray_hours    mean time from the beginning of a gray fault to the interruption, in hours
    shape         of the gamma distribution of rates among nodes: 1 is exponential, smaller has more lemons
    source        of the rate; the other three are assumptions where it does not say
    """

    cause: Cause
    per_gpu_hour: float
    gray: float
    gray_hours: float
    shape: float
    source: str


@dataclass(frozen=True, slots=True)
class History:
    """What a node has done. `hours`: in service; `faults`: how often each cause stopped a job, or a test found it."""

    hours: float = 0.0
    faults: Mapping[Cause, int] = field(default_factory=dict)


def rate_per_hour(prior: Prior, gpus: int, history: History) -> float:
    """The node's rate of faults of this cause: the mean of the gamma posterior (conjugate to Poisson counts)."""
    expected = prior.per_gpu_hour * gpus
    if expected <= 0:
        return 0.0
    weight_hours = prior.shape / expected
    return (prior.shape + history.faults.get(prior.cause, 0)) / (weight_hours + history.hours)


def gray_now(prior: Prior, rate: float, passed: Iterable[tuple[float, float]], service_hours: float) -> float:
    """Chance that a gray fault is there, after trials that passed: (hours ago, power) of each.

    Gray faults begin at `rate * gray` and end, in an interruption, after `gray_hours` on the mean: of those that began
    within the last t hours, rate * gray * gray_hours * (1 - exp(-t / gray_hours)) are there on the mean. What began
    before a trial passed is there only as far as the trial would have missed it. At rates where two at once matter
    nobody trains on the node; the chance is bounded by one all the same.
    """
    unseen, younger, there = 1.0, 0.0, 0.0
    for hours, power in [*sorted(passed), (service_hours, 1.0)]:
        if hours < 0:
            raise ValueError(f"evidence from the future: {hours} h")
        older = -math.expm1(-max(hours, 0.0) / prior.gray_hours)
        there += unseen * max(0.0, older - younger)
        unseen, younger = unseen * (1 - power), max(younger, older)
    return -math.expm1(-rate * prior.gray * prior.gray_hours * there)

"""The capacity floor: how many nodes must go on running jobs, whatever is wrong with the others. Pure.

What is decided here is only whether *running* jobs are evicted now. That a node takes no new ones (taint, cordon) is
never put off: neither for a certificate that ended nor for an operator's drain. A job that runs on a node whose
certificate ended has run there until now; evicting a whole pool's jobs at once is the greater damage, and an operator
who knows better says so by typing it (`--force`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """A pool's nodes that were let in once.

    admitted  take jobs now
    draining  take no more, and still run some
    out       take no more and run none: drained, lost, in repair
    """

    admitted: int
    draining: int
    out: int

    @property
    def whole(self) -> int:
        """What the pool is when nothing is wrong with it."""
        return self.admitted + self.draining + self.out

    @property
    def running(self) -> int:
        """Nodes that jobs run on."""
        return self.admitted + self.draining


@dataclass(frozen=True, slots=True)
class FloorAnswer:
    """How many of the nodes asked for may have their jobs evicted now, and why not more."""

    may: int
    reason: str = ""


def may_evict(capacity: Capacity, asked: int, floor: float) -> FloorAnswer:
    """At most so many that the nodes with jobs stay at `floor` (share, 0..1) of the whole pool, rounded up."""
    least = math.ceil(capacity.whole * floor - 1e-9)  # 0.7 * 10 is 7.000000000000001
    spare = max(0, capacity.running - least)
    if asked <= spare:
        return FloorAnswer(asked)
    return FloorAnswer(
        spare,
        f"the pool keeps {least} of {capacity.whole} nodes running jobs (floor {floor:.0%}); {capacity.running} do",
    )

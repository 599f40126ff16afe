"""all_reduce alone, by the name the suites know it under; `burnin.nccl.collective` is what runs it."""

from __future__ import annotations

from dataclasses import dataclass

from burnin.nccl.collective import GIB, MIB, Collective, Kind

__all__ = ["MIB", "AllReduce"]


@dataclass(frozen=True)
class AllReduce(Collective):
    """The collective most gates are written for."""

    kind: Kind = Kind.ALL_REDUCE
    deadline_s: float = 90
    smallest: int = 8 * MIB
    largest: int = 8 * GIB

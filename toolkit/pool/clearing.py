"""Takes the running jobs off nodes that take no more, as many nodes as the capacity floor allows now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from toolkit.errors import RackproofError
from toolkit.pool.floor import Capacity, may_evict
from toolkit.pool.model import Drained, DrainEnd, Pool

_AT_ONCE = 64


@runtime_checkable
class Counting(Protocol):
    """A pool that can tell which of its nodes run jobs though they take no more."""

    def capacity(self) -> Capacity:
        """Its nodes that were let in once."""
        ...

    def running(self, nodes: Collection[str]) -> frozenset[str]:
        """Which of these have jobs that a drain would have to move."""
        ...


@dataclass(frozen=True, slots=True)
class Cleared:
    """What became of a node's jobs. `drained` is None where they were left: `trouble` says why.

    by_floor  whether it is the capacity floor alone that they were left for
    """

    drained: Drained | None = None
    trouble: str = ""
    by_floor: bool = False


def clear(pool: Pool, nodes: Sequence[str], reason: str, floor: float, deadline_s: float) -> Mapping[str, Cleared]:
    """Drains nodes that are shut, side by side, until each one's deadline. Nodes that run nothing are done as they are.

    floor  share of the pool that goes on running jobs; 0: nothing holds them
    """
    if not nodes:
        return {}
    busy = pool.running(nodes) if isinstance(pool, Counting) else frozenset(nodes)
    waiting = [node for node in nodes if node in busy]
    answer = may_evict(capacity_of(pool, waiting), len(waiting), floor) if waiting else None
    may = answer.may if answer else 0

    def one(node: str) -> Cleared:
        try:
            return Cleared(pool.drain(node, reason, deadline_s))
        except RackproofError as failure:
            return Cleared(trouble=f"shut, but not drained: {failure.message}")

    with ThreadPoolExecutor(max(1, min(may, _AT_ONCE)), thread_name_prefix="drain") as threads:
        done = dict(zip(waiting[:may], threads.map(one, waiting[:may]), strict=True))
    left = Cleared(trouble=f"shut; its jobs go on: {answer.reason}" if answer else "", by_floor=True)
    idle = {node: Cleared(Drained(node, DrainEnd.EMPTY)) for node in nodes if node not in busy}
    return done | dict.fromkeys(waiting[may:], left) | idle


def capacity_of(pool: Pool, draining: Sequence[str]) -> Capacity:
    """As the pool counts; for one that does not, its admitted nodes and those that were shut just now."""
    if isinstance(pool, Counting):
        return pool.capacity()
    admitted = sum(1 for node in pool.nodes().values() if node.admitted)
    return Capacity(admitted, len(draining), 0)

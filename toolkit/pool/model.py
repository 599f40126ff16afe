"""The pool as the stages see it. Kubernetes, Slurm and a file are pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from toolkit.errors import RackproofError


@dataclass(frozen=True, slots=True)
class PoolNode:
    """A member of the pool.

    admitted     True if it takes training jobs; otherwise it is tainted
    certificate  sha256 of the certificate that admitted it; empty if it is not admitted
    expires      when that certificate does; None if it is not admitted
    reason       why it is where it is, for an operator
    labels       what the scheduler places by: NVLink domain, rail, leaf, ...
    """

    admitted: bool
    certificate: str = ""
    expires: datetime | None = None
    reason: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


# Codes of signs that every pool can give, and that the regulator knows.
NODE_GONE = "NODE_GONE"  # it is no member any more
NODE_SHUT = "NODE_SHUT"  # it is a member that takes no jobs, whoever saw to that


@dataclass(frozen=True, slots=True)
class Sign:
    """Something bad that the pool says of a member: a condition, failing pods, a drain reason, a node that is gone.

    code    upper case, stable: `NODE_NOT_READY`, `CONDITION_GPU_XID`, `PODS_FAIL`, ...
    source  who said it, as it stands there: `condition GpuXidError`, `pod train-3`
    """

    node: str
    code: str
    detail: str
    source: str
    at: datetime | None = None


class DrainEnd(StrEnum):
    """How a drain ended."""

    EMPTY = "EMPTY"  # no job runs there any more
    BLOCKED = "BLOCKED"  # a disruption budget, or a job that may not be moved, held out until the deadline
    UNDECIDED = "UNDECIDED"  # the pool did not say


@dataclass(frozen=True, slots=True)
class Drained:
    """What became of a drain. `left`: what still runs there; `why`: who holds it."""

    node: str
    end: DrainEnd
    left: tuple[str, ...] = ()
    why: str = ""


class SmokeEnd(StrEnum):
    """What a small collective over nodes just admitted came to."""

    PASSED = "PASSED"
    FAILED = "FAILED"  # it ran, and its data were wrong, or a rank died
    UNDECIDED = "UNDECIDED"  # it did not run, or nobody saw its end
    NOT_ASKED = "NOT_ASKED"  # this pool, or its policy, has none


@dataclass(frozen=True, slots=True)
class Smoked:
    """A smoke collective's end. `output`: sha256 of its output in the artifact store; empty where there is none."""

    end: SmokeEnd
    detail: str = ""
    output: str = ""

    @property
    def words(self) -> str:
        """For whoever reads what a wave came to: that there was none is said, and why."""
        what = "no smoke collective" if self.end is SmokeEnd.NOT_ASKED else f"smoke collective {self.end.lower()}"
        return f"{what}: {self.detail or 'nobody said why'}"


class Pool(Protocol):
    """Where training jobs are placed. Safe to repeat. Every method raises UndecidedError if it does not answer."""

    def nodes(self) -> Mapping[str, PoolNode]:
        """Every member by name."""
        ...

    def register(self, node: str, reason: str, labels: Mapping[str, str] | None = None) -> None:
        """Makes the node a member that takes no jobs; one that was admitted no longer is.

        In a pool that nodes join by themselves it waits for nothing: UndecidedError while the node is not there.
        """
        ...

    def admit(self, node: str, certificate: str, expires: datetime, labels: Mapping[str, str]) -> None:
        """Lets a member take jobs. Call only on an allowed `Admission`. Raises UndecidedError for a stranger."""
        ...

    def evict(self, node: str, reason: str) -> None:
        """Lets a member take no more jobs, at once; those that run are for `drain`. Nothing to do for a stranger."""
        ...

    def evict_all(self, reasons: Mapping[str, str]) -> Mapping[str, RackproofError]:
        """`evict` of many, each for its reason: before anything else is written of one of them, all take no more jobs.

        Answers those that may still take jobs, each with what stood in the way; raises nothing of the pool's.
        """
        ...

    def drain(self, node: str, reason: str, deadline_s: float) -> Drained:
        """Takes jobs off a member that takes no more, with their disruption budgets, until the deadline."""
        ...

    def signs(self, nodes: Sequence[str], since: datetime) -> tuple[Sign, ...]:
        """What is bad about these members now, or went bad since; a member that is gone is a sign."""
        ...

    def smoke(self, nodes: Sequence[str], deadline_s: float) -> Smoked:
        """A small collective over these members, each admitted, run as an ordinary job."""
        ...

    def wanted(self, node: str) -> str | None:
        """Who has a use for a member now, in words: a job that is there, or one that waits and would fit. None: nobody.

        Of a member that takes no jobs it is asked as if it did; what runs there of ours is no use. UndecidedError too
        where the pool cannot tell: that is not idle.
        """
        ...

    def leading(self, holder: str) -> AbstractContextManager[None]:
        """One regulator at a time: BusyError, naming the holder, where another one leads. Renewed while it is held."""
        ...

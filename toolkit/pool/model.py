"""The pool as the stages see it. Kubernetes, Slurm and a file are pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


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


class Pool(Protocol):
    """Where training jobs are placed. Safe to repeat. Every method raises UndecidedError if it does not answer."""

    def nodes(self) -> Mapping[str, PoolNode]:
        """Every member by name."""
        ...

    def register(self, node: str, reason: str) -> None:
        """Makes the node a member that takes no jobs; one that was admitted no longer is."""
        ...

    def admit(self, node: str, certificate: str, expires: datetime, labels: Mapping[str, str]) -> None:
        """Lets a member take jobs. Call only on an allowed `Admission`. Raises UndecidedError for a stranger."""
        ...

    def evict(self, node: str, reason: str) -> None:
        """Lets a member take no more jobs; nothing to do for a stranger."""
        ...

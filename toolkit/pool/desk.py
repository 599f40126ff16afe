"""Who asks for admission, as the regulator sees it: what lets a node in, and where its result goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from toolkit.ledger import Ledger
from toolkit.pool.model import Pool, Smoked
from toolkit.pool.policy import Regulation

VOID = "CERTIFICATE_REFUSED"  # code of a node whose certificate no longer lets it in


@dataclass(frozen=True, slots=True)
class Entry:
    """What a node is let in by: its certificate, verified this moment against what the node is."""

    certificate: str
    expires: datetime
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class KeptOut:
    """Why a node is not admitted. `lapsed`: its certificate no longer holds."""

    code: str
    message: str
    next: str
    lapsed: bool = False


class Desk(Protocol):
    """Who asks for admission: knows certificates, and takes down each node's result. Called from many threads."""

    def entry(self, node: str) -> Entry | None:
        """By what the node is let in; None where it stays out and its result is taken down. May raise, for `each`."""
        ...

    def each(self, nodes: Sequence[str], do: Callable[[str], None]) -> None:
        """Calls `do` for the nodes side by side. What it raises is that node's result."""
        ...

    def void(self, entries: Mapping[str, Entry]) -> Mapping[str, str]:
        """By node, why its entry no longer holds: revoked or expired meanwhile."""
        ...

    def admitted(self, node: str, entry: Entry, smoked: Smoked) -> None:
        """The node's wave counts. `smoked`: what its smoke collective came to, or that it had none."""
        ...

    def kept_out(self, node: str, why: KeptOut) -> None:
        """The node is not in the pool, or could not be taken out of it, as `why` says."""
        ...

    def tell(self, node: str, text: str, done: float | None = None) -> None:
        """For an operator who watches."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """What the regulator works on and with. `holder` names this process to other regulators."""

    rack: str
    pool: Pool
    regulation: Regulation
    ledger: Ledger
    holder: str
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]

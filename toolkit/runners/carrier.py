"""What takes a burn-in to a node and brings back what it wrote: systemd over SSH, a Kubernetes Job, a Slurm job.

A carrier decides nothing about hardware. It starts the node's program, says whether it may still write, and hands back
the bytes of its files; the stages parse and judge them, the same ones whoever brought them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.rack.model import Unit

RECORDS = "records.jsonl"  # the file of a run that is followed; every other name is an artifact that it names
POLL_SECONDS = 1.0
# From an order to the load that several nodes take up together: to ship the program to every node before.
SHIPPING_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Task:
    """One run of the node's program.

    identity   of the run, unique in the site's history; once ended it is never begun again
    gpus       of the node: a carrier that asks a scheduler for them asks for all
    arguments  of `burnin.pyz run` after `--run` and `--out`, which the carrier gives: what is measured and when it
               begins, the same whoever carries it
    longest_s  after which nobody waits any more, counted from the load's beginning
    """

    identity: str
    gpus: int
    arguments: tuple[str, ...]
    longest_s: float


class Carrier(Protocol):
    """Runs the burn-in's program on nodes. Thread-safe: the nodes of a rack are burnt in side by side.

    Every method raises UnreachableError where nobody answers, and UndecidedError with what to do next for whatever else
    hinders it; neither ever speaks of the hardware. A node that is down for a while is waited for: `read` then answers
    b"" and `is_active` stays True until the carrier gives it up and raises.
    """

    @property
    def name(self) -> str:
        """For the operator: `SSH`, `Kubernetes Jobs`, `Slurm`."""
        ...

    @property
    def poll_s(self) -> float:
        """Between two looks at a run that has written nothing new."""
        ...

    @property
    def shipping_s(self) -> float:
        """From the order to the load's beginning, where several nodes are to begin together."""
        ...

    def ship(self, node: Unit, archive: Path, digest: str) -> None:
        """Puts the program (its sha256 is `digest`) where `start` will find it; nothing to do where it is already."""
        ...

    def start(self, node: Unit, task: Task) -> None:
        """Starts the run, detached from us. Nothing happens where a run of that identity is there, running or ended.

        It may wait for its turn afterwards: `is_active` is True meanwhile.
        """
        ...

    def is_active(self, node: Unit, identity: str) -> bool:
        """Whether more may come: the run waits or runs, or has ended and was not read to its end yet.

        UndecidedError once it has waited for its turn for too long; it is taken back then, and whoever holds the node
        is named.
        """
        ...

    def waits_for(self, node: Unit, identity: str) -> str:
        """What a run that has not begun waits for, in words for the operator; empty where it began, or is not there."""
        ...

    def others(self, node: Unit, identity: str) -> tuple[str, ...]:
        """Other burn-ins that wait or run on the node: two of them would measure each other."""
        ...

    def read(self, node: Unit, identity: str, name: str, offset: int, max_bytes: int) -> bytes:
        """Bytes of a file the run wrote, from `offset`; b"" where there are none yet.

        FileNotFoundError if there is none of that name, or not yet. UndecidedError for bytes that cannot be trusted.
        """
        ...

    def stop(self, node: Unit, identity: str) -> None:
        """Ends the run, if it runs; what it wrote so far may be lost."""
        ...

    def doubt(self, node: Unit, identity: str) -> str:
        """Why what was read may not be all, or not that node's; empty where it is whole as far as a carrier can tell.

        Asked when the records have come to their end, or will come no further. Evidence with a doubt is incomplete.
        """
        ...

    def forget(self, node: Unit, identity: str) -> None:
        """The run's files are on record here: what is held for them elsewhere may go. Never raises."""
        ...

    def where(self, node: Unit, identity: str) -> str:
        """Where an operator looks at the run himself: a folder on the node, a Job's log."""
        ...

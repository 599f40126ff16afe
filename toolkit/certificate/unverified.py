"""What a certificate says was not verified: kinds that a pool's policy can name, each with its words. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Unverified(StrEnum):
    """Kinds of what a reader might take for proven and is not."""

    RENTED = "rented"  # image, BIOS, BMC and slot are the owner's word
    REHEARSAL = "rehearsal"  # the burn-in ran every workload once, on a virtual rack
    AS_DESIGNED = "as_designed"  # serials of switches and parts of cables stand as the rack file has them
    LEVELS = "levels"  # collectives among many nodes that were not measured
    CABLES = "cables"  # cabling that was not compared with the design, or only in part
    IDLE_UNITS = "idle_units"  # compute units that nothing ran on
    LEFT_OUT = "left_out"  # gates that the profile does not ask, and says why
    OPTIONAL = "optional"  # optional gates that had no answer


@dataclass(frozen=True, slots=True)
class NotVerified:
    """One of them, in words for a reader. `nodes`: whom it concerns; empty: all that the certificate names."""

    kind: Unverified
    what: str
    nodes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.what

    def document(self) -> dict[str, object]:
        """As it stands in the certificate."""
        concerned: dict[str, object] = {"nodes": list(self.nodes)} if self.nodes else {}
        return {"kind": self.kind.value, "what": self.what} | concerned

    def concerns(self, node: str) -> bool:
        """Whether it is said of this node."""
        return not self.nodes or node in self.nodes


def of_kind(kind: Unverified, lines: Iterable[str]) -> tuple[NotVerified, ...]:
    """These words, each of this kind."""
    return tuple(NotVerified(kind, what) for what in lines)

"""What the NVLink verdict says: one finding a cause, with the ends, the part and what would settle it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.model import Port


class Standing(StrEnum):
    """What a finding means for the verdict."""

    FAIL = "FAIL"
    HOLD = "HOLD"  # may pass by itself: looked at again until the deadline, then FAIL
    UNKNOWN = "INCONCLUSIVE"


class Blame(StrEnum):
    """Whom a finding blames: a part of the rack, the configuration, or too little evidence."""

    GPU = "gpu"
    TRAY = "tray"
    CARTRIDGE = "cartridge"
    SWITCH_TRAY = "switch_tray"
    SOFTWARE = "software"
    SYMPTOM = "symptom"
    EVIDENCE = "evidence"

    @property
    def is_hardware(self) -> bool:
        """Whether something can be pulled."""
        return self not in (Blame.SOFTWARE, Blame.SYMPTOM, Blame.EVIDENCE)


@dataclass(frozen=True, slots=True)
class NvlinkFinding:
    """One cause.

    nodes     the trays it keeps from passing; empty: the whole rack
    part      what a technician goes to, in words with position; empty where nothing is pulled
    ends      planned ports it was seen at, GPU side first
    evidence  what was seen, in the tools' own words
    settled_by  what to do next: the fix where it is configuration, what would tell suspects apart where it is not
    """

    code: str
    standing: Standing
    blame: Blame
    text: str
    nodes: tuple[str, ...] = ()
    part: str = ""
    ends: tuple[Port, ...] = ()
    evidence: tuple[str, ...] = ()
    settled_by: str = ""


_SHOWN = 4


def shortened(names: Iterable[str], shown: int = _SHOWN) -> str:
    """The first few of many, and how many more."""
    known = tuple(names)
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more

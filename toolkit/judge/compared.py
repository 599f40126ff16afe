"""How a part stood among its siblings, in the end: what a gate relative to peers is answered by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.evidence import Subject


class Standing(StrEnum):
    """What comparing, and measuring a suspect again, came to."""

    ALIKE = "alike"
    CLEARED = "cleared"  # it was a suspect, and measured again it is like its siblings
    WORSE = "worse"  # measured again, and worse by what is worth a part
    UNSETTLED = "unsettled"  # neither, after as many readings as were planned, or readings that could not be had
    TOO_FEW = "too few"  # siblings to compare with
    UNDECIDED = "undecided"  # no number, or siblings that do not agree


@dataclass(frozen=True, slots=True)
class Compared:
    """A subject's standing on one metric.

    limit   share of the siblings' rate that was taken for worth a part: the gate's limit as it was then
    of      origin of the reading that was compared
    origin  sha256 of the artifact that has all readings
    shift   against the siblings' median, position taken off, as a share: -0.05 is 5 % below; None without a number
    drift   words on how its board got worse from one burn-in to the next; empty where it did not, or nobody can tell
    """

    metric: str
    subject: Subject
    limit: float
    of: str
    origin: str
    standing: Standing
    shift: float | None
    why: str
    drift: str = ""

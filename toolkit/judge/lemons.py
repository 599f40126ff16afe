"""Which parts were taken out again and again: by serial, wherever they sat. Pure.

A board that was moved takes its removals along; a name and a slot do not. A node is counted by its own serial, whatever
part in it was blamed: three sound boards that failed in one tray say something of the tray.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class PartKind(StrEnum):
    """What has a serial that is followed."""

    GPU = "gpu"
    NODE = "node"
    HCA = "hca"  # by its GUID


@dataclass(frozen=True, slots=True)
class Removal:
    """A node left its rack on evidence, and this part of it was blamed, or was the node itself.

    place  where it was: `GPU 3 at 00000000:61:00.0`, `slot 4`; `run`: the run whose evidence it was
    """

    kind: PartKind
    serial: str
    at: datetime
    rack: str
    node: str
    place: str
    code: str
    run: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """So many removals within so long make a lemon, and who says so."""

    removals: int
    within: timedelta
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class Lemon:
    """A part over its threshold. `removals`: those that count, oldest first; `why`: the threshold in words."""

    kind: PartKind
    serial: str
    removals: tuple[Removal, ...]
    why: str

    @property
    def last(self) -> Removal:
        """The newest of them."""
        return self.removals[-1]

    def __str__(self) -> str:
        seats = ", ".join(dict.fromkeys(f"{r.rack}/{r.node}" for r in self.removals))
        codes = ", ".join(dict.fromkeys(r.code for r in self.removals))
        return f"{self.kind} {self.serial} was taken out {len(self.removals)} times ({codes}; in {seats}): {self.why}"


def lemons(removals: Iterable[Removal], thresholds: Mapping[PartKind, Threshold], now: datetime) -> tuple[Lemon, ...]:
    """Parts at or over their threshold, most removals first. What has no serial cannot be followed, and is not here."""
    found: dict[tuple[PartKind, str], dict[str, Removal]] = defaultdict(dict)
    for removal in removals:
        limit = thresholds.get(removal.kind)
        if limit is not None and removal.serial and now - removal.at <= limit.within:
            found[removal.kind, removal.serial][removal.run] = removal
    result = []
    for (kind, serial), by_run in found.items():
        limit, told = thresholds[kind], sorted(by_run.values(), key=lambda r: r.at)
        if len(told) >= limit.removals:
            days = limit.within.days
            result.append(Lemon(kind, serial, tuple(told), f"{limit.removals} within {days} days. {limit.source}"))
    return tuple(sorted(result, key=lambda lemon: (-len(lemon.removals), lemon.kind, lemon.serial)))

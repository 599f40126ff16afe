"""Which firmware of a rack is not what its lock says, and in which order it is brought there. Pure.

Order: power shelves, NVLink switch trays, compute trays, each class whole before the next begins; inside a unit BMC,
CPLD, BIOS, then the rest (NVIDIA infra-controller, rack firmware; NVOS of a switch tray is NVUE's matter). NVLink
recovery needs all components of a rack at one release, which is why there is one lock for all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.bmc_policy import FirmwarePin
from toolkit.rack.model import Rack, Unit, UnitKind

_CLASSES = (UnitKind.POWER_SHELF, UnitKind.NVLINK_SWITCH, UnitKind.NODE)
# Words of inventory ids, in the order of a switch tray's own update; an ERoT's id names the chip it guards.
_RANKS = (
    re.compile(r"EROT", re.I),
    re.compile(r"BMC", re.I),
    re.compile(r"CPLD", re.I),
    re.compile(r"BIOS|UEFI", re.I),
)
_RANK_OF = {0: 3, 1: 0, 2: 1, 3: 2}


class Standing(StrEnum):
    """One component against the lock."""

    AS_LOCKED = "as locked"
    DIFFERS = "differs"
    NOT_THERE = "not there"  # the BMC lists no such component
    UNREAD = "unread"  # the BMC did not answer


@dataclass(frozen=True, slots=True)
class FirmwareRow:
    """One component of one unit. `found` is empty where it was not read or named none."""

    unit: str
    kind: UnitKind
    component: str
    locked: str
    found: str
    standing: Standing
    source: str


Inventory = Mapping[str, str]
"""Version by component id."""


def firmware_rows(rack: Rack, found: Mapping[str, Inventory | None]) -> tuple[FirmwareRow, ...]:
    """Every locked component of every unit, in the order of update. `found`: None for a unit that was not read."""
    rows = []
    for kind in _CLASSES:
        pins = sorted((pin for pin in rack.profile.bmc.firmware if pin.kind is kind), key=lambda p: rank(p.component))
        for unit in rack.units:
            if unit.kind is kind and unit.name in found:
                rows += [_row(unit, pin, found[unit.name]) for pin in pins]
    return tuple(rows)


def rank(component: str) -> tuple[int, str]:
    """Where a component stands among those of its unit."""
    for number, words in enumerate(_RANKS):
        if words.search(component):
            return _RANK_OF[number], component
    return len(_RANKS), component


def blocked_by(rows: tuple[FirmwareRow, ...], row: FirmwareRow) -> FirmwareRow | None:
    """What has to be as locked before this one is touched, and is not: the first of an earlier class or rank."""
    for other in rows:
        if other.standing is Standing.AS_LOCKED or other is row:
            continue
        earlier_class = _CLASSES.index(other.kind) < _CLASSES.index(row.kind)
        earlier_here = other.unit == row.unit and rank(other.component) < rank(row.component)
        if earlier_class or earlier_here:
            return other
    return None


def _row(unit: Unit, pin: FirmwarePin, inventory: Inventory | None) -> FirmwareRow:
    if inventory is None:
        found, standing = "", Standing.UNREAD
    elif pin.component not in inventory:
        found, standing = "", Standing.NOT_THERE
    else:
        found = inventory[pin.component]
        standing = Standing.AS_LOCKED if found == pin.version else Standing.DIFFERS
    return FirmwareRow(unit.name, unit.kind, pin.component, pin.version, found, standing, pin.source)

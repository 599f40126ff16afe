"""What a profile says of a SKU's BMCs: leak detectors, BIOS attributes, firmware. Nothing written: nothing is asked."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.rack.unit_kind import UnitKind


@dataclass(frozen=True, slots=True)
class BiosSetting:
    """A BIOS attribute by its name in the BMC's registry, the value it should have, and who says so."""

    attribute: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class FirmwarePin:
    """One line of the rack's firmware lock: a kind of unit, a component of its BMC's inventory, and its version."""

    kind: UnitKind
    component: str
    version: str
    source: str


@dataclass(frozen=True, slots=True)
class BmcPolicy:
    """leak_detectors  (kind, how many a unit has): a SKU with one is liquid-cooled, and a missing detector is told."""

    leak_detectors: tuple[tuple[UnitKind, int], ...] = ()
    leak_detectors_source: str = ""
    bios: tuple[BiosSetting, ...] = ()
    firmware: tuple[FirmwarePin, ...] = ()

    def detectors_of(self, kind: UnitKind) -> int:
        """How many leak detectors a unit of that kind has."""
        return dict(self.leak_detectors).get(kind, 0)


NOTHING_ASKED = BmcPolicy()

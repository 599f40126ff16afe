"""The `bmc` section of a profile file. Imported inside functions only: pydantic costs start-up time."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.rack.bmc_policy import BiosSetting, BmcPolicy, FirmwarePin
from toolkit.rack.fields import Line, Written, number_from, one_of, text_like
from toolkit.rack.unit_kind import UnitKind

Attribute = Annotated[str, text_like(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", "a BIOS attribute, as the registry names it")]
ComponentId = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "an Id of the BMC's firmware inventory")]
FirmwareVersion = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9.+~:_ -]{0,79}", "a version, as the inventory says")]
Kind = Annotated[UnitKind, one_of(UnitKind)]


class LeakDetectorsFile(Written):
    """How many leak detectors a unit of each kind has."""

    counts: Annotated[dict[Kind, Annotated[int, number_from(int, 1, 256)]], Field(min_length=1)]
    source: Line


class BiosFile(Written):
    """One BIOS attribute."""

    attribute: Attribute
    value: Line
    source: Line


class FirmwareFile(Written):
    """One line of the firmware lock."""

    kind: Kind
    component: ComponentId
    version: FirmwareVersion
    source: Line


class BmcPolicyFile(Written):
    """`bmc` of a profile."""

    leak_detectors: LeakDetectorsFile | None = None
    bios: tuple[BiosFile, ...] = ()
    firmware: tuple[FirmwareFile, ...] = ()


def policy_of(written: BmcPolicyFile | None) -> BmcPolicy:
    """The section as a value; none written: nothing is asked of BMCs."""
    if written is None:
        return BmcPolicy()
    leaks = written.leak_detectors
    return BmcPolicy(
        tuple(sorted(leaks.counts.items())) if leaks else (),
        leaks.source if leaks else "",
        tuple(BiosSetting(one.attribute, one.value, one.source) for one in written.bios),
        tuple(FirmwarePin(one.kind, one.component, one.version, one.source) for one in written.firmware),
    )

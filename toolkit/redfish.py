"""A unit's BMC over Redfish: power, boot override, identity."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Power(StrEnum):
    """Power state as the BMC reports it."""

    ON = "On"
    OFF = "Off"
    POWERING_ON = "PoweringOn"
    POWERING_OFF = "PoweringOff"
    UNKNOWN = "Unknown"


class Reset(StrEnum):
    """What to do to the power."""

    ON = "On"
    FORCE_OFF = "ForceOff"
    FORCE_RESTART = "ForceRestart"


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Who the machine behind the BMC is, by its own word (bounded, stripped)."""

    serial: str
    model: str
    bios_version: str
    bmc_version: str
    macs: tuple[str, ...]


class BmcClient(Protocol):
    """One BMC. Raises UnreachableError when it does not answer or its certificate does not verify."""

    def identity(self) -> SystemIdentity:
        """Serial, model and firmware of the machine."""
        ...

    def power(self) -> Power:
        """Power state now."""
        ...

    def boot_once_from_network(self) -> None:
        """The next boot, and only that, is from the network."""
        ...

    def reset(self, kind: Reset) -> None:
        """Asks for it; the machine takes its time."""
        ...

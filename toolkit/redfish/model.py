"""The seam to a unit's BMC: what is asked of it, in our words, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from toolkit.errors import UndecidedError


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
    GRACEFUL_SHUTDOWN = "GracefulShutdown"


class BootTarget(StrEnum):
    """What a boot override names (DSP0268, BootSourceOverrideTarget). UNKNOWN: a word we have no name for."""

    NONE = "None"
    PXE = "Pxe"
    UEFI_HTTP = "UefiHttp"
    CD = "Cd"
    HDD = "Hdd"
    UNKNOWN = "Unknown"


class BootEnabled(StrEnum):
    """How long a boot override holds (DSP0268, BootSourceOverrideEnabled)."""

    DISABLED = "Disabled"
    ONCE = "Once"
    CONTINUOUS = "Continuous"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class BootOverride:
    """A system's boot override as its BMC shows it."""

    target: BootTarget
    enabled: BootEnabled

    @property
    def active(self) -> bool:
        """Whether it changes the boot order, or may."""
        return self.enabled is not BootEnabled.DISABLED and self.target is not BootTarget.NONE

    def __str__(self) -> str:
        return f"{self.target} {self.enabled}"


@dataclass(frozen=True, slots=True)
class AcCycle:
    """An action of a BMC that takes standby power away for a moment: where it is asked for, and by which word."""

    target: str
    value: str


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Who the machine behind the BMC is, by its own word (bounded, stripped)."""

    serial: str
    model: str
    bios_version: str
    bmc_version: str
    macs: tuple[str, ...]


class BmcRefusedError(UndecidedError):
    """The BMC answered, and either its certificate or our password was refused: nothing may be asked of it."""


class OverrideStaysError(UndecidedError):
    """The BMC was asked for one boot from elsewhere, took it, and showed that every boot would be. It was cleared."""


class OverrideIgnoredError(UndecidedError):
    """The BMC took a boot override, answered that all is well, and shows nothing of it: the old disk would boot."""


class BmcClient(Protocol):
    """One BMC. Raises UnreachableError when it does not answer, BmcRefusedError when it or we are not trusted."""

    def identity(self) -> SystemIdentity:
        """Serial, model and firmware of the machine."""
        ...

    def power(self) -> Power:
        """Power state now."""
        ...

    def boot_once_from_network(self) -> None:
        """The next boot, and only that, is from the network."""
        ...

    def boot_from_network(self) -> BootOverride:
        """Asks for one boot from the network and answers what the BMC then shows, which may be every boot."""
        ...

    def boot_override(self) -> BootOverride:
        """The boot override as the BMC shows it now."""
        ...

    def clear_boot_override(self) -> BootOverride:
        """No boot from the network any more; what stands since. UndecidedError where it goes on showing one."""
        ...

    def reset(self, kind: Reset) -> None:
        """Asks for it; the machine takes its time."""
        ...

    def ac_cycle(self) -> AcCycle | None:
        """How standby power is cut and given back; None where this BMC does not offer it."""
        ...

    def cut_ac(self, how: AcCycle) -> None:
        """Asks for it, once. The BMC may go down with the machine and lose its own answer."""
        ...

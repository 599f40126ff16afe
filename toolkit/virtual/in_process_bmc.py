"""The BMC of a node of files: power, boot override, and what the provisioning server offers at a network boot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import UnreachableError
from toolkit.netboot.offers import BootOffers
from toolkit.rack.model import Unit
from toolkit.redfish import AcCycle, BootEnabled, BootOverride, BootTarget, Power, Reset, SystemIdentity
from toolkit.stages.provisioning import host_of
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.in_process_machine import Machine

if TYPE_CHECKING:
    from toolkit.virtual.in_process import InProcessRack


@dataclass(frozen=True, slots=True)
class InProcessBmc:
    """The BMC of a node of files. What it starts has happened when it returns."""

    lab: InProcessRack
    node: Unit

    def identity(self) -> SystemIdentity:
        """As the rack file says."""
        self._alive()
        return SystemIdentity(self.node.serial, "DGXH100", "1.6.7", "25.06.27", (host_of(self.node).mac.lower(),))

    def power(self) -> Power:
        """Power state now."""
        self._alive()
        return Power(self.lab.machine(self.node.name).power)

    def boot_once_from_network(self) -> None:
        """Kept until the next boot."""
        self.boot_from_network()

    def boot_from_network(self) -> BootOverride:
        """Kept until the next boot, or for ever with the fault `bmc_override_stays`."""
        self._alive()
        if self.lab.fault(self.node.name, FaultKind.BMC_IGNORES_OVERRIDE):
            return self.boot_override()
        with self.lab.changing(self.node.name) as machine:
            machine.boot_once = True
            machine.boot_always = self.lab.fault(self.node.name, FaultKind.BMC_OVERRIDE_STAYS) is not None
        return self.boot_override()

    def boot_override(self) -> BootOverride:
        """As it stands."""
        self._alive()
        machine = self.lab.machine(self.node.name)
        if machine.boot_always:
            return BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS)
        if machine.boot_once:
            return BootOverride(BootTarget.PXE, BootEnabled.ONCE)
        return BootOverride(BootTarget.NONE, BootEnabled.DISABLED)

    def clear_boot_override(self) -> BootOverride:
        """Gone."""
        self._alive()
        with self.lab.changing(self.node.name) as machine:
            machine.boot_once = machine.boot_always = False
        return self.boot_override()

    def reset(self, kind: Reset) -> None:
        """Switches off, or on and through the boot."""
        self._alive()
        with self.lab.changing(self.node.name) as machine:
            if kind is Reset.FORCE_OFF:
                machine.power = Power.OFF.value
                return
            was_off = machine.power == Power.OFF.value
            machine.power = Power.ON.value
            machine.boot(cold=was_off or self.lab.warm_boot_helps)
            if was_off:
                self.lab.silent.discard(self.node.name)
            from_network, machine.boot_once = machine.boot_once or machine.boot_always, False
            misled = self.lab.fault(self.node.name, FaultKind.ROGUE_DHCP) is not None
            script = self._script() if from_network and not misled else {}
            if script:
                self._deploy(machine, script)
        self.lab.post(self.node.name)

    def ac_cycle(self) -> AcCycle | None:
        """The standard's way, where the rack's BMCs have it."""
        self._alive()
        return (
            AcCycle("/redfish/v1/Systems/DGX/Actions/ComputerSystem.Reset", "FullPowerCycle")
            if self.lab.ac_cycles
            else None
        )

    def cut_ac(self, how: AcCycle) -> None:
        """Everything begins anew."""
        self._alive()
        with self.lab.changing(self.node.name) as machine:
            machine.ac_cycles += 1
            machine.power = Power.ON.value
            machine.boot(cold=True)
        self.lab.silent.discard(self.node.name)

    def _alive(self) -> None:
        if self.lab.fault(self.node.name, FaultKind.BMC_DEAD):
            raise UnreachableError(f"BMC of {self.node.name} does not answer", "check its power, cable and address")

    def _script(self) -> dict[str, str]:
        """Arguments of the boot script that the boot service gives it: once; empty if it gives none."""
        host = host_of(self.node)
        offer, is_given = BootOffers(self.lab.settings.provision).take(host.mac, host.address)
        words = offer.script.split() if offer is not None and is_given else []
        return {w.split("=", 1)[0]: w.split("=", 1)[1] for w in words if w.startswith("deploy.")}

    def _deploy(self, machine: Machine, script: Mapping[str, str]) -> None:
        """What the ramdisk does to the disk, and what it or the first boot then has to say."""
        machine.disk_writes += 1
        machine.played = []
        told: dict[str, object] = {"event": "booted", "serial": self.node.serial, "image": script["deploy.sha256"]}
        told["host_key"] = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
        machine.image = script["deploy.sha256"]
        fault = self.lab.fault(self.node.name, FaultKind.BAD_IMAGE)
        if fault and (fault.value or 0) >= machine.disk_writes:
            told = {"event": "hash_mismatch", "expected": script["deploy.sha256"], "found": "0" * 64}
            machine.image, machine.power = "", Power.OFF.value
        machine.reports[script["deploy.token"]] = json.dumps(told) + "\n"

"""Power and boot order of a real QEMU machine, asked for at its BMC over Redfish."""

from __future__ import annotations

import os
import signal

import pytest

from tests.qemu.conftest import until
from toolkit.redfish import Power, Reset
from toolkit.virtual.chassis import Button
from toolkit.virtual.firmware import BootEnabled, BootOverride, BootTarget, Phase
from toolkit.virtual.qemu import console

pytestmark = pytest.mark.root


def test_the_bmc_switches_the_machine_and_its_override_counts_once(machine):
    """On from the network; the next reset is from disk; off is off. SMBIOS has the planned UUID."""
    assert (machine.bmc.power(), machine.bmc.identity().serial) == (Power.OFF, "VR00000001")
    machine.bmc.boot_once_from_network()
    machine.bmc.reset(Reset.ON)
    until(lambda: machine.bmc.power() is Power.ON)
    until(lambda: machine.chassis.phase is Phase.NETWORK_BOOT)
    assert machine.chassis.override == BootOverride()
    machine.bmc.reset(Reset.FORCE_RESTART)
    until(lambda: len(_boots(machine)) == 2)
    assert _boots(machine) == ["first device Pxe", "first device Hdd"]
    until(lambda: "Booting from Hard Disk" in machine.chassis.console.read_text())
    machine.bmc.reset(Reset.FORCE_OFF)
    until(lambda: machine.bmc.power() is Power.OFF)
    lines = [line.text for line in console.read(machine.chassis.console)]
    assert f"Machine UUID {machine.chassis.uuid}" in lines
    first, second = (lines.index(text) for text in ("Booting from ROM...", "Booting from Hard Disk..."))
    assert first < second


def test_an_override_set_while_it_runs_counts_at_the_next_reset(machine):
    """What the firmware was told at its last reset stays as it was."""
    machine.chassis.press(Button.ON)
    until(lambda: machine.chassis.power is Power.ON)
    machine.bmc.boot_once_from_network()
    machine.chassis.press(Button.FORCE_RESTART)
    until(lambda: len(_boots(machine)) == 2)
    assert _boots(machine) == ["first device Hdd", "first device Pxe"]
    machine.chassis.press(Button.POWER_CYCLE)
    until(lambda: len(_boots(machine)) == 3)
    assert _boots(machine)[-1] == "first device Hdd"


def test_a_continuous_override_stays(machine):
    """Every boot is from the network until it is taken back."""
    machine.chassis.set_override(BootOverride(BootTarget.PXE, BootEnabled.CONTINUOUS))
    machine.chassis.press(Button.ON)
    until(lambda: machine.chassis.power is Power.ON)
    machine.chassis.press(Button.FORCE_RESTART)
    until(lambda: len(_boots(machine)) == 2)
    assert _boots(machine) == ["first device Pxe", "first device Pxe"]
    assert machine.chassis.override.active


def test_a_machine_that_dies_shows_on_its_bmc_and_starts_again(machine):
    """QEMU killed from outside: power is off, with the reason in the event log; the button brings it back."""
    machine.chassis.press(Button.ON)
    until(lambda: machine.chassis.power is Power.ON)
    os.kill(machine.chassis.pid, signal.SIGTERM)
    until(lambda: machine.chassis.power is Power.OFF)
    machine.chassis.press(Button.ON)
    until(lambda: machine.chassis.power is Power.ON)
    assert machine.said == []


def test_a_machine_that_cannot_be_made_says_why(machine):
    """QEMU's own words reach the event log; the power stays off, and nothing tries again by itself."""
    machine.chassis.spec.disk.unlink()
    machine.chassis.press(Button.ON)
    until(lambda: machine.said)
    assert "QEMU did not start" in machine.said[0]
    assert "disk.img" in machine.said[0]
    until(lambda: machine.chassis.power is Power.OFF)
    assert machine.chassis.events[-1].message == "Power is off"


def _boots(machine):
    return [text.partition(", ")[2] for text in machine.messages if text.startswith("Boot progress: self_test")]

"""The QEMU command line: what the rack file says is what the machine has."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.virtual.firmware import BootTarget
from toolkit.virtual.qemu import machine
from toolkit.virtual.qemu.machine import Architecture, Firmware, MachineSpec, NetworkBoot, boot_indexes, command

DISK_FIRST = (BootTarget.HDD, BootTarget.PXE)
NETWORK_FIRST = (BootTarget.PXE, BootTarget.HDD)
UUID = str(uuid.uuid5(uuid.NAMESPACE_OID, "VR00000001"))


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    return MachineSpec(
        "node1", "VR00000001", UUID, "Virtual DGXH100", "52:54:00:66:00:01", "tap0", tmp_path / "disk.img",
        "VD00000001", tmp_path / "variables.fd",
    )  # fmt: skip


def options(argv: list[str], name: str) -> list[str]:
    """Values of an option of the command line."""
    return [value for option, value in itertools.pairwise(argv) if option == name]


def device(argv: list[str], kind: str) -> dict[str, str]:
    """Properties of the one device of this kind."""
    found = [value for value in options(argv, "-device") if value.split(",")[0] == kind]
    assert len(found) == 1
    return dict(pair.partition("=")[::2] for pair in found[0].split(",")[1:])


@pytest.mark.parametrize("firmware", list(Firmware))
def test_the_machine_has_the_planned_identity(spec, firmware):
    """Serial and UUID in SMBIOS, MAC on the NIC, serial on the NVMe disk: what deploy ramdisk and facts read."""
    argv = command(replace(spec, firmware=firmware), DISK_FIRST, 5)
    assert f"serial=VR00000001,uuid={UUID}" in options(argv, "-smbios")[0]
    assert device(argv, "virtio-net-pci")["mac"] == "52:54:00:66:00:01"
    assert device(argv, "nvme")["serial"] == "VD00000001"
    assert "kvm" not in " ".join(argv)


def test_the_boot_order_is_the_devices_boot_index(spec):
    """First is 0; firmware of either kind goes by it."""
    for order, nic, disk in ((DISK_FIRST, "1", "0"), (NETWORK_FIRST, "0", "1")):
        argv = command(spec, order, 5)
        assert (device(argv, "virtio-net-pci")["bootindex"], device(argv, "nvme")["bootindex"]) == (nic, disk)
    assert boot_indexes(NETWORK_FIRST) == {"nic0": 0, "disk0": 1}


def test_uefi_boots_the_network_itself_and_bios_by_the_nics_rom(spec):
    """EDK II comes with its variables and no ROM; SeaBIOS with the ROM and no flash."""
    uefi = command(spec, DISK_FIRST, 5)
    assert device(uefi, "virtio-net-pci")["romfile"] == ""
    assert [value for value in options(uefi, "-drive") if "if=pflash" in value][1].endswith(f"file={spec.variables}")
    bios = command(replace(spec, firmware=Firmware.BIOS), DISK_FIRST, 5)
    assert "romfile" not in device(bios, "virtio-net-pci")
    assert not [value for value in options(bios, "-drive") if "if=pflash" in value]


def test_firmware_that_boots_by_http_knows_no_pxe(spec):
    """EDK II takes its PXE away where it is told so; nobody takes anything from it otherwise."""
    told = options(command(replace(spec, network_boot=NetworkBoot.HTTP), NETWORK_FIRST, 5), "-fw_cfg")
    assert told == [f"name=opt/org.tianocore/IPv{n}PXESupport,string=n" for n in (4, 6)]
    assert not options(command(spec, NETWORK_FIRST, 5), "-fw_cfg")
    with pytest.raises(UsageError, match="a BIOS does not boot by HTTP"):
        machine.require(replace(spec, firmware=Firmware.BIOS, network_boot=NetworkBoot.HTTP))


def test_a_comma_in_a_name_stays_in_its_value(spec):
    """QEMU reads `,,` as a comma: a serial cannot add an option of its own."""
    argv = command(replace(spec, serial="VR1,uuid=0"), DISK_FIRST, 5)
    assert "serial=VR1,,uuid=0," in options(argv, "-smbios")[0]


def test_aarch64_is_a_virt_machine_with_its_own_firmware(spec):
    """The Grace path: the same devices, AAVMF in place of OVMF."""
    argv = command(replace(spec, architecture=Architecture.AARCH64), DISK_FIRST, 5)
    assert argv[0] == "qemu-system-aarch64"
    assert options(argv, "-machine")[0].startswith("virt")
    assert "AAVMF" in options(argv, "-drive")[0]
    assert device(argv, "nvme")["serial"] == "VD00000001"


def test_what_cannot_be_or_is_not_installed_is_named(spec, monkeypatch):
    """No BIOS on aarch64; and the Debian packages to install."""
    with pytest.raises(UsageError, match="no BIOS"):
        machine.require(replace(spec, architecture=Architecture.AARCH64, firmware=Firmware.BIOS))
    monkeypatch.setattr(machine, "SEARCH_PATH", "/nowhere")
    with pytest.raises(UsageError, match="qemu-system-x86"):
        machine.require(spec)


def test_disk_and_variables_outlive_the_power(spec):
    """Laid out once: what firmware and system wrote is there at the next power-on."""
    bios = replace(spec, firmware=Firmware.BIOS)
    machine.lay_out(bios, 1024 * 1024)
    assert (bios.disk.stat().st_size, bios.variables.exists()) == (1024 * 1024, False)
    bios.disk.write_bytes(b"system")
    machine.lay_out(bios, 1024 * 1024)
    assert bios.disk.read_bytes() == b"system"

"""What a QEMU machine is made of, and the command line that makes it.

Emulated (TCG): no KVM is needed and none is used, so that a run is the same on every host. Reference: qemu(1) 7.2,
docs/bootindex of QEMU, OVMF's README ("Network Support").
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.virtual.firmware import BootTarget
from toolkit.virtual.requirements import SEARCH_PATH

NIC, DISK = "nic0", "disk0"  # ids of the two devices that can be booted from
_DEVICES = {BootTarget.PXE: NIC, BootTarget.HDD: DISK}


class Firmware(StrEnum):
    """What the machine runs at power-on."""

    UEFI = "uefi"  # OVMF or AAVMF: EDK II
    BIOS = "bios"  # SeaBIOS with the NIC's own boot ROM


class NetworkBoot(StrEnum):
    """How the firmware fetches what it boots from the network."""

    PXE = "pxe"  # DHCP, then TFTP
    HTTP = "http"  # UEFI HTTP Boot (UEFI Specification 2.10, 24.7)


class Architecture(StrEnum):
    """Processor architecture, as `platform.machine` says it."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


@dataclass(frozen=True, slots=True)
class _Flash:
    """EDK II's code and the template of its variables, one of Debian's packages."""

    code: Path
    variables: Path
    package: str


_PROGRAMS = {
    Architecture.X86_64: ("qemu-system-x86_64", "qemu-system-x86"),
    Architecture.AARCH64: ("qemu-system-aarch64", "qemu-system-arm"),
}
_FLASH = {
    Architecture.X86_64: _Flash(
        Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"), "ovmf"
    ),
    Architecture.AARCH64: _Flash(
        Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd"), "qemu-efi-aarch64"
    ),
}
# graphics=off: SeaBIOS then talks on the serial line, as a server's BIOS with console redirection does
_MACHINES = {Architecture.X86_64: "q35,graphics=off", Architecture.AARCH64: "virt,gic-version=3"}
# With the extensions for AES, SHA and vectors that TCG offers: a node's processor has them, and hashing needs them.
_PROCESSORS = {Architecture.X86_64: "max", Architecture.AARCH64: "max,pauth-impdef=on"}


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine, as the rack file has it.

    tap         name of the tap device, in the network namespace where QEMU is started
    disk        raw file behind the NVMe disk
    variables   file with the firmware's non-volatile variables; UEFI only
    """

    name: str
    serial: str
    uuid: str
    product: str
    mac: str
    tap: str
    disk: Path
    disk_serial: str
    variables: Path
    firmware: Firmware = Firmware.UEFI
    network_boot: NetworkBoot = NetworkBoot.PXE
    architecture: Architecture = Architecture.X86_64
    memory_mib: int = 1024
    processors: int = 2


def require(spec: MachineSpec) -> None:
    """Raises UsageError that names the Debian package this machine lacks for such a machine, or what cannot be."""
    if spec.firmware is Firmware.BIOS and spec.architecture is not Architecture.X86_64:
        raise UsageError(f"{spec.name}: {spec.architecture} machines have no BIOS", "take firmware uefi")
    if spec.firmware is Firmware.BIOS and spec.network_boot is NetworkBoot.HTTP:
        raise UsageError(f"{spec.name}: a BIOS does not boot by HTTP", "take firmware uefi")
    program, package = _PROGRAMS[spec.architecture]
    missing = [] if shutil.which(program, path=SEARCH_PATH) else [package]
    if spec.firmware is Firmware.UEFI and not _FLASH[spec.architecture].code.exists():
        missing.append(_FLASH[spec.architecture].package)
    if missing:
        raise UsageError(
            f"a QEMU machine ({spec.architecture}, {spec.firmware}) needs what is not installed: {', '.join(missing)}",
            f"apt-get install {' '.join(missing)}",
        )


def lay_out(spec: MachineSpec, disk_bytes: int) -> None:
    """Makes an empty disk and fresh firmware variables where there are none."""
    spec.disk.parent.mkdir(parents=True, exist_ok=True)
    if not spec.disk.exists():
        with spec.disk.open("wb") as disk:
            disk.truncate(disk_bytes)
    if spec.firmware is Firmware.UEFI and not spec.variables.exists():
        shutil.copyfile(_FLASH[spec.architecture].variables, spec.variables)


def boot_indexes(order: Sequence[BootTarget]) -> Mapping[str, int]:
    """The `bootindex` of each device id for a boot order, first 0."""
    return {_DEVICES[target]: number for number, target in enumerate(order) if target in _DEVICES}


def command(spec: MachineSpec, order: Sequence[BootTarget], qmp_fd: int) -> list[str]:
    """The command line. The machine waits for `cont`; the serial line is QEMU's standard output.

    `qmp_fd` is the number of the inherited, connected socket that carries QMP.
    """
    indexes = boot_indexes(order)
    return [
        _PROGRAMS[spec.architecture][0],
        "-name", spec.name,
        "-no-user-config", "-nodefaults", "-display", "none",
        "-S",
        "-machine", _MACHINES[spec.architecture],
        "-accel", "tcg,thread=multi",
        "-cpu", _PROCESSORS[spec.architecture],
        "-smp", str(spec.processors),
        "-m", f"{spec.memory_mib}M",
        "-uuid", spec.uuid,
        "-smbios", f"type=1,manufacturer=rackproof,product={_text(spec.product)},"
                   f"serial={_text(spec.serial)},uuid={spec.uuid}",
        *_flash(spec),
        "-chardev", "stdio,id=console,signal=off",
        "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}",
        "-mon", "chardev=qmp,mode=control",
        "-drive", f"if=none,id=image0,file={_text(str(spec.disk))},format=raw,cache=writeback,"
                  "discard=unmap,detect-zeroes=unmap",
        "-device", f"nvme,id={DISK},drive=image0,serial={_text(spec.disk_serial)},bootindex={indexes[DISK]}",
        "-netdev", f"tap,id=net0,ifname={spec.tap},script=no,downscript=no",
        "-device", f"virtio-net-pci,id={NIC},netdev=net0,mac={spec.mac},bootindex={indexes[NIC]}{_boot_rom(spec)}",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def _flash(spec: MachineSpec) -> tuple[str, ...]:
    if spec.firmware is Firmware.BIOS:
        return ()  # SeaBIOS is QEMU's own
    pflash = "if=pflash,format=raw"
    # EDK II offers every way it knows, PXE first, and comes to HTTP minutes later (OvmfPkg's PxeBcPcdProducerLib).
    without_pxe = [f"name=opt/org.tianocore/IPv{version}PXESupport,string=n" for version in (4, 6)]
    return (
        *(word for option in without_pxe if spec.network_boot is NetworkBoot.HTTP for word in ("-fw_cfg", option)),
        "-drive", f"{pflash},unit=0,readonly=on,file={_FLASH[spec.architecture].code}",
        "-drive", f"{pflash},unit=1,file={_text(str(spec.variables))}",
    )  # fmt: skip


def _boot_rom(spec: MachineSpec) -> str:
    """EDK II brings its own driver and PXE client for the NIC; a BIOS boots the network by the NIC's ROM alone."""
    return ",romfile=" if spec.firmware is Firmware.UEFI else ""


def _text(value: str) -> str:
    """A value inside an option list: there a comma is written twice."""
    return value.replace(",", ",,")

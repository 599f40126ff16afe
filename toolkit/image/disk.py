"""Disks: what lies where, the partition tables, and the boot loader that a BIOS starts.

Two layouts. *Plain* is what a virtual rack's node boots from: an MBR with the root file system as partition 1.
*Bootable* is what firmware boots: a GPT with a BIOS boot partition (1), the EFI system partition (2) and the root file
system (3), last, so that it grows to the end of the node's disk.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from toolkit.errors import RackproofError
from toolkit.image.file_system import MIB, Area, identifier
from toolkit.image.manifest import Architecture, RootPartition
from toolkit.image.programs import Workshop

SECTOR_BYTES = 512
PLAIN_ROOT_AT = MIB
_ESP_MIB = 64
_TAIL_MIB = 1  # the second copy of the GPT
BIOS_BOOT = Area(MIB, MIB)
ESP = Area(2 * MIB, _ESP_MIB * MIB)
_ROOT_AT = ESP.start_bytes + ESP.size_bytes
# UEFI 2.10, table 5.6; GRUB's manual, "BIOS installation"; the Discoverable Partitions Specification
_BIOS_BOOT_TYPE = "21686148-6449-6E6F-744E-656564454649"
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_ROOT_TYPES = {
    Architecture.AMD64: "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
    Architecture.ARM64: "B921B045-1DF0-41C3-AF44-4C6F280D3FAE",
}

# GRUB 2.06, include/grub/i386/pc/boot.h: where boot.img keeps the sector of the next stage, and where its test of the
# boot drive stands, which some BIOSes need taken out (util/setup.c does that on every hard disk).
_NEXT_STAGE_AT = 0x5C
_DRIVE_TEST_AT = 0x66
_BOOT_CODE_BYTES = 440  # behind it stand the disk's signature and the partition table
_BLOCK_LIST_AT = SECTOR_BYTES - 12  # diskboot.img's last entry: start, length in sectors, segment
_NEXT_SEGMENT = 0x820


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the file systems go. `esp` is None on a plain disk."""

    disk_bytes: int
    root: Area
    number: int
    esp: Area | None

    @property
    def root_partition(self) -> RootPartition:
        """As the manifest has it."""
        return RootPartition(self.number, self.root.start_bytes, self.root.size_bytes)


def plain(disk_mib: int) -> Layout:
    """The layout of a virtual rack's disk."""
    size = disk_mib * MIB
    return Layout(size, Area(PLAIN_ROOT_AT, size - PLAIN_ROOT_AT), 1, None)


def bootable(disk_mib: int) -> Layout:
    """The layout of a disk that firmware boots."""
    size = disk_mib * MIB
    return Layout(size, Area(_ROOT_AT, size - _ROOT_AT - _TAIL_MIB * MIB), 3, ESP)


def make_blank(raw: Path, layout: Layout) -> None:
    """A file of the disk's size that holds nothing."""
    with raw.open("wb") as disk:
        disk.truncate(layout.disk_bytes)


def write_mbr(raw: Path, layout: Layout) -> None:
    """The plain disk's table: one active Linux partition."""
    start, sectors = (n // SECTOR_BYTES for n in (layout.root.start_bytes, layout.root.size_bytes))
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    with raw.open("r+b") as disk:
        disk.seek(446)
        disk.write(entry)
        disk.seek(510)
        disk.write(b"\x55\xaa")


def gpt_script(layout: Layout, architecture: Architecture, recipe_sha256: str) -> str:
    """The bootable disk's table in the words of sfdisk."""
    rows = (
        ("bios", BIOS_BOOT, _BIOS_BOOT_TYPE),
        ("esp", ESP, _ESP_TYPE),
        ("root", layout.root, _ROOT_TYPES[architecture]),
    )
    lines = [
        "label: gpt",
        f"label-id: {_upper(recipe_sha256, 'disk')}",
        "unit: sectors",
        f"sector-size: {SECTOR_BYTES}",
    ]
    for name, area, kind in rows:
        start, size = area.start_bytes // SECTOR_BYTES, area.size_bytes // SECTOR_BYTES
        uuid = _upper(recipe_sha256, f"partition {name}")
        lines.append(f"start={start}, size={size}, type={kind}, uuid={uuid}, name={name}")
    return "\n".join(lines) + "\n"


def write_gpt(raw: Path, layout: Layout, architecture: Architecture, recipe_sha256: str, shop: Workshop) -> None:
    """Both copies of the bootable disk's table."""
    script = gpt_script(layout, architecture, recipe_sha256)
    shop.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(raw)], "partitioning the disk", text=script)


def _upper(recipe_sha256: str, what: str) -> str:
    return str(identifier(recipe_sha256, what)).upper()


def embed_bios_loader(raw: Path, boot: bytes, core: bytes) -> None:
    """GRUB for a BIOS: its first sector into the MBR, the rest into the BIOS boot partition, each told where it is.

    boot, core  boot.img of the package grub-pc-bin, and what grub-mkimage made for i386-pc
    """
    sectors = -(-len(core) // SECTOR_BYTES)
    if len(boot) != SECTOR_BYTES or sectors < 2 or len(core) > BIOS_BOOT.size_bytes:
        raise RackproofError(f"GRUB's boot.img has {len(boot)} bytes and its core image {len(core)}: not what we know")
    at = BIOS_BOOT.start_bytes // SECTOR_BYTES
    first = bytearray(boot[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", first, _NEXT_STAGE_AT, at)
    first[_DRIVE_TEST_AT : _DRIVE_TEST_AT + 2] = b"\x90\x90"
    second = bytearray(core)
    struct.pack_into("<QHH", second, _BLOCK_LIST_AT, at + 1, sectors - 1, _NEXT_SEGMENT)
    with raw.open("r+b") as disk:
        disk.write(first)
        disk.seek(BIOS_BOOT.start_bytes)
        disk.write(second)


def root_uuid(recipe_sha256: str) -> UUID:
    """Of the root file system, by which boot loader and kernel find it."""
    return identifier(recipe_sha256, "root")


def fstab(root: UUID, esp: str) -> str:
    """What a node mounts; its root grows to the partition that systemd-repart grew to the disk."""
    return (
        f"UUID={root} / ext4 errors=remount-ro,x-systemd.growfs 0 1\n"
        f"UUID={esp} /boot/efi vfat umask=0077,nofail,x-systemd.device-timeout=10s 0 2\n"
    )

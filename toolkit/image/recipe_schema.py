"""What an image's recipe may say: its fields. Imported inside functions only: pydantic costs start-up time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from toolkit.image.manifest import Firmware
from toolkit.rack.document import shown
from toolkit.rack.fields import Line, Written, number_from, one_of, refuse, text_like

# What a machine may need to reach its network and its disks before its image runs; those a kernel lacks are left out.
DEPLOY_MODULES = (
    "nvme", "ahci", "sd_mod", "mpt3sas", "megaraid_sas", "virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net",
    "virtio_rng", "virtio_mmio", "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice", "bnxt_en", "mlx5_core", "tg3",
    "8021q", "bonding", "md_mod", "raid0", "raid1", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1",
    "efivarfs", "loop",
)  # fmt: skip


def _time(value: object) -> datetime:
    right = 'a time with a zone: "2026-11-01T00:00:00Z"'
    if not isinstance(value, str):
        refuse("is empty" if value is None else "is not plain text", right)
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        refuse(f"{shown(value)} is no time", right)
    return at if at.tzinfo is not None else refuse(f"{shown(value)} has no zone", right)


def _no_way_up(value: str) -> str:
    if ".." in value.split("/"):
        refuse(f"{shown(value)} leads upwards", "a path without ..")
    return value


ImageName = Annotated[str, text_like(r"[a-z0-9][a-z0-9._-]{0,63}", "small letters, digits and ._-")]
PackageName = Annotated[str, text_like(r"[a-z0-9][a-zA-Z0-9.+_-]{1,80}", "a package name; ARCH is the architecture")]
Release = Annotated[str, text_like(r"[a-z]{3,20}", "Debian's or Ubuntu's name of a release: bookworm")]
Source = Annotated[
    str, text_like(r"deb (\[[^\]\n]{1,200}\] )?\S{1,300} \S{1,80}( \S{1,40}){1,8}", "deb URL SUITE main")
]
PlantedPath = Annotated[str, text_like(r"/[A-Za-z0-9._@/-]{1,200}", "a path from / on"), AfterValidator(_no_way_up)]
FileBeside = Annotated[
    str, text_like(r"[A-Za-z0-9._/-]{1,200}", "a file beside the recipe"), AfterValidator(_no_way_up)
]
Mode = Annotated[str, text_like(r"0[0-7]{3}", 'quoted octal digits: "0644"')]
SystemdUnit = Annotated[
    str, text_like(r"[A-Za-z0-9@:._-]{1,120}\.(service|timer|socket|target)", "a unit: ssh.service")
]
Text = Annotated[str, text_like(r"[^\x00]{0,4096}", "text of at most 4096 characters")]
Module = Annotated[str, text_like(r"[A-Za-z0-9_-]{1,60}", "a kernel module's name")]
Console = Annotated[str, text_like(r"tty[A-Za-z]{1,4}\d{1,2}(,\d{1,7}[a-z]?\d?)?", "a console: ttyS0,115200n8")]


class PlantedFile(Written):
    """One file: its text, or a file beside the recipe."""

    path: PlantedPath
    mode: Mode = "0644"
    content: Text | None = None
    source: FileBeside | None = None


class KernelFile(Written):
    """The kernel's package and its arguments."""

    package: PackageName
    arguments: Annotated[str, text_like(r"[A-Za-z0-9 ._:,=/-]{0,400}", "kernel arguments")] = ""
    modules: tuple[Module, ...] = DEPLOY_MODULES


class RecipeFile(Written):
    """The file."""

    image: ImageName
    release: Release
    epoch: Annotated[datetime, BeforeValidator(_time)]
    packages: Annotated[tuple[PackageName, ...], Field(min_length=1)]
    sources: tuple[Source, ...] = ()
    disk_mib: Annotated[int, number_from(int, 256, 65536)]
    kernel: KernelFile | None = None
    console: Console | None = None
    boot: tuple[Annotated[Firmware, one_of(Firmware)], ...] = ()
    files: tuple[PlantedFile, ...] = ()
    enable: tuple[SystemdUnit, ...] = ()
    mask: tuple[SystemdUnit, ...] = ()
    why: Line | None = None

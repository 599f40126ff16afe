"""What imaging does to the disks of a SKU beyond writing the image: how they are erased, and what they become. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class EraseMethod(StrEnum):
    """Ways to take away what was on a disk (NIST SP 800-88r1: the first two purge, the others clear)."""

    SANITIZE = "sanitize"  # NVMe Sanitize: block erase, else cryptographic erase
    FORMAT = "format"  # NVMe Format NVM with secure erase settings
    DISCARD = "discard"  # every block is given back to the device
    OVERWRITE = "overwrite"  # zeros over every block
    NONE = "none"  # nothing more: the methods before it were tried


class OnFailure(StrEnum):
    """What a machine does whose imaging failed. One that was refused switches itself off whatever is written here."""

    POWER_OFF = "power_off"
    HOLD = "hold"  # stays on, and says why on its console


@dataclass(frozen=True, slots=True)
class ErasePolicy:
    """How disks are erased before the image is written.

    methods     tried in this order; the first that the disk takes is what is done. A disk that takes none is an error,
                and nothing is written, unless the last one is NONE
    data_disks  whether the data disks of the rack file are erased too
    source      whose rule it is; empty: nobody wrote it down
    """

    methods: tuple[EraseMethod, ...] = (EraseMethod.NONE,)
    data_disks: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True)
class StoragePolicy:
    """What the planned disks become.

    mirrored    the system is written to a mirror (RAID1) of `disk` and `mirror_disk` of the rack file
    grow_root   the root partition takes what is left of the disk
    data_mount  where the data disks are mounted, striped (RAID0) with one file system; empty: they stay as they are
    source      where the layout is from; empty: nobody wrote it down
    """

    mirrored: bool = False
    grow_root: bool = False
    data_mount: str = ""
    source: str = ""


NOT_ERASED = ErasePolicy()
AS_THE_IMAGE = StoragePolicy()


@dataclass(frozen=True, slots=True)
class ImagingPolicy:
    """How a node of this SKU is imaged.

    silence       so long may a node be on its way without a word; every report, and all progress, begins it anew
    console       kernel argument that puts the console where the BMC shows it (`ttyS0,115200n8`); empty: the kernel's
    """

    erase: ErasePolicy = NOT_ERASED
    storage: StoragePolicy = AS_THE_IMAGE
    on_failure: OnFailure = OnFailure.POWER_OFF
    # No vendor figure: a DGX takes about five minutes from power-on to its boot loader; three times that.
    silence: timedelta = timedelta(minutes=15)
    console: str = ""


BY_DEFAULT = ImagingPolicy()

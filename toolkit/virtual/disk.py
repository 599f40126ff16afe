"""Disks of virtual nodes: sparse files behind loop devices, and the partition table on them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.virtual.programs import run

SECTOR_BYTES = 512
# Where partitioners put the first partition (1 MiB), for a disk that has no table yet.
FIRST_PARTITION_BYTES = 1024 * 1024
DISK_BYTES = 4 * 1024**3

# linux/loop.h
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LOOP_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")
_ATTEMPTS = 64
_CLONE_NEWNS = 0x00020000  # linux/sched.h
# A dead machine's mount namespace pins its file system for a moment; this is far over what was ever seen.
_RELEASE_DEADLINE_S = 30.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Extent:
    """A stretch of a disk, in bytes. `size` 0 means up to the end."""

    offset: int = 0
    size: int = 0


WHOLE = Extent()


def create(disk: Path, size_bytes: int = DISK_BYTES) -> None:
    """An empty sparse disk, unless it is there already."""
    if not disk.exists():
        with disk.open("wb") as file:
            file.truncate(size_bytes)


def first_partition(disk: Path) -> Extent | None:
    """Entry 1 of the disk's MBR; None when there is no table or the entry is empty.

    Read by us because kernels without CONFIG_MSDOS_PARTITION do not scan loop devices.
    """
    with disk.open("rb") as file:
        sector = file.read(SECTOR_BYTES)
    if len(sector) < SECTOR_BYTES or sector[510:] != b"\x55\xaa":
        return None
    start, count = struct.unpack_from("<II", sector, 454)
    return Extent(start * SECTOR_BYTES, count * SECTOR_BYTES) if start and count else None


@contextmanager
def attached(disk: Path, extent: Extent = WHOLE) -> Iterator[Path]:
    """A loop device over the disk for the time of the block; on return the kernel has let the file go.

    The device clears itself on its last close, so it is gone too when this process is killed.
    Attaching the same file again before the kernel let go corrupts it: hence the wait.
    """
    device, handle = _attach(disk, extent)
    try:
        yield device
    finally:
        os.close(handle)
        wait_released(device, disk)


def wait_released(device: Path, disk: Path, deadline_s: float = _RELEASE_DEADLINE_S) -> None:
    """Returns once the loop device no longer has the disk behind it."""
    end = time.monotonic() + deadline_s
    while backing_file(device) == str(disk):
        if time.monotonic() > end:
            raise RackproofError(
                f"{device} still holds {disk} after {deadline_s:.0f} s",
                "something keeps the node's file system mounted: `rackproof virtual down`, then `virtual up`",
            )
        time.sleep(_POLL_S)


def backing_file(device: Path) -> str | None:
    """Path of the file behind a loop device; None when it is free."""
    try:
        return (Path("/sys/block") / device.name / "loop" / "backing_file").read_text().rstrip("\n")
    except OSError:
        return None


def loops_below(folder: Path) -> tuple[Path, ...]:
    """Loop devices whose file lies (or lay, if deleted) below the folder."""
    found = []
    for block in sorted(Path("/sys/block").glob("loop*")):
        backing = backing_file(Path("/dev") / block.name)
        if backing is not None and backing.startswith(f"{folder}/"):
            found.append(Path("/dev") / block.name)
    return tuple(found)


def isolate_mounts() -> None:
    """Gives the calling thread a mount namespace of its own.

    A machine starts with a copy of its starter's mounts, and keeps them mounted as long as it lives: one node's disk
    must never be in another node's copy.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare comes with Python 3.12
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise RackproofError(f"cannot make a mount namespace: {os.strerror(ctypes.get_errno())}")


@contextmanager
def mounted(source: str, where: Path, kind: str, options: str) -> Iterator[Path]:
    """A mount for the time of the block; raises RackproofError when it cannot be mounted."""
    where.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", kind, "-o", options, source, str(where)])
    try:
        yield where
    finally:
        run(["umount", "--recursive", str(where)])


def _attach(disk: Path, extent: Extent) -> tuple[Path, int]:
    with disk.open("r+b") as file, Path("/dev/loop-control").open("r+b", buffering=0) as control:
        info = _LOOP_INFO64.pack(
            0, 0, 0, extent.offset, extent.size, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, _file_name(disk), b"", b"", 0, 0
        )
        config = struct.pack("=II", file.fileno(), 0) + info + bytes(64)
        for _ in range(_ATTEMPTS):
            device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            handle = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(handle)
                if error.errno != errno.EBUSY:  # busy: somebody else took it between the two calls
                    raise
            else:
                return device, handle
    raise RackproofError(f"no free loop device for {disk}", "`losetup -a` shows who holds them")


def _file_name(disk: Path) -> bytes:
    return str(disk).encode()[-63:]

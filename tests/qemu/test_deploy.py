"""The deploy ramdisk on a real kernel with NVMe disks: what they are when it is through."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.qemu.deploy_bench import DATA1, DATA2, MIB, MIRROR, NODE, DeployBench, benched, read, root_bytes, table
from tests.qemu.deploy_machine import Ending
from tests.qemu.deploy_parts import BOOTED, BOOTED_BY_UEFI, ROOT
from toolkit.rack.imaging import EraseMethod, ErasePolicy, ImagingPolicy, StoragePolicy
from toolkit.rack.model import Disk
from toolkit.virtual.programs import run as sh
from toolkit.virtual.qemu.machine import Firmware

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
PURGED = ErasePolicy((EraseMethod.SANITIZE, EraseMethod.FORMAT), data_disks=True, source="test")
ALL = StoragePolicy(mirrored=True, grow_root=True, data_mount="/raid", source="test")


def test_four_disks_are_erased_and_become_a_mirror_and_a_stripe(bench):
    """Formatted, sanitize is not offered; both halves boot; root reaches the mirror's end; data lies over two disks."""
    for number, serial in ((1, MIRROR), (2, DATA1), (3, DATA2)):
        bench.plug(number, serial)
    size = bench.disk(1).stat().st_size
    disks = tuple(Disk(serial=serial, size_bytes=size) for serial in (MIRROR, DATA1, DATA2))
    assert NODE.host is not None
    bench.planned = replace(NODE, host=replace(NODE.host, mirror_disk=disks[0], data_disks=disks[1:]))
    bench.policy = ImagingPolicy(erase=PURGED, storage=ALL)
    ended, events, run = bench.deploy(500)
    assert (ended, events) == (Ending.REBOOT, ["started", *["erased format"] * 4, "written"]), run.text
    log = bench.site.log(bench.token).decode()
    assert "nvme format /dev/nvme0n1 --ses=1" in log
    assert not any(bench.holds_old(number) for number in range(4))
    for half in (0, 1):
        _is_whole(bench, half)
    assert "read back 53477376 bytes from /dev/nvme1n1, past the cache: as signed" in log
    assert [_level(bench.disk(number)) for number in range(4)] == ["raid1", "raid1", "raid0", "raid0"]
    bench.metal.disks = bench.metal.disks[::-1][2:]  # the second half alone in the first place
    assert bench.boots(BOOTED)


def _is_whole(bench: DeployBench, number: int) -> None:
    """One half of the mirror, looked at without the other: its metadata lies behind the last partition."""
    disk = bench.disk(number)
    told = sh(["mdadm", "--examine", str(disk)])
    sectors = int(re.search(r"Avail Dev Size : (\d+) sectors", told)[1])
    end = int(re.search(r"Array Size : (\d+)", told)[1]) * 1024
    assert end <= sectors * 512
    root = table(disk, end)[2]
    assert (int(root["start"]) + int(root["size"])) * 512 > end - 2 * MIB
    assert root_bytes(disk) == int(root["size"]) * 512 > ROOT.size_bytes
    assert read(disk, "/etc/hostname") == b"node1\n"


def _level(disk: Path) -> str:
    return re.search(r"Raid Level : (\S+)", sh(["mdadm", "--examine", str(disk)]))[1]


def test_the_firmware_menu_has_one_entry_however_often_it_was_written(netboot, image):
    """UEFI: the entry is made, is first, and is made anew instead of once more; the firmware boots by it."""
    with benched(netboot, image, Firmware.UEFI) as bench:
        bench.policy = ImagingPolicy(storage=StoragePolicy(grow_root=True, source="test"))
        for _ in range(2):
            ended, events, run = bench.deploy(500)
            assert (ended, events) == (Ending.REBOOT, ["started", "written"]), run.text
            variables = (bench.folder / "variables.fd").read_bytes()
            assert len(_entries(variables)) == 1
        assert bench.boots(BOOTED_BY_UEFI, otherwise="No bootable option", seconds=240)
        root = table(bench.disk())[2]
        assert root_bytes(bench.disk()) == int(root["size"]) * 512 > ROOT.size_bytes


def _entries(variables: bytes) -> list[int]:
    """Where our label stands in what the firmware kept and has not deleted (EDK II: AUTHENTICATED_VARIABLE_HEADER,
    State 0x3F is VAR_ADDED).
    """
    label = "rackproof".encode("utf-16-le") + b"\0\0"
    found = []
    for match in re.finditer(re.escape(b"\xaa\x55"), variables):
        header = variables[match.start() : match.start() + 60]
        name_bytes = int.from_bytes(header[36:40], "little")
        data_bytes = int.from_bytes(header[40:44], "little")
        if len(header) < 60 or header[2] != 0x3F or name_bytes > 64 or data_bytes > 4096:
            continue
        body = variables[match.start() + 60 :][: name_bytes + data_bytes]
        if body.startswith("Boot0".encode("utf-16-le")) and label in body:
            found.append(match.start())
    return found

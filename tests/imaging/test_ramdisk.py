"""The deploy ramdisk's init, run as PID 1 of a container against a small disk, a DHCP server and an HTTP server."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.imaging.conftest import NODE
from tests.imaging.ramdisk_bench import MIB, RUBBISH, Bench, benched, events, make_image, wired
from toolkit.image import ramdisk
from toolkit.virtual.machine import End
from toolkit.virtual.programs import run as sh

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture(scope="module")
def wire() -> Iterator[None]:
    """Two namespaces, a wire between them, and a DHCP server that knows the machine's MAC."""
    with wired():
        yield


@pytest.fixture(scope="module")
def image() -> bytes:
    """The small image."""
    with tempfile.TemporaryDirectory() as folder:
        return make_image(Path(folder))


@pytest.fixture
def bench(wire: None, image: bytes, tmp_path: Path) -> Iterator[Bench]:
    """All set up, with something old on the disk."""
    with benched(image, tmp_path) as made:
        yield made


def test_the_image_is_written_exactly_and_made_this_node(bench, image):
    """Every byte of the image but the planted seed; nothing of the old system; a clean file system; a reboot."""
    end, reports = bench.boot()
    assert (end, events(reports)) == (End.REBOOT, ["started", "written"])
    assert bench.read("/etc/hostname") == b"node1\n"
    assert bench.read("/root/.ssh/authorized_keys") == b"key\n"
    sh(["e2fsck", "-f", "-n", f"{bench.disk}?offset={MIB}"])
    assert RUBBISH not in bench.disk.read_bytes()
    raw = subprocess.run(["zstd", "-dcq"], input=image, capture_output=True, check=True).stdout
    assert len(raw) == 16 * MIB
    (bench.folder / "raw").write_bytes(raw)
    noise = ["debugfs", "-R", "cat /etc/noise", f"{bench.folder / 'raw'}?offset={MIB}"]
    assert bench.read("/etc/noise") == subprocess.run(noise, capture_output=True, check=True).stdout


def test_private_seed_files_stay_private(bench):
    """Modes survive the planting: sshd refuses keys in an open folder."""
    bench.boot()
    listing = subprocess.run(
        ["debugfs", "-R", "ls -l /root", f"{bench.disk}?offset={MIB}"], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[1] for line in listing.splitlines() if line.endswith(" .ssh")] == ["40700"]


def test_the_written_disk_stays_sparse(bench):
    """Zeros are holes: six nodes must fit on a laptop."""
    bench.boot()
    assert bench.disk.stat().st_blocks * 512 < 8 * MIB


@pytest.mark.parametrize(
    ("file", "code", "found"),
    [("serial", "NODE_SERIAL_MISMATCH", "VR00000009"), ("block/nvme0n1/serial", "DISK_SERIAL_MISMATCH", "VR00000009")],
)
def test_another_machine_or_disk_is_refused_untouched(bench, file, code, found):
    """Not one byte of the disk changes; the machine switches itself off."""
    (bench.folder / "hardware" / file).write_text(f"{found}\n")
    before = bench.disk.read_bytes()
    end, reports = bench.boot()
    assert (end, events(reports)) == (End.POWER_OFF, ["started", "refused"])
    assert (reports[-1].code, reports[-1].found) == (code, found)
    assert bench.disk.read_bytes() == before


def test_a_missing_disk_is_refused(bench):
    """The planned disk is not there: neither a node for it, nor anything that tells of one."""
    (bench.folder / "hardware/block/nvme0n1").rename(bench.folder / "hardware/block/nvme1n1")
    end, reports = bench.boot()
    assert (end, reports[-1].code) == (End.POWER_OFF, "DISK_SERIAL_MISMATCH")
    assert "no disk" in reports[-1].found


def test_a_disk_that_the_kernel_named_otherwise_is_the_planned_one(bench):
    """The rack file's name is a hint: the serial decides, and another disk with the planned name stays as it is."""
    bench.tell_disk("nvme1n1", "VD00000001")
    (bench.folder / "hardware/block/nvme0n1/serial").write_text("VD00000002\n")
    other, bench.disks["nvme0n1"] = bench.disk, bench.disk
    before, bench.disk = other.read_bytes(), bench.disks["nvme1n1"]
    end, reports = bench.boot()
    assert (end, events(reports)) == (End.REBOOT, ["started", "written"])
    assert bench.read("/etc/hostname") == b"node1\n"
    assert other.read_bytes() == before
    assert "the planned disk is /dev/nvme1n1, not /dev/nvme0n1" in bench.written_on_console()


def test_a_flipped_byte_is_found_and_wiped(bench, image):
    """Also where it breaks the decoder: the report names both hashes, and nothing bootable stays."""
    bench.spoil = True
    end, reports = bench.boot()
    assert (end, events(reports)) == (End.POWER_OFF, ["started", "hash_mismatch"])
    assert reports[-1].expected == hashlib.sha256(image).hexdigest()
    assert len(reports[-1].found) == 64 != reports[-1].expected
    assert not bench.bootable()


def test_another_image_with_a_wrong_sum_is_not_booted(bench):
    """A boot script that names another image than the site signed: not a byte is written."""
    before = bench.disk.read_bytes()
    end, reports = bench.boot(sha256="cd" * 32)
    assert (end, events(reports)) == (End.POWER_OFF, ["started", "failed"])
    assert reports[-1].code == "MANIFEST_WRONG"
    assert bench.disk.read_bytes() == before


def test_an_image_that_is_not_there_is_our_fault(bench):
    """404: reported as a failure of ours, and the disk does not boot half of something."""
    end, reports = bench.boot(url="http://10.66.255.1/images/none")
    assert (end, reports[-1].event, reports[-1].code) == (End.POWER_OFF, "failed", "IMAGE_DOWNLOAD")
    assert not bench.bootable()


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(bench):
    """Both sizes reach the operator."""
    os.truncate(bench.disk, 8 * MIB)
    before = bench.disk.read_bytes()
    end, reports = bench.boot()
    assert (end, reports[-1].code) == (End.POWER_OFF, "DISK_TOO_SMALL")
    assert f"{8 * MIB} bytes, the image needs {16 * MIB}" in reports[-1].message
    assert bench.disk.read_bytes() == before


def test_a_seed_that_was_swapped_is_refused(bench):
    """The seed says who may log in as root."""
    end, reports = bench.boot(seed_sha256="cd" * 32)
    assert (end, reports[-1].code) == (End.POWER_OFF, "SEED_HASH_MISMATCH")
    assert not bench.bootable()


def test_an_incomplete_boot_script_touches_nothing(bench):
    """Without an expected disk serial nothing could be refused."""
    before = bench.disk.read_bytes()
    end, reports = bench.boot(disk_serial="")
    assert (end, reports) == (End.POWER_OFF, ())
    assert bench.disk.read_bytes() == before


def test_the_packed_ramdisk_is_small_and_unpacks(tmp_path):
    """What iPXE loads: a zstd cpio archive of a few MB with an executable /init."""
    tree, packed, unpacked = tmp_path / "tree", tmp_path / "deploy.cpio.zst", tmp_path / "unpacked"
    tree.mkdir()
    ramdisk.make_tree(tree)
    ramdisk.pack(tree, packed)
    assert packed.stat().st_size < 8 * MIB
    unpacked.mkdir()
    with subprocess.Popen(["zstd", "-dcq", str(packed)], stdout=subprocess.PIPE) as zstd:
        subprocess.run(["cpio", "-idm", "--quiet"], stdin=zstd.stdout, cwd=unpacked, check=True)
    assert os.access(unpacked / "init", os.X_OK)
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    for program in ("/usr/bin/zstd", "/usr/bin/dd.coreutils", "/usr/sbin/blkdiscard", "/usr/sbin/debugfs"):
        status = subprocess.run([chroot, str(unpacked), program, "--version"], capture_output=True, check=False)
        assert b"not found" not in status.stderr, program


def test_a_serial_with_blanks_around_it_is_the_same_serial(bench):
    """BMCs and firmware pad them."""
    (bench.folder / "hardware/serial").write_text(f"  {NODE.serial} \t\r\n")
    end, _ = bench.boot(replace(NODE))
    assert end is End.REBOOT

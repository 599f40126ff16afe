"""Which disk the deploy ramdisk takes: by serial, WWN and size, never by name; and everything it refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.imaging.shell_bench import ShellBench
from toolkit.virtual import disk
from toolkit.virtual.programs import run as sh

MIB = 1024 * 1024
FIND = 'find_planned_disks\necho "DISK ${disk##*/} MIRROR $boot_disks DATA $data_disks"'


@pytest.fixture
def bench(tmp_path: Path) -> ShellBench:
    """Three disks; their names are in another order than they were when the plan was made."""
    made = ShellBench(tmp_path / "bench")
    made.plug("nvme0n1", serial="S3", wwid="eui.0025384111b0ab03")
    made.plug("nvme1n1", serial="  S1 ", wwid="eui.0025384111b0ab01")
    made.plug("sda", serial="S2", wwid="naa.5002538e00000002")
    made.plug("loop0", serial="S1")
    made.plug("nvme0c0n1", serial="S1", hidden="1")
    plan = {"disk": "/dev/nvme0n1", "disk_serial": "S1", "disk_wwn": "", "disk_size": "", "mirror": "", "data": ""}
    made.variables = plan | {"serial": "VR1"}
    return made


@pytest.mark.parametrize(
    ("serial", "wwn", "names"),
    [
        ("S1", "", "nvme1n1"),
        ("", "0x5002538E00000002", "sda"),
        ("", "EUI.0025384111B0AB03", "nvme0n1"),
        ("S1", "eui.0025384111b0ab01", "nvme1n1"),
        ("S1", "eui.0025384111b0ab03", ""),
        ("S", "", ""),
        ("s1", "", ""),
    ],
)
def test_a_disk_is_known_by_its_serial_and_its_wwn_as_a_whole(bench, serial, wwn, names):
    """Blanks and a WWN's spelling do not count; loop devices and hidden paths are no disks; half a name is none."""
    assert bench.run(f"disks_with '{serial}' '{wwn}'").stdout.split() == names.split()


def test_a_scsi_disk_tells_its_serial_in_a_page_of_its_own(bench):
    """SPC-5 7.8.12: four bytes, then the text. The model's `serial` is not there at all."""
    folder = bench.folder / "hardware/block/sdb/device"
    folder.mkdir(parents=True)
    (folder / "vpd_pg80").write_bytes(b"\x00\x80\x00\x08  WD-0042")
    (folder / "wwid").write_text("t10.ATA     WDC\n")
    assert bench.run("serial_of sdb; wwn_of sdb").stdout.split() == ["WD-0042", "t10.ataWDC".lower()]


def test_no_disk_with_that_serial_is_refused_with_those_that_are_there(bench):
    """The operator corrects the plan from this line."""
    bench.variables["disk_serial"] = "S9"
    done = bench.run(FIND)
    assert done.returncode == 86
    assert 'REPORT refused "code":"DISK_SERIAL_MISMATCH","expected":"S9","found":"S3, S1, S2"' in done.stdout


def test_two_disks_with_one_serial_are_refused_and_a_wwn_tells_them_apart(bench):
    """Namespaces of one NVMe controller share its serial."""
    bench.plug("nvme1n2", serial="S1", wwid="eui.0025384111b0ab99")
    done = bench.run(FIND)
    assert done.returncode == 86
    assert "DISK_AMBIGUOUS" in done.stdout
    assert "nvme1n1 nvme1n2" in done.stdout
    assert bench.run("disks_with S1 eui.0025384111b0ab99").stdout.split() == ["nvme1n2"]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def device(bench: ShellBench, tmp_path: Path):
    """S1 is a real block device."""
    file = tmp_path / "disk.img"
    disk.create(file, 8 * MIB)
    with disk.attached(file) as loop:
        (bench.folder / "dev/nvme1n1").symlink_to(loop)
        yield bench


@pytest.mark.root
@needs_root
def test_the_planned_name_is_a_hint(device):
    """The kernel named the disks in another order: the disk is taken, and the change is told."""
    done = device.run(FIND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DISK nvme1n1" in done.stdout
    assert "the planned disk is" in done.stdout


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("size", "status"), [(8 * MIB, 0), (8 * MIB - 512, 86)])
def test_another_size_than_the_planned_is_another_disk(device, size, status):
    """To the byte: disks of one model have one size."""
    device.variables["disk_size"] = str(size)
    done = device.run(FIND)
    assert done.returncode == status
    assert ("DISK_SIZE_MISMATCH" in done.stdout) is (status == 86)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("sizes", "status"), [("", 0), ("0,0", 0), (f"0,{8 * MIB}", 0), (f"0,{8 * MIB + 512}", 86)])
def test_data_disks_have_their_planned_sizes_too(device, tmp_path, sizes, status):
    """Each its own, in the order of the disks; 0 is a disk of which the plan tells no size."""
    file = tmp_path / "data.img"
    disk.create(file, 8 * MIB)
    with disk.attached(tmp_path / "disk.img") as system, disk.attached(file) as data:
        (device.folder / "dev/nvme0n1").symlink_to(system)
        (device.folder / "dev/sda").symlink_to(data)
        device.variables |= {"data": "S3,wwn:5002538e00000002", "data_size": sizes}
        done = device.run(FIND)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("DISK_SIZE_MISMATCH" in done.stdout) is (status == 86)
    assert ("sda (S2): 8388608 bytes" in done.stdout) is (status == 86)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("size", "status"), [(8 * MIB, 0), (8 * MIB - 512, 86)])
def test_the_other_half_of_a_mirror_has_its_planned_size(device, tmp_path, size, status):
    """As the first half."""
    file = tmp_path / "mirror.img"
    disk.create(file, 8 * MIB)
    with disk.attached(file) as other:
        (device.folder / "dev/sda").symlink_to(other)
        device.variables |= {"mirror": "S2", "mirror_size": str(size)}
        done = device.run(FIND)
    assert (done.returncode, "DISK_SIZE_MISMATCH" in done.stdout) == (status, status == 86), done.stdout


@pytest.mark.root
@needs_root
def test_one_disk_is_never_planned_for_two_purposes(device):
    """A data disk with the serial of the system disk would be striped over the system."""
    device.variables["data"] = "wwn:eui.0025384111b0ab01"
    done = device.run(FIND)
    assert (done.returncode, "DISK_AMBIGUOUS" in done.stdout) == (86, True)


@pytest.mark.root
@needs_root
def test_a_disk_that_is_held_is_refused(device, tmp_path):
    """Mounted: whatever runs from it would be overwritten under its feet."""
    loop = (device.folder / "dev/nvme1n1").resolve()
    sh(["mke2fs", "-q", "-F", str(loop)])
    with disk.mounted(str(loop), tmp_path / "mounted", "ext2", "ro"):
        done = device.run(FIND)
    assert (done.returncode, "DISK_IN_USE" in done.stdout) == (86, True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("system", "mirror", "told"), [(512, 512, ""), (4096, 512, "nvme1n1 (S1)"), (512, 4096, "sda (S2)")]
)
def test_a_disk_whose_sectors_are_not_the_images_is_not_written(bench, tmp_path, system, mirror, told):
    """Its firmware would find neither table nor boot loader. Either half of a mirror is booted from."""
    bench.variables |= {"mirror": "S2"}
    with _sectored(tmp_path / "a.img", system) as one, _sectored(tmp_path / "b.img", mirror) as other:
        (bench.folder / "dev/nvme1n1").symlink_to(one)
        (bench.folder / "dev/sda").symlink_to(other)
        done = bench.run(FIND)
    assert (done.returncode, "DISK_SECTORS" in done.stdout) == ((86, True) if told else (0, False)), done.stdout
    assert not told or f"{told} has sectors of 4096 bytes, the image of 512" in done.stdout


@contextmanager
def _sectored(file: Path, sector_bytes: int) -> Iterator[str]:
    """A block device with such sectors."""
    disk.create(file, 8 * MIB)
    device = sh(["losetup", "--find", "--show", "--sector-size", str(sector_bytes), str(file)]).strip()
    try:
        yield device
    finally:
        sh(["losetup", "--detach", device])

"""The deploy ramdisk's init, run as PID 1 of a container against a small disk, a DHCP server and an HTTP server."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.imaging.conftest import NODE
from toolkit.rack.model import Unit
from toolkit.stages.provisioning import ProvisionSite, Report, render_boot_script, seed_files
from toolkit.virtual import disk, network, ramdisk
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.documents import DocumentServer
from toolkit.virtual.machine import Bind, End, Machine, MachineSpec
from toolkit.virtual.programs import run as sh

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TAG = f"rpt{os.getpid() % 100000}"
SERVER, CLIENT = f"{TAG}s", f"{TAG}n"
TOKEN = "0123456789abcdef" * 2
IMAGE = "small.img.zst"
MIB = 1024 * 1024
RUBBISH = b"old system" * 100


def _image(folder: Path) -> bytes:
    """A 16 MiB disk: MBR, one ext4 partition at 1 MiB, a few files; as zstd."""
    tree, raw = folder / "tree", folder / "disk.img"
    for name in ("etc/rackproof", "root"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/hostname").write_text("unnamed\n")
    (tree / "etc/noise").write_bytes(os.urandom(2 * MIB))
    with raw.open("wb") as file:
        file.truncate(16 * MIB)
        file.seek(446)
        file.write(struct.pack("<B3sB3sII", 0x80, b"\0\0\0", 0x83, b"\0\0\0", 2048, 30720))
        file.seek(510)
        file.write(b"\x55\xaa")
    sh(["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={MIB},root_owner=0:0", "-d", str(tree), str(raw), "15360k"])
    return subprocess.run(["zstd", "-q", "-c", str(raw)], capture_output=True, check=True).stdout


@dataclass
class Bench:
    """A provisioning site in one namespace and a machine in another, joined by a wire."""

    folder: Path
    site: ProvisionSite
    server: DocumentServer
    disk: Path
    spoil: bool = False

    def boot(self, planned: Unit = NODE, **changed: str) -> tuple[End, tuple[Report, ...]]:
        """Boots the ramdisk with the boot script's arguments; how it ended, and what it reported."""
        seed = self.site.publish_seed(TOKEN, seed_files(NODE, "ab" * 32, self.site.report_url(TOKEN), ["key"]))
        script = render_boot_script(planned, self.site.image(IMAGE), seed, self.site.report_url(TOKEN), TOKEN)
        kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
        arguments = dict(word.split("=", 1) for word in kernel.split()[2:])
        arguments |= {f"deploy.{name}": value for name, value in changed.items()}
        with disk.attached(self.disk) as device:
            spec = MachineSpec(
                name=CLIENT, root=self._root(), init=("/init", *(f"{k}={v}" for k, v in arguments.items())),
                namespace=network.NAMESPACES / CLIENT, uuid="0" * 31 + "1", console=self.folder / "console",
                binds=(Bind(device, "/dev/nvme0n1"), Bind(self.folder / "hardware", "/run/hardware")),
                group=ControlGroup(f"rackproof-test-{TAG}"),
            )  # fmt: skip
            end = Machine(spec).wait()
        return end, self.site.reports(TOKEN)

    def _root(self) -> Path:
        root = self.folder / "ramdisk"
        if not root.exists():
            root.mkdir()
            ramdisk.make_tree(root)
        return root

    def read(self, path: str) -> bytes:
        """A file of the written root file system."""
        argv = ["debugfs", "-R", f"cat {path}", f"{self.disk}?offset={MIB}"]
        return subprocess.run(argv, capture_output=True, check=True).stdout

    def bootable(self) -> bool:
        """Whether firmware would find something to boot."""
        return disk.first_partition(self.disk) is not None


@pytest.fixture(scope="module")
def wire() -> Iterator[None]:
    """Two namespaces, a wire between them, and a DHCP server that knows the machine's MAC."""
    host = NODE.host
    assert host is not None
    with ExitStack() as held:
        for name in (SERVER, CLIENT):
            sh(["ip", "netns", "add", name])
            held.callback(sh, ["ip", "netns", "delete", name])
        sh(["ip", "-n", SERVER, "link", "add", "wire0", "type", "veth", "peer", "name", "eth0", "netns", CLIENT])
        sh(["ip", "-n", CLIENT, "link", "set", "eth0", "address", host.mac])
        sh(["ip", "-n", SERVER, "address", "add", "10.66.255.1/16", "dev", "wire0"])
        sh(["ip", "-n", SERVER, "link", "set", "wire0", "up"])
        argv = [
            "ip", "netns", "exec", SERVER, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
            "--interface=wire0", "--bind-interfaces", "--dhcp-range=10.66.0.0,static,255.255.0.0", "--leasefile-ro",
            f"--dhcp-host={host.mac},{host.address}", "--pid-file=", "--user=root", "--dhcp-authoritative",
        ]  # fmt: skip
        dnsmasq = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        held.callback(ControlGroup(f"rackproof-test-{TAG}").remove)
        held.callback(dnsmasq.wait)
        held.callback(dnsmasq.kill)
        yield


@pytest.fixture(scope="module")
def image() -> bytes:
    """The small image."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return _image(Path(folder))


@pytest.fixture
def bench(wire: None, image: bytes, tmp_path: Path) -> Iterator[Bench]:
    """All set up, with something old on the disk."""
    root = tmp_path / "provision"
    for name, content in ((f"images/{IMAGE}", image), ("boot/deploy.cpio.zst", b"not asked for here")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (root / f"{name}.sha256").write_text(f"{digest}  {Path(name).name}\n")
    (tmp_path / "hardware").mkdir()
    (tmp_path / "hardware/serial").write_text(f"{NODE.serial}\n")
    (tmp_path / "hardware/disk-serial").write_text("VD00000001\n")
    old = tmp_path / "nvme0n1.img"
    disk.create(old, 32 * MIB)
    with old.open("r+b") as file:
        for offset in (0, MIB, 8 * MIB, 20 * MIB):
            file.seek(offset)
            file.write(RUBBISH)

    made = Bench(tmp_path, ProvisionSite(root, "http://10.66.255.1"), None, old)  # type: ignore[arg-type]
    made.server = network.inside(
        SERVER, lambda: DocumentServer(("10.66.255.1", 80), root, lambda _ip, _path: made.spoil, lambda _: None)
    )
    threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


def _events(reports: tuple[Report, ...]) -> list[str]:
    return [report.event.value for report in reports]


def test_the_image_is_written_exactly_and_made_this_node(bench, image):
    """Every byte of the image but the planted seed; nothing of the old system; a clean file system; a reboot."""
    end, reports = bench.boot()
    assert (end, _events(reports)) == (End.REBOOT, ["started", "written"])
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
    [("serial", "NODE_SERIAL_MISMATCH", "VR00000009"), ("disk-serial", "DISK_SERIAL_MISMATCH", "VR00000009")],
)
def test_another_machine_or_disk_is_refused_untouched(bench, file, code, found):
    """Not one byte of the disk changes; the machine switches itself off."""
    (bench.folder / "hardware" / file).write_text(f"{found}\n")
    before = bench.disk.read_bytes()
    end, reports = bench.boot()
    assert (end, _events(reports)) == (End.POWER_OFF, ["started", "refused"])
    assert (reports[-1].code, reports[-1].found) == (code, found)
    assert bench.disk.read_bytes() == before


def test_a_missing_disk_is_refused(bench):
    """The planned device is not there."""
    end, reports = bench.boot(disk="/dev/nvme1n1")
    assert (end, reports[-1].code) == (End.POWER_OFF, "DISK_SERIAL_MISMATCH")
    assert "no disk" in reports[-1].found


def test_a_flipped_byte_is_found_and_wiped(bench, image):
    """Also where it breaks the decoder: the report names both hashes, and nothing bootable stays."""
    bench.spoil = True
    end, reports = bench.boot()
    assert (end, _events(reports)) == (End.POWER_OFF, ["started", "hash_mismatch"])
    assert reports[-1].expected == hashlib.sha256(image).hexdigest()
    assert len(reports[-1].found) == 64 != reports[-1].expected
    assert not bench.bootable()


def test_another_image_with_a_wrong_sum_is_not_booted(bench):
    """A valid zstd image that is not the named one."""
    end, reports = bench.boot(sha256="cd" * 32)
    assert (end, _events(reports)) == (End.POWER_OFF, ["started", "hash_mismatch"])
    assert not bench.bootable()


def test_an_image_that_is_not_there_is_our_fault(bench):
    """404: reported as a failure of ours, and the disk does not boot half of something."""
    end, reports = bench.boot(url="http://10.66.255.1/images/none")
    assert (end, reports[-1].event, reports[-1].code) == (End.POWER_OFF, "failed", "IMAGE_DOWNLOAD")
    assert not bench.bootable()


def test_a_disk_that_is_too_small_is_reported_with_its_words(bench):
    """The kernel's error text reaches the operator."""
    os.truncate(bench.disk, 8 * MIB)
    end, reports = bench.boot()
    assert (end, reports[-1].code) == (End.POWER_OFF, "DISK_WRITE")
    assert "space" in reports[-1].message


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

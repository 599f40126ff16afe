"""A machine that boots the deploy ramdisk in a container: its disk, its wire, a DHCP server and the boot service."""

from __future__ import annotations

import os
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from tests.imaging.conftest import NODE
from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import load_or_create
from toolkit.certificate.trust import Trust
from toolkit.image import ramdisk
from toolkit.image.manifest import Architecture, Content, Manifest, Role, RootPartition
from toolkit.image.release import describe, publish, sign_release, write_manifest
from toolkit.rack.imaging import BY_DEFAULT, ImagingPolicy
from toolkit.rack.model import Unit
from toolkit.stages.boot_script import render_boot_script
from toolkit.stages.deploy_reports import Report
from toolkit.stages.provisioning import ProvisionSite
from toolkit.stages.seeds import seed_files
from toolkit.virtual import disk, network
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.documents import DocumentServer
from toolkit.virtual.machine import Bind, End, Machine, MachineSpec
from toolkit.virtual.programs import run as sh

TAG = f"rpt{os.getpid() % 100000}"
SERVER, CLIENT = f"{TAG}s", f"{TAG}n"
TOKEN = "0123456789abcdef" * 2
IMAGE = "small"
MIB = 1024 * 1024
RUBBISH = b"old system" * 100
_ROOT = RootPartition(1, MIB, 15 * MIB)
_DEADLINE_S = 240.0  # a machine that hangs is cut off, and the test says what it ended in


def make_image(folder: Path) -> bytes:
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
    """A provisioning site in one namespace and a machine in another, joined by a wire.

    disks  the machine's, by the names that its kernel gives them; one more than the planned is where mistakes are made
    """

    folder: Path
    site: ProvisionSite
    disk: Path
    server: DocumentServer | None = None
    spoil: bool = False
    policy: ImagingPolicy = BY_DEFAULT
    disks: dict[str, Path] = field(default_factory=dict)
    machine: Machine | None = None

    def boot(self, planned: Unit = NODE, **changed: str) -> tuple[End, tuple[Report, ...]]:
        """Boots the ramdisk with the boot script's arguments; how it ended, and what it reported."""
        places = self.site.places(TOKEN, signed="certificate" in changed)
        seed = self.site.publish_seed(TOKEN, seed_files(NODE, None, "ab" * 32, places.report, ["key"]))
        script = render_boot_script(planned, self.site.image(IMAGE), seed, places, self.policy)
        kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
        arguments = dict(word.split("=", 1) for word in kernel.split()[2:])
        arguments |= {f"deploy.{name}": value for name, value in changed.items()}
        with ExitStack() as held:
            binds = [Bind(self.folder / "hardware", "/run/hardware")]
            for name, file in (self.disks or {"nvme0n1": self.disk}).items():
                binds.append(Bind(held.enter_context(disk.attached(file)), f"/dev/{name}"))
            spec = MachineSpec(
                name=CLIENT, root=self._root(), init=("/init", *(f"{k}={v}" for k, v in arguments.items())),
                namespace=network.NAMESPACES / CLIENT, uuid="0" * 31 + "1", console=self.folder / "console",
                binds=tuple(binds), group=ControlGroup(f"rackproof-test-{TAG}"),
            )  # fmt: skip
            self.machine = Machine(spec)
            deadline = threading.Timer(_DEADLINE_S, self.machine.cut_power)
            deadline.start()
            try:
                end = self.machine.wait()
            finally:
                deadline.cancel()
        return end, self.site.reports(TOKEN)

    def cut_power(self) -> None:
        """Ends the machine that runs now."""
        assert self.machine is not None
        self.machine.cut_power()

    def written_on_console(self) -> str:
        """What the machine wrote so far; empty before it began."""
        file = self.folder / "console"
        return file.read_text(errors="replace") if file.exists() else ""

    def tell_disk(self, name: str, serial: str, wwn: str = "", size_bytes: int = 64 * MIB) -> None:
        """Plugs one more disk in, told as /sys/block tells it."""
        block = self.folder / "hardware/block" / name
        block.mkdir(parents=True)
        (block / "serial").write_text(f"{serial}\n")
        (block / "wwid").write_text(f"{wwn}\n")
        file = self.folder / f"{name}.img"
        if not file.exists():
            disk.create(file, size_bytes)
        self.disks[name] = file

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

    @property
    def published(self) -> Path:
        """Folder of the published release."""
        (folder,) = (path for path in (self.site.root / "images" / IMAGE).iterdir() if path.is_dir())
        return folder


@contextmanager
def wired() -> Iterator[None]:
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


def publish_image(image: bytes, raw: bytes, folder: Path, root: RootPartition = _ROOT) -> ProvisionSite:
    """The image as a signed release, offered below the folder."""
    release, keys = folder / "release", folder / "keys"
    release.mkdir()
    (release / "disk.img.zst").write_bytes(image)
    (release / "deploy.cpio.zst").write_bytes(b"not asked for here")
    content = Content(sha256(raw).hexdigest(), len(raw))
    parts = (
        describe(release / "disk.img.zst", Role.DISK, content),
        describe(release / "deploy.cpio.zst", Role.RAMDISK),
    )
    write_manifest(
        release,
        Manifest(IMAGE, Architecture.AMD64, datetime(2026, 1, 1, tzinfo=UTC), "ab" * 32, parts, root_partition=root),
    )
    key = load_or_create(keys, None, Purpose.IMAGE)
    sign_release(release, key)
    trust = Trust.of([trusted_key(key.public_pem)])
    publish(release, folder / "provision", trust)
    return ProvisionSite(folder / "provision", "http://10.66.255.1", lambda: trust)


@contextmanager
def benched(image: bytes, folder: Path) -> Iterator[Bench]:
    """All set up, with something old on the disk."""
    raw = subprocess.run(["zstd", "-dcq"], input=image, capture_output=True, check=True).stdout
    site = publish_image(image, raw, folder)
    (folder / "hardware/block/nvme0n1").mkdir(parents=True)
    (folder / "hardware/serial").write_text(f"{NODE.serial}\n")
    (folder / "hardware/block/nvme0n1/serial").write_text("VD00000001\n")
    old = folder / "nvme0n1.img"
    disk.create(old, 32 * MIB)
    with old.open("r+b") as file:
        for offset in (0, MIB, 8 * MIB, 20 * MIB):
            file.seek(offset)
            file.write(RUBBISH)
    made = Bench(folder, site, old)
    with serving(made):
        yield made


@contextmanager
def serving(bench: Bench) -> Iterator[DocumentServer]:
    """The boot service of the bench, until the end of the block."""
    address = ("10.66.255.1", 80)
    server = network.inside(
        SERVER, lambda: DocumentServer(address, bench.site.root, lambda _ip, _path: bench.spoil, lambda _: None)
    )
    bench.server = server
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def events(reports: tuple[Report, ...]) -> list[str]:
    """What was reported but for progress, in order."""
    return [report.event.value for report in reports if report.event.value != "progress"]

"""The image stage over real virtual machines: Redfish, DHCP, HTTP, a small ramdisk and a small operating system.

The ramdisk writes what it fetched and says so; what the deploy ramdisk itself refuses is tested beside it.
"""

from __future__ import annotations

import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.virtual.conftest import SEARCH, Bench, _busybox_tree, a_rack, settings_at
from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import load_or_create
from toolkit.certificate.trust import Trust
from toolkit.image.manifest import Architecture, Content, Manifest, Role, RootPartition
from toolkit.image.release import describe, publish, sign_release, write_manifest
from toolkit.rack.model import Unit
from toolkit.redfish import BmcClient, Power, Reset
from toolkit.runners.ssh import SshShell
from toolkit.stages.hands import SiteHands
from toolkit.stages.imaging import ImageOrder, Means, Patience, image_node
from toolkit.stages.imaging_end import ImageResult
from toolkit.virtual import lab
from toolkit.virtual.chassis import Lag
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import Phase

IMAGE = "os.img"
DISK_MIB = 6
_SEED_SECTOR = 100  # between the partition table and the first partition: where the first boot finds whom to tell
RAMDISK = f"""#!/bin/busybox sh
for a; do case $a in deploy.*=*) a=${{a#deploy.}}; eval "${{a%%=*}}=\\${{a#*=}}";; esac; done
said=$(cat /run/hardware/serial)
say() {{ wget -q -O /dev/null --post-data "{{\\"serial\\":\\"$said\\",$1}}" $report; }}
ip link set lo up; ip link set eth0 up
until udhcpc -q -n -t 10 -T 1 -i eth0 -s /bound; do :; done
say '"event":"started"'
wget -q -O /image $url
found=$(sha256sum /image | cut -d' ' -f1)
[ "$found" = "$sha256" ] || {{ say "\\"event\\":\\"hash_mismatch\\",\\"found\\":\\"$found\\""; poweroff -f; }}
dd if=/image of=/dev/nvme0n1 bs=1M
echo "$report $sha256" | dd of=/dev/nvme0n1 bs=512 seek={_SEED_SECTOR} conv=notrunc,fsync
say '"event":"written"'
reboot -f
"""
SYSTEM = f"""#!/bin/busybox sh
trap 'poweroff -f' 38
ip link set lo up; ip link set eth0 up
until udhcpc -q -n -t 10 -T 1 -i eth0 -s /bound; do :; done
set -- $(dd if=/dev/nvme0n1 bs=512 skip={_SEED_SECTOR} count=1 | head -n 1)
told='"event":"booted","host_key":"ssh-ed25519 {"A" * 68}"'
said=$(cat /run/hardware/serial)
until wget -q -O /dev/null --post-data "{{\\"serial\\":\\"$said\\",$told,\\"image\\":\\"$2\\"}}" $1; do sleep 0.2; done
while :; do sleep 1 & wait $!; done
"""


def _build(work: Path) -> tuple[Path, Path]:
    """Ramdisk and disk."""
    _busybox_tree(work / "ram", "init", RAMDISK)
    _busybox_tree(work / "os", "sbin/init", SYSTEM)
    ramdisk, disk = work / "deploy.cpio.zst", work / "disk.img.zst"
    pack = f"find . | cpio --quiet -o -H newc | zstd -q -1 -o {ramdisk}"
    subprocess.run(["bash", "-c", pack], cwd=work / "ram", check=True)
    sector = bytearray(512)
    sector[446:462] = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", 2048, DISK_MIB * 2048 - 2048)
    sector[510:] = b"\x55\xaa"
    disk.write_bytes(sector.ljust(DISK_MIB << 20, b"\0"))
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "offset=1048576", "-d", str(work / "os")]
    subprocess.run([*argv, str(disk), f"{(DISK_MIB - 1) * 1024}k"], check=True, env={"PATH": SEARCH})
    return ramdisk, disk


def _publish(site: Path, keys: Path, work: Path) -> None:
    ramdisk, disk = _build(work)
    key = load_or_create(keys, None, Purpose.IMAGE)
    release = work / "release"
    release.mkdir()
    for file in (ramdisk, disk):
        file.rename(release / file.name)
    disk, ramdisk = release / disk.name, release / ramdisk.name
    content = Content(sha256(disk.read_bytes()).hexdigest(), disk.stat().st_size)
    manifest = Manifest(
        name=IMAGE, architecture=Architecture.AMD64, created_at=datetime(2026, 1, 1, tzinfo=UTC),
        recipe_sha256=sha256(b"bench").hexdigest(),
        parts=(describe(disk, Role.DISK, content), describe(ramdisk, Role.RAMDISK)),
        root_partition=RootPartition(1, 2048, DISK_MIB * 2048 - 2048),
    )  # fmt: skip
    write_manifest(release, manifest)
    sign_release(release, key)
    publish(release, site, Trust.of([trusted_key(key.public_pem)]))
    kernel = site / "boot/vmlinuz"
    kernel.parent.mkdir(exist_ok=True)
    kernel.write_bytes(b"the host's kernel runs")


@dataclass
class Record:
    """`imaging.Journal` in memory. `then` is called after something was recorded."""

    entries: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    then: Callable[[str, str], None] = lambda _kind, _what: None

    def intent(self, what: str, details: Any) -> None:
        self._add("intent", what, details)

    def observed(self, what: str, details: Any) -> None:
        self._add("observed", what, details)

    def find_intent(self, what: str) -> Any:
        return self._find("intent", what)

    def find_observed(self, what: str) -> Any:
        return self._find("observed", what)

    def _add(self, kind: str, what: str, details: Any) -> None:
        self.entries.append((kind, what, dict(details)))
        self.then(kind, what)

    def _find(self, kind: str, what: str) -> Any:
        return next((d for k, w, d in reversed(self.entries) if (k, w) == (kind, what)), None)


@dataclass
class Site:
    """A rack that is up, with an image to write, and the stage's record of its one node."""

    bench: Bench
    record: Record = field(default_factory=Record)
    tokens: int = 0

    @property
    def node(self) -> Unit:
        return self.bench.rack.nodes[0]

    @property
    def hands(self) -> SiteHands:
        settings, rack = self.bench.settings, self.bench.rack
        return SiteHands(settings, rack, SshShell(settings, rack.name))

    @property
    def bmc(self) -> BmcClient:
        return self.hands.bmc(self.node)

    def part(self, name: str) -> Path:
        """The file that is served as that part of the image."""
        (found,) = (self.bench.settings.provision / "images" / IMAGE).rglob(name)
        return found

    def image(self, silence_s: float = 20.0) -> ImageResult:
        """One call of the image stage, on the controller."""
        return self.bench.inside(lambda: self._image(silence_s))

    def _image(self, silence_s: float) -> ImageResult:
        hands = self.hands
        means = Means(
            bmc=hands.bmc(self.node), site=hands.site, journal=self.record, is_running=lambda _: self.is_up(),
            new_token=self._token, clock=lambda: datetime.now(UTC), sleep=time.sleep, progress=lambda *_: None,
            keep_log=lambda log: sha256(log).hexdigest(), strangers=lambda: hands.strangers(self.node),
        )  # fmt: skip
        order = ImageOrder(self.node, IMAGE, ("ssh-ed25519 AAAA operator",), "rackproof bringup bench")
        return image_node(order, means, Patience(silence_s, 0.1, 10.0, 2.0))

    def is_up(self) -> bool:
        return self.bench.status(self.node.name).phase is Phase.OPERATING_SYSTEM

    def _token(self) -> str:
        self.tokens += 1
        return f"{self.tokens:032x}"

    def bare(self) -> None:
        """The node switched off, its disk empty, nothing on record."""
        self.bench.inside(self._off)
        disk = self.bench.layout.node(self.node.name).disk
        with disk.open("r+b") as file:
            file.write(bytes(1 << 20))
        self.record = Record()
        self.bench.layout.node(self.node.name).console.unlink(missing_ok=True)

    def _off(self) -> None:
        self.bmc.clear_boot_override()
        self.bmc.reset(Reset.FORCE_OFF)
        until = time.monotonic() + 20
        while self.bmc.power() is not Power.OFF:
            assert time.monotonic() < until
            time.sleep(0.05)

    @contextmanager
    def fault(self, kind: FaultKind, value: float | None = None) -> Iterator[None]:
        """The node has it, until the end of the block."""
        lab.set_fault(self.bench.settings, self.bench.rack.name, Fault(kind, self.node.name, value=value))
        try:
            yield
        finally:
            lab.clear_fault(self.bench.settings, self.bench.rack.name, self.node.name, kind)

    def has_said(self, event: str) -> bool:
        """Whether the node has reported that under the attempt that is under way."""
        file = self.bench.settings.provision / "reports" / f"{self.tokens:032x}.jsonl"
        return file.exists() and f'"{event}"' in file.read_text()

    def cut_power_when(self, is_so: Callable[[], bool]) -> threading.Thread:
        """Somebody pulls the plug as soon as it is so, once; the thread ends when the node has felt it."""

        def pull() -> None:
            if not _until(is_so, 40.0):
                return
            before = self.bench.status(self.node.name).phase
            self.bench.inside(lambda: self.bmc.reset(Reset.FORCE_OFF))
            _until(lambda: self.bench.status(self.node.name).phase is not before, 10.0)

        thread = threading.Thread(target=pull)
        thread.start()
        return thread


def _until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether it became so in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(0.02)
    return False


@contextmanager
def site_at(home: Path) -> Iterator[Site]:
    """A rack of one node with a published image; down at the end."""
    settings = settings_at(home)
    rack = replace(a_rack(1, "imaged"), provision_url="http://10.66.255.1")
    (home / "work").mkdir()
    settings.provision.mkdir(parents=True, exist_ok=True)
    _publish(settings.provision, settings.keys, home / "work")
    try:
        lab.up(rack, settings, lambda _: None, Lag(power_on_s=0.2, power_off_s=0.2, self_test_s=0.3))
        yield Site(Bench(rack, settings))
    finally:
        lab.down(settings)

"""A small rack, and the smallest ramdisk and operating system that can be booted on it: busybox and two scripts."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.virtual.agents import agent
from toolkit.netboot.offers import BootOffers
from toolkit.netboot.posts import Posts
from toolkit.rack.model import Bmc, Disk, Hca, Host, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind
from toolkit.settings import Settings
from toolkit.virtual import lab, network
from toolkit.virtual.chassis import Lag
from toolkit.virtual.control import NodeStatus
from toolkit.virtual.layout import Layout, layout_of

__all__ = ["agent", "api", "control_plane"]  # fixtures of others, for the tests beside this file

T = TypeVar("T")
DISK_MIB = 24
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

RAMDISK_INIT = """#!/bin/busybox sh
for a; do case $a in url=*) url=${a#*=};; report=*) report=${a#*=};; esac; done
ip link set lo up; ip link set eth0 up
udhcpc -q -n -t 10 -T 1 -i eth0 -s /bound
wget -q -O /image $url
wget -q -O /dev/null --post-data "{\\"sha256\\":\\"$(sha256sum /image | cut -d' ' -f1)\\"}" $report
dd if=/image of=/dev/nvme0n1 bs=1M conv=fsync
reboot -f
"""
# 38 is SIGRTMIN+4: the power button. Port 22 shows who is there; /cgi-bin/reboot restarts the machine from inside.
OS_INIT = """#!/bin/busybox sh
trap 'poweroff -f' 38
ip link set lo up; ip link set eth0 up
udhcpc -q -n -t 10 -T 1 -i eth0 -s /bound
cat /run/hardware/serial /run/hardware/disk-serial > /www/index.html
cp /run/hardware/state /www/state
httpd -p 22 -h /www
while :; do sleep 1 & wait $!; done
"""
BOUND = """#!/bin/busybox sh
[ "$1" = bound ] && ip addr flush dev $interface && ip addr add $ip/${mask:-16} dev $interface
"""
REBOOT = "#!/bin/busybox sh\necho\n(sleep 0.1; reboot -f) >/dev/null 2>&1 &\n"


def a_node(number: int) -> Unit:
    """Node i as the demo rack numbers it."""
    return Unit(
        name=f"node{number}",
        kind=UnitKind.NODE,
        serial=f"VR{number:08d}",
        slot=number,
        bmc=Bmc(f"10.67.0.{10 + number}", "bmc"),
        host=Host(
            f"10.66.0.{10 + number}",
            f"52:54:00:66:00:{number:02x}",
            Disk("/dev/nvme0n1", f"VD{number:08d}"),
        ),
    )


def a_rack(nodes: int, name: str = "bench") -> Rack:
    """A rack of virtual DGX H100 nodes."""
    profile = Profile(
        name="virtual-dgx-h100",
        sku="virtual DGX H100",
        mode=Mode.NVSWITCH_GEN3,
        gpus_per_node=8,
        nvlinks_per_gpu=18,
        nvlink_gb_per_s=26.562,
        hcas_per_node=0,
        units=((UnitKind.NODE, nodes),),
        image="os.img",
        expected=(),
        versions=(),
        gates=(),
        certificate_lifetime=timedelta(days=30),
        virtual=True,
    )
    return Rack(name, "bench", profile, tuple(a_node(i) for i in range(1, nodes + 1)), (), "0" * 64)


def settings_at(home: Path) -> Settings:
    """An installation of its own."""
    return Settings(home, home / "inventory", home / "playbooks", f"sqlite:///{home}/ledger.db", home / "cache")


@pytest.fixture
def rack() -> Rack:
    return a_rack(2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_at(tmp_path)


def _busybox_tree(root: Path, init: str, text: str) -> None:
    busybox = shutil.which("busybox", path=SEARCH)
    assert busybox, "Debian package busybox-static is missing"
    for folder in ("bin", "sbin", "etc", "dev", "proc", "sys", "run", "tmp", "usr/lib", "www/cgi-bin"):
        (root / folder).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "usr/lib/os-release").write_text("ID=bench\n")  # systemd-nspawn --boot asks for it
    for path, content in ((init, text), ("bound", BOUND), ("www/cgi-bin/reboot", REBOOT)):
        (root / path).unlink(missing_ok=True)
        (root / path).write_text(content)
        (root / path).chmod(0o755)


@dataclass(frozen=True)
class Images:
    ramdisk: Path
    disk: Path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The ramdisk (zstd cpio) and the disk image (MBR, one ext4 partition)."""
    work = tmp_path_factory.mktemp("images")
    _busybox_tree(work / "ram", "init", RAMDISK_INIT)
    _busybox_tree(work / "os", "sbin/init", OS_INIT)
    pack = "find . | cpio --quiet -o -H newc | zstd -q -1 -o ../ramdisk.zst"
    subprocess.run(["bash", "-c", pack], cwd=work / "ram", check=True)
    disk = work / "os.img"
    sector = bytearray(512)
    sector[446:462] = struct.pack("<B3sB3sII", 0, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", 2048, DISK_MIB * 2048 - 2048)
    sector[510:] = b"\x55\xaa"
    with disk.open("wb") as file:
        file.write(sector)
        file.truncate(DISK_MIB << 20)
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "offset=1048576", "-d", str(work / "os"), str(disk)]
    env = dict(os.environ, PATH=SEARCH)
    subprocess.run([*argv, f"{(DISK_MIB - 1) * 1024}k"], check=True, env=env)
    return Images(work / "ramdisk.zst", disk)


@dataclass(frozen=True)
class Bench:
    """A rack that is up, and what a test does to it."""

    rack: Rack
    settings: Settings

    @property
    def layout(self) -> Layout:
        return layout_of(self.settings, self.rack.name)

    def inside(self, action: Callable[[], T]) -> T:
        """Calls `action` in the controller's network."""
        return network.inside(self.layout.controller, action)

    def _bmc(self, node: str) -> Any:
        import sushy
        import yaml

        secrets = self.settings.secrets(self.rack.site)
        login = yaml.safe_load((secrets / "bmc.yml").read_text())["bmc"]
        address = self.rack.unit(node).bmc.address
        auth = sushy.auth.BasicAuth(**login)
        root = sushy.Sushy(f"https://{address}", auth=auth, verify=str(secrets / "bmc-ca.pem"))
        return root.get_system("/redfish/v1/Systems/DGX")

    def status(self, node: str) -> NodeStatus:
        """The node now."""
        return next(n for n in lab.status(self.settings, self.rack.name).nodes if n.name == node)

    def wait(self, node: str, wanted: Callable[[NodeStatus], bool], timeout_s: float = 30) -> NodeStatus:
        """Returns the status once it is as wanted."""
        end = time.monotonic() + timeout_s
        while not wanted(now := self.status(node)):
            console = self.layout.node(node).console
            assert time.monotonic() < end, f"{now}\n{console.read_text(errors='replace') if console.exists() else ''}"
            time.sleep(0.05)
        return now

    def get(self, node: str, path: str = "/", timeout_s: float = 15) -> str:
        """What the node's operating system answers over its network."""
        import httpx

        address = self.rack.unit(node).host.address

        def ask() -> str:
            end = time.monotonic() + timeout_s
            while True:
                try:
                    return httpx.get(f"http://{address}:22{path}", timeout=1, trust_env=False).text
                except httpx.HTTPError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.1)

        return self.inside(ask)

    def offer(self, node: str, images: Images) -> None:
        """Publishes images and a boot script, as the image stage does."""
        provision, host = self.settings.provision, self.rack.unit(node).host
        for folder in ("images", "boot"):
            (provision / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(images.ramdisk, provision / "images/ramdisk.zst")
        shutil.copy(images.disk, provision / "images/disk.img.zst")
        arguments = f"url=http://10.66.255.1/images/disk.img.zst report=http://10.66.255.1/report/{node}-token"
        script = f"#!ipxe\nkernel /images/ramdisk.zst {arguments}\ninitrd /images/ramdisk.zst\nboot\n"
        BootOffers(provision).arm(host.mac, host.address, f"{node}-token", script)
        Posts(provision).open(f"{node}-token")

    def install(self, node: str, images: Images) -> None:
        """From bare metal to a running operating system."""
        import sushy

        self.offer(node, images)
        system = self.bmc(node)
        self.inside(lambda: system.reset_system(sushy.RESET_FORCE_OFF))
        self.wait(node, lambda now: now.power == "Off")
        self.inside(lambda: system.set_system_boot_options(sushy.BOOT_SOURCE_TARGET_PXE, enabled="Once"))
        self.inside(lambda: system.reset_system(sushy.RESET_ON))
        self.wait(node, lambda now: now.phase == "operating_system")

    def bmc(self, node: str) -> Any:
        """The node's system through sushy, its certificate verified."""
        return self.inside(lambda: self._bmc(node))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Three nodes, up and switched off, for the tests of one module. A test leaves the nodes it used as it likes."""
    yield from _bench(a_rack(3), tmp_path_factory.mktemp("home"))


@pytest.fixture
def make_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], Bench]]:
    """Racks of the test's own, to destroy: name and number of nodes."""
    with ExitStack() as stack:

        def make(name: str, nodes: int) -> Bench:
            home = tmp_path_factory.mktemp("home")
            return stack.enter_context(contextmanager(_bench)(a_rack(nodes, name), home))

        yield make


@pytest.fixture(scope="module")
def cabled(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Iterator[Bench]:
    """Two nodes with two HCAs each on two leaves, up and switched off."""
    yield from _bench(with_fabric(a_rack(2, "cabled")), tmp_path_factory.mktemp("home"), built)


def with_fabric(rack: Rack, rails: int = 2) -> Rack:
    """HCA k of every node on leaf k+1."""
    nodes = tuple(
        replace(n, hcas=tuple(Hca(f"mlx5_{k}", f"0x0200de00000{n.slot:03x}{k:02x}", k) for k in range(rails)))
        for n in rack.nodes
    )
    leaves = tuple(Unit(f"leaf{k + 1}", UnitKind.LEAF, f"VL{k:08d}", 40 + k) for k in range(rails))
    links = tuple(
        Link(Port(n.name, f"mlx5_{k}"), Port(f"leaf{k + 1}", str(n.slot)), LinkKind.INFINIBAND, 50.0, "cable")
        for n in nodes
        for k in range(rails)
    )
    return replace(rack, units=(*nodes, *leaves), links=links)


def _bench(rack: Rack, home: Path, cache: Path | None = None) -> Iterator[Bench]:
    settings = settings_at(home)
    bench = Bench(rack, replace(settings, cache=cache or settings.cache))
    try:
        lab.up(rack, bench.settings, lambda _: None, Lag(power_on_s=0.2, power_off_s=0.2, self_test_s=0.3))
        yield bench
    finally:
        lab.down(bench.settings)

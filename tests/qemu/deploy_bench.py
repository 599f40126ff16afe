"""The site around a machine that is deployed: its network, DHCP, the real web server with the service that decides."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.imaging.ramdisk_bench import IMAGE, publish_image
from tests.qemu.deploy_machine import Ending, Metal, Plugged, Run
from tests.qemu.deploy_parts import DISK_BYTES, ROOT, ROOT_PARTITION, Netboot
from toolkit.netboot import nginx
from toolkit.netboot.service import DecisionServer, decisions_of
from toolkit.netboot.site import BootSite, Limits
from toolkit.rack.imaging import BY_DEFAULT, ImagingPolicy
from toolkit.rack.model import Disk, Host, Unit, UnitKind
from toolkit.stages.boot_script import render_boot_script
from toolkit.stages.deploy_reports import Report
from toolkit.stages.provisioning import ProvisionSite
from toolkit.stages.seeds import seed_files
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.network import NAMESPACES
from toolkit.virtual.programs import run as sh
from toolkit.virtual.qemu.machine import Firmware
from toolkit.virtual.qemu.processes import start

MIB = 1 << 20
OLD = b"the tenant before us " * 50  # what must be gone
SERIAL, MAC, ADDRESS = "VR00000001", "52:54:00:66:00:01", "10.66.0.11"
SYSTEM, MIRROR, DATA1, DATA2 = "VD00000001", "VD00000002", "VD00000003", "VD00000004"
NODE = Unit("node1", UnitKind.NODE, SERIAL, 1, host=Host(ADDRESS, MAC, Disk(serial=SYSTEM)))
_SERVER, _NETWORK = IPv4Address("10.66.255.1"), IPv4Network("10.66.0.0/16")


@dataclass
class DeployBench:
    """One site, one machine. Every boot is an attempt of its own with its own token, as the stage has it."""

    folder: Path
    netboot: Netboot
    site: ProvisionSite
    boot_site: BootSite
    metal: Metal
    raw: bytes
    planned: Unit = NODE
    policy: ImagingPolicy = BY_DEFAULT
    attempt: int = 0
    changed: dict[str, str] = field(default_factory=dict)
    _nginx: subprocess.Popen[bytes] | None = None

    @property
    def token(self) -> str:
        """Of the last attempt."""
        return f"{self.attempt:032x}"

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the last attempt, without progress."""
        return tuple(r for r in self.site.reports(self.token) if r.event.value != "progress")

    @property
    def events(self) -> list[str]:
        """What was reported, in order; an ending with its code."""
        return [f"{r.event.value} {r.code}".strip() for r in self.reports]

    @contextmanager
    def deploying(self) -> Iterator[Run]:
        """Powers the machine on with kernel, ramdisk and the boot script's arguments of a new attempt."""
        self.attempt += 1
        places = self.site.places(self.token, signed=False)
        seed = self.site.publish_seed(self.token, seed_files(self.planned, None, "ab" * 32, places.report, ["key"]))
        script = render_boot_script(self.planned, self.site.image(IMAGE), seed, places, self.policy)
        kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
        arguments = dict(word.split("=", 1) for word in kernel.split()[2:] if word.startswith("deploy."))
        arguments |= {f"deploy.{name}": value for name, value in self.changed.items()}
        with self.metal.powered(self.netboot, arguments) as run:
            yield run

    def deploy(self, seconds: float = 240.0) -> tuple[Ending, list[str], Run]:
        """One attempt to its end."""
        with self.deploying() as run:
            ended = run.ending(seconds)
        return ended, self.events, run

    def boots(self, text: str, otherwise: str = "No bootable device", seconds: float = 60.0) -> bool:
        """Whether the firmware, left to itself, starts what says this. It must say the one or the other."""
        with self.metal.powered(None, {}) as run:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if text in run.text:
                    return True
                if otherwise in run.text:
                    return False
                time.sleep(0.05)
        raise AssertionError(f"neither {text!r} nor {otherwise!r}:\n{run.text}")

    # the web server

    def serve(self, bytes_per_s: int = 0) -> None:
        """Starts nginx anew; connections that were open are gone."""
        self.stop_serving()
        limited = replace(self.boot_site, limits=Limits(connection_bytes_per_s=bytes_per_s))
        (self.folder / "nginx.conf").write_text(nginx.standalone(limited, self.folder, user="root"))
        argv = ["nginx", "-p", str(self.folder), "-e", "error.log", "-c", "nginx.conf"]
        self._nginx = start(argv, self.metal.namespace, self.metal.group, log=self.folder / "nginx.out")
        end = time.monotonic() + 20
        while not (self.folder / "nginx.pid").exists():
            assert self._nginx.poll() is None and time.monotonic() < end, (self.folder / "nginx.out").read_text()
            time.sleep(0.05)

    def stop_serving(self) -> None:
        """Kills nginx with its workers."""
        if self._nginx is not None:
            self._nginx.terminate()
            self._nginx.wait(20)
            self._nginx = None
        (self.folder / "nginx.pid").unlink(missing_ok=True)

    def lose(self, percent: int) -> None:
        """From now on the link drops so many of a hundred packets, each way."""
        chains = "".join(
            f"chain {hook} {{ type filter hook {hook} priority 0;"
            f' {way} "{self.metal.tap}" numgen random mod 100 < {percent} counter drop; }}\n'
            for hook, way in (("input", "iifname"), ("output", "oifname"))
        )
        self._nft("-f", "-", text=f"table inet rackproof {{\n{chains}}}\n")

    @property
    def lost(self) -> list[int]:
        """Packets dropped so far, each way."""
        return [int(count) for count in re.findall(r"packets (\d+)", self._nft("list", "table", "inet", "rackproof"))]

    def _nft(self, *words: str, text: str | None = None) -> str:
        return sh(["nsenter", f"--net={self.metal.namespace}", "nft", *words], text=text)

    @property
    def sent_bytes(self) -> int:
        """What nginx sent of images, in all attempts, headers left out."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return sum(int(line.split()[2]) for line in lines if "disk.img.zst" in line)

    @property
    def image_file(self) -> Path:
        """The published disk of the image."""
        (found,) = (self.site.root / "images" / IMAGE).glob("*/disk.img.zst")
        return found

    # the disks

    def plug(self, number: int, serial: str, size_bytes: int = 64 * MIB) -> Plugged:
        """One more disk with something old on it; number 0 is the system disk."""
        file = self.folder / f"nvme{number}.img"
        with file.open("wb") as disk:
            disk.truncate(size_bytes)
            for offset in (0, MIB, size_bytes // 2, size_bytes - len(OLD)):
                disk.seek(offset)
                disk.write(OLD)
        self.metal.disks[number : number + 1] = [Plugged(file, serial)]
        return self.metal.disks[number]

    def disk(self, number: int = 0) -> Path:
        """File of a disk."""
        return self.metal.disks[number].file

    def sums(self) -> list[str]:
        """sha256 of every disk, whole."""
        return [hashlib.sha256(disk.file.read_bytes()).hexdigest() for disk in self.metal.disks]

    def holds_old(self, number: int = 0) -> bool:
        """Whether anything of the tenant before us can be read."""
        return OLD[:21] in self.disk(number).read_bytes()


def read(disk: Path, path: str) -> bytes:
    """A file of the root file system on the disk."""
    argv = ["debugfs", "-R", f"cat {path}", f"{disk}?offset={ROOT.start_bytes}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def root_bytes(disk: Path) -> int:
    """Size of the root file system, which must be clean."""
    sh(["e2fsck", "-f", "-n", f"{disk}?offset={ROOT.start_bytes}"])
    told = sh(["dumpe2fs", "-h", f"{disk}?offset={ROOT.start_bytes}"])
    found = {name: value.strip() for name, _, value in (line.partition(":") for line in told.splitlines())}
    return int(found["Block count"]) * int(found["Block size"])


def table(disk: Path, size_bytes: int = 0) -> list[dict[str, object]]:
    """The partitions by the GPT, both copies of which must be whole; the table's disk ends at `size_bytes`."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "disk"
        sh(["cp", "--sparse=always", str(disk), str(copy)])
        if size_bytes:
            os.truncate(copy, size_bytes)
        assert "No errors detected" in sh(["sfdisk", "--verify", str(copy)])
        checked = sh(["sgdisk", "--verify", str(copy)])
        assert "No problems found" in checked, checked
        found: list[dict[str, object]] = json.loads(sh(["sfdisk", "--json", str(copy)]))["partitiontable"]["partitions"]
        return found


@contextmanager
def benched(netboot: Netboot, image: tuple[bytes, bytes], firmware: Firmware = Firmware.BIOS) -> Iterator[DeployBench]:
    """All set up: a system disk of 64 MiB with something old on it, and a site that offers the signed image."""
    wire, raw = image
    name = f"rp-deploy-{os.getpid()}"
    with ExitStack() as held:
        # Not pytest's folder: its path is too long for a UNIX socket.
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="rp-deploy-")))
        group = ControlGroup(f"rackproof/{name}")
        _wire(name, held)
        held.callback(group.remove)
        held.callback(group.kill)
        _dhcp(NAMESPACES / name, group, folder)
        site = publish_image(wire, raw, folder, ROOT_PARTITION)
        boot_site = BootSite(site.root, _SERVER, _NETWORK, "tap0", socket=folder / "decide.sock")
        decider = DecisionServer(boot_site.socket, decisions_of(site.root, lambda _: None))
        threading.Thread(target=decider.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        held.callback(decider.server_close)
        held.callback(decider.shutdown)
        metal = Metal(folder, NAMESPACES / name, group, SERIAL, MAC, "tap0", [], firmware)
        bench = DeployBench(folder, netboot, site, boot_site, metal, raw)
        bench.plug(0, SYSTEM)
        bench.serve()
        held.callback(bench.stop_serving)
        yield bench


def _wire(name: str, held: ExitStack) -> None:
    sh(["ip", "netns", "add", name])
    held.callback(sh, ["ip", "netns", "delete", name])
    sh(["ip", "-n", name, "link", "set", "lo", "up"])
    sh(["ip", "-n", name, "tuntap", "add", "dev", "tap0", "mode", "tap"])
    sh(["ip", "-n", name, "address", "add", f"{_SERVER}/16", "dev", "tap0"])
    sh(["ip", "-n", name, "link", "set", "tap0", "up"])


def _dhcp(namespace: Path, group: ControlGroup, folder: Path) -> None:
    argv = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=tap0", "--bind-interfaces",
        "--dhcp-range=10.66.0.0,static,255.255.0.0", "--leasefile-ro", f"--dhcp-host={MAC},{ADDRESS}", "--pid-file=",
        "--user=root", "--dhcp-authoritative",
    ]  # fmt: skip
    start(argv, namespace, group, log=folder / "dnsmasq.log")


__all__ = ["DATA1", "DATA2", "DISK_BYTES", "MIRROR", "DeployBench", "benched", "read", "root_bytes", "table"]

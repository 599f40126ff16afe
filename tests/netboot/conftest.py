"""A small in-band network of namespaces: a controller with the real boot service, a node, and room for a stranger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from toolkit.netboot import dnsmasq, nginx
from toolkit.netboot.hosts import write_hosts
from toolkit.netboot.site import BootSite
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack, Unit
from toolkit.settings import load
from toolkit.virtual.programs import run as sh

CHECKOUT = Path(__file__).resolve().parents[2]
TAG = f"rpb{os.getpid() % 1000000}"
SWITCH, CONTROLLER, NODE, STRANGER = (f"{TAG}{letter}" for letter in "scnx")
ADDRESS = IPv4Address("10.66.255.1")
NETWORK = IPv4Network("10.66.0.0/16")
NODE_ADDRESS, NODE_MAC = "10.66.0.11", "52:54:00:66:00:01"
TOKEN = "0123456789abcdef" * 2


def until(what: str, seconds: float, is_so: Callable[[], bool]) -> None:
    """Waits until `is_so()` is true."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


@contextmanager
def started(argv: Sequence[object], log: Path, namespace: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A program, in a namespace if one is named, until the end of the block."""
    inside = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    with log.open("ab") as out:
        process = subprocess.Popen([*inside, *map(str, argv)], stdout=out, stderr=out, env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@dataclass(frozen=True)
class Service:
    """nginx and the deciding service over a provisioning root."""

    folder: Path
    site: BootSite
    namespace: str = ""

    @contextmanager
    def deciding(self) -> Iterator[subprocess.Popen[bytes]]:
        """`rackproof netboot serve`, once it listens."""
        argv = [
            sys.executable, "-c", "from toolkit.cli import main; main()", "netboot", "serve",
            "--root", self.site.provision, "--socket", self.site.socket,
        ]  # fmt: skip
        with started(argv, self.folder / "service.log") as process:
            until("the service", 20, self.site.socket.exists)
            yield process

    @contextmanager
    def serving(self) -> Iterator[subprocess.Popen[bytes]]:
        """nginx, once it listens."""
        config = self.folder / "nginx.conf"
        config.write_text(nginx.standalone(self.site, self.folder, "root" if os.geteuid() == 0 else ""))
        argv = ["nginx", "-p", self.folder, "-e", self.folder / "error.log", "-c", config]
        with started(argv, self.folder / "nginx.log", self.namespace) as process:
            until("nginx", 10, lambda: self.curl("-sS", f"{self.site.url}/nothing", check=False)[0] == 0)
            yield process

    def curl(self, *arguments: object, namespace: str | None = None, check: bool = True) -> tuple[int, bytes]:
        """Exit status and stdout of curl, from the service's own machine unless another is named."""
        where = self.namespace if namespace is None else namespace
        inside = ["nsenter", f"--net=/run/netns/{where}", "--"] if where else []
        argv = [*inside, "curl", "--noproxy", "*", "--max-time", "60", *map(str, arguments)]
        done = subprocess.run(argv, capture_output=True, check=False)
        assert not check or done.returncode == 0, done.stderr.decode()
        return done.returncode, done.stdout

    def status_of(self, path: str, *arguments: object, namespace: str | None = None) -> int:
        """The HTTP status that a request gets."""
        options = ("-s", "-o", "/dev/null", "-w", "%{http_code}")
        return int(self.curl(*options, *arguments, f"{self.site.url}{path}", namespace=namespace)[1])

    @property
    def said(self) -> str:
        """What the service told the journal."""
        return (self.folder / "service.log").read_text()

    def sent(self) -> list[tuple[int, int]]:
        """HTTP status and bytes of body of each request that nginx has ended."""
        words = (line.split() for line in (self.folder / "access.log").read_text().splitlines())
        return [(int(w[1]), int(w[2])) for w in words]


@pytest.fixture(scope="session")
def rack() -> Rack:
    """Two virtual nodes."""
    return load_rack("demo-small", load().inventory)


def folders(folder: Path, rack: Rack, site: BootSite) -> None:
    """A provisioning root in which the rack's nodes may boot."""
    for name in ("images", "boot", "seeds"):
        (site.provision / name).mkdir(parents=True)
    write_hosts(site.hosts_folder, rack)


@pytest.fixture
def local(rack: Rack, tmp_path: Path) -> Service:
    """A service for loopback: the "network" of nodes is 127.0.0.0/8."""
    site = BootSite(
        tmp_path / "root", IPv4Address("127.0.0.1"), IPv4Network("127.0.0.0/8"), "lo",
        port=_free_port(), socket=tmp_path / "socket",
    )  # fmt: skip
    units = tuple(_at(unit, f"127.0.0.{2 + number}") for number, unit in enumerate(rack.nodes))
    folders(tmp_path, replace(rack, units=units), site)
    return Service(tmp_path, site)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _at(unit: Unit, address: str) -> Unit:
    assert unit.host is not None
    return replace(unit, host=replace(unit.host, address=address))


@pytest.fixture(scope="module")
def wire() -> Iterator[None]:
    """A switch with three ports: the controller's, the node's with its MAC, and a stranger's."""
    with ExitStack() as held:
        for name in (SWITCH, CONTROLLER, NODE, STRANGER):
            sh(["ip", "netns", "add", name])
            held.callback(sh, ["ip", "netns", "delete", name])
        sh(["ip", "-n", SWITCH, "link", "add", "inband", "type", "bridge", "mcast_snooping", "0"])
        sh(["ip", "-n", SWITCH, "link", "set", "inband", "up"])
        for number, (name, end, mac) in enumerate(
            ((CONTROLLER, "inband0", ""), (NODE, "eth0", NODE_MAC), (STRANGER, "eth0", "52:54:00:99:00:99"))
        ):
            peer = ["peer", "name", end, *(["address", mac] if mac else []), "netns", name]
            sh(["ip", "-n", SWITCH, "link", "add", f"port{number}", "type", "veth", *peer])
            sh(["ip", "-n", SWITCH, "link", "set", f"port{number}", "master", "inband", "up"])
            sh(["ip", "-n", name, "link", "set", end, "up"])
            sh(["ip", "-n", name, "link", "set", "lo", "up"])
        sh(["ip", "-n", CONTROLLER, "address", "add", f"{ADDRESS}/16", "dev", "inband0"])
        yield


@pytest.fixture
def wired(wire: None, rack: Rack, tmp_path: Path) -> Iterator[Service]:
    """The service in the controller's namespace; the node has its address by hand."""
    site = BootSite(tmp_path / "root", ADDRESS, NETWORK, "inband0", socket=tmp_path / "socket")
    folders(tmp_path, rack, site)
    yield Service(tmp_path, site, CONTROLLER)


@contextmanager
def node_address() -> Iterator[None]:
    """The node has its planned address."""
    sh(["ip", "-n", NODE, "address", "add", f"{NODE_ADDRESS}/16", "dev", "eth0"])
    try:
        yield
    finally:
        sh(["ip", "-n", NODE, "address", "flush", "dev", "eth0"])


@contextmanager
def dhcp(service: Service, site: BootSite | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """dnsmasq, with the service's configuration, once it listens."""
    config = service.folder / "dnsmasq.conf"
    config.write_text(dnsmasq.configuration(site or service.site, service.folder / "dnsmasq.pid", "root"))
    argv = ["dnsmasq", "--keep-in-foreground", f"--conf-file={config}", "--log-facility=-"]
    log = service.folder / "dnsmasq.log"
    log.unlink(missing_ok=True)
    with started(argv, log, service.namespace) as process:
        until("dnsmasq", 10, lambda: "started" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process

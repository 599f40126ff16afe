"""A real sshd on loopback, twice: two ports, two host keys, two "nodes"."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from toolkit.rack.model import Disk, Host, Mode, Profile, Rack, Unit, UnitKind
from toolkit.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
USER = getpass.getuser()


@dataclass(frozen=True)
class Sshd:
    """Ports of the servers that run, a port where nothing listens, and the keys."""

    ports: tuple[int, int]
    dead_port: int
    login_key: Path
    host_keys: tuple[str, str]

    def known_hosts(self) -> str:
        """Lines that pin both servers, and the key the dead one would have."""
        pairs = [*zip(self.ports, self.host_keys, strict=True), (self.dead_port, self.host_keys[0])]
        return "".join(f"[127.0.0.1]:{port} {key}\n" for port, key in pairs)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _keygen(file: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)
    return file.with_suffix(".pub").read_text().strip()


def _start(folder: Path, port: int, host_key: Path, authorized: Path) -> subprocess.Popen[bytes]:
    config = folder / f"sshd-{port}.conf"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\n"
        "Subsystem sftp internal-sftp\n"
    )
    sshd = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return sshd
        time.sleep(0.02)
    raise RuntimeError("sshd does not listen")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Two servers with a key each, for the user who runs the tests."""
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("openssh-server is not installed")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates privileges; no init script made it
    folder = tmp_path_factory.mktemp("sshd")
    authorized = folder / "authorized_keys"
    authorized.write_text(_keygen(folder / "login") + "\n")
    ports = (_free_port(), _free_port())
    keys = tuple(_keygen(folder / f"host{i}") for i in (0, 1))
    servers = [_start(folder, port, folder / f"host{i}", authorized) for i, port in enumerate(ports)]
    yield Sshd(ports, _free_port(), folder / "login", (keys[0], keys[1]))
    for server in servers:
        server.terminate()
        server.wait()


@pytest.fixture
def settings(tmp_path: Path, sshd: Sshd) -> Settings:
    """An installation whose playbooks folder holds our ansible.cfg and what a test writes."""
    settings = Settings(
        tmp_path / "home", tmp_path / "inventory", tmp_path / "playbooks", "sqlite://", tmp_path / "cache"
    )
    settings.keys.mkdir(parents=True, mode=0o700)
    shutil.copy(sshd.login_key, settings.keys / "login")
    settings.known_hosts("bench").parent.mkdir(parents=True)
    settings.known_hosts("bench").write_text(sshd.known_hosts())
    settings.playbooks.mkdir()
    shutil.copy(REPOSITORY / "playbooks" / "ansible.cfg", settings.playbooks)
    (settings.inventory / "group_vars").mkdir(parents=True)
    return settings


def _node(name: str, slot: int, port: int) -> Unit:
    host = Host("127.0.0.1", f"52:54:00:00:00:{slot:02x}", Disk("/dev/nvme0n1", f"D{slot}"), port)
    return Unit(name, UnitKind.NODE, f"SN{slot}", slot, host=host)


@pytest.fixture
def rack(sshd: Sshd) -> Rack:
    """node1 and node2 answer; node3 is dead."""
    profile = Profile(
        "bench", "bench", Mode.NVSWITCH_GEN3, 0, 0, 0.0, 0, (), "", (), (), (), timedelta(days=1), virtual=True
    )
    ports = (*sshd.ports, sshd.dead_port)
    nodes = tuple(_node(f"node{i}", i, port) for i, port in enumerate(ports, start=1))
    return Rack("bench", "lab", profile, nodes, (), "0" * 64)


@pytest.fixture
def rack_of(rack: Rack) -> Callable[[int], Rack]:
    """The same rack with that many nodes, all behind the first server."""

    def make(count: int) -> Rack:
        host = rack.nodes[0].host
        assert host is not None
        return replace(rack, units=tuple(_node(f"node{i}", i, host.ssh_port) for i in range(1, count + 1)))

    return make

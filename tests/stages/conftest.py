"""Hosts for the tests of this folder: namespaces of one kernel, each with its own sshd, network, processes and name."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pynvml
import pytest

from toolkit.rack.loading import load_rack
from toolkit.rack.model import Host, Rack, Unit
from toolkit.virtual.device_libraries import NVML, compile_library
from toolkit.virtual.faults import Fault
from toolkit.virtual.hardware import render_state

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "10.213.77"
BRIDGE = "rpcoll"
# of a host, and where it finds that
_OWN = {"hardware/infiniband": "infiniband", "runs": "runs"}
_TESTS = ("all_reduce_perf", "all_gather_perf", "alltoall_perf")
# systemd-run and systemctl of hosts without systemd: the unit is a session, its state a file with the leader's number
_SYSTEMD_RUN = """#!/bin/sh
for word; do
  case "$word" in --unit=*) unit="${word#--unit=}"; shift;; --*) shift;; *) break;; esac
done
setsid "$@" >"$HOME/$unit.log" 2>&1 </dev/null &
echo $! > "$HOME/$unit.pid"
"""
_SYSTEMCTL = """#!/bin/sh
verb="$1"; for word; do unit="$word"; done
if [ "$verb" = list-units ]; then
  for file in "$HOME"/rackproof-*.pid; do
    read -r leader 2>/dev/null < "$file" && kill -0 "$leader" 2>/dev/null && basename "$file" .pid
  done
  exit 0
fi
read -r leader < "$HOME/${unit%.service}.pid" || exit 4
case "$verb" in
is-active) kill -0 "$leader" 2>/dev/null || exit 3;;
stop) kill -TERM -- "-$leader" 2>/dev/null; exit 0;;
esac
"""


def _do(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


@dataclass
class Hosts:
    """The hosts node1, node2, ... `home` of each lies under `folder`, with its hardware state."""

    folder: Path
    rack: Rack
    servers: dict[str, subprocess.Popen[bytes]]

    def home(self, name: str) -> Path:
        """The home of the host's root."""
        return self.folder / name

    def break_by(self, *faults: Fault) -> None:
        """Every host's hardware with those faults that are its own."""
        for node in self.rack.nodes:
            state = self.home(node.name) / "hardware/state"
            aside = state.with_suffix(".new")
            aside.write_text(render_state(node, self.rack.profile, faults))
            aside.replace(state)

    def kill(self, name: str) -> None:
        """The host dies: with its first process, all of them."""
        self.servers[name].kill()

    def processes(self, word: str) -> list[str]:
        """Command lines of all hosts that have this word in them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if word in text:
                found.append(text)
        return found


def _programs(folder: Path) -> Path:
    """nccl-tests' stand-ins and what stands for systemd. A rank's hardware is its host's, by its name."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    texts = {"systemd-run": _SYSTEMD_RUN, "systemctl": _SYSTEMCTL}
    for name in _TESTS:
        texts[name] = (
            f"#!{sys.executable} -S\nimport os, socket, sys\n"
            f"os.environ['RACKPROOF_HARDWARE'] = {str(folder)!r} + '/' + socket.gethostname() + '/hardware'\n"
            f"sys.path.insert(0, {str(ROOT / 'toolkit/virtual')!r})\n"
            "from devices.nccl_tests import main\nsys.exit(main())\n"
        )
    for name, text in texts.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    return bin_folder


def _start(folder: Path, name: str, address: str, libraries: Path) -> subprocess.Popen[bytes]:
    """One host: network, processes, name and folders of its own, and its sshd."""
    home = folder / name
    home.mkdir()
    (home / ".ssh").mkdir(mode=0o700)
    for part in ("hardware/load", *_OWN):
        (home / part).mkdir(parents=True)
    (home / "hardware/kmsg").touch()
    shutil.copy(folder / "login.pub", home / ".ssh/authorized_keys")
    _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(home / "host"))
    variables = (
        f"HOME={home}", f"PATH={folder}/bin:/usr/bin:/bin:/usr/sbin:/sbin", f"LD_LIBRARY_PATH={libraries}",
        f"RACKPROOF_HARDWARE={home}/hardware", f"PYTHONPATH={Path(pynvml.__file__).parent}",
    )  # fmt: skip
    (home / "sshd.conf").write_text(
        f"ListenAddress {address}\nHostKey {home}/host\nAuthorizedKeysFile {home}/.ssh/authorized_keys\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\n"
        f"Subsystem sftp internal-sftp\nSetEnv {' '.join(variables)}\n"
    )
    _do("ip", "netns", "add", f"{BRIDGE}-{name}")
    _do("ip", "link", "add", f"{BRIDGE}{name[4:]}", "type", "veth", "peer", "name", "eth0", "netns", f"{BRIDGE}-{name}")
    _do("ip", "link", "set", f"{BRIDGE}{name[4:]}", "master", BRIDGE, "up")
    for command in (("addr", "add", f"{address}/24", "dev", "eth0"), ("link", "set", "eth0", "up"),
                    ("link", "set", "lo", "up")):  # fmt: skip
        _do("ip", "-n", f"{BRIDGE}-{name}", *command)
    # places that are each host's own under one path, as on machines
    own = "; ".join(f"mount --bind {home / own} {folder / place}" for own, place in _OWN.items())
    inside = f"hostname {name}; {own}; exec /usr/sbin/sshd -D -e -f {home}/sshd.conf"
    return subprocess.Popen(
        ["ip", "netns", "exec", f"{BRIDGE}-{name}", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
         "--uts", "sh", "-c", inside],
        stderr=(home / "sshd.log").open("wb"), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _remove(names: tuple[str, ...]) -> None:
    for name in names:  # the kernel lets go of a namespace's links in its own time: they are deleted by name
        subprocess.run(["ip", "link", "del", f"{BRIDGE}{name[4:]}"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", f"{BRIDGE}-{name}"], capture_output=True, check=False)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def _await(address: str) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex((address, 22)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"no sshd at {address}")


def _placed(node: Unit, address: str) -> Unit:
    assert node.host is not None
    return replace(node, host=Host(address, node.host.mac, node.host.disk))


@pytest.fixture
def alone() -> Iterator[None]:
    """One test of the machine at a time has the hosts: their bridge and addresses are the same in every process."""
    with (Path(tempfile.gettempdir()) / f"{BRIDGE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with libnvidia-ml.so.1: all hosts of all tests have the same."""
    folder = tmp_path_factory.mktemp("libraries")
    compile_library(NVML, folder)
    return folder


@pytest.fixture
def hosts(tmp_path: Path, alone: None, libraries: Path) -> Iterator[Hosts]:
    """Three hosts with eight virtual GPUs each, joined by a bridge that this machine is on too."""
    needed = ("mpirun", "ip", "unshare", "/usr/sbin/sshd")
    if os.getuid() != 0 or any(shutil.which(program) is None for program in needed):
        pytest.skip(f"needs root and {', '.join(needed)} (openmpi-bin, iproute2, util-linux, openssh-server)")
    Path("/run/sshd").mkdir(exist_ok=True)
    rack = load_rack("demo", ROOT / "inventory")
    nodes = tuple(_placed(node, f"{NETWORK}.{i}") for i, node in enumerate(rack.nodes[:3], start=1))
    names = tuple(node.name for node in nodes)
    rack = replace(rack, units=nodes)
    _do("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "login", "-f", str(tmp_path / "login"))
    _programs(tmp_path)
    for place in _OWN.values():
        (tmp_path / place).mkdir()
    _remove(names)
    _do("ip", "link", "add", BRIDGE, "type", "bridge")
    servers: dict[str, subprocess.Popen[bytes]] = {}
    try:
        _do("ip", "addr", "add", f"{NETWORK}.254/24", "dev", BRIDGE)
        _do("ip", "link", "set", BRIDGE, "up")
        for i, name in enumerate(names, start=1):
            servers[name] = _start(tmp_path, name, f"{NETWORK}.{i}", libraries)
        for i in range(1, len(names) + 1):
            _await(f"{NETWORK}.{i}")
        made = Hosts(tmp_path, rack, servers)
        made.break_by()
        for node in nodes:
            for hca in node.hcas:  # as in sysfs: there from the start
                counters = made.home(node.name) / "hardware/infiniband" / hca.name / "ports/1/counters"
                counters.mkdir(parents=True)
                for counter in ("port_xmit_data", "port_rcv_data"):
                    (counters / counter).write_text("0\n")
        yield made
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
        _remove(names)

"""Wall time and CPU of a base stage run by us, against plain ansible-playbook over the same hosts.

    .venv/bin/python benchmarks/fanout.py [--rack demo] [--hosts 6] [--rounds 3]

Where the virtual rack is up (and we are root), its nodes run base.yml itself. Otherwise that many SSH servers on
loopback run a play of base.yml's shape: the same modules and number of tasks, on files below a temporary folder.
Every run is a second run: nothing is left to change. Rounds alternate; the table shows medians, and ratios to ours.
CPU is that of the controller: our process and all it started and waited for.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from toolkit import settings as installed
from toolkit.errors import RackproofError
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.inventory import static
from toolkit.runners.play import HostOutcome, PlayRequest
from toolkit.settings import Settings

MINE = "rackproof"
PLAIN = "ansible-playbook, its defaults (forks=5)"
TUNED = "ansible-playbook, forks=50 + pipelining"
VARIANTS: Mapping[str, Mapping[str, str]] = {
    PLAIN: {},
    TUNED: {"ANSIBLE_FORKS": "50", "ANSIBLE_PIPELINING": "1"},
}


@dataclass(frozen=True, slots=True)
class Field:
    """What is run on what."""

    where: str
    settings: Settings
    rack: Rack
    playbook: str
    user: str
    extra: tuple[str, ...]


@contextmanager
def virtual_rack(name: str) -> Iterator[Field]:
    """The nodes of a virtual rack that is up. Raises RackproofError or OSError where there is none."""
    from toolkit.virtual.lab import enter_namespace

    settings = installed.load()
    rack = load_rack(name, settings.inventory)
    enter_namespace(settings, rack.name)
    known = settings.known_hosts(rack.name).read_text()
    up = tuple(
        n for n in rack.nodes if n.host is not None and f"{n.host.address} " in known and answers(n.host.address)
    )
    if not up:
        raise FileNotFoundError("no node of it answers")
    site = settings.site_variables(rack.site)
    extra = ("-e", f"@{site}") if site.exists() else ()
    yield Field(
        f"{len(up)} nodes of the virtual rack {name}", settings, replace(rack, units=up), "base.yml", "root", extra
    )


def answers(address: str, port: int = 22) -> bool:
    """Whether something listens there."""
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex((address, port)) == 0


@contextmanager
def loopback(count: int) -> Iterator[Field]:
    """That many SSH servers on ports of 127.0.0.1."""
    settings = installed.load()
    rack = load_rack("demo", settings.inventory)
    with tempfile.TemporaryDirectory(prefix="rackproof-fanout-") as folder, ExitStack() as stack:
        here = Path(folder)
        settings = replace(settings, home=here / "home", playbooks=here / "playbooks")
        settings.keys.mkdir(parents=True)
        shutil.copytree(installed.load().playbooks, settings.playbooks)
        public = keygen(settings.keys / "login")
        (here / "authorized").write_text(public)
        host_key = keygen(here / "host")
        nodes, pins = [], []
        for node in rack.nodes[:count]:
            assert node.host is not None
            port = stack.enter_context(sshd(here, here / "host", here / "authorized"))
            nodes.append(replace(node, host=replace(node.host, address="127.0.0.1", ssh_port=port)))
            pins.append(f"[127.0.0.1]:{port} {host_key}")
        settings.known_hosts(rack.name).parent.mkdir(parents=True)
        settings.known_hosts(rack.name).write_text("".join(pins))
        (settings.playbooks / "base.yml").write_text(stand_in(here))
        where = f"{len(nodes)} SSH servers on loopback, a play of base.yml's shape"
        yield Field(where, settings, replace(rack, units=tuple(nodes)), "base.yml", getpass.getuser(), ())


def keygen(file: Path) -> str:
    """A new key; the public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)
    return file.with_suffix(".pub").read_text()


@contextmanager
def sshd(folder: Path, host_key: Path, authorized: Path) -> Iterator[int]:
    """An SSH server for the time of the block; its port."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = int(s.getsockname()[1])
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    config = folder / f"sshd-{port}.conf"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    server = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        while not answers("127.0.0.1", port):
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def stand_in(folder: Path) -> str:
    """As many tasks of the same modules as base.yml runs on a node that has everything."""
    files = [f"{folder}/{{{{ inventory_hostname }}}}-{i}" for i in range(6)]
    tasks: list[dict[str, object]] = [
        {"name": f"File {i}", "ansible.builtin.blockinfile": {"path": f, "block": "x", "create": True, "mode": "0600"}}
        for i, f in enumerate(files)
    ]
    tasks += [{"name": f"Command {i}", "ansible.builtin.command": "true", "changed_when": False} for i in range(3)]
    tasks += [{"name": "Packages", "ansible.builtin.package_facts": {"manager": "apt"}}]
    tasks += [{"name": "Services", "ansible.builtin.stat": {"path": "/etc/hosts"}}]
    end = {"name": "Rackproof completed base", "ansible.builtin.raw": "true", "changed_when": False}
    play = {"name": "Base", "hosts": "nodes", "gather_facts": False, "tasks": tasks, "post_tasks": [end]}
    return json.dumps([play])


def mine(field: Field) -> None:
    """Our run; ends the program when a host is not OK."""
    names = tuple(n.name for n in field.rack.nodes)
    runner = AnsibleRunner(field.settings, user=field.user, arguments=field.extra)
    result = runner.play(PlayRequest(field.rack, field.playbook, names, "fanout", 900), lambda _: None)
    bad = {name: h for name, h in result.hosts.items() if h.outcome is not HostOutcome.OK}
    if bad:
        sys.exit(f"{result.status}: {bad}")


def plain(field: Field, options: Mapping[str, str]) -> None:
    """ansible-playbook as a site would start it: same hosts, keys and variables, without our ansible.cfg."""
    with tempfile.TemporaryDirectory(prefix="rp-", dir="/tmp") as folder:
        here = Path(folder)
        hosts = here / "hosts.json"
        hosts.write_text(json.dumps(static(field.settings, field.rack, field.rack.nodes, field.user)))
        (here / "group_vars").symlink_to(field.settings.inventory / "group_vars")
        (here / "ansible.cfg").touch()
        own = {
            "ANSIBLE_CONFIG": f"{folder}/ansible.cfg",
            "ANSIBLE_HOME": folder,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": f"{folder}/ssh",
        }
        argv = [sys.executable, "-P", "-m", "ansible", "playbook", "-i", str(hosts), *field.extra]
        argv.append(str(field.settings.playbooks / field.playbook))
        env = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")} | own | dict(options)
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stdout[-2000:] + done.stderr[-2000:])


def cpu_seconds() -> float:
    """User and system time of this process and the children it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.monotonic(), cpu_seconds()
    work()
    return time.monotonic() - wall, cpu_seconds() - cpu


def benchmark(field: Field, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """All variants in turn, `rounds` times, after one run that leaves nothing to change."""
    mine(field)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in (MINE, *VARIANTS)}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        taken[MINE].append(measure(lambda: mine(field)))
        for name, options in VARIANTS.items():
            taken[name].append(measure(lambda options=options: plain(field, options)))
    return taken


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rack", default="demo")
    parser.add_argument("--hosts", type=int, default=6, help="servers on loopback, if it comes to that")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with ExitStack() as stack:
        try:
            field = stack.enter_context(virtual_rack(options.rack))
        except (RackproofError, OSError) as none:
            print(f"no virtual rack ({str(none).splitlines()[0]}): loopback", file=sys.stderr)
            field = stack.enter_context(loopback(options.hosts))
        taken = benchmark(field, options.rounds)
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in taken.items()}
    print(f"{field.where}; {os.cpu_count()} cores; median of {options.rounds}")
    print(f"{'':42}{'wall s':>8}{'x':>6}{'CPU s':>8}{'x':>6}")
    for name, (wall, cpu) in medians.items():
        print(f"{name:42}{wall:8.1f}{wall / medians[MINE][0]:6.2f}{cpu:8.1f}{cpu / medians[MINE][1]:6.2f}")


if __name__ == "__main__":
    main()

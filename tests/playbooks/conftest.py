"""Machines that playbooks are played on: systemd from the virtual rack's own image, with the vendors' packages.

Each has its own network namespace on one bridge, and nothing else of a virtual rack. All files share two of them: they
are brought up once, and every task of every role is played on them check, run, run, check. Files are read in order of
their names: test_all_roles looks at what came of that, test_infiniband_roles undoes its roles, test_trays makes trays
of them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import struct
import subprocess
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.playbooks.local_plays import COMPILED_ONCE
from toolkit import settings as installed
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Mode, Rack, Unit, UnitKind
from toolkit.runners.ansible import AnsibleRunner
from toolkit.runners.play import HostOutcome, HostResult, PlayRequest
from toolkit.runners.proof import marker
from toolkit.settings import Settings

NETWORK = "10.253.99"
CONTROLLER = f"{NETWORK}.1"
NODES = ("node1", "node2")
NO_CHANGE = dict.fromkeys(NODES, 0)
AFTER_BASE = ("nvlink", "infiniband", "kubernetes")
# What a site sets for infiniband.yml.
WANTED = {
    "hca_firmware_settings_profile": {"PCI_WR_ORDERING": "force_relax", "MAX_ACC_OUT_READ": 128},
    "opensm_priorities": {"node1": 15, "node2": 14},
}
CHECKOUT, PACKAGES = Path(__file__).resolve().parents[2], sysconfig.get_path("purelib")
OWNER = "owner"  # in a machine's folder: the process whose machine it is
BRIDGE = "pci/0000:17:01.0"  # of each node
REDIRECTING = 0x001D  # source validation, both redirects, upstream forwarding


def run(*argv: object) -> str:
    """A program's output; CalledProcessError when it fails."""
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


@dataclass
class Machines:
    """Nodes of a rack that answer, and how to play on them."""

    settings: Settings
    rack: Rack
    variables: Path
    roots: Mapping[str, Path] = field(default_factory=dict)
    hardware: Mapping[str, Path] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    books: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def try_play(
        self, playbook: str, check: bool = False, nodes: tuple[str, ...] = (), **variables: object
    ) -> dict[str, HostResult]:
        """What became of it on each node. `tasks` then has the tasks that changed something, by node.

        `books` has the same for each playbook that was played to its end, for one may import others.
        """
        names = nodes or tuple(n.name for n in self.rack.nodes)
        request = PlayRequest(self.rack, playbook, names, playbook.removesuffix(".yml"), 600, variables, check=check)
        runner = AnsibleRunner(self.settings, arguments=("-e", f"@{self.variables}"))
        result = runner.play(request, lambda _: None)
        self.tasks.clear()
        self.books.clear()
        since: dict[str, list[str]] = {name: [] for name in names}  # the last playbook's end
        for line in (result.folder / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            host, task = event["host"], event["task"]
            if event["changed"]:
                self.tasks.setdefault(host, []).append(task)
                since[host].append(task)
            if task.startswith(marker("")):
                self.books.setdefault(task.removeprefix(marker("")), {})[host] = since[host]
                since[host] = []
        return dict(result.hosts)

    def play(self, playbook: str, check: bool = False, **variables: object) -> dict[str, int]:
        """Number of changes by node; every node must be OK."""
        return self._ok(self.try_play(playbook, check, **variables))

    def foretell(self, playbook: str, **variables: object) -> int:
        """Number of changes in check mode, of node1 for all: they are told the same, and half the work is enough."""
        return self._ok(self.try_play(playbook, True, NODES[:1], **variables))[NODES[0]]

    @staticmethod
    def _ok(hosts: Mapping[str, HostResult]) -> dict[str, int]:
        assert {h.outcome for h in hosts.values()} == {HostOutcome.OK}, hosts
        return {name: host.changed for name, host in hosts.items()}

    def sh(self, script: str, node: str = "node1") -> str:
        """A script's output on the node."""
        host = self.rack.unit(node).host
        assert host is not None
        pins, key = self.settings.known_hosts(self.rack.name), self.settings.keys / "login"
        return run("ssh", "-F", "none", "-i", key, f"-oUserKnownHostsFile={pins}", f"root@{host.address}", script)


def clear_killed_runs() -> None:
    """What runs that were killed left behind: beside a bridge of theirs, with its address, no later node is reached."""
    netns = Path("/run/netns")
    left = [p.name for folder in (Path("/sys/class/net"), netns) if folder.exists() for p in folder.iterdir()]
    for name in left:
        owner = re.match(r"rp-b(\d+)$|rp(\d+)node\d+$", name)
        if owner and not Path("/proc", owner[1] or owner[2]).exists():
            what = ("netns", "delete") if (netns / name).exists() else ("link", "delete")
            subprocess.run(["ip", *what, name], check=False, capture_output=True)
    for line in Path("/proc/mounts").read_text().splitlines():
        place = Path(line.split()[1])
        if (place.parent / OWNER).exists() and not Path("/proc", (place.parent / OWNER).read_text()).exists():
            subprocess.run(["umount", "--lazy", str(place)], check=False)


@contextmanager
def bridge(name: str) -> Iterator[str]:
    """A bridge with the controller's address."""
    clear_killed_runs()
    run("ip", "link", "add", name, "type", "bridge")
    try:
        run("ip", "address", "add", f"{CONTROLLER}/24", "dev", name)
        run("ip", "link", "set", name, "up")
        yield name
    finally:
        run("ip", "link", "delete", name)


@contextmanager
def namespace(name: str, bridge: str, address: str) -> Iterator[Path]:
    """A network namespace with eth0, joined to the bridge."""
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", name, "master", bridge, "up")
        run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")
        yield Path("/run/netns") / name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def machine(root: Path, namespace: Path, hardware: Path, console: Path) -> Iterator[None]:
    """systemd from `root`, until the end of the block."""
    argv = [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit",
        f"--machine={namespace.name}", "--hostname=localhost", f"--network-namespace-path={namespace}",
        "--console=pipe", "--capability=CAP_NET_ADMIN", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
        f"--bind={hardware}:/run/hardware", "--kill-signal=SIGRTMIN+4",
        # rackproof itself, for roles of the machine that it is installed on
        f"--bind-ro={CHECKOUT}:/opt/rackproof/checkout", f"--bind-ro={PACKAGES}:/opt/rackproof/packages",
    ]  # fmt: skip
    modern = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}
    with console.open("wb") as out:
        process = subprocess.Popen(
            argv, env=os.environ | modern, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield
    finally:
        # Its power is cut: nobody looks at it any more, and a shutdown in order may take half a minute.
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The folder over HTTP on the controller's address; its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer((CONTROLLER, 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{CONTROLLER}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def machines(folder: Path, count: int, change: Callable[[Rack], Rack] = lambda rack: rack) -> Iterator[Machines]:
    """The first `count` nodes of the demo rack, freshly imaged; `change` makes another rack of it."""
    from toolkit.virtual.images import build_image
    from toolkit.virtual.packages import build_repository

    ours = installed.load()
    settings = replace(ours, home=folder / "home", playbooks=playbooks(folder / "playbooks", ours.playbooks))
    rack = change(load_rack("demo", settings.inventory))
    units = tuple(_at(unit, f"{NETWORK}.{2 + number}") for number, unit in enumerate(rack.nodes[:count]))
    left = {unit.name for unit in rack.nodes[count:]}
    links = tuple(link for link in rack.links if not {link.a.unit, link.b.unit} & left)
    rack = replace(rack, units=units + tuple(u for u in rack.units if u.kind is not UnitKind.NODE), links=links)
    settings.keys.mkdir(parents=True)
    for key in ("login", "ssh_ca"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", settings.keys / key)
    repository = build_repository(ours.cache, rack.profile.versions, lambda _: None)
    image = build_image(ours.cache, lambda _: None).path
    with ExitStack() as stack:
        joined = stack.enter_context(bridge(f"rp-b{os.getpid()}"))
        url = stack.enter_context(serving(repository))
        started = {u.name: stack.enter_context(_started(folder, u, rack, settings, image, joined)) for u in units}
        for unit in units:
            wait_for_ssh(settings.known_hosts(rack.name), unit, started[unit.name])
        key = (repository / "archive-key.asc").read_text()
        source = {"name": "vendors", "uris": [url], "suites": ["./"], "key": key}
        variables = folder / "site.json"
        variables.write_text(json.dumps({"package_repositories_sources": [source]}))
        yield Machines(settings, rack, variables, started, {u.name: folder / u.name / "hardware" for u in units})


def playbooks(folder: Path, ours: Path) -> Path:
    """Our playbooks, and books of them and of single roles: a process of Ansible less for each that is joined."""
    folder.mkdir()
    for file in ours.iterdir():
        (folder / file.name).symlink_to(file)
    for name, joined in {"rest": AFTER_BASE, "all": ("base", *AFTER_BASE)}.items():
        plays = [{"ansible.builtin.import_playbook": f"{book}.yml"} for book in joined]
        (folder / f"{name}.yml").write_text(json.dumps([*plays, _play(name)]))
    for role in ("imex", "opensm"):
        (folder / f"{role}.yml").write_text(
            json.dumps([_play(role, roles=[role], strategy="linear", force_handlers=True)])
        )
    return folder


def _play(name: str, **more: object) -> dict[str, object]:
    end = {"name": marker(name), "ansible.builtin.raw": "true", "changed_when": False, "check_mode": False}
    return {"name": f"Books of {name}", "hosts": "nodes", "gather_facts": False, "post_tasks": [end], **more}


def _at(unit: Unit, address: str) -> Unit:
    assert unit.host is not None
    return replace(unit, host=replace(unit.host, address=address))


@contextmanager
def _started(folder: Path, unit: Unit, rack: Rack, settings: Settings, image: Path, joined: str) -> Iterator[Path]:
    """The root of a node that boots."""
    from toolkit.virtual import disk, hardware_files

    assert unit.host is not None
    place = folder / unit.name
    place.mkdir()
    (place / OWNER).write_text(str(os.getpid()))
    run("zstd", "-qd", image, "-o", place / "disk")
    # The stand-ins know one mode; what the playbooks are told is another matter.
    hardware_files.lay_out(place / "hardware", unit, rack.profile)
    hardware_files.write_state(place / "hardware", unit, replace(rack.profile, mode=Mode.NVSWITCH_GEN3), ())
    hardware_files.power_on(place / "hardware")
    partition = disk.first_partition(place / "disk")
    assert partition is not None
    with ExitStack() as stack:
        loop = stack.enter_context(disk.attached(place / "disk", partition))
        root = stack.enter_context(disk.mounted(str(loop), place / "root", "ext4", "rw"))
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text((settings.keys / "login.pub").read_text())
        (root / "etc/systemd/network/10-inband.network").unlink()
        packages = root / "usr/lib/python3/dist-packages"
        (packages / "compiled_once.py").write_bytes((COMPILED_ONCE / "sitecustomize.py").read_bytes())
        (packages / "compiled_once.pth").write_text("import compiled_once\n")
        name = f"rp{os.getpid()}{unit.name}"[-15:]
        inside = stack.enter_context(namespace(name, joined, unit.host.address))
        stack.enter_context(machine(root, inside, place / "hardware", place / "console"))
        yield root


def wait_for_ssh(pins: Path, unit: Unit, root: Path) -> None:
    """Pins the key the node makes at its first boot, and waits until its server shows it."""
    assert unit.host is not None
    address, host_key = unit.host.address, root / "etc/ssh/ssh_host_ed25519_key.pub"
    pins.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shown = subprocess.run(["ssh-keyscan", "-t", "ed25519", address], capture_output=True, text=True, check=False)
        if host_key.exists() and host_key.read_text().split()[1] in shown.stdout:
            with pins.open("a") as file:
                file.write(f"{address} {host_key.read_text()}")
            return
        time.sleep(0.5)
    raise TimeoutError(f"{unit.name} does not come up")


@contextmanager
def fabric(machines: Machines) -> Iterator[None]:
    """The rack's InfiniBand, which the nodes' real tools and subnet managers talk to until the end of the block."""
    from toolkit.virtual.devices import infiniband_tools
    from toolkit.virtual.fabric.model import FabricModel
    from toolkit.virtual.fabric.publishing import Publisher
    from toolkit.virtual.fabric.server import UDP_PORT, FabricServer
    from toolkit.virtual.fabric.wiring import planned

    model = FabricModel(planned(machines.rack), 0)
    model.changed = Publisher(model, machines.hardware).changed
    server = FabricServer(model)
    server.listen_udp(CONTROLLER, UDP_PORT)
    for folder in machines.hardware.values():
        (folder / infiniband_tools.FABRIC).write_text(f"{CONTROLLER} {UDP_PORT}\n")
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join(10)


def a_bridge(folder: Path, control: int) -> Path:
    """A PCIe bridge whose ACS control register has that value; its configuration space."""
    folder.mkdir(parents=True)
    (folder / "class").write_text("0x060400\n")
    space = bytearray(4096)
    struct.pack_into("<I", space, 0x100, 0x0001 | 1 << 16 | 0x148 << 20)  # Advanced Error Reporting, then
    struct.pack_into("<I", space, 0x148, 0x000D | 1 << 16)  # Access Control Services
    struct.pack_into("<H", space, 0x148 + 6, control)
    (folder / "config").write_bytes(space)
    return folder / "config"


def controls(machines: Machines) -> set[int]:
    """The ACS control registers of the nodes' bridges."""
    spaces = [(folder / BRIDGE / "config").read_bytes() for folder in machines.hardware.values()]
    return {struct.unpack_from("<H", space, 0x148 + 6)[0] for space in spaces}


def with_opensm(rack: Rack) -> Rack:
    """The rack with a subnet manager in its lock."""
    versions = dict(rack.profile.versions) | {"opensm": "3.3.23"}
    return replace(rack, profile=replace(rack.profile, versions=tuple(versions.items())))


@dataclass(frozen=True)
class Played:
    """Tasks that changed something, by playbook and node (in check mode node1's), and the bridges' registers then."""

    books: Mapping[str, Mapping[str, Sequence[str]]]
    controls: set[int]


@dataclass(frozen=True)
class Story:
    """Two nodes that all roles were played on: what was foretold, done, done again, and foretold then."""

    nodes: Machines
    foretold: Played
    done: Played
    again: Played
    after: Played


@pytest.fixture(scope="session")
def brought_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Two nodes of the demo rack on a fabric, each with one bridge that redirects, after base.yml and all others.

    base.yml goes first: without its package sources check mode can foretell nothing of the others.
    """
    with machines(tmp_path_factory.mktemp("nodes"), len(NODES), with_opensm) as nodes, fabric(nodes):
        for folder in nodes.hardware.values():
            a_bridge(folder / BRIDGE, REDIRECTING)
        base = [_played(nodes, "base.yml", check) for check in (True, False)]
        rest = [_played(nodes, "rest.yml", check) for check in (True, False)]
        first = [Played({**b.books, **r.books}, r.controls) for b, r in zip(base, rest, strict=True)]
        yield Story(nodes, *first, _played(nodes, "all.yml", False), _played(nodes, "all.yml", True))


def _played(nodes: Machines, playbook: str, check: bool) -> Played:
    if check:
        nodes.foretell(playbook, **WANTED)
    else:
        nodes.play(playbook, **WANTED)
    return Played(dict(nodes.books), controls(nodes))


@pytest.fixture
def nodes(brought_up: Story) -> Machines:
    """The nodes that are brought up."""
    return brought_up.nodes

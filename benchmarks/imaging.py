"""Imaging 1, 6 and 18 nodes of a virtual rack at once: time, bytes on the wire, CPU and memory of the boot service.

    sudo .venv/bin/python benchmarks/imaging.py [--nodes 1,6,18] [--cuts 10] [--keep]

A rack of that many nodes is written, brought up in a home of its own (what is built is taken from RACKPROOF_CACHE) and
imaged by `rackproof bringup --to IMAGED`. What the nodes fetch comes from the real nginx and `rackproof netboot serve`
in the rack's controller network; only the firmware's first script comes from the virtual rack's own server, over the
same code. The disk's own rate is measured in the same run: nodes share it, and no service can be quicker.
With --cuts the last run images one node while nginx is killed so often in the middle of its download.
Needs root, nginx, and that no other virtual rack is up.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from toolkit import settings as installed
from toolkit.netboot import nginx
from toolkit.netboot.site import BootSite
from toolkit.virtual.layout import Layout
from toolkit.virtual.network import CONTROLLER_IN_BAND, IN_BAND

PORT = 8080
MIB = 1024 * 1024
DISK_PROBE_BYTES = 512 * MIB
GOAL_RATIO, GOAL_RESENT = 3.0, 0.05
PROGRAM = (sys.executable, "-c", "from toolkit.cli import main; main()")
_POLL_S = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. Bytes are those of the interface of the boot service; CPU of all that this machine did for it.

    service_cpu_s, service_bytes  CPU and greatest memory (proportional set size) of nginx and the deciding service
    """

    nodes: int
    seconds: float
    wire_bytes: int
    image_bytes: int
    service_cpu_s: float
    service_bytes: int
    machine_cpu_s: float
    cuts: int = 0


def rack_document(name: str, nodes: int) -> dict[str, object]:
    """A rack file of nodes that have a BMC, a disk and a boot interface, and no fabric."""
    units = [
        {
            "name": f"node{n}",
            "kind": "node",
            "slot": n,
            "serial": f"VR{n:08d}",
            "bmc": {"address": f"10.67.0.{10 + n}", "credentials": "bmc"},
            "host": {
                "address": f"10.66.0.{10 + n}",
                "mac": f"52:54:00:66:00:{n:02x}",
                "disk": {"device": "/dev/nvme0n1", "serial": f"VD{n:08d}"},
            },
        }
        for n in range(1, nodes + 1)
    ]
    provision = f"http://{CONTROLLER_IN_BAND}:{PORT}"
    head = {"rack": name, "site": "virtual", "profile": "virtual-dgx-h100", "provision": provision, "partial": True}
    return {**head, "units": units, "links": []}


def _without_fabric(profile: Path, nodes: int) -> None:
    """Makes it the profile of a rack of so many nodes with no HCA: imaging needs none, and no fabric takes CPU."""
    text = profile.read_text()
    for was, becomes in (
        ("units: {node: 6, leaf: 8}", f"units: {{node: {nodes}}}"),
        ("hcas_per_node: 8", "hcas_per_node: 0"),
        ("rail_test: true", "rail_test: false"),
        ("levels: [leaf, unit]", "levels: []"),
    ):
        if was not in text:
            sys.exit(f"{profile} has no line {was!r} any more: correct this benchmark")
        text = text.replace(was, becomes)
    profile.write_text(text)


def disk_bytes_per_s(folder: Path) -> float:
    """What the disk below `folder` takes of a stream that is flushed at its end."""
    block = os.urandom(MIB)
    began = time.monotonic()
    with (folder / "probe").open("wb") as file:
        for _ in range(DISK_PROBE_BYTES // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    rate = DISK_PROBE_BYTES / (time.monotonic() - began)
    (folder / "probe").unlink()
    return rate


class Bench:
    """One virtual rack in a home of its own, its boot service beside it."""

    def __init__(self, folder: Path, nodes: int) -> None:
        ours = installed.load()
        self.name = f"imaging-{nodes}"
        self.nodes = nodes
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        inventory = folder / "inventory"
        shutil.copytree(ours.inventory, inventory)
        _without_fabric(inventory / "profiles/virtual-dgx-h100.yml", nodes)
        (inventory / "racks" / f"{self.name}.yml").write_text(yaml.safe_dump(rack_document(self.name, nodes)))
        self.environment = os.environ | {
            "RACKPROOF_HOME": str(self.home),
            "RACKPROOF_INVENTORY": str(inventory),
            "RACKPROOF_CACHE": str(ours.cache),
        }
        self.site = BootSite(
            self.home / "provision", IPv4Address(CONTROLLER_IN_BAND), IN_BAND, "inband0",
            port=PORT, socket=folder / "socket", hosts=Layout(self.home, self.name).folder / "hosts",
        )  # fmt: skip
        self.namespace = Layout(self.home, self.name).controller

    def rackproof(self, *arguments: str) -> str:
        """A verb's stdout. Ends the benchmark when it fails."""
        done = subprocess.run([*PROGRAM, *arguments], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(
                f"rackproof {arguments} ended with {done.returncode}:\n{done.stderr[-3000:]}\n{done.stdout[-2000:]}"
            )
        return done.stdout

    @contextmanager
    def up(self) -> Iterator[None]:
        """The rack, its nodes switched off."""
        self.rackproof("virtual", "up", self.name, "--file-pool")
        try:
            yield
        finally:
            self.rackproof("virtual", "down", self.name)

    @contextmanager
    def deciding(self) -> Iterator[int]:
        """`rackproof netboot serve`; its process id."""
        argv = [*PROGRAM, "netboot", "serve", "--root", str(self.site.provision), "--socket", str(self.site.socket)]
        with self._started(argv, "service.log") as pid:
            _until(self.site.socket.exists, "the deciding service")
            yield pid

    @contextmanager
    def serving(self) -> Iterator[int]:
        """nginx in the controller's network; the process id of its master."""
        config = self.folder / "nginx.conf"
        config.write_text(nginx.standalone(self.site, self.folder, "root"))
        argv = ["nginx", "-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(config)]
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}", "--"]
        with self._started([*inside, *argv], "nginx.log") as pid:
            _until((self.folder / "nginx.pid").exists, "nginx")
            yield pid
        (self.folder / "nginx.pid").unlink(missing_ok=True)

    @contextmanager
    def _started(self, argv: Sequence[str], log: str) -> Iterator[int]:
        with (self.folder / log).open("ab") as out:
            process = subprocess.Popen(argv, env=self.environment, stdout=out, stderr=out)
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)

    def image(self) -> float:
        """Images every node; seconds."""
        began = time.monotonic()
        self.rackproof("bringup", self.name, "--to", "IMAGED", "--confirm", self.name, "--json")
        return time.monotonic() - began

    @property
    def wire_bytes(self) -> int:
        """What the boot service's interface has sent so far."""
        shown = subprocess.run(
            ["ip", "-n", self.namespace, "-json", "-stats", "link", "show", "dev", "inband0"],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        sent: int = json.loads(shown)[0]["stats64"]["tx"]["bytes"]
        return sent

    @property
    def image_bytes(self) -> int:
        """What one node must fetch: the largest file that is published."""
        return max(file.stat().st_size for file in self.site.provision.rglob("*") if file.is_file())


def _until(is_so: object, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():  # type: ignore[operator]
        if time.monotonic() > end:
            sys.exit(f"{what} did not come up in {seconds} s")
        time.sleep(0.05)


class Watch:
    """Greatest memory and the CPU of processes, their children among them, while they run."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids
        self._stop = threading.Event()
        self._cpu: dict[int, float] = {}
        self.most_bytes = 0
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def cpu_s(self) -> float:
        """User and system time of all that was seen."""
        return sum(self._cpu.values())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(_POLL_S):
            found = [pid for root in self._pids for pid in (root, *_children(root))]
            self.most_bytes = max(self.most_bytes, sum(_memory(pid) for pid in found))
            for pid in found:
                self._cpu[pid] = max(self._cpu.get(pid, 0.0), _cpu_s(pid))


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory(pid: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_cpu_s() -> float:
    """All that this machine's processors have worked: other programs' too."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = (int(word) for word in words)
    return (user + nice + system + irq + softirq) / _TICKS


def measure(folder: Path, nodes: int, cuts: int = 0) -> Measured:
    """One run, from power off to sshd on every node."""
    bench = Bench(folder, nodes)
    with ExitStack() as held:
        held.enter_context(bench.up())
        decider = held.enter_context(bench.deciding())
        if cuts:
            return _measure_cut(bench, decider, cuts)
        server = held.enter_context(bench.serving())
        before, cpu = bench.wire_bytes, _machine_cpu_s()
        with Watch((decider, server)) as watch:
            seconds = bench.image()
        return Measured(
            nodes, seconds, bench.wire_bytes - before, bench.image_bytes,
            watch.cpu_s, watch.most_bytes, _machine_cpu_s() - cpu,
        )  # fmt: skip


def _measure_cut(bench: Bench, decider: int, cuts: int) -> Measured:
    """As `measure`, with nginx killed each time that a further share of the image has gone over the wire."""
    before, cpu = bench.wire_bytes, _machine_cpu_s()
    ended: list[float] = []
    work = threading.Thread(target=lambda: ended.append(bench.image()))
    step = bench.image_bytes // (cuts + 1)
    done = 0
    with Watch((decider,)) as watch:
        work.start()
        while work.is_alive():
            with bench.serving():
                goal = bench.wire_bytes + step if done < cuts else 1 << 62
                while work.is_alive() and bench.wire_bytes < goal:
                    time.sleep(0.01)
            done += work.is_alive()
        work.join()
    return Measured(
        bench.nodes, ended[0], bench.wire_bytes - before, bench.image_bytes,
        watch.cpu_s, watch.most_bytes, _machine_cpu_s() - cpu, done,
    )  # fmt: skip


def show(runs: Sequence[Measured], disk: float) -> None:
    """The table and the ratios."""
    out = sys.stdout.write
    out(f"disk: {disk / MIB:.0f} MiB/s ({DISK_PROBE_BYTES // MIB} MiB written and flushed); {os.cpu_count()} cores\n")
    out("nodes  cuts  seconds  x one  wire MiB  x image  service CPU s  service MiB  machine CPU s\n")
    one = next((run.seconds for run in runs if run.nodes == 1 and not run.cuts), None)
    for run in runs:
        ratio = f"{run.seconds / one:.2f}" if one else "-"
        out(
            f"{run.nodes:5}  {run.cuts:4}  {run.seconds:7.1f}  {ratio:>5}  {run.wire_bytes / MIB:8.1f}"
            f"  {run.wire_bytes / (run.nodes * run.image_bytes):7.4f}  {run.service_cpu_s:13.2f}"
            f"  {run.service_bytes / MIB:11.1f}  {run.machine_cpu_s:13.1f}\n"
        )
    whole = next((run for run in runs if run.nodes == 1 and not run.cuts), None)
    for run in runs:
        if whole and run.cuts:
            again = (run.wire_bytes - whole.wire_bytes) / run.image_bytes
            out(f"cut {run.cuts} times: {again:.2%} of the image sent again (goal: below {GOAL_RESENT:.0%})\n")
    most = max(runs, key=lambda run: run.nodes)
    if whole and most.nodes > 1:
        out(f"{most.nodes} at once take {most.seconds / whole.seconds:.2f} times one (goal: {GOAL_RATIO:.0f})\n")


def main() -> None:
    """Runs them one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="1,6,18", help="how many at once; several with commas")
    parser.add_argument("--cuts", type=int, default=10, help="how often one node's download is cut; 0: not at all")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("a virtual rack needs root: sudo")
    runs: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="rackproof-imaging-") as place:
        disk = disk_bytes_per_s(Path(place))
        for nodes in map(int, options.nodes.split(",")):
            runs.append(measure(Path(place) / f"{nodes}", nodes))
            show(runs[-1:], disk)
        if options.cuts:
            runs.append(measure(Path(place) / "cut", 1, options.cuts))
    show(runs, disk)
    if options.json:
        figures: Mapping[str, object] = {
            "disk_bytes_per_s": disk,
            "runs": [{name: getattr(run, name) for name in Measured.__slots__} for run in runs],
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(f"own greatest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB\n")


if __name__ == "__main__":
    main()

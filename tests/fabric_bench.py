"""A scalable unit's fabric, simulated twice, and the real tools over it.

`OwnFabric` is the virtual rack's own server; `Ibsim` is ibsim, an independent simulator of the same protocol. Both take
the same faults and carry the same opensm and infiniband-diags.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from toolkit.facts import fabric_join, iblinkinfo, ibnetdiscover, ibqueryerrors, subnet
from toolkit.judge.fabric.seen import Membership, Seen, SeenPort, SubnetManager
from toolkit.rack.model import Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind
from toolkit.virtual.fabric.faults import faulty
from toolkit.virtual.fabric.model import FabricModel
from toolkit.virtual.fabric.server import FabricServer
from toolkit.virtual.fabric.subnet_manager import ManagerSpec
from toolkit.virtual.fabric.subnet_manager import SubnetManager as OpenSm
from toolkit.virtual.fabric.tools import Tools
from toolkit.virtual.fabric.wiring import LANES, Cable, MemberKind, Speed, Wiring, planned
from toolkit.virtual.faults import Fault, FaultKind

TOOL_TIMEOUT_S = 60
_SETTLE_S = 120  # of patience with a loaded machine, not of waiting
_QUIET_S = 0.2
_DROPS = 3
# How a sweep may end in opensm's log. With a duplicate GUID it never gets further, and begins again every second.
_SWEPT = ("SUBNET UP", "Errors during initialization", "Found duplicated node GUID")


@dataclass(frozen=True)
class Shape:
    """A fat tree: each rail of each group of nodes on a leaf of its own, every leaf on every spine `uplinks` times."""

    nodes: int = 32
    rails: int = 8
    nodes_per_leaf: int = 32
    spines: int = 4
    uplinks: int = 8


SCALABLE_UNIT = Shape()  # 256 HCAs, 12 switches: NVIDIA DGX SuperPOD H100 reference architecture
NVL72_ROW = Shape(nodes=288, rails=4, nodes_per_leaf=72, spines=8, uplinks=9)  # 1,152 HCAs: 16 racks of 18 trays


def rack_of(shape: Shape) -> Rack:
    """The rack file's worth of it."""
    units, links = [], []
    for n in range(shape.nodes):
        name, group = f"dgx{n + 1:03d}", n // shape.nodes_per_leaf
        hcas = []
        for rail in range(shape.rails):
            hca = f"mlx5_{rail}"
            hcas.append(Hca(hca, f"0x{0x946DAE0300C00000 + (n << 8) + (rail << 4):016x}", rail))
            leaf = f"leaf{group * shape.rails + rail + 1}"
            links.append(_link(Port(name, hca), Port(leaf, str(n % shape.nodes_per_leaf + 1))))
        units.append(Unit(name, UnitKind.NODE, f"S{n:05d}", n + 1, hcas=tuple(hcas)))
    leaves = -(-shape.nodes // shape.nodes_per_leaf) * shape.rails
    for number in range(1, leaves + 1):
        units.append(_switch(f"leaf{number}", UnitKind.LEAF, 0x5C25730300A00000 + (number << 8), 600 + number))
        for spine in range(1, shape.spines + 1):
            for k in range(shape.uplinks):
                up = shape.nodes_per_leaf + (spine - 1) * shape.uplinks + k + 1
                there = str((number - 1) * shape.uplinks + k + 1)
                links.append(_link(Port(f"leaf{number}", str(up)), Port(f"spine{spine}", there)))
    for number in range(1, shape.spines + 1):
        units.append(_switch(f"spine{number}", UnitKind.SPINE, 0x5C25730300B00000 + (number << 8), 700 + number))
    profile = Profile(
        name="unit", sku="DGX H100", mode=Mode.NVSWITCH_GEN3, gpus_per_node=8, nvlinks_per_gpu=18,
        nvlink_gb_per_s=26.562, hcas_per_node=shape.rails, units=((UnitKind.NODE, shape.nodes),), image="os.img",
        expected=(), versions=(), gates=(), certificate_lifetime=timedelta(days=30),
    )  # fmt: skip
    return Rack("unit", "bench", profile, tuple(units), tuple(links), "0" * 64)


def _switch(name: str, kind: UnitKind, guid: int, slot: int) -> Unit:
    return Unit(name, kind, name, slot, guid=f"0x{guid:016x}")


def _link(a: Port, b: Port) -> Link:
    return Link(a, b, LinkKind.INFINIBAND, 50.0, "cable")


class Simulator(Protocol):
    """What carries a fabric."""

    sockets: str
    tools: Tools
    options: tuple[str, ...]  # of ibqueryerrors, for this simulator's sake

    def become(self, faults: Sequence[Fault]) -> None:
        """Makes the fabric the plan with these faults."""

    def strike(self, faults: Sequence[Fault], lids: Mapping[str, int]) -> None:
        """Whatever a sweep would heal, or counters that do not grow by themselves. LIDs by adapter."""


@dataclass
class OwnFabric:
    """The virtual rack's server, in a thread."""

    plan: Wiring
    tools: Tools
    sockets: str
    options: tuple[str, ...] = ()
    server: FabricServer = field(init=False)

    def become(self, faults: Sequence[Fault]) -> None:
        wiring = faulty(self.plan, faults)
        self.do(lambda: self.server.fabric.become(wiring))

    def do(self, action: Callable[[], None]) -> None:
        """Has something done in the server's thread, and waits for it."""
        done = threading.Event()
        self.server.call(action)
        self.server.call(done.set)
        assert done.wait(TOOL_TIMEOUT_S)

    def strike(self, faults: Sequence[Fault], lids: Mapping[str, int]) -> None:
        """Counters grow by themselves; a link that drops does so now, and not while tools look."""
        if any(fault.kind is FaultKind.DUPLICATE_LID for fault in faults):
            self.become(())
            self.become(faults)
        if any(fault.kind is FaultKind.LINK_DOWNED for fault in faults):
            for _ in range(_DROPS):
                self.become([*faults, *(replace(f, kind=FaultKind.CABLE_PULLED) for f in faults)])
                self.become(faults)


@contextmanager
def own_fabric(plan: Wiring, tools: Tools, sockets: str) -> Iterator[OwnFabric]:
    """Serves the plan until the end of the block."""
    bench = OwnFabric(plan, tools, sockets)
    bench.server = FabricServer(FabricModel(plan))
    bench.server.listen_unix(sockets)
    thread = threading.Thread(target=bench.server.run)
    thread.start()
    try:
        yield bench
    finally:
        bench.server.stop()
        thread.join(TOOL_TIMEOUT_S)


@dataclass
class Ibsim:
    """ibsim, told by its console. It cannot make a running link slow: what trains badly is in its netlist."""

    plan: Wiring
    tools: Tools
    sockets: str
    folder: Path
    # Not the service levels: of the table of paths that ibsim hands on, the client's library makes up the third (see
    # mad.KEPT_BYTES), and ibqueryerrors writes by its LID, now and then past its memory's end.
    options: tuple[str, ...] = ("--skip-sl",)
    _now: Wiring = field(init=False)

    def __post_init__(self) -> None:
        self._now = self.plan

    def become(self, faults: Sequence[Fault]) -> None:
        wanted = faulty(self.plan, faults)
        for line in _commands(self._now, wanted):
            self._type(line)
        self._now = wanted

    def strike(self, faults: Sequence[Fault], lids: Mapping[str, int]) -> None:
        for member in self._now.members:
            if member.lid_of is not None:
                self._type(f'Baselid "{member.name}"[1] {lids[member.lid_of]}')
        for cable in self._now.cables:
            at = f'"{cable.b.member}"[{cable.b.port}]'
            if cable.symbol_errors_per_s:
                self._type(f"PerformanceSet {at} PortCounters.SymbolErrorCounter=4242")
            if cable.drops_every_s:
                self._type(f"PerformanceSet {at} PortCounters.LinkDownedCounter=7")

    def _type(self, line: str) -> None:
        assert len(line) < 127, "ibsim takes the rest of a longer line for another command"
        before = self._prompts()
        with (self.folder / "console").open("w") as console:
            console.write(f"{line}\n")
        until(lambda: self._prompts() > before, f"ibsim to have taken {line!r}")

    def _prompts(self) -> int:
        return (self.folder / "out").read_text(errors="replace").count("sim> ")


@contextmanager
def ibsim(plan: Wiring, simulator: Tools, tools: Tools, folder: Path, sockets: str) -> Iterator[Ibsim]:
    """Runs ibsim with the plan until the end of the block."""
    (folder / "net").write_text(netlist(plan))
    os.mkfifo(folder / "console")
    console = os.open(folder / "console", os.O_RDWR)  # never at its end: ibsim would spin
    environment = dict(tools.environment(sockets, ""))
    environment.pop("LD_PRELOAD")
    program = simulator.folder / "usr/bin/ibsim"
    with (folder / "out").open("w") as out:
        process = subprocess.Popen(
            [str(program), "-s", "-N", "4096", "-S", "512", "-P", "40000", str(folder / "net")], stdin=console,
            stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder,
        )  # fmt: skip
    try:
        until(lambda: "simulator ready" in (folder / "out").read_text(), "ibsim to be ready")
        yield Ibsim(plan, tools, sockets, folder)
    finally:
        process.kill()
        process.wait()
        os.close(console)


def netlist(plan: Wiring) -> str:
    """A fabric as ibsim reads it. Widths and speeds are masks of what is enabled: 3 is 1X or 4X, 15 up to NDR."""
    links: dict[str, dict[int, tuple[str, int, Cable]]] = {member.name: {} for member in plan.members}
    for cable in plan.cables:
        links[cable.a.member][cable.a.port] = (cable.b.member, cable.b.port, cable)
        links[cable.b.member][cable.b.port] = (cable.a.member, cable.a.port, cable)
    lines = []
    for member in plan.members:
        is_switch = member.kind is MemberKind.SWITCH
        lines += ["vendid=0x2c9", f"devid={'0xd2f2' if is_switch else '0x1021'}", f"sysimgguid=0x{member.system:x}"]
        lines.append(f"{'switch' if is_switch else 'ca'}guid=0x{member.guid:x}")
        kind, end = ("Switch", " enhanced port 0") if is_switch else ("Ca", "")
        lines.append(f'{kind}\t{member.ports} "{member.name}"\t# "{member.description}"{end}')
        for port, (far, there, cable) in sorted(links[member.name].items()):
            width = 3 if cable.lanes == LANES else 1
            speed = sum(s.bit for s in Speed if s.bit <= cable.speed.bit)
            lines.append(f'[{port}]\t"{far}"[{there}]\t w={width} s=7 e={speed}')
        lines.append("")
    return "\n".join(lines) + "\n"


def _commands(now: Wiring, wanted: Wiring) -> Iterator[str]:
    """What to type so that one fabric becomes the other."""
    before, after = ({c.ends: c for c in w.cables} for w in (now, wanted))
    for ends in before.keys() - after.keys():
        yield f'Unlink "{ends[1].member}"[{ends[1].port}]'
    for old, new in zip(now.members, wanted.members, strict=True):
        if old.on != new.on:
            yield f'{"ReLink" if new.on else "Unlink"} "{new.name}"'
        if old.guid != new.guid:
            yield f'Guid "{new.name}" 0x{new.guid:x}'
            yield f'Guid "{new.name}"[1] 0x{new.guid + 1:x}'
        if old.mad_loss != new.mad_loss:
            yield f'Error "{new.name}"[1] {round(100 * new.mad_loss)}'
    for ends in after.keys() - before.keys():
        a, b = ends
        yield f'Link "{b.member}"[{b.port}] "{a.member}"[{a.port}]'


class Manager:
    """The real opensm over a fabric, sweeping when it is told to."""

    def __init__(
        self, on: Simulator, folder: Path, place: str, key: int = 1, partitions: Path | None = None, alone: bool = True
    ) -> None:
        """`alone` waits for its first sweep; where another is master, that comes with the handover."""
        self._opensm = OpenSm(
            ManagerSpec(on.tools, place, on.sockets, folder, sweep_s=0, key=key, partitions=partitions)
        )
        self._read = self._counted = 0
        if alone:
            until(lambda: self._sweeps() > 0, f"opensm's first sweep; it logs to {self._opensm.log}")

    def settle(self) -> None:
        """Has it look at everything, and waits until it has and is quiet."""
        before = self._sweeps()
        os.kill(self._opensm.pid, signal.SIGHUP)
        until(lambda: self._sweeps() > before, "a sweep")
        self.quiet()

    def quiet(self) -> None:
        """Waits until it has had nothing to log for a moment."""
        size = -1
        while size != (size := self._opensm.log.stat().st_size):
            time.sleep(_QUIET_S)

    @property
    def pid(self) -> int:
        return self._opensm.pid

    def stop(self) -> None:
        self._opensm.stop()

    def _sweeps(self) -> int:
        if not self._opensm.log.exists():
            return 0
        with self._opensm.log.open(errors="replace") as log:
            log.seek(self._read)
            text = log.read()
        whole, _, _ = text.rpartition("\n")
        self._read += len(whole.encode())
        self._counted += sum(whole.count(words) for words in _SWEPT)
        return self._counted


@dataclass(frozen=True)
class Node:
    """An adapter of the fabric that tools run on."""

    on: Simulator
    adapter: str
    folder: Path

    def run(self, *argv: str) -> str:
        """What a tool prints, its errors included, as an operator's terminal shows it."""
        program = str(self.on.tools.programs / argv[0])
        done = subprocess.run(
            [program, *argv[1:]], env=dict(self.on.tools.environment(self.on.sockets, self.adapter)),
            cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=TOOL_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode >= 0, f"{' '.join(argv)} died of signal {-done.returncode}: {done.stderr[-2000:]!r}"
        return done.stdout + done.stderr

    def counts(self) -> fabric_join.Snapshot:
        """Error counters and data of all ports."""
        errors = ibqueryerrors.parse(self.run("ibqueryerrors", *self.on.options, "--threshold-file", "/dev/null"))
        data = ibqueryerrors.parse(self.run("ibqueryerrors", *self.on.options, "--counters"))
        discovery = ibnetdiscover.parse(self.run("ibnetdiscover"))
        return fabric_join.snapshot(discovery, errors, data)

    def managers(self) -> tuple[SubnetManager, ...]:
        """Every port that says it has a subnet manager, asked what that one is; the port's own master otherwise."""
        lids = [line.rpartition(".")[2] for line in self.run("saquery", "-s").splitlines() if "EndPortLid" in line]
        asked = [self.run("sminfo", lid) for lid in lids] or [self.run("sminfo")]
        return tuple(manager for text in asked for manager in subnet.parse_sminfo(text).managers)

    def memberships(self, ports: Iterable[tuple[int, SeenPort]]) -> tuple[Membership, ...]:
        """P_Keys of adapters' ports, by LID."""
        read = ((port, subnet.parse_pkeys(self.run("smpquery", "pkeys", str(lid), "1"))) for lid, port in ports)
        return tuple(Membership(port, keys.pkeys) for port, keys in read)

    def look(self, seconds: float = 0.0, between: Callable[[], None] = lambda: None) -> Seen:
        """What an operator's collection has: counters twice where `seconds` lie between."""
        before = self.counts() if seconds else None
        began = time.monotonic()
        discovery = ibnetdiscover.parse(self.run("ibnetdiscover"))
        states = fabric_join.states(discovery, iblinkinfo.parse(self.run("iblinkinfo", "-l")))
        managers = self.managers()
        between()
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))
        after = self.counts() if seconds else None
        passed = time.monotonic() - began if seconds else 0.0
        counted = [snapshot for snapshot in (before, after) if snapshot is not None]
        return Seen(
            discovery, ports=states.ports, before=before and before.ports, after=after and after.ports,
            seconds=passed, managers=managers,
            doubts=(*states.doubts, *(doubt for snapshot in counted for doubt in snapshot.doubts)),
        )  # fmt: skip

    def lids(self) -> Mapping[str, int]:
        """Of all nodes of the fabric, by their description."""
        nodes = ibnetdiscover.parse(self.run("ibnetdiscover")).nodes
        states = iblinkinfo.parse(self.run("iblinkinfo", "-l")).ports
        by_guid = {state.port.guid: state.lid for state in states if state.lid}
        return {n.description: n.lid or by_guid.get(n.guid, 0) for n in nodes}


def until(done: Callable[[], bool], what: str) -> None:
    """Waits for something that takes its time."""
    end = time.monotonic() + _SETTLE_S
    while not done():
        assert time.monotonic() < end, f"waited {_SETTLE_S} s for {what}"
        time.sleep(0.05)


def plan_of(shape: Shape) -> tuple[Rack, Wiring]:
    """A rack and its fabric."""
    rack = rack_of(shape)
    return rack, planned(rack)

"""A scalable unit as a rack, and what the tools would show of it: clean, or with faults by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

from toolkit.judge.fabric.compare import compare
from toolkit.judge.fabric.design import Design, bare, designed
from toolkit.judge.fabric.line import FabricReport
from toolkit.judge.fabric.seen import (
    Discovery,
    Firmware,
    Membership,
    PortCounts,
    PortState,
    Seen,
    SeenKind,
    SeenLink,
    SeenNode,
    SeenPort,
    SubnetManager,
)
from toolkit.rack.model import Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind

NDR = 106.25
RAILS = 8
Cable = tuple[Port, Port]


def unit(nodes: int = 8, spines: int = 2, rails: int = RAILS, guids: bool = False, gb_per_s: float = 50.0) -> Rack:
    """`nodes` nodes of `rails` HCAs, HCA k of node n on port n of leaf k; every leaf with two cables to every spine."""
    units, links = [], []
    for n in range(1, nodes + 1):
        hcas = tuple(Hca(f"mlx5_{k}", f"0x{hca_guid(n, k)}", k) for k in range(rails))
        units.append(Unit(f"dgx-{n:03}", UnitKind.NODE, f"N{n}", n, hcas=hcas))
    for k in range(rails):
        guid = f"0x{leaf_guid(k)}" if guids else ""
        units.append(Unit(f"leaf-{k + 1}", UnitKind.LEAF, f"L{k}", 1000 + k, guid=guid))
        links += [cable(f"dgx-{n:03}:mlx5_{k}", f"leaf-{k + 1}:{n}", gb_per_s) for n in range(1, nodes + 1)]
    for s in range(spines):
        guid = f"0x{spine_guid(s)}" if guids else ""
        units.append(Unit(f"spine-{s + 1}", UnitKind.SPINE, f"S{s}", 2000 + s, guid=guid))
        for k in range(rails):
            for i in (1, 2):
                links.append(cable(f"leaf-{k + 1}:{nodes + 2 * s + i}", f"spine-{s + 1}:{2 * k + i}", gb_per_s))
    return Rack("su1", "test", PROFILE, tuple(units), tuple(links), "0" * 64)


def cable(a: str, b: str, gb_per_s: float = 50.0) -> Link:
    """A link between two ends written `unit:port`."""
    return Link(port(a), port(b), LinkKind.INFINIBAND, gb_per_s, "cable")


def port(text: str) -> Port:
    """`leaf-1:5` as a port."""
    name, _, number = text.partition(":")
    return Port(name, number)


def hca_guid(node: int, rail: int) -> str:
    """Of HCA `rail` of node `node`: as the vendor numbers boards, not ports."""
    return f"{0x946DAE0300C00000 + node * 0x100 + rail * 0x10:016x}"


def leaf_guid(rail: int) -> str:
    """Of the leaf of a rail, from 0."""
    return f"{0x5C25730300A00000 + rail * 0x100:016x}"


def spine_guid(number: int) -> str:
    """Of a spine, from 0."""
    return f"{0x5C25730300B00000 + number * 0x100:016x}"


PROFILE = Profile(
    name="test", sku="test", mode=Mode.NVSWITCH_GEN3, gpus_per_node=8, nvlinks_per_gpu=18, nvlink_gb_per_s=25.0,
    hcas_per_node=RAILS, units=(), image="image", expected=(), versions=(), gates=(),
    certificate_lifetime=timedelta(days=30),
)  # fmt: skip


@dataclass
class World:
    """What is really there. Change it, then `look`."""

    rack: Rack = field(default_factory=unit)

    def __post_init__(self) -> None:
        self.design: Design = designed(self.rack)
        self.guid: dict[str, str] = {}  # by `dgx-001:mlx5_0` or `leaf-1`
        self.said: dict[str, str] = {}
        for u in self.rack.units:
            for hca in u.hcas:
                self.guid[f"{u.name}:{hca.name}"] = bare(hca.guid)
                self.said[f"{u.name}:{hca.name}"] = f"{u.name} {hca.name}"
            if u.kind in (UnitKind.LEAF, UnitKind.SPINE):
                number = int(u.name.split("-")[1]) - 1
                self.guid[u.name] = leaf_guid(number) if u.kind is UnitKind.LEAF else spine_guid(number)
                self.said[u.name] = f"MF0;{u.name}:MQM9700/U1"
        self.cables: dict[Port, Port] = {}
        for link in self.rack.links:
            if link.kind is LinkKind.INFINIBAND:
                self.plug(link.a, link.b)
        self.lanes: dict[Port, int] = {}
        self.gbit: dict[Port, float] = {}
        self.state: dict[Port, tuple[str, str]] = {}
        self.grown: dict[Port, dict[str, int]] = {}
        self.lid: dict[str, int] = {key: i for i, key in enumerate(self.guid, 1)}
        self.pkeys: dict[str, tuple[int, ...]] = {key: (0x8001, 0x7FFF) for key in self.guid if ":" in key}
        self.managers: tuple[SubnetManager, ...] = (SubnetManager(self.guid["dgx-001:mlx5_0"], 1, 14, "MASTER"),)
        self.firmware: dict[str, tuple[str, str]] = {
            key: ("28.43.1014", "MT_0000000838") if ":" in key else ("31.2014.1076", "MT_0000000673")
            for key in self.guid
        }
        self.doubts: tuple[str, ...] = ()
        self.duplicates: tuple[str, ...] = ()
        self.unanswered: tuple[SeenPort, ...] = ()

    def plug(self, a: Port | str, b: Port | str) -> None:
        """A cable between two ports."""
        a, b = (port(p) if isinstance(p, str) else p for p in (a, b))
        self.cables[a], self.cables[b] = b, a

    def pull(self, a: Port | str) -> None:
        """The cable in this port out at both ends."""
        a = port(a) if isinstance(a, str) else a
        del self.cables[self.cables.pop(a)]

    def swap(self, *leaf_ports: str) -> None:
        """The cables in these ports each one port on: two are swapped, three and more rotate."""
        ports = [port(p) for p in leaf_ports]
        far = [self.cables[p] for p in ports]
        for own, other in zip(ports, [*far[-1:], *far[:-1]], strict=True):
            self.plug(own, other)

    def off(self, name: str) -> None:
        """The unit without power: its cables dark."""
        for own in [p for p in self.cables if p.unit == name]:
            if own in self.cables:
                self.pull(own)

    def seen_port(self, p: Port) -> SeenPort:
        """The port by GUID."""
        key = f"{p.unit}:{p.port}"
        return SeenPort(self.guid[key], 1) if key in self.guid else SeenPort(self.guid[p.unit], int(p.port))

    def look(self, **changes: object) -> Seen:
        """Everything the tools would show."""
        reached = {self._key(p) for p in self.cables}
        nodes = tuple(
            SeenNode(g, SeenKind.HCA if ":" in k else SeenKind.SWITCH, self.said[k], 1 if ":" in k else 64, self.lid[k])
            for k, g in self.guid.items()
            if k in reached
        )
        links = tuple(self._link(a, b) for a, b in self.cables.items() if a < b)
        discovery = Discovery(nodes, links, self.doubts, self.duplicates, (), self.unanswered)
        after = tuple(
            PortCounts(self.seen_port(p), tuple((n, v + self.grown.get(p, {}).get(n, 0)) for n, v in QUIET.items()))
            for p in self.cables
        )
        before = tuple(PortCounts(c.port, tuple(QUIET.items())) for c in after)
        after = tuple(
            replace(c, counts=tuple((n, v + (10**13 if n == "PortXmitData" else 0)) for n, v in c.counts))
            for c in after
        )
        seen = Seen(
            discovery=discovery,
            ports=tuple(self._states()),
            before=before, after=after, seconds=60.0,
            managers=self.managers,
            memberships=tuple(Membership(SeenPort(self.guid[k], 1), v) for k, v in self.pkeys.items() if k in reached),
            firmware=tuple(Firmware(self.guid[k], *v) for k, v in self.firmware.items() if k in reached),
        )  # fmt: skip
        return replace(seen, **changes)  # type: ignore[arg-type]

    def report(self, **changes: object) -> FabricReport:
        """Plan against this."""
        return compare(self.design, self.look(**changes))

    def _key(self, p: Port) -> str:
        return f"{p.unit}:{p.port}" if f"{p.unit}:{p.port}" in self.guid else p.unit

    def _link(self, a: Port, b: Port) -> SeenLink:
        x, y = sorted((self.seen_port(a), self.seen_port(b)))
        speed = {106.25: "NDR", 53.125: "HDR", 14.0625: "FDR"}[self._rate(a, b)[1]]
        return SeenLink(x, y, self._rate(a, b)[0], speed)

    def _rate(self, a: Port, b: Port) -> tuple[int, float]:
        lanes = min(self.lanes.get(a, 4), self.lanes.get(b, 4))
        return lanes, min(self.gbit.get(a, NDR), self.gbit.get(b, NDR))

    def _states(self) -> list[PortState]:
        """A switch shows all its ports, also dark ones; an HCA that is not reached shows nothing."""
        ports = {*self.cables, *(p for link in self.design.links for p in (link.a, link.b) if p.port.isdigit())}
        units = {p.unit for p in self.cables}
        found = []
        for p in sorted(ports):
            if p.unit not in units:
                continue
            far = self.cables.get(p)
            state, physical = self.state.get(p, ("Active", "LinkUp") if far else ("Down", "Polling"))
            lanes, gbit = self._rate(p, far) if far else (None, None)
            lid = self.lid.get(self._key(p))
            found.append(
                PortState(self.seen_port(p), state, physical, lanes, gbit, lid, self.seen_port(far) if far else None)
            )
        return found


QUIET = {
    "SymbolErrorCounter": 7, "LinkErrorRecoveryCounter": 2, "LinkDownedCounter": 3, "PortRcvErrors": 40,
    "PortXmitDiscards": 0, "PortXmitData": 1_000, "PortRcvData": 1_000,
}  # fmt: skip

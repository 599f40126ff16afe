"""Rail-optimised fat trees for `fabric.py`: the plan, random swaps of cables, and what the tools print of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from toolkit.judge.fabric.speeds import GBIT_PER_LANE
from toolkit.rack.model import Hca, Link, LinkKind, Mode, Port, Profile, Rack, Unit, UnitKind

HCA_GUID, SWITCH_GUID = 0x946DAE0300000000, 0x5C25730300000000
Cable = tuple[Port, Port]  # the HCA's or the lower switch's end first


@dataclass(frozen=True, slots=True)
class Shape:
    """A fat tree. pods: groups of leaves that share spines; cores: switches above the spines, 0 for none.

    uplinks   cables from a leaf to each spine of its pod; from a spine to each core of its group
    """

    nodes: int
    rails: int
    pods: int
    leaves: int  # of a pod
    spines: int  # of a pod
    cores: int
    uplinks: tuple[int, int]
    radix: int
    speed: str
    gb_per_s: float

    @property
    def per_leaf(self) -> int:
        """HCAs on a leaf."""
        return self.nodes * self.rails // (self.pods * self.leaves)


SHAPES = {
    1_152: Shape(288, 4, 1, 16, 8, 0, (9, 0), 144, "XDR", 100.0),
    16_384: Shape(2_048, 8, 16, 32, 32, 256, (1, 4), 64, "NDR", 50.0),
}


@dataclass(frozen=True, slots=True)
class Fabric:
    """A rack, its InfiniBand cables as planned, and the GUID of each unit's device on the fabric."""

    rack: Rack
    cables: tuple[Cable, ...]
    guids: dict[Port | str, str]  # an HCA by its port, a switch by its name


def build(shape: Shape) -> Fabric:
    """The plan."""
    guids: dict[Port | str, str] = {}
    units = [*_nodes(shape, guids), *_switches(shape, guids)]
    cables = (*_hca_cables(shape), *_trunks(shape))
    links = tuple(Link(a, b, LinkKind.INFINIBAND, shape.gb_per_s, "cable") for a, b in cables)
    profile = Profile("bench", "bench", Mode.NVLINK5_SINGLE, 8, 18, 53.125, 8, (), "", (), (), (), timedelta(days=1))
    return Fabric(Rack("bench", "bench", profile, tuple(units), links, "0" * 64), cables, guids)


def _nodes(shape: Shape, guids: dict[Port | str, str]) -> Iterator[Unit]:
    for n in range(shape.nodes):
        name = f"n{n:04d}"
        hcas = []
        for rail in range(shape.rails):
            guid = f"{HCA_GUID + (n << 12) + (rail << 4):016x}"
            guids[Port(name, f"mlx5_{rail}")] = guid
            hcas.append(Hca(f"mlx5_{rail}", f"0x{guid}", rail))
        yield Unit(name, UnitKind.NODE, f"SN{n}", n, hcas=tuple(hcas))


def _switches(shape: Shape, guids: dict[Port | str, str]) -> Iterator[Unit]:
    names = [(f"leaf-{n:03d}", UnitKind.LEAF) for n in range(shape.pods * shape.leaves)]
    names += [(f"spine-{n:03d}", UnitKind.SPINE) for n in range(shape.pods * shape.spines)]
    names += [(f"core-{n:03d}", UnitKind.SPINE) for n in range(shape.cores)]
    for number, (name, kind) in enumerate(names):
        guids[name] = f"{SWITCH_GUID + (number << 8):016x}"
        yield Unit(name, kind, f"SW{number}", shape.nodes + number, guid=f"0x{guids[name]}")


def _hca_cables(shape: Shape) -> Iterator[Cable]:
    for n in range(shape.nodes):
        group, place = divmod(n, shape.per_leaf)
        for rail in range(shape.rails):
            leaf = group * shape.rails + rail
            yield Port(f"n{n:04d}", f"mlx5_{rail}"), Port(f"leaf-{leaf:03d}", str(place + 1))


def _trunks(shape: Shape) -> Iterator[Cable]:
    up, top = shape.uplinks
    for leaf in range(shape.pods * shape.leaves):
        pod, at = divmod(leaf, shape.leaves)
        for spine in range(shape.spines):
            for k in range(up):
                below = Port(f"leaf-{leaf:03d}", str(shape.per_leaf + spine * up + k + 1))
                yield below, Port(f"spine-{pod * shape.spines + spine:03d}", str(at * up + k + 1))
    group = shape.cores // shape.spines  # cores that the same spine of every pod goes to
    for spine in range(shape.pods * shape.spines if shape.cores else 0):
        pod, at = divmod(spine, shape.spines)
        for core in range(group):
            for k in range(top):
                below = Port(f"spine-{spine:03d}", str(shape.leaves * up + core * top + k + 1))
                yield below, Port(f"core-{at * group + core:03d}", str(pod * top + k + 1))


def swapped(
    cables: tuple[Cable, ...], hcas: int, swaps: int, rng: random.Random
) -> tuple[list[Cable], set[frozenset[str]]]:
    """The cables as built, and of each swap the four ports that it is about."""
    built, told = list(cables), set()
    chosen = rng.sample(range(hcas), 2 * swaps)
    for i, j in zip(chosen[::2], chosen[1::2], strict=True):
        (a, p), (b, q) = built[i], built[j]
        built[i], built[j] = (a, q), (b, p)
        told.add(frozenset(map(str, (a, p, b, q))))
    return built, told


def written(fabric: Fabric, shape: Shape, cables: list[Cable]) -> Iterator[str]:
    """What `ibnetdiscover` prints of it: switches, then HCAs; each port with what it sees."""
    ends: dict[Port, Port] = {}
    for a, b in cables:
        ends[a], ends[b] = b, a
    by_switch: dict[str, list[Port]] = {}
    for port in ends:
        if port.unit in fabric.guids:
            by_switch.setdefault(port.unit, []).append(port)
    lids = {device: number + 1 for number, device in enumerate(fabric.guids)}
    rate = f"4x{shape.speed}"
    yield "#\n# Topology file: generated on Mon Nov 23 07:57:12 2026\n#\n"
    yield f"# Initiated from node {HCA_GUID:016x} port {HCA_GUID:016x}\n"
    for name, ports in by_switch.items():
        guid = fabric.guids[name]
        yield f"\nvendid=0x2c9\ndevid=0xd2f2\nsysimgguid=0x{guid}\nswitchguid=0x{guid}({guid})\n"
        described = f'"MF0;{name}:MQM9700/U1" enhanced port 0 lid {lids[name]} lmc 0'
        yield f'Switch\t{shape.radix} "S-{guid}"\t\t# {described}\n'
        for port in sorted(ports, key=lambda p: int(p.port)):
            far = ends[port]
            if far.unit in fabric.guids:
                end = f'"S-{fabric.guids[far.unit]}"[{far.port}]\t\t# "MF0;{far.unit}:MQM9700/U1" lid {lids[far.unit]}'
            else:
                guid = fabric.guids[far]
                end = f'"H-{guid}"[1]({guid}) \t\t# "{far.unit} {far.port}" lid {lids[far]}'
            yield f"[{port.port}]\t{end} {rate}\n"
    for port, guid in fabric.guids.items():
        if isinstance(port, Port):
            far = ends[port]
            yield f"\nvendid=0x2c9\ndevid=0x1021\nsysimgguid=0x{guid}\ncaguid=0x{guid}\n"
            yield f'Ca\t1 "H-{guid}"\t\t# "{port.unit} {port.port}"\n'
            own = f'lid {lids[port]} lmc 0 "MF0;{far.unit}:MQM9700/U1" lid {lids[far.unit]}'
            yield f'[1]({guid}) \t"S-{fabric.guids[far.unit]}"[{far.port}]\t\t# {own} {rate}\n'


def states(fabric: Fabric, shape: Shape, cables: list[Cable]) -> Iterator[str]:
    """What `iblinkinfo -l` prints of the ports that have a cable."""
    lids = {device: number + 1 for number, device in enumerate(fabric.guids)}
    link = f"( 4X {GBIT_PER_LANE[shape.speed]:>14} Gbps Active/  LinkUp)"
    for cable in cables:
        for near, far in (cable, cable[::-1]):
            (guid, name, lid, number), (far_guid, far_name, far_lid, far_number) = (
                (fabric.guids[p], f"{p.unit} {p.port}", lids[p], "1")
                if p in fabric.guids
                else (fabric.guids[p.unit], f"MF0;{p.unit}:MQM9700/U1", lids[p.unit], p.port)
                for p in (near, far)
            )
            own = f'0x{guid} "{name:>30}" {lid:>6} {number:>4}[  ]'
            yield f'{own} =={link}==>  0x{far_guid} {far_lid:>6} {far_number:>4}[  ] "{far_name}" ( )\n'


def counters(fabric: Fabric, errors: int) -> str:
    """What `ibqueryerrors` prints where one leaf port has symbol errors."""
    guid, ports = fabric.guids["leaf-000"], 2 * len(fabric.cables)
    port = f"   GUID 0x{guid} port 1: [SymbolErrorCounter == {errors}]"
    return (
        f'Errors for 0x{guid} "MF0;leaf-000:MQM9700/U1"\n{port}\n\n'
        f"## Summary: {len(fabric.guids)} nodes checked, 1 bad nodes found\n"
        f"##          {ports} ports checked, 1 ports have errors beyond threshold\n## Thresholds: \n## Suppressed:\n"
    )


def unused(fabric: Fabric, shape: Shape, cables: list[Cable]) -> Iterator[str]:
    """The ports without a cable, which iblinkinfo shows as well."""
    used = {port for cable in cables for port in cable}
    for name in (unit for unit in fabric.guids if isinstance(unit, str)):
        for number in range(1, shape.radix + 1):
            if Port(name, str(number)) not in used:
                own = f'0x{fabric.guids[name]} "{name:>30}"      1 {number:>4}[  ]'
                yield f'{own} ==(                Down/ Polling)==>             [  ] "" ( )\n'

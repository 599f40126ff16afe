"""Classes of faults, and faults of a class somewhere in a fabric: what the locator is measured on."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum

from toolkit.judge.locate.fabric import Fabric, Plane
from toolkit.judge.locate.parts import Part, PartKind, SegmentKind
from toolkit.virtual.fault_model import Detour, PartFault, Trouble


class FaultClass(StrEnum):
    """Classes of faults that are measured. The comment says how it shows."""

    NONE = "none"
    SLOW_GPU = "slow GPU"  # 60 to 90 % of its NVLink bandwidth
    NVLINK_LANE_DOWN = "NVLink lane down"  # 17 of 18 links; the link's counters tell, where they can be read
    DEAD_LINK = "dead link"  # a GPU's or an HCA's traffic never arrives: tests hang
    FLAPPING_LINK = "flapping link"  # down for seconds in 30 to 70 % of the tests: slow or hung, and it counts, then
    HALF_RATE_RAIL = "half-rate rail"  # a cable trained at half its rate
    LEAF_PORT_ERRORS = "leaf port errors"  # retransmissions: 93 to 100 % of the bandwidth, counters move
    SWAPPED_RAILS = "cables of two rails swapped"  # two ports of a node, each in the other's leaf
    SWAPPED_PORTS = "cables of one leaf swapped"  # two nodes' ports of a rail: nothing that a test could measure
    SLOW_SWITCH_ASIC = "slow switch ASIC"  # 60 to 85 % for everybody, counters of the ASIC move
    SLOW_LEAF = "slow leaf"  # 50 to 80 % for the rail's nodes
    HOT_TRAY = "hot tray"  # 80 to 90 % for all GPUs of a node
    BAD_NODE = "bad node"  # 30 to 80 % for everything a node does
    HANG = "hang"  # a GPU's tests do not end
    DATA_CORRUPTION = "data corruption"  # a GPU returns wrong data, in messages of 2 MiB and more
    WRONG_TRANSPORT = "wrong transport"  # a configuration of one node, of some or of all: nothing is measured there
    TWO_FAULTS = "two faults"  # of the parts', in two places
    THREE_FAULTS = "three faults"


CORRUPT_FROM_BYTES = 2 << 20

_WHERE: dict[FaultClass, tuple[SegmentKind, ...]] = {
    FaultClass.SLOW_GPU: (SegmentKind.GPU,),
    FaultClass.NVLINK_LANE_DOWN: (SegmentKind.GPU,),
    FaultClass.DEAD_LINK: (SegmentKind.GPU, SegmentKind.ATTACHMENT),
    FaultClass.FLAPPING_LINK: (SegmentKind.GPU, SegmentKind.ATTACHMENT),
    FaultClass.HALF_RATE_RAIL: (SegmentKind.ATTACHMENT,),
    FaultClass.LEAF_PORT_ERRORS: (SegmentKind.ATTACHMENT,),
    FaultClass.SLOW_SWITCH_ASIC: (SegmentKind.SWITCH,),
    FaultClass.SLOW_LEAF: (SegmentKind.LEAF,),
    FaultClass.HOT_TRAY: (SegmentKind.NODE,),
    FaultClass.BAD_NODE: (SegmentKind.NODE,),
    FaultClass.HANG: (SegmentKind.GPU,),
    FaultClass.DATA_CORRUPTION: (SegmentKind.GPU,),
}
# Of several faults each is in a place of its own; one that slows everybody would hide the rest.
_SEVERAL = tuple(k for k in _WHERE if k not in (FaultClass.SLOW_SWITCH_ASIC, FaultClass.SLOW_LEAF))
_LEVELS: dict[FaultClass, tuple[float, float]] = {
    FaultClass.SLOW_GPU: (0.6, 0.9),
    FaultClass.SLOW_LEAF: (0.5, 0.8),
    FaultClass.HOT_TRAY: (0.8, 0.9),
    FaultClass.BAD_NODE: (0.3, 0.8),
}
# What is left where NCCL takes another way: the host's network for NVLink, sockets for RDMA. Our judgement.
_DETOUR_SHARE = {Plane.NVLINK: (0.04, 0.3), Plane.RAIL: (0.02, 0.5)}


def draw(kind: FaultClass, fabric: Fabric, rng: random.Random) -> Trouble | None:
    """Trouble of that class somewhere in the fabric; None where the fabric has no such part."""
    if kind is FaultClass.NONE:
        return Trouble()
    if kind is FaultClass.WRONG_TRANSPORT:
        return _detours(fabric, rng)
    if kind in (FaultClass.SWAPPED_RAILS, FaultClass.SWAPPED_PORTS):
        return _exchanged(kind, fabric, rng)
    if kind in (FaultClass.TWO_FAULTS, FaultClass.THREE_FAULTS):
        return _several(2 if kind is FaultClass.TWO_FAULTS else 3, fabric, rng)
    wanted = _WHERE[kind]
    found = [s for s in fabric.segments if s.kind in wanted and s.parts]
    kinds = sorted({s.kind for s in found})
    if not kinds:
        return None
    chosen = rng.choice(kinds)
    segment = rng.choice([s for s in found if s.kind is chosen])
    return Trouble((_fault(kind, segment.parts, rng),))


def _fault(kind: FaultClass, parts: Sequence[Part], rng: random.Random) -> PartFault:
    of = {p.kind: p for p in reversed(parts)}
    links = [p for p in parts if p.kind in (PartKind.NVLINK, PartKind.CABLE)]
    if kind is FaultClass.NVLINK_LANE_DOWN:
        return PartFault(rng.choice(links), 17 / 18, counts=0.95)
    if kind is FaultClass.DEAD_LINK:
        return PartFault(rng.choice(links), hang=0.95, counts=0.5)
    if kind is FaultClass.FLAPPING_LINK:
        return PartFault(rng.choice(links), 0.2, hang=0.2, counts=0.9, shows=rng.uniform(0.3, 0.7))
    if kind is FaultClass.HALF_RATE_RAIL:
        return PartFault(of[PartKind.CABLE], rng.uniform(0.48, 0.52), counts=0.1)
    if kind is FaultClass.LEAF_PORT_ERRORS:
        return PartFault(of[PartKind.LEAF_PORT], rng.uniform(0.93, 1.0), counts=0.9)
    if kind is FaultClass.SLOW_SWITCH_ASIC:
        return PartFault(rng.choice(parts), rng.uniform(0.6, 0.85), counts=0.7)
    if kind is FaultClass.HANG:
        return PartFault(parts[0], hang=0.9)
    if kind is FaultClass.DATA_CORRUPTION:
        return PartFault(parts[0], corrupt=rng.uniform(0.7, 0.95), from_bytes=CORRUPT_FROM_BYTES)
    return PartFault(parts[0], rng.uniform(*_LEVELS[kind]))


def _several(count: int, fabric: Fabric, rng: random.Random) -> Trouble:
    faults: dict[Part, PartFault] = {}
    while len(faults) < count:
        trouble = draw(rng.choice(_SEVERAL), fabric, rng)
        for fault in trouble.faults if trouble else ():
            faults[fault.part] = fault
    return Trouble(tuple(faults.values()))


def _exchanged(kind: FaultClass, fabric: Fabric, rng: random.Random) -> Trouble | None:
    """Two rails of one node, or two nodes of one leaf."""
    groups: dict[int, list[int]] = defaultdict(list)
    for e, leaf in enumerate(fabric.leaf):
        if leaf >= 0:
            groups[fabric.node[e] if kind is FaultClass.SWAPPED_RAILS else leaf].append(e)
    spread = [g for g in groups.values() if len({fabric.leaf[e] for e in g}) > 1 or kind is FaultClass.SWAPPED_PORTS]
    several = [g for g in spread if len(g) > 1]
    while several:
        one, other = rng.sample(rng.choice(several), 2)
        if kind is FaultClass.SWAPPED_PORTS or fabric.leaf[one] != fabric.leaf[other]:
            return Trouble(exchanged=((one, other),))
    return None


def _detours(fabric: Fabric, rng: random.Random) -> Trouble | None:
    """One node in half of the cases, two or three in a quarter, all of them in a quarter."""
    planes = sorted({b.plane for b in fabric.blocks})
    if not planes:
        return None
    plane = rng.choice(planes)
    members = {e for b in fabric.blocks if b.plane is plane for e in b.members}
    nodes = sorted({fabric.segments[fabric.node[e]].name for e in members})
    counts = (1, 1, min(len(nodes), rng.choice((2, 3))), len(nodes))
    share = rng.uniform(*_DETOUR_SHARE[plane])
    return Trouble(detours=tuple(Detour(plane, node, share) for node in rng.sample(nodes, rng.choice(counts))))

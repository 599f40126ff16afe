"""From a rack as designed to the fabric the locator works on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from toolkit.errors import UsageError
from toolkit.judge.locate.fabric import Block, Fabric, Plane
from toolkit.judge.locate.parts import Part, PartKind, Segment, SegmentKind
from toolkit.rack.model import Link, LinkKind, Mode, Rack, Unit, UnitKind

_DOMAIN_IS_RACK = (Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA)
_ROW = 8  # GPUs of two trays: a tray is never spread over rows, and columns hold one GPU of a tray at most
_CHIPS_PER_SWITCH_TRAY = 2  # NVL72: 9 trays, 18 chips (NVIDIA GB200 NVL72)


@dataclass(slots=True)
class _Drawing:
    """A fabric being put together."""

    segments: list[Segment] = field(default_factory=list)
    known: dict[tuple[SegmentKind, str], int] = field(default_factory=dict)

    def add(self, kind: SegmentKind, name: str, parts: Iterable[Part]) -> int:
        """Index of the segment; made at its first mention."""
        if (kind, name) not in self.known:
            self.known[kind, name] = len(self.segments)
            self.segments.append(Segment(kind, name, tuple(parts)))
        return self.known[kind, name]


def fabric_of(rack: Rack) -> Fabric:
    """What tests of the rack can cross. Raises UsageError where it has no node to test."""
    nodes = rack.nodes
    if not nodes:
        raise UsageError(f"{rack.name} has no node, so nothing can be located in it", "declare its nodes")
    width = max([rack.profile.gpus_per_node, *(h.rail + 1 for n in nodes for h in n.hcas)])
    drawing = _Drawing()
    spines = [u.name for u in rack.units if u.kind is UnitKind.SPINE]
    leaf_of, cable_of = _attachments(rack)
    endpoints, gpu, switch, node, attachment, leaf = [], [], [], [], [], []
    for unit in nodes:
        whole = drawing.add(SegmentKind.NODE, unit.name, [Part(PartKind.NODE, unit.name)])
        inside = _switch(drawing, rack, unit)
        for k in range(width):
            endpoints.append(f"{unit.name}/{k}")
            node.append(whole)
            gpu.append(_gpu(drawing, rack, unit, k))
            switch.append(inside)
            hca = next((f"{unit.name}:{h.name}" for h in unit.hcas if h.rail == k), "")
            attachment.append(_attachment(drawing, hca, cable_of))
            at = leaf_of.get(hca, "")
            leaf.append(drawing.add(SegmentKind.LEAF, at, [Part(PartKind.LEAF, at)]) if at else -1)
    spine = drawing.add(SegmentKind.SPINE, "spines", (Part(PartKind.SPINE, s) for s in spines)) if spines else -1
    blocks = (*_nvlink_blocks(rack, width), *_rail_blocks(rack, width, leaf, bool(spines)))
    return Fabric(
        tuple(endpoints),
        tuple(drawing.segments),
        blocks,
        tuple(gpu),
        tuple(switch),
        tuple(node),
        tuple(attachment),
        tuple(leaf),
        spine,
    )


def _attachments(rack: Rack) -> tuple[dict[str, str], dict[str, Link]]:
    """By HCA port: the leaf it ends on, and the cable."""
    leaves = {u.name for u in rack.units if u.kind is UnitKind.LEAF}
    leaf_of, cable_of = {}, {}
    for link in rack.links:
        if link.kind is not LinkKind.NVLINK and link.b.unit in leaves and link.a.unit not in leaves:
            leaf_of[str(link.a)] = link.b.unit
            cable_of[str(link.a)] = link
    return leaf_of, cable_of


def _gpu(drawing: _Drawing, rack: Rack, unit: Unit, index: int) -> int:
    if index >= rack.profile.gpus_per_node:
        return -1
    name = f"{unit.name}:gpu{index}"
    links = (Part(PartKind.NVLINK, f"{name}.nvlink{n}") for n in range(rack.profile.nvlinks_per_gpu))
    return drawing.add(SegmentKind.GPU, name, (Part(PartKind.GPU, name), *links))


def _switch(drawing: _Drawing, rack: Rack, unit: Unit) -> int:
    """The NVLink domain's ASICs: of the rack, or on the node's own board."""
    if rack.profile.mode in _DOMAIN_IS_RACK:
        trays = [u.name for u in rack.units if u.kind is UnitKind.NVLINK_SWITCH]
        chips = [Part(PartKind.SWITCH_ASIC, f"{t}/chip{c}") for t in trays for c in range(_CHIPS_PER_SWITCH_TRAY)]
        return drawing.add(SegmentKind.SWITCH, "NVLink domain", chips)
    board = f"{unit.name}/NVSwitch"
    return drawing.add(SegmentKind.SWITCH, board, [Part(PartKind.SWITCH_ASIC, board)])


def _attachment(drawing: _Drawing, hca: str, cable_of: dict[str, Link]) -> int:
    if hca not in cable_of:
        return -1
    link = cable_of[hca]
    parts = (
        Part(PartKind.HCA, hca),
        Part(PartKind.CABLE, f"{link.a} - {link.b}"),
        Part(PartKind.LEAF_PORT, str(link.b)),
    )
    return drawing.add(SegmentKind.ATTACHMENT, f"{link.a} - {link.b}", parts)


def _nvlink_blocks(rack: Rack, width: int) -> list[Block]:
    gpus = range(rack.profile.gpus_per_node)
    per_node = [tuple(n * width + g for g in gpus) for n in range(len(rack.nodes))]
    if rack.profile.mode in _DOMAIN_IS_RACK:
        return [Block(Plane.NVLINK, "NVLink domain", _chunks([e for row in per_node for e in row], _ROW))]
    if rack.profile.mode is Mode.PCIE or len(gpus) < 2:
        return []
    return [Block(Plane.NVLINK, unit.name, (row,)) for unit, row in zip(rack.nodes, per_node, strict=True)]


def _rail_blocks(rack: Rack, width: int, leaf: list[int], has_spine: bool) -> list[Block]:
    """One block a rail, a row for each leaf; without spines leaves do not reach each other."""
    blocks = []
    for rail in range(width):
        rows: dict[int, list[int]] = defaultdict(list)
        for n in range(len(rack.nodes)):
            endpoint = n * width + rail
            if leaf[endpoint] >= 0:
                rows[leaf[endpoint]].append(endpoint)
        apart = list(rows.values())
        if has_spine and len(apart) > 1:
            blocks.append(Block(Plane.RAIL, f"rail {rail}", tuple(tuple(r) for r in apart)))
            continue
        blocks += [
            Block(Plane.RAIL, f"rail {rail}", _chunks(row, max(2, math.isqrt(len(row))))) for row in apart if row[1:]
        ]
    return blocks


def _chunks(members: list[int], size: int) -> tuple[tuple[int, ...], ...]:
    """Rows of `size`; a last row of one joins the one before it: nobody is tested alone."""
    rows = [tuple(members[i : i + size]) for i in range(0, len(members), size)]
    if len(rows) > 1 and len(rows[-1]) == 1:
        rows[-2:] = [rows[-2] + rows[-1]]
    return tuple(rows)

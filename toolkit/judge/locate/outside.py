"""Racks whose rails leave them: the leaves stand in another file, or in none."""

from __future__ import annotations

from dataclasses import replace

from toolkit.rack.model import Link, LinkKind, Port, Rack, Unit, UnitKind


def with_leaves(rack: Rack) -> Rack:
    """A rack whose leaves are in another file, as of a GB200 NVL72: its rails are taken to end on a leaf for each.

    That leaf stands for whatever joins the rail outside: spines too, which no test from one rack tells apart. Where the
    rack has leaves of its own, a port without a cable is a port without a cable.
    """
    rate = dict(rack.profile.expected).get("hca_rate_gbit_per_s")
    if rate is None or any(u.kind is UnitKind.LEAF for u in rack.units):
        return rack
    rails = {h.rail for n in rack.nodes for h in n.hcas}
    leaves = {rail: f"leaf of rail {rail}" for rail in sorted(rails)}
    units = tuple(Unit(name, UnitKind.LEAF, "", 0) for name in leaves.values())
    links = tuple(
        Link(
            Port(n.name, h.name), Port(leaves[h.rail], f"port of {n.name}"), LinkKind.INFINIBAND, int(rate) / 8, "cable"
        )
        for n in rack.nodes
        for h in n.hcas
    )
    return replace(rack, units=(*rack.units, *units), links=(*rack.links, *links))

"""Where a node stands, as labels that a scheduler places by. Pure; the cluster's roles and the pool give the same."""

from __future__ import annotations

import re
from hashlib import sha256

from toolkit.rack.model import MNNVL, LinkKind, Rack, Unit, UnitKind

PREFIX = "rackproof.dev/"
UNCERTIFIED = f"{PREFIX}uncertified"  # key of the taint of a node that nobody has let in
# apimachinery's IsValidLabelValue (kubernetes.io/docs/concepts/overview/working-with-objects/labels)
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DIGEST_CHARACTERS = 8


def labels(rack: Rack, node: Unit) -> dict[str, str]:
    """The node's topology labels; one that the rack file does not tell is not there.

    rack, slot     the rack file's name, and the place in it
    unit           the node's name in the rack file, whatever the cluster calls it
    leaf           where its lowest rail ends; leaves of two racks that have one name stay two
    rail-group     all leaves its rails end on: nodes of one group reach each other without a spine on every rail
    nvlink-domain  the trays it shares memory with; not there where NVLink ends in the node
    """
    leaves = _leaves(rack, node)
    found = {"rack": rack.name, "slot": str(node.slot), "unit": node.name}
    if leaves:
        found |= {"leaf": f"{rack.name}.{leaves[0]}", "rail-group": f"{rack.name}.{'_'.join(dict.fromkeys(leaves))}"}
    if rack.profile.mode in MNNVL:
        found["nvlink-domain"] = _domain(rack, node)
    return {PREFIX + name: value(text) for name, text in found.items()}


def value(text: str) -> str:
    """The text as a label's value: itself where it is one, else what of it fits and a digest: no two texts are one."""
    if _VALUE.fullmatch(text):
        return text
    digest = sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[: 62 - _DIGEST_CHARACTERS].strip("_.-")
    return f"{kept}-{digest}" if kept else digest


def _leaves(rack: Rack, node: Unit) -> list[str]:
    """The leaves its rails end on, by rail; those of rails whose cable is not planned are left out."""
    known = {unit.name for unit in rack.units if unit.kind is UnitKind.LEAF}
    ends = {}
    for link in rack.links:
        for near, far in ((link.a, link.b), (link.b, link.a)):
            if link.kind is not LinkKind.NVLINK and near.unit == node.name and far.unit in known:
                ends[near.port] = far.unit
    return [ends[hca.name] for hca in sorted(node.hcas, key=lambda h: h.rail) if hca.name in ends]


def _domain(rack: Rack, node: Unit) -> str:
    """One of the rack, or of the partition that the node is in."""
    part = next((p.name for p in rack.partitions if node.name in p.nodes), "")
    return f"{rack.name}.{part}" if part else rack.name

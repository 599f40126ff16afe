"""What was changed on a rack: as an operator says it, and as facts that drifted show it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Protocol

from toolkit.errors import UsageError
from toolkit.judge.locate.outside import with_leaves
from toolkit.rack.model import Link, LinkKind, Port, Rack, Unit, UnitKind

EXAMPLES = (
    "swap node07; swap node07:gpu3; swap node07:mlx5_3; swap cable node07:mlx5_3; swap leaf2; "
    "move cable node07:mlx5_3; update driver [node07]; update firmware node07:mlx5_3; "
    "update package NAME [node07]; update profile"
)
_MOST_WORDS, _MOST_TEXT = 4, 200
_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")
_GPU = re.compile(r"gpu(\d{1,2})")
# As a node's fingerprint names them (toolkit/stages/identity.py): `gpu3 vbios`, `mlx5_3 firmware`, `bios`, `bmc`.
_BOARD = ("bios", "bmc")
_VBIOS = "vbios"


class Part(StrEnum):
    """What was changed."""

    NODE = "node"
    GPU = "gpu"
    HCA = "hca"
    CABLE = "cable"
    LEAF = "leaf"
    SPINE = "spine"
    NVLINK_SWITCH = "nvlink_switch"
    POWER_SHELF = "power_shelf"
    BMC = "bmc"  # its firmware
    DRIVER = "driver"
    PACKAGE = "package"
    PROFILE = "profile"


_OF_UNIT = {
    UnitKind.NODE: Part.NODE,
    UnitKind.LEAF: Part.LEAF,
    UnitKind.SPINE: Part.SPINE,
    UnitKind.NVLINK_SWITCH: Part.NVLINK_SWITCH,
    UnitKind.POWER_SHELF: Part.POWER_SHELF,
}


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not what was certified.

    unit   of the rack; empty: all its nodes
    at     of the unit: an HCA, `gpu3`, a port that a cable ends on; empty with GPU: which of them is not known
    name   of a package
    words  what happened
    """

    part: Part
    words: str
    unit: str = ""
    at: str = ""
    name: str = ""


class Identity(Protocol):
    """What a certificate binds of a node (toolkit.certificate.fingerprint.NodeFacts): serials, GUIDs and versions."""

    @property
    def node(self) -> str: ...  # noqa: D102
    @property
    def serial(self) -> str: ...  # noqa: D102
    @property
    def gpus(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def hcas(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def driver(self) -> str: ...  # noqa: D102
    @property
    def firmware(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102


# From facts


def changes_between(rack: Rack, then: Identity, now: Identity) -> tuple[Change, ...]:
    """What makes `now` another node than `then` was. UsageError for a node that the rack does not have.

    Which GPU has which place a fingerprint does not say: a GPU that is new may be any of the node's.
    """
    node = _unit(rack, now.node)
    return tuple(_between(node, then, now))


def _between(node: Unit, then: Identity, now: Identity) -> Iterator[Change]:
    name = node.name
    if then.serial != now.serial:
        yield Change(Part.NODE, f"serial of {name} {then.serial} is now {now.serial or 'unknown'}", name)
    if Counter(then.gpus) != Counter(now.gpus):
        gone = sorted((Counter(then.gpus) - Counter(now.gpus)).elements())
        yield Change(Part.GPU, f"GPUs of {name}: {', '.join(gone) or 'none'} gone, others are new", name)
    yield from _adapters(node, then, now)
    if then.driver != now.driver:
        yield Change(Part.DRIVER, f"driver of {name} {then.driver} is now {now.driver or 'unknown'}", name)
    before, after = dict(then.firmware), dict(now.firmware)
    for component in sorted(before.keys() | after.keys()):
        was, found = before.get(component, "none"), after.get(component, "unknown")
        if was != found:
            yield _firmware(node, component, f"firmware {component} of {name} {was} is now {found}")


def _adapters(node: Unit, then: Identity, now: Identity) -> Iterator[Change]:
    """By the GUIDs of the rack file, which are the old ones or, where it was corrected, the new ones."""
    by_guid = {hca.guid: hca.name for hca in node.hcas}
    other = set(then.hcas) ^ set(now.hcas)
    known = sorted({by_guid[guid] for guid in other if guid in by_guid})
    for hca in known:
        yield Change(Part.HCA, f"{node.name}:{hca} has another GUID", node.name, hca)
    # A GUID of no HCA of the rack file: any of them may be another now.
    if other and not known:
        for hca in (h.name for h in node.hcas):
            yield Change(Part.HCA, f"{node.name}: HCAs with GUIDs that the rack file does not have", node.name, hca)


# From an operator


def parse_change(rack: Rack, text: str) -> Change:
    """`swap node07:gpu3`. UsageError that names what is wrong and what would be right."""
    words = text.split()
    if len(text) > _MOST_TEXT or not 2 <= len(words) <= _MOST_WORDS or words[0] not in _VERBS:
        raise UsageError(f"{text[:60]!r} is no change", f"such as: {EXAMPLES}")
    return _VERBS[words[0]](rack, words[1:], " ".join(words))


def _swap(rack: Rack, words: Sequence[str], text: str) -> Change:
    if words[0] == "cable":
        return _cable(rack, words[1:], text)
    name, _, at = _only(words, text).partition(":")
    unit = _unit(rack, name)
    if not at:
        return Change(_OF_UNIT[unit.kind], text, name)
    if unit.kind is not UnitKind.NODE:
        raise UsageError(f"{text}: {name} is a {unit.kind}, and is swapped as a whole", f"swap {name}")
    return Change(_part_of_node(rack, unit, at, text), text, name, at)


def _move(rack: Rack, words: Sequence[str], text: str) -> Change:
    if words[0] != "cable":
        raise UsageError(f"{text}: only a cable is moved", f"such as: {EXAMPLES}")
    return _cable(rack, words[1:], text)


def _cable(rack: Rack, words: Sequence[str], text: str) -> Change:
    name, _, at = _only(words, text).partition(":")
    unit = _unit(rack, name)
    if link_at(rack, Port(name, at)) is None:
        known = [p.port for k in with_leaves(rack).links for p in (k.a, k.b) if p.unit == name]
        raise UsageError(f"{text}: no cable ends on port {at!r} of {unit.name}", _nearest(at, known))
    return Change(Part.CABLE, text, name, at)


def _update(rack: Rack, words: Sequence[str], text: str) -> Change:
    what, rest = words[0], words[1:]
    if what == "profile" and not rest:
        return Change(Part.PROFILE, text)
    if what == "driver" and len(rest) < 2:
        return Change(Part.DRIVER, text, _node(rack, rest[0]).name if rest else "")
    if what == "package" and rest:
        return Change(Part.PACKAGE, text, _node(rack, rest[1]).name if rest[1:] else "", name=rest[0])
    if what == "firmware" and rest:
        name, _, at = _only(rest, text).partition(":")
        unit = _unit(rack, name)
        if unit.kind is UnitKind.NODE and at:
            _check_component(rack, unit, at, text)
            return _firmware(unit, at, text)
        if not at:
            return Change(_OF_UNIT[unit.kind], text, name)
        raise UsageError(f"{text}: the firmware of a {unit.kind} is one", f"update firmware {name}")
    raise UsageError(f"{text!r} is no change", f"such as: {EXAMPLES}")


_VERBS = {"swap": _swap, "move": _move, "update": _update}


def link_at(rack: Rack, port: Port) -> Link | None:
    """The link that ends on the port; on a leaf outside of the rack, where its rails leave it."""
    return next((k for k in with_leaves(rack).links if port in (k.a, k.b)), None)


def is_rail(link: Link) -> bool:
    """Whether it is a cable of the compute fabric."""
    return link.kind is LinkKind.INFINIBAND


def _firmware(node: Unit, component: str, text: str) -> Change:
    """`gpu3 vbios` as of the fingerprint, `gpu3` as of an operator. What nobody knows may be anything of the node."""
    at = component.split(maxsplit=1)[0]
    if _GPU.fullmatch(at) or at == _VBIOS:
        return Change(Part.GPU, text, node.name, "" if at == _VBIOS else at)
    if at in {hca.name for hca in node.hcas}:
        return Change(Part.HCA, text, node.name, at)
    return Change(Part.BMC if at == "bmc" else Part.NODE, text, node.name)


def _check_component(rack: Rack, node: Unit, at: str, text: str) -> None:
    if at not in (*_BOARD, _VBIOS):
        _part_of_node(rack, node, at, text, (*_BOARD, _VBIOS))


def _part_of_node(rack: Rack, node: Unit, at: str, text: str, others: Sequence[str] = ()) -> Part:
    gpus = [f"gpu{index}" for index in range(rack.profile.gpus_per_node)]
    hcas = [hca.name for hca in node.hcas]
    if at in gpus:
        return Part.GPU
    if at in hcas:
        return Part.HCA
    raise UsageError(f"{text}: {node.name} has no {at!r}", _nearest(at, [*gpus, *hcas, *others]))


def _unit(rack: Rack, name: str) -> Unit:
    found = next((unit for unit in rack.units if unit.name == name), None)
    if found is None:
        raise UsageError(f"{rack.name} has no unit {name[:60]!r}", _nearest(name, [u.name for u in rack.units]))
    return found


def _node(rack: Rack, name: str) -> Unit:
    unit = _unit(rack, name)
    if unit.kind is not UnitKind.NODE:
        raise UsageError(f"{name} is a {unit.kind}, no node", _nearest(name, [n.name for n in rack.nodes]))
    return unit


def _only(words: Sequence[str], text: str) -> str:
    if len(words) != 1:
        raise UsageError(f"{text!r} names {len(words)} things where one is meant", "one change for each --after")
    return words[0]


def _nearest(name: str, known: Sequence[str]) -> str:
    padded = [one for one in known if _ZEROS.sub("", one) == _ZEROS.sub("", name)]  # node7 for node07
    close = padded or get_close_matches(name, known, 1, 0.6)
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return (
        f"did you mean {close[0]}?" if close else f"one of: {', '.join(known[:8])}{more}" if known else "there is none"
    )

"""From folded cable lines to links: each end names a port that exists, each port has one cable, each rail one leaf."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from toolkit.rack.document import Problems, shown
from toolkit.rack.model import Link, LinkKind, Port, Profile, Unit, UnitKind
from toolkit.rack.nodeset import MAX_NAMES, FoldError, expand

if TYPE_CHECKING:
    from toolkit.rack.schema import LinkFile

MAX_LINKS = 20_000  # an NVL72 rack has 1,296
MAX_IB_PORT = 254  # port 0 is the switch itself and 255 no port: InfiniBand Architecture Specification 1, NodeInfo
_SWITCH_PORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,31}")
_GPU_PORT = re.compile(r"gpu(\d{1,2})\.nvlink(\d{1,2})")


def unfold(lines: Sequence[LinkFile], units: Sequence[Unit], profile: Profile, problems: Problems) -> tuple[Link, ...]:
    """The links in the order written; what is wrong with them goes to `problems`."""
    by_name = {unit.name: unit for unit in units}
    used: dict[Port, int] = {}
    links: list[Link] = []
    origin: list[int] = []
    at_first = problems.count
    for number, line in enumerate(lines):
        before = problems.count
        a = _ends(line, "a", number, by_name, profile, problems)
        b = _ends(line, "b", number, by_name, profile, problems)
        if problems.count > before:
            continue
        if len(a) != len(b):
            wrong = f"{len(a)} ends on side a and {len(b)} on side b"
            problems.add(("links", number, "b"), wrong, "both sides unfold to the same number, in order")
            continue
        for side, ends in (("a", a), ("b", b)):
            _check_free(ends, ("links", number, side), used, number, problems)
        if len(links) + len(a) > MAX_LINKS:
            problems.add(("links", number), f"more than {MAX_LINKS:,} cables", "one file describes one rack")
            break
        links += [Link(x, y, line.kind, line.rate_gb_per_s, line.part) for x, y in zip(a, b, strict=True)]
        origin += [number] * len(a)
    whole = problems.count == at_first
    cabled = _check_rails(links, origin, by_name, problems)
    if lines and whole and any(unit.kind is UnitKind.LEAF for unit in units):
        _check_cabled(units, cabled, problems)  # where a line was wrong, what it leaves uncabled is no news
    return tuple(links)


def _ends(
    line: LinkFile, side: str, number: int, units: Mapping[str, Unit], profile: Profile, problems: Problems
) -> list[Port]:
    """The ports one side unfolds to."""
    loc = ("links", number, side)
    text = line.a if side == "a" else line.b
    unit_part, colon, port_part = text.partition(":")
    if not colon:
        problems.add(loc, f"{shown(text)} names no port", "unit:port, e.g. node[1-6]:mlx5_0")
        return []
    try:
        names, ports = expand(unit_part), expand(port_part)
    except FoldError as error:
        problems.add(loc, str(error), "NodeSet syntax: node[1-6], leaf[01-08], port[1,3-5]")
        return []
    if len(names) * len(ports) > MAX_NAMES:
        problems.add(
            loc, f"{shown(text)} unfolds to {len(names) * len(ports):,} ports", f"at most {MAX_NAMES:,} a line"
        )
        return []
    unknown = [name for name in names if name not in units]
    if unknown:
        wrong = f"no unit is named {unknown[0]}" + (f" (nor {len(unknown) - 1} others)" if len(unknown) > 1 else "")
        problems.add(loc, wrong, _some(units))
        return []
    for name in names:
        for port in ports:
            fault = _wrong_port(units[name], port, line.kind, profile)
            if fault:
                problems.add(loc, *fault)
                return []
    return [Port(name, port) for name in names for port in ports]


def _some(units: Iterable[str]) -> str:
    names = list(units)
    return "units: " + ", ".join(names[:8]) + (f", ... ({len(names)})" if len(names) > 8 else "")


def _wrong_port(unit: Unit, port: str, kind: LinkKind, profile: Profile) -> tuple[str, str] | None:
    """What is wrong with a port and what would be right; None if nothing."""
    if kind is LinkKind.INFINIBAND and unit.kind in (UnitKind.LEAF, UnitKind.SPINE):
        number = port.isascii() and port.isdigit() and port[0] != "0" and int(port) <= MAX_IB_PORT
        return None if number else (f"{shown(port)} is no port number", f"1 to {MAX_IB_PORT}, as ibnetdiscover counts")
    if unit.kind is not UnitKind.NODE or kind is LinkKind.ETHERNET:
        return (
            None if _SWITCH_PORT.fullmatch(port) else (f"{shown(port)} is not a port name", "letters, digits, . _ / -")
        )
    if kind is LinkKind.INFINIBAND:
        names = [hca.name for hca in unit.hcas]
        return None if port in names else (f"{unit.name} has no HCA {port}", "one of: " + ", ".join(names))
    found = _GPU_PORT.fullmatch(port)
    if found and int(found[1]) < len(unit.gpus) and int(found[2]) < profile.nvlinks_per_gpu:
        return None
    last = f"gpu{len(unit.gpus) - 1}.nvlink{profile.nvlinks_per_gpu - 1}"
    return f"{unit.name} has no NVLink port {port}", f"gpu0.nvlink0 to {last}"


def _check_free(
    ends: Iterable[Port], loc: tuple[str | int, ...], used: dict[Port, int], number: int, problems: Problems
) -> None:
    """One cable a port: notes each that is taken, and takes the rest."""
    for port in ends:
        if port in used:
            line, _ = problems.document.place(("links", used[port]))
            problems.add(loc, f"the port {port} already has a cable", f"line {line} uses it")
        else:
            used[port] = number


def _check_rails(
    links: Sequence[Link], origin: Sequence[int], units: Mapping[str, Unit], problems: Problems
) -> set[Port]:
    """HCAs of one rail end on one leaf. Returns the HCA ports that have a cable."""
    rails: dict[int, list[tuple[str, Port, int]]] = defaultdict(list)
    cabled: set[Port] = set()
    for link, number in zip(links, origin, strict=True):
        if link.kind is not LinkKind.INFINIBAND:
            continue
        for near, far in ((link.a, link.b), (link.b, link.a)):
            rail = next((hca.rail for hca in units[near.unit].hcas if hca.name == near.port), None)
            if rail is None:
                continue
            cabled.add(near)
            if units[far.unit].kind is not UnitKind.LEAF:
                wrong = f"{near} is cabled to {far}, which is not a leaf"
                problems.add(("links", number), wrong, "an HCA ends on a leaf")
            else:
                rails[rail].append((far.unit, near, number))
    for rail, ends in sorted(rails.items()):
        _check_rail(rail, ends, problems)
    return cabled


def _check_rail(rail: int, ends: Sequence[tuple[str, Port, int]], problems: Problems) -> None:
    (home, count), *others = Counter(leaf for leaf, _, _ in ends).most_common()
    if not others:
        return
    for leaf, near, number in ends:
        if leaf != home:
            wrong = f"rail {rail} lands on two leaves: {near} goes to {leaf}, {count} others to {home}"
            problems.add(("links", number), wrong, f"every HCA of rail {rail} on one leaf")


def _check_cabled(units: Iterable[Unit], cabled: set[Port], problems: Problems) -> None:
    for number, unit in enumerate(units):
        for index, hca in enumerate(unit.hcas):
            if Port(unit.name, hca.name) not in cabled:
                loc = ("units", number, "hcas", index)
                problems.add(
                    loc, f"{unit.name}:{hca.name} has no cable", "a link of kind infiniband to its rail's leaf"
                )

"""LLDP neighbours: `lldpcli -f json|json0 show neighbors` and `networkctl lldp --json=short`. Text in, `Neighbors` out.

lldpd 1.0 writes `json` in another shape for one interface, for several, and for a neighbour without a system name;
`json0` has one shape. All of them are read.

    {"lldp": {"interface": [{"eth0": {"chassis": {"oob-leaf-2": {...}},
                                      "port": {"id": {"type": "ifname", "value": "swp7"}}}}]}}

The system is its name, or its chassis id where it sends none. The port is its id, or its description where the id is an
address (lldpd on Linux sends the MAC and describes itself with the interface's name).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.facts.fabric_text import Doubts, decoded, shown
from toolkit.judge.fabric.seen import Neighbor

MAX_NEIGHBORS = 4096
_TEXT = 256
_ADDRESSES = ("mac", "ip")  # port ids that name no port


@dataclass(frozen=True, slots=True)
class Neighbors:
    """What a node's interfaces hear. An interface may hear several; one that hears nobody is not here."""

    neighbors: tuple[Neighbor, ...]
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """In the order printed."""
        return {
            "neighbors": [
                {"interface": n.interface, "system": n.system, "port": n.port} for n in self.neighbors
            ],
            "doubts": list(self.doubts),
        }  # fmt: skip


def parse(text: bytes | str, node: str = "") -> Neighbors:
    """The neighbours of `node`. Never raises; no JSON, or JSON of something else, is a doubt and no neighbour."""
    doubts = Doubts()
    value = _json(decoded(text, doubts), doubts)
    found: dict[Neighbor, None] = {}
    if value is not None:
        for interface, system, port in _heard(value, doubts):
            if not (interface and system and port):
                doubts.add("neighbours that leave out who or where they are", shown(interface))
            elif len(found) < MAX_NEIGHBORS:
                found[Neighbor(node, interface, system, port)] = None
            else:
                doubts.add(f"more than {MAX_NEIGHBORS:,} neighbours")
    return Neighbors(tuple(found), doubts.all())


def _json(text: str, doubts: Doubts) -> dict[str, Any] | None:
    before, brace, _ = text.partition("{")
    if before.strip():
        doubts.add_line(before.strip())
    if not brace:
        doubts.add("no JSON in it: ask with -f json")
        return None
    try:
        value, end = json.JSONDecoder(parse_constant=lambda _: None).raw_decode(text, len(before))
    except (ValueError, RecursionError) as error:
        doubts.add("no whole JSON", shown(str(error)))
        return None
    if text[end:].strip():
        doubts.add_line(text[end:].strip())
    if not isinstance(value, dict) or not ({"lldp", "Neighbors"} & value.keys()):
        doubts.add("JSON, but not of lldpcli or networkctl")
        return None
    return value


def _heard(value: dict[str, Any], doubts: Doubts) -> Iterator[tuple[str, str, str]]:
    """Interface, system, port of every neighbour; empty where it says none."""
    for group in _dicts(value.get("Neighbors")):
        for neighbor in _dicts(group.get("Neighbors")):
            system = _text(neighbor.get("SystemName")) or _text(neighbor.get("ChassisID"))
            port = _text(neighbor.get("PortID"))
            described = _text(neighbor.get("PortDescription"))
            yield _text(group.get("InterfaceName")), system, described if _is_mac(port) and described else port
    for root in _dicts(value.get("lldp")):
        if "interface" not in root and root:
            doubts.add("LLDP, but no neighbours in it")
        for name, body in _interfaces(root.get("interface")):
            yield name, _system(body.get("chassis")), _port(body.get("port"))


def _interfaces(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """By name in `json` (a list of them where there are several), with a name inside in `json0`."""
    for entry in _dicts(value):
        if isinstance(entry.get("name"), str):
            yield _text(entry["name"]), entry
            continue
        for name, bodies in entry.items():
            for body in _dicts(bodies):
                yield name[:_TEXT], body


def _system(value: Any) -> str:
    for chassis in _dicts(value):
        if named := _value(chassis.get("name")):
            return named  # json0
        if "id" in chassis:
            return _value(chassis.get("id"))  # no name
        for name in chassis:
            return name[:_TEXT]
    return ""


def _port(value: Any) -> str:
    for port in _dicts(value):
        kinds = [_text(given.get("type")) for given in _dicts(port.get("id"))]
        described = _value(port.get("descr"))
        return described if kinds[:1] and kinds[0] in _ADDRESSES and described else _value(port.get("id")) or described
    return ""


def _dicts(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values[:MAX_NEIGHBORS] if isinstance(v, dict)]


def _value(value: Any) -> str:
    """`"x"`, `{"value": "x"}` and `[{"value": "x"}]` are all x."""
    if isinstance(value, str):
        return value[:_TEXT]
    return next((_text(v.get("value")) for v in _dicts(value)), "")


def _text(value: Any) -> str:
    return value[:_TEXT] if isinstance(value, str) else ""


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(p) == 2 and set(p) <= set("0123456789abcdefABCDEF") for p in parts)

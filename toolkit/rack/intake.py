"""Rented nodes as a rack file: what they told of themselves, written down as designed. Pure.

Such a node has no BMC of ours, no slot that anybody here could look at and no cable: the file says so by what it
leaves out, and the certificate names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.rack.model import Profile, UnitKind


@dataclass(frozen=True, slots=True)
class Rented:
    """A node as it was met. `hcas`: (name, GUID) of its InfiniBand ports, in the order of the names."""

    name: str
    address: str
    ssh_port: int
    serial: str
    hcas: tuple[tuple[str, str], ...]


def differences(node: Rented, product: str, gpus: int, profile: Profile) -> tuple[str, ...]:
    """What is not as the profile says, in words; empty where the node is one of its kind."""
    expected = dict(profile.expected).get("product_name", "")
    found = []
    if expected and product != expected:
        found.append(f"it is a {product!a}, not a {expected}")
    if gpus != profile.gpus_per_node:
        found.append(f"it has {gpus} GPUs of {profile.gpus_per_node}")
    if len(node.hcas) != profile.hcas_per_node:
        named = ", ".join(name for name, _ in node.hcas) or "none"
        found.append(f"it has {len(node.hcas)} InfiniBand ports of {profile.hcas_per_node}: {named}")
    return tuple(found)


def rack_file(rack: str, site: str, profile: Profile, nodes: Sequence[Rented], source: str) -> str:
    """The rack file's text. Slots are numbers only: where a rented node stands is its owner's to know."""
    planned = dict(profile.units)
    whole = planned == {UnitKind.NODE: len(nodes)}
    lines = [
        f"# Rented nodes, taken in from {source}. No BMC is ours and no cable is planned: slots count the nodes, and",
        "# what nobody here could look at is named in the certificate. Whether that admits is for the site's policy",
        "# (pools/<site>.yml, accepts: [rented]).",
        "---",
        f"rack: {rack}",
        f"site: {site}",
        f"profile: {profile.name}",
        *([] if whole else ["partial: true"]),
        "",
        "units:",
        *(line for slot, node in enumerate(nodes, start=1) for line in _unit(slot, node)),
    ]
    return "\n".join(lines) + "\n"


def _unit(slot: int, node: Rented) -> Iterable[str]:
    port = f", ssh_port: {node.ssh_port}" if node.ssh_port != 22 else ""
    yield f"  - name: {_quoted(node.name)}"
    yield f"    kind: {UnitKind.NODE}"
    yield f"    slot: {slot}"
    yield f"    serial: {_quoted(node.serial)}"
    yield f"    host: {{address: {_quoted(node.address)}{port}}}"
    if node.hcas:
        yield "    hcas:"
    for rail, (name, guid) in enumerate(node.hcas):
        yield f"      - {{name: {_quoted(name)}, guid: {_quoted(guid)}, rail: {rail}}}"


def _quoted(text: str) -> str:
    """A YAML scalar that is this text, whatever a node put into it: a JSON string is one."""
    return json.dumps(text, ensure_ascii=True)

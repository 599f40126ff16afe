"""What a certificate is bound to: the serials, firmware, driver and topology that were measured. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from toolkit.certificate.canonical import digest
from toolkit.errors import UndecidedError
from toolkit.rack.model import Rack, Unit, UnitKind

MAX_FACT = 256


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node is, as read from it.

    serial    of the tray
    gpus      serials of its GPUs
    hcas      GUIDs of its HCAs
    driver    version of the GPU driver
    firmware  (component, version): `("vbios", "96.00.A5.00.01")`; at least one component
    """

    node: str
    serial: str
    gpus: tuple[str, ...]
    hcas: tuple[str, ...]
    driver: str
    firmware: tuple[tuple[str, str], ...]

    def document(self) -> dict[str, object]:
        """The node's part of the fingerprint; order of reading does not matter."""
        return {
            "serial": self.serial,
            "gpus": sorted(self.gpus),
            "hcas": sorted(self.hcas),
            "driver": self.driver,
            "firmware": dict(self.firmware),
        }

    @property
    def digest(self) -> str:
        """sha256 of the node's name and part."""
        return digest({"node": self.node, **self.document()})


@dataclass(frozen=True, slots=True, order=True)
class Cable:
    """A link of a certified node: its two ends and the part between them."""

    ends: tuple[str, str]
    part: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a certificate names. `topology` is the sha256 of the rack as designed."""

    rack: str
    topology: str
    nodes: tuple[NodeFacts, ...]
    switches: tuple[tuple[str, str], ...]
    cables: tuple[Cable, ...]

    def document(self) -> dict[str, object]:
        """As it stands in the certificate."""
        return {
            "rack": self.rack,
            "topology": {"sha256": self.topology},
            "nodes": {facts.node: facts.document() for facts in self.nodes},
            "switches": dict(self.switches),
            "cables": [{"ends": list(c.ends), "part": c.part} for c in sorted(self.cables)],
        }

    @property
    def digest(self) -> str:
        """sha256 of the canonical document."""
        return digest(self.document())

    def node(self, name: str) -> NodeFacts | None:
        """The part of a node, or None if the certificate does not name it."""
        return next((facts for facts in self.nodes if facts.node == name), None)


def fingerprint_of(rack: Rack, nodes: Iterable[NodeFacts]) -> Fingerprint:
    """The fingerprint of the nodes to be certified within their rack.

    Switches and cables are the rack file's: they are bound, and whether they were read back is for the caller
    to say. Raises UndecidedError for a fact that is missing, doubled or not as the rack file counts it.
    """
    given = tuple(sorted(nodes, key=lambda facts: facts.node))
    problems = [problem for facts in given for problem in _problems(facts, rack)]
    serials = [serial for facts in given for serial in (facts.serial, *facts.gpus, *facts.hcas)]
    problems += [f"{serial} was read in two places" for serial, times in Counter(serials).items() if times > 1]
    if problems:
        raise UndecidedError(
            f"the fingerprint of {rack.name} cannot be taken: " + "; ".join(problems[:8]),
            "read the nodes' facts again; nothing is certified on a missing fact",
        )
    names = {facts.node for facts in given}
    return Fingerprint(rack.name, rack.digest, given, *design(rack, names))


def design(rack: Rack, nodes: Collection[str]) -> tuple[tuple[tuple[str, str], ...], tuple[Cable, ...]]:
    """What the rack file says around these nodes: (unit, serial) of all that is no node, and the nodes' cables."""
    others = tuple(sorted((unit.name, unit.serial) for unit in rack.units if unit.kind is not UnitKind.NODE))
    cables = (Cable((str(k.a), str(k.b)), k.part) for k in rack.links if not {k.a.unit, k.b.unit}.isdisjoint(nodes))
    return others, tuple(cables)


def _problems(facts: NodeFacts, rack: Rack) -> Iterator[str]:
    unit = _planned(rack, facts.node)
    if unit is None:
        yield f"{facts.node} is not a node of the rack"
        return
    if facts.serial != unit.serial:
        yield f"{facts.node} has serial {facts.serial!r}, the rack file says {unit.serial!r}"
    for what, found, planned in (
        ("GPUs", len(facts.gpus), rack.profile.gpus_per_node),
        ("HCAs", len(facts.hcas), len(unit.hcas)),
    ):
        if found != planned:
            yield f"{facts.node} has {found} {what} of {planned}"
    if not facts.firmware:
        yield f"no firmware version of {facts.node} was read"
    if len(dict(facts.firmware)) != len(facts.firmware):
        yield f"{facts.node} has two versions of one firmware"
    for name, value in _texts(facts):
        if not value or not value.isprintable() or len(value) > MAX_FACT:
            yield f"{name} of {facts.node} is {value[:40]!a}"


def _planned(rack: Rack, node: str) -> Unit | None:
    return next((unit for unit in rack.nodes if unit.name == node), None)


def _texts(facts: NodeFacts) -> Iterator[tuple[str, str]]:
    yield "driver", facts.driver
    yield "serial", facts.serial
    for serial in facts.gpus:
        yield "a GPU serial", serial
    for guid in facts.hcas:
        yield "an HCA GUID", guid
    for component, version in facts.firmware:
        yield "a firmware component", component
        yield f"firmware {component}", version


def facts_from(node: str, part: Mapping[str, object]) -> NodeFacts:
    """A node's part as it stands in a certificate. Raises ValueError if it is not one."""
    firmware = part.get("firmware")
    if not isinstance(firmware, dict):
        raise ValueError(f"firmware of {node} is no object")
    return NodeFacts(
        node,
        _text(part, "serial"),
        _strings(part, "gpus"),
        _strings(part, "hcas"),
        _text(part, "driver"),
        tuple(sorted((component, str(version)) for component, version in firmware.items())),
    )


def _text(part: Mapping[str, object], key: str) -> str:
    value = part.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is no text")
    return value


def _strings(part: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = part.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"{key} is no list of texts")
    return tuple(value)

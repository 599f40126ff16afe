"""Who is who: from the GUIDs a discovery shows to the units and HCAs of the plan.

A GUID of the plan decides. Where the plan's GUID is not there, the node description (`dgx-005 mlx5_0`,
`MF0;leaf-1:MQM9700/U1`) does, and where that is silent the place in the fabric: a strange HCA behind the port where the
plan's own is missing is a board that was replaced. A switch whose cables all fit another switch of the plan is that
one: names and GUIDs are written by hand, cables are not.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.judge.fabric.design import Design, DesignedHca
from toolkit.judge.fabric.seen import Discovery, SeenKind, SeenNode, SeenPort
from toolkit.rack.model import Port

MAX_NAME = 64  # an InfiniBand node description has 64 characters: IBTA volume 1, NodeDescription
VOICES = 3  # cables that must agree before a switch is taken for another one than it says
_MANAGED = re.compile(r"[A-Za-z0-9]{1,8};([^:]{1,64}):")
_GUID = re.compile(r"(?<![0-9a-f])(?:0x)?([0-9a-f]{16})(?![0-9a-f])")


@dataclass(frozen=True, slots=True)
class Strange:
    """A device found in the place of another. `guid` is what is there, `planned` what the plan has there."""

    guid: str
    planned: str
    port: Port


@dataclass(frozen=True, slots=True)
class Names:
    """Who was recognised.

    hcas       GUID seen to the HCA's port in the plan; switches: GUID seen to the switch's name
    by_guid    how many HCAs the plan's GUIDs themselves gave
    by_cables  switches that only their cables told: GUID and name
    replaced   a planned HCA or switch (its port is empty) with another GUID
    moved      an HCA of the plan in the place of another of the plan
    renamed    an HCA in its place whose description names another one
    exchanged  a switch that says to be one and is cabled as another: (said, cabled as)
    duplicates GUIDs met in two places
    planned, memo   the plan's own objects for its ports, and names given so far: a fabric's ports are named many times
    """

    hcas: Mapping[str, Port]
    switches: Mapping[str, str]
    by_guid: int
    by_cables: tuple[tuple[str, str], ...]
    replaced: tuple[Strange, ...]
    moved: tuple[Strange, ...]
    renamed: tuple[tuple[Port, str], ...]
    exchanged: tuple[tuple[str, str], ...]
    duplicates: frozenset[str]
    labels: Mapping[str, str]
    by_port_guid: Mapping[str, SeenPort]
    planned: Mapping[Port, Port]
    memo: dict[SeenPort, Port]

    def planned_guid(self, guid: str, planned: Container[str]) -> str:
        """The GUID that the plan has for a board: its own or its first port's."""
        ports = (own for own, at in self.by_port_guid.items() if at == SeenPort(guid, 1) and own in planned)
        return guid if guid in planned else next(ports, guid)

    def port(self, seen: SeenPort) -> Port:
        """The plan's name of a port; one that is no port of the plan is named by what its device calls itself."""
        known = self.memo.get(seen)
        if known is None:
            known = self._port(seen)
            self.memo[seen] = known = self.planned.get(known, known)
        return known

    def _port(self, seen: SeenPort) -> Port:
        if seen.guid not in self.labels:
            seen = self.by_port_guid.get(seen.guid, seen)  # a tool that names an HCA's port by its own GUID
        switch = self.switches.get(seen.guid)
        if switch is not None:
            return Port(switch, str(seen.number))
        hca = self.hcas.get(seen.guid)
        if hca is not None:
            return hca if seen.number == 1 else Port(hca.unit, f"{hca.port} port {seen.number}")
        return Port(f"{self.labels.get(seen.guid) or 'a device'} ({seen.guid})", str(seen.number))


def switch_name(description: str) -> str:
    """`leaf-1` of `MF0;leaf-1:MQM9700/U1`; a description of another form is the name itself."""
    found = _MANAGED.match(description)
    return (found[1] if found else description).strip().lower()


def recognise(design: Design, discovery: Discovery) -> Names:
    """Everybody in the discovery that the plan knows."""
    return _Recognition(design, discovery).names()


class _Recognition:
    """One pass over the discovery; the steps read what the earlier ones found."""

    def __init__(self, design: Design, discovery: Discovery) -> None:
        self.design, self.discovery = design, discovery
        self.nodes = {node.guid: node for node in discovery.nodes}
        self.far: dict[str, list[tuple[int, SeenPort]]] = defaultdict(list)
        for link in discovery.links:
            self.far[link.a.guid].append((link.a.number, link.b))
            self.far[link.b.guid].append((link.b.number, link.a))
        self.hcas: dict[str, Port] = {}
        self.switches: dict[str, str] = {}
        self.replaced: list[Strange] = []
        self.moved: list[Strange] = []
        self.renamed: list[tuple[Port, str]] = []
        self.exchanged: list[tuple[str, str]] = []
        self.by_cables: list[tuple[str, str]] = []

    def names(self) -> Names:
        self._hcas_by_guid()
        by_guid = len(self.hcas)
        self._hcas_by_description()
        self._switches_by_name()
        self._switches_by_cables()
        self._hcas_by_place()
        self._descriptions_against_places()
        return Names(
            self.hcas, self.switches, by_guid, tuple(self.by_cables), tuple(self.replaced), tuple(self.moved),
            tuple(self.renamed), tuple(self.exchanged), self._duplicates(),
            {node.guid: node.description.strip()[:MAX_NAME] for node in self.discovery.nodes},
            dict(self.discovery.port_guids),
            {port: port for port in self.design.partner}, {},
        )  # fmt: skip

    def _of_kind(self, kind: SeenKind) -> list[SeenNode]:
        return sorted((n for n in self.nodes.values() if n.kind is kind), key=lambda node: node.guid)

    def _hcas_by_guid(self) -> None:
        """By the GUID of the port, which is what ibstat prints and a rack file has, or by the node's.

        Boards count their ports upwards from the node's GUID, so one may be another board's: then the description says.
        """
        planned = {hca.guid: hca.port for hca in self.design.hcas}
        first = {port.guid: guid for guid, port in self.discovery.port_guids if port.number == 1}
        found = []
        for node in self._of_kind(SeenKind.HCA):
            at, beside = planned.get(first.get(node.guid, "")), planned.get(node.guid)
            if at is None or (beside is not None and beside == self._said(node)):
                at = beside
            if at is not None:
                found.append((at != self._said(node), node.guid, at))
        taken: set[Port] = set()
        for _, guid, at in sorted(found):
            if at not in taken:
                taken.add(at)
                self.hcas[guid] = at

    def _missing(self) -> dict[Port, DesignedHca]:
        there = set(self.hcas.values())
        return {hca.port: hca for hca in self.design.hcas if hca.port not in there}

    def _said(self, node: SeenNode) -> Port:
        """Node and device, as its description has them."""
        host, _, device = node.description.strip().partition(" ")
        return Port(host.partition(".")[0].lower(), device.strip())

    def _hcas_by_description(self) -> None:
        missing = self._missing()
        for node in self._of_kind(SeenKind.HCA):
            said = self._said(node)
            if node.guid not in self.hcas and said in missing:
                self.hcas[node.guid] = said
                self.replaced.append(Strange(node.guid, missing.pop(said).guid, said))

    def _hcas_by_place(self) -> None:
        """A strange HCA that names no host, behind the port of an HCA that is missing."""
        missing = self._missing()
        hosts = {hca.port.unit for hca in self.design.hcas}
        for node in self._of_kind(SeenKind.HCA):
            said = self._said(node)
            if node.guid in self.hcas or (said.port.startswith("mlx5_") and said.unit not in hosts):
                continue
            for number, far in self.far[node.guid]:
                planned = self._planned_at(far)
                if number == 1 and planned in missing and said.unit not in hosts - {planned.unit}:
                    self.hcas[node.guid] = planned
                    self.replaced.append(Strange(node.guid, missing.pop(planned).guid, planned))
                    break

    def _planned_at(self, seen: SeenPort) -> Port | None:
        """What the plan has at the other end of a switch's port."""
        switch = self.switches.get(seen.guid)
        return self._partner(Port(switch, str(seen.number))) if switch else None

    def _partner(self, port: Port) -> Port | None:
        link = self.design.partner.get(port)
        return None if link is None else link.b if link.a == port else link.a

    def _descriptions_against_places(self) -> None:
        """A planned GUID under another planned name: where the cable fits the name, the board is in that place."""
        planned = {hca.port: hca.guid for hca in self.design.hcas}
        moving: dict[str, Port] = {}
        for guid, port in sorted(self.hcas.items()):
            said = self._said(self.nodes[guid])
            if said == port or said not in planned:
                continue
            fits = {self._planned_at(far) for number, far in self.far[guid] if number == 1}
            if port in fits:
                self.renamed.append((port, str(said)))
            elif said in fits:
                moving[guid] = said
        moving = _without_clashes(self.hcas, moving)
        self.moved = [Strange(guid, planned[port], port) for guid, port in moving.items()]
        self.hcas.update(moving)

    def _switches_by_name(self) -> None:
        by_guid = {switch.guid: switch.name for switch in self.design.switches if switch.guid}
        seen = self._of_kind(SeenKind.SWITCH)
        for node in seen:
            if node.guid in by_guid:
                self.switches[node.guid] = by_guid[node.guid]
        taken = set(self.switches.values())
        open_names = {switch.name: switch for switch in self.design.switches if switch.name not in taken}
        said = Counter(switch_name(node.description) for node in seen if node.guid not in self.switches)
        for node in seen:
            name = switch_name(node.description)
            if node.guid in self.switches or said[name] != 1 or name not in open_names:
                continue
            self.switches[node.guid] = name
            planned = open_names[name].guid
            if planned:
                self.replaced.append(Strange(node.guid, planned, Port(name, "")))

    def _switches_by_cables(self) -> None:
        """Leaves by the HCAs on them, then spines by the leaves."""
        for _ in range(2):
            votes = {node.guid: self._votes(node.guid) for node in self._of_kind(SeenKind.SWITCH)}
            best = {guid: name for guid, count in votes.items() if (name := _elected(count))}
            fits = Counter(best.values())
            best = {guid: name for guid, name in best.items() if fits[name] == 1}
            self._exchange(best)
            taken = set(self.switches.values())
            for guid, name in sorted(best.items()):
                if guid not in self.switches and name not in taken:
                    self.switches[guid] = name
                    self.by_cables.append((guid, name))

    def _exchange(self, best: Mapping[str, str]) -> None:
        """Switches that say to be one and are cabled as another, where that leaves no two with one name."""
        wrong = {guid: name for guid, name in best.items() if self.switches.get(guid, name) != name}
        holders = {name: guid for guid, name in self.switches.items()}
        wrong = {guid: name for guid, name in wrong.items() if holders.get(name, guid) in {*wrong, guid}}
        self.exchanged += sorted((self.switches[guid], name) for guid, name in wrong.items())
        self.switches.update(wrong)

    def _votes(self, guid: str) -> Counter[str]:
        """By each cable: which switch of the plan has this far end on this port; empty text where none has."""
        votes: Counter[str] = Counter()
        for number, far in self.far[guid]:
            at_far = self.hcas.get(far.guid) if far.number == 1 else None
            if far.guid in self.switches:
                at_far = Port(self.switches[far.guid], str(far.number))
            planned = self._partner(at_far) if at_far else None
            if planned is not None:
                votes[planned.unit if planned.port == str(number) else ""] += 1
        return votes

    def _duplicates(self) -> frozenset[str]:
        """GUIDs of nodes that were met twice, by the tool's word or by one port with two cables."""
        ports = Counter((guid, number) for guid, fars in self.far.items() for number, _ in fars)
        twice = {guid for (guid, _), count in ports.items() if count > 1}
        several = Counter(node.guid for node in self.discovery.nodes)
        twice |= {guid for guid, count in several.items() if count > 1}
        by_port = {guid: port.guid for guid, port in self.discovery.port_guids}
        told = [*filter(_GUID.fullmatch, self.discovery.duplicates), *_told(self.discovery.doubts)]
        return frozenset(twice | {_node_of(guid, by_port, self.nodes) for guid in told} & set(self.nodes))


def _elected(votes: Counter[str]) -> str:
    """The switch that all but a few cables fit; empty if none."""
    name, count = max(votes.items(), key=lambda item: item[1], default=("", 0))
    return name if count >= VOICES and 2 * count > votes.total() else ""


def _without_clashes(at: Mapping[str, Port], moving: Mapping[str, Port]) -> dict[str, Port]:
    """Those of the moves that leave no place with two boards: one that cannot go keeps another from coming."""
    moving = dict(moving)
    while True:
        count = Counter((dict(at) | moving).values())
        clash = [guid for guid, port in moving.items() if count[port] > 1]
        if not clash:
            return moving
        for guid in clash:
            del moving[guid]


def _told(doubts: Iterable[str]) -> Sequence[str]:
    return [guid for text in doubts if "uplicate" in text for guid in _GUID.findall(text[:4096].lower())]


def _node_of(guid: str, by_port: Mapping[str, str], nodes: Mapping[str, SeenNode]) -> str:
    """The node of a GUID that may be a port's: ConnectX numbers its ports upwards from the node's GUID."""
    if guid in nodes:
        return guid
    return by_port.get(guid, f"{max(int(guid, 16) - 1, 0):016x}")

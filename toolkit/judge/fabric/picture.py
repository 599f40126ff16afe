"""Everything seen, in the plan's words: which cable is in which planned port, which ports are up, who is dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.judge.fabric.design import Design
from toolkit.judge.fabric.identity import Names, recognise
from toolkit.judge.fabric.line import WorkEnd
from toolkit.judge.fabric.seen import PortState, Seen, SeenKind, SeenLink
from toolkit.rack.model import Port

LINK_UP = "LinkUp"


@dataclass(frozen=True, slots=True)
class Picture:
    """What the rules of a fabric read.

    cables    seen cables that the plan has a say in: one end planned, or both on the plan's units
    links     what the tools said of the cable in a port
    states    of every port that a tool showed
    guids     GUID of the device that a port is on
    whole     the discovery is complete: what is not in it is not there
    hcas_dark, switches_dark   planned and not recognised; nodes_dark: nodes none of whose HCAs was
    kinds     what each GUID is
    subnets   by GUID of a device, the number of the subnet it is in: leaves without spines are subnets of their own
    silent    ports behind which something did not answer the discovery
    doubled   HCAs with a GUID that was met twice: their cables cannot be told apart
    """

    design: Design
    seen: Seen
    names: Names
    cables: frozenset[tuple[Port, Port]]
    links: Mapping[Port, SeenLink]
    states: Mapping[Port, PortState]
    guids: Mapping[Port, str]
    whole: bool
    hcas_dark: frozenset[Port]
    switches_dark: frozenset[str]
    nodes_dark: frozenset[str]
    kinds: Mapping[str, SeenKind]
    subnets: Mapping[str, int]
    silent: frozenset[Port]
    doubled: frozenset[str]

    def end(self, port: Port) -> WorkEnd:
        """The port as an end in a line of work, with the GUID that is there."""
        return self.design.end(port, self.guids.get(port, ""))

    def word(self, port: Port) -> str:
        """The port in an instruction: `leaf-1 port 5`, `dgx-005 mlx5_0`."""
        return f"{port.unit} port {port.port}" if port.port.isdigit() else f"{port.unit} {port.port}"

    def ends_by_unit(self, ports: Iterable[Port]) -> dict[str, list[WorkEnd]]:
        """Ports as ends, by the unit that they are on."""
        found: dict[str, list[WorkEnd]] = defaultdict(list)
        for port in ports:
            found[port.unit].append(self.end(port))
        return found

    def ours(self, port: Port) -> bool:
        """Whether its unit is in the plan."""
        return port.unit in self.design.slots

    def up(self, port: Port) -> bool | None:
        """Whether the port has light; None where its state was not shown."""
        state = self.states.get(port)
        return None if state is None else state.physical == LINK_UP

    def subnet(self, port: Port) -> int:
        """The number of the subnet that the port is in; 0 where its device was not discovered."""
        return self.subnets.get(self.guids.get(port, ""), 0)

    def node_guid(self, guid: str) -> str:
        """The device of a GUID that may be its port's, as sminfo and iblinkinfo have it."""
        at = self.names.by_port_guid.get(guid)
        return guid if guid in self.kinds or at is None else at.guid

    def partner(self, port: Port) -> Port | None:
        """What the plan has at the other end."""
        link = self.design.partner.get(port)
        return None if link is None else link.b if link.a == port else link.a


def picture(design: Design, seen: Seen) -> Picture:
    """The seen, recognised and named."""
    names = recognise(design, seen.discovery)
    links: dict[Port, SeenLink] = {}
    guids: dict[Port, str] = {}
    cables = set()
    for link in seen.discovery.links:
        a, b = names.port(link.a), names.port(link.b)
        guids[a], guids[b] = link.a.guid, link.b.guid
        if {link.a.guid, link.b.guid} & names.duplicates or a == b:
            continue
        links[a] = links[b] = link
        if a in design.partner or b in design.partner or (a.unit in design.slots and b.unit in design.slots):
            cables.add((min(a, b), max(a, b)))
    states = {}
    for state in seen.ports or ():
        port = names.port(state.port)
        states[port], guids[port] = state, state.port.guid
    hcas_dark = frozenset(hca.port for hca in design.hcas) - frozenset(names.hcas.values())
    return Picture(
        design, seen, names, frozenset(cables), links, states, guids,
        whole=not seen.discovery.doubts,
        hcas_dark=hcas_dark,
        switches_dark=frozenset(switch.name for switch in design.switches) - frozenset(names.switches.values()),
        nodes_dark=_nodes_dark(design, hcas_dark),
        kinds={node.guid: node.kind for node in seen.discovery.nodes},
        subnets=_subnets(seen),
        silent=frozenset(names.port(port) for port in seen.discovery.unanswered),
        doubled=names.duplicates,
    )  # fmt: skip


def _nodes_dark(design: Design, hcas_dark: frozenset[Port]) -> frozenset[str]:
    """Nodes of two HCAs and more, all of them cabled in the plan and none of them seen."""
    of_node: dict[str, list[bool]] = defaultdict(list)
    for hca in design.hcas:
        if hca.port in design.partner:
            of_node[hca.port.unit].append(hca.port in hcas_dark)
    return frozenset(node for node, dark in of_node.items() if len(dark) > 1 and all(dark))


def _subnets(seen: Seen) -> dict[str, int]:
    """Devices by what is joined by links, numbered in the order of their GUIDs."""
    beside: dict[str, list[str]] = {node.guid: [] for node in seen.discovery.nodes}
    for link in seen.discovery.links:
        beside.setdefault(link.a.guid, []).append(link.b.guid)
        beside.setdefault(link.b.guid, []).append(link.a.guid)
    subnets: dict[str, int] = {}
    number = 0
    for start in sorted(beside):
        queue = [] if start in subnets else [start]
        number += bool(queue)
        while queue:
            guid = queue.pop()
            if guid not in subnets:
                subnets[guid] = number
                queue += beside[guid]
    return subnets


def duplicate_ends(picture: Picture, guid: str) -> Iterable[Port]:
    """Every port that a cable of this GUID leads to."""
    for link in picture.seen.discovery.links:
        for own, far in ((link.a, link.b), (link.b, link.a)):
            if own.guid == guid:
                yield picture.names.port(far)

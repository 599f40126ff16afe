"""The same fabric by several tools, under one name for each port: the GUID of its node, as `ibnetdiscover` has it.

iblinkinfo and ibqueryerrors name an HCA's port by the port's GUID. With the discovery that was made just before, their
ports get their nodes' names, and what one tool saw and the other did not becomes a doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from toolkit.facts.fabric_text import Doubts
from toolkit.facts.iblinkinfo import LinkInfo
from toolkit.facts.ibqueryerrors import Counts
from toolkit.judge.fabric.seen import Discovery, PortCounts, PortState, SeenKind, SeenLink, SeenPort

# IBTA volume 1, 16.1.3.5: what ibqueryerrors asks of every port, and shows where it is above the threshold
ERROR_COUNTERS = (
    "SymbolErrorCounter", "LinkErrorRecoveryCounter", "LinkDownedCounter", "PortRcvErrors",
    "PortRcvRemotePhysicalErrors", "PortRcvSwitchRelayErrors", "PortXmitDiscards", "PortXmitConstraintErrors",
    "PortRcvConstraintErrors", "LocalLinkIntegrityErrors", "ExcessiveBufferOverrunErrors", "QP1Dropped", "VL15Dropped",
    "PortXmitWait",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class States:
    """Ports of an `iblinkinfo` by their nodes' GUIDs. `silent`: up, with something behind that did not answer."""

    ports: tuple[PortState, ...]
    doubts: tuple[str, ...] = ()
    silent: tuple[SeenPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters of every port at one moment. An error counter is missing where it was not shown and need not be 0."""

    ports: tuple[PortCounts, ...]
    doubts: tuple[str, ...] = ()


def states(discovery: Discovery, info: LinkInfo) -> States:
    """Port states under the discovery's names. Links that only one of the two tools saw are doubts."""
    doubts = Doubts()
    names = {guid: port for guid, port in discovery.port_guids if port.guid != guid}
    ports = tuple(_renamed(state, names) for state in info.ports)
    by_port = {p.port: p for p in ports}
    for link in discovery.links:
        _doubt_link(link, by_port, doubts)
    linked = {port for link in discovery.links for port in (link.a, link.b)}
    for state in ports:
        if state.peer is not None and state.port not in linked:
            ends = f"{_named(state.port)} - {_named(state.peer)}"
            doubts.add("links that iblinkinfo shows and ibnetdiscover does not", ends)
    shown = Counter(state.port.guid for state in ports)
    for node in discovery.nodes:
        if node.kind is SeenKind.SWITCH and shown[node.guid] != node.ports:
            missing = f"{node.guid}: {shown[node.guid]} of {node.ports}"
            doubts.add("switches of which iblinkinfo does not show every port", missing)
    return States(ports, (*info.doubts, *doubts.all()), tuple(_at_node(port, names) for port in info.silent))


def _renamed(state: PortState, names: Mapping[str, SeenPort]) -> PortState:
    peer = state.peer
    if state.port.guid not in names and (peer is None or peer.guid not in names):
        return state
    return replace(state, port=_at_node(state.port, names), peer=peer and _at_node(peer, names))


def _doubt_link(link: SeenLink, by_port: Mapping[SeenPort, PortState], doubts: Doubts) -> None:
    for port, peer in ((link.a, link.b), (link.b, link.a)):
        state = by_port.get(port)
        if state is None or state.peer is None:
            doubts.add("links that ibnetdiscover shows and iblinkinfo does not", f"{_named(port)} - {_named(peer)}")
        elif state.peer != peer:
            doubts.add(
                "ports that changed their end between the tools",
                f"{_named(port)}: {_named(peer)}, then {_named(state.peer)}",
            )


def snapshot(discovery: Discovery, errors: Counts, data: Counts | None = None) -> Snapshot:
    """Counters of every linked port, from `ibqueryerrors --threshold-file /dev/null` and, for the data, `--counters`.

    A port that the output of errors leaves out has none, where that output is whole, hides nothing and has asked every
    node of the discovery: its error counters are then 0, and known to be. Otherwise they are left out and the doubts
    say why.
    """
    names = dict(discovery.port_guids)
    known = errors.whole and not errors.above and (errors.nodes_checked or 0) >= len(discovery.nodes)
    zero = {name: 0 for name in ERROR_COUNTERS if known and name not in errors.suppressed}
    linked = dict.fromkeys(port for link in discovery.links for port in (link.a, link.b))
    counts: dict[SeenPort, dict[str, int]] = {}
    for part in (data, errors):
        for port in part.ports if part is not None else ():
            named = port.port if part is not None and part.of_nodes else _at_node(port.port, names)
            if named in linked:
                counts.setdefault(named, dict(zero)).update(port.counts)
    doubts = (*errors.doubts, *(data.doubts if data else ()), *_hidden(errors, len(discovery.nodes)))
    none = tuple(zero.items())  # one for all ports that have no error: a fabric has 100,000 of them
    return Snapshot(
        tuple(PortCounts(port, tuple(counts[port].items()) if port in counts else none) for port in linked), doubts
    )


def _hidden(errors: Counts, nodes: int) -> tuple[str, ...]:
    told = []
    if errors.nodes_checked is not None and errors.nodes_checked < nodes:
        told.append(f"error counters of {errors.nodes_checked:,} nodes, where {nodes:,} were discovered")
    if errors.above:
        name, value = max(errors.above, key=lambda item: item[1])
        told.append(f"counters up to a threshold were not shown ({name}: {value}): ask with --threshold-file /dev/null")
    return tuple(told)


def _at_node(port: SeenPort, names: Mapping[str, SeenPort]) -> SeenPort:
    """The port under its node's GUID, where its own GUID is known and the number agrees."""
    named = names.get(port.guid)
    return named if named is not None and named.number == port.number else port


def _named(port: SeenPort) -> str:
    return f"{port.guid}[{port.number}]"

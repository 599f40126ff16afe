"""`ibnetdiscover`: nodes and links of an InfiniBand fabric. Text in, `Discovery` out.

Two forms are read, as infiniband-diags to version 65 and MLNX_OFED write them: the topology, also with -f, -g, -s, -m,

    Switch  64 "S-5c25730300a00000"     # "MF0;leaf-1:MQM9700/U1" enhanced port 0 lid 2 lmc 0
    [5]     "H-946dae0300c00400"[1](946dae0300c00401)       # "dgx-005 mlx5_0" lid 17 4xNDR

and the list of ports (-p), which names an HCA by the port's GUID and not the node's:

    CA    17  1 0x946dae0300c00401 4x NDR - SW     2  5 0x5c25730300a00000 ( 'dgx-005 mlx5_0' - 'MF0;leaf-1' )

A list of nodes (-l, ibhosts, ibswitches) gives nodes, and the doubt that it shows no links. There is no line at the end
of a whole output. That it is whole shows in that both ends of every link tell of it: a fabric is connected, so what was
cut off was on some link. One thing does not show: both lines of a link taken out, or errors that were written to
standard error and thrown away. Give both streams.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from toolkit.facts.fabric_ends import End, Ends, Key
from toolkit.facts.fabric_text import Doubts, decoded, full_guid, lines, shown
from toolkit.judge.fabric.seen import Discovery, SeenKind, SeenNode, SeenPort

MAX_NODES = 65_536  # a subnet has 48 Ki LIDs
MAX_ENDS = 1_048_576
_ID = re.compile(
    r"(?:vendid|devid|sysimgguid|(switchguid|caguid|rtguid))=0x([0-9a-fA-F]{1,16})(?:\([0-9a-fA-F]{1,16}\))?(?:\s{1,40}#.*)?"
)
_NODE = re.compile(
    r'(Switch|Ca|Rt)\s{1,40}(\d{1,3}) "[SHR]-([0-9a-fA-F]{16})"\s{1,40}# "(.*)"'
    r"(?: (?:(?:enhanced|base) )?port 0(?: lid (\d{1,5}) lmc \d{1,3})?| \(scp\))?\s{0,8}"
)
_END = re.compile(
    r"\[(\d{1,3})\](?:\[[^\]]{0,24}\])?(?:\(([0-9a-fA-F]{1,16})\))?\s{1,40}"
    r'"([SHR])-([0-9a-fA-F]{16})"\[(\d{1,3})\](?:\[[^\]]{0,24}\])?(?:\s?\(([0-9a-fA-F]{1,16})\))?\s{1,40}'
    r'# (?:lid (\d{1,5}) lmc \d{1,3} )?".*" lid \d{1,5}'
    r"(?: (?:(\d{1,2})x|\?\?)([A-Z0-9]{3,8}|\?\?\?))?(?: (?:[a-z]\w{0,7}=\w{1,8}|slot \d{1,3}|\(scp\)))*\s{0,8}"
)
_PORT = re.compile(
    r"(CA|SW|RT)\s{1,40}(\d{1,5})\s{1,40}(\d{1,3}) 0x([0-9a-fA-F]{16}) (?:(\d{1,2})x|\?\?) ([A-Z0-9]{3,8}|\?\?\?)"
    r"(?: - (?:CA|SW|RT)\s{1,40}\d{1,5}\s{1,40}(\d{1,3}) 0x([0-9a-fA-F]{16}) \( '(.*)' \)|\s{2,64}'(.*)')"
)
_LISTED = re.compile(
    r"(Switch|Ca|Router)\s{1,40}: 0x([0-9a-fA-F]{16}) ports (\d{1,3})"
    r"(?: devid 0x[0-9a-fA-F]{1,8} vendid 0x[0-9a-fA-F]{1,8})?"
    r' "(.*)"(?: (?:enhanced|base) port 0 lid (\d{1,5}) lmc \d{1,3})?\s{0,8}'
)
# headings of -g, progress of -s
_ASIDE = re.compile(
    r"Chassis \d{1,4}\b.*|Hostname: .*|Non-Chassis Nodes|DR path slid \d.{0,200} -> (?:new|known|processing) .*"
)
_START = re.compile(r"# Initiated from node ([0-9a-fA-F]{16}) port ")
_SILENT = re.compile(r"umad \(DR path slid \d{1,5}; dlid \d{1,5}; 0,([\d,]{1,256}) Attr .{0,32}bad status (?:110|\d)")
_TWICE = re.compile(r"Duplicate (?:Node: Node|Port: Port) with guid 0x([0-9a-fA-F]{1,16})")
_KINDS = {
    "Switch": SeenKind.SWITCH, "SW": SeenKind.SWITCH, "Ca": SeenKind.HCA, "CA": SeenKind.HCA,
    "Rt": SeenKind.ROUTER, "RT": SeenKind.ROUTER, "Router": SeenKind.ROUTER,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """A discovery with what `rackproof parse` counts of it.

    link_lines          lines of ports under switches
    link_lines_to_hca   of those, the ones with an HCA at the other end
    """

    discovery: Discovery
    link_lines: int
    link_lines_to_hca: int

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why it cannot be taken for the whole fabric."""
        return self.discovery.doubts

    def as_json(self) -> dict[str, Any]:
        """Counts, then every node and link. `lanes` is null and `speed` empty where the tool does not know."""
        seen = self.discovery
        rates = {f"{link.lanes or '?'}x{link.speed or '?'}" for link in seen.links}
        return {
            "switches": sum(n.kind is SeenKind.SWITCH for n in seen.nodes),
            "cas_declared": sum(n.kind is SeenKind.HCA for n in seen.nodes),
            "routers": sum(n.kind is SeenKind.ROUTER for n in seen.nodes),
            "link_lines": self.link_lines,
            "link_lines_to_hca": self.link_lines_to_hca,
            "rates": sorted(rates),
            "nodes": [
                {"guid": n.guid, "kind": n.kind, "description": n.description, "ports": n.ports, "lid": n.lid}
                for n in seen.nodes
            ],
            "links": [
                {"a": _shown(link.a), "b": _shown(link.b), "lanes": link.lanes, "speed": link.speed}
                for link in seen.links
            ],
            "port_guids": {guid: _shown(port) for guid, port in seen.port_guids},
            "unanswered": [_shown(port) for port in seen.unanswered],
            "duplicates": list(seen.duplicates),
            "doubts": list(seen.doubts),
        }


@dataclass(slots=True)
class _Node:
    """A node being read. `ports` grows where the tool does not say how many there are (-p)."""

    guid: str
    kind: SeenKind
    description: str
    ports: int
    lid: int | None

    def seen(self) -> SeenNode:
        return SeenNode(self.guid, self.kind, self.description, self.ports, self.lid)


@dataclass(slots=True)
class _Reading:
    doubts: Doubts = field(default_factory=Doubts)
    nodes: dict[str, _Node] = field(default_factory=dict)
    ends: Ends = field(default_factory=Ends)
    port_guids: dict[str, Key] = field(default_factory=dict)
    current: _Node | None = None
    told: str = ""  # the GUID that the lines before a node's own gave
    heading: set[str] = field(default_factory=set)  # names of those lines, while their node is still to come
    forms: set[str] = field(default_factory=set)
    start: str = ""
    silent: list[list[int]] = field(default_factory=list)
    twice: dict[str, None] = field(default_factory=dict)
    unlinked: dict[str, set[int]] = field(default_factory=dict)  # -p: ports of switches shown
    link_lines: int = 0
    to_hca: int = 0


def parse(text: bytes | str) -> Discovery:
    """The fabric as far as the text shows it. Never raises; what it could not take for certain is in `doubts`."""
    return report(text).discovery


def report(text: bytes | str) -> Report:
    """The same, with counts of lines."""
    reading = _Reading()
    for line in lines(decoded(text, reading.doubts), reading.doubts):
        _read(line, reading)
    return Report(_close(reading), reading.link_lines, reading.to_hca)


def _read(line: str, reading: _Reading) -> None:
    if line.startswith("["):
        _read_end(line, reading)
    elif not line.strip():
        _end_heading(reading)
        reading.current, reading.told = None, ""
    elif line.startswith("#"):
        start = _START.match(line)
        reading.start = start[1].lower() if start else reading.start
    elif told := _ID.fullmatch(line):
        _read_heading(told, reading)
    elif node := _NODE.fullmatch(line):
        _read_node(node, reading)
    elif port := _PORT.fullmatch(line):
        _read_port(port, reading)
    elif listed := _LISTED.fullmatch(line):
        _read_listed(listed, reading)
    elif not _ASIDE.fullmatch(line):
        _read_trouble(line, reading)


def _read_heading(found: re.Match[str], reading: _Reading) -> None:
    name = found[0].partition("=")[0]
    if name in reading.heading:
        _end_heading(reading)
    reading.heading.add(name)
    reading.current = None
    if found[1]:
        reading.told = full_guid(found[2])


def _end_heading(reading: _Reading) -> None:
    """Lines that go before a node, and none came: it was cut out, and would read as one that is not there."""
    if reading.heading:
        reading.doubts.add("lines that go before a node, without the node", reading.told or min(reading.heading))
        reading.heading.clear()


def _read_node(found: re.Match[str], reading: _Reading) -> None:
    kind, ports, guid, description, lid = found.groups()
    reading.forms.add("topology")
    node = _Node(full_guid(guid), _KINDS[kind], description, int(ports), _lid(lid))
    reading.heading.clear()
    if reading.told != node.guid:
        reading.doubts.add("nodes without the lines that go before them", shown(found[0]))
    if node.guid in reading.nodes:
        reading.doubts.add("nodes described twice", node.guid)
    reading.current = _add(node, reading)


def _read_listed(found: re.Match[str], reading: _Reading) -> None:
    kind, guid, ports, description, lid = found.groups()
    reading.forms.add("list")
    _add(_Node(full_guid(guid), _KINDS[kind], description, int(ports), _lid(lid)), reading)


def _add(node: _Node, reading: _Reading) -> _Node | None:
    if node.guid not in reading.nodes and len(reading.nodes) >= MAX_NODES:
        reading.doubts.add(f"more than {MAX_NODES:,} nodes: the rest was not read")
        return None
    return reading.nodes.setdefault(node.guid, node)


def _read_end(line: str, reading: _Reading) -> None:
    found, node = _END.fullmatch(line), reading.current
    if found is None:
        _read_trouble(line, reading)
        return
    number, own_guid, peer_kind, peer, peer_number, peer_guid, lid, lanes, speed = found.groups()
    if node is None:
        reading.doubts.add("ports without the node they are on", shown(line))
        return
    port, other = (node.guid, int(number)), (full_guid(peer), int(peer_number))
    if not 1 <= port[1] <= node.ports:
        reading.doubts.add("ports that their node does not have", shown(line))
        return
    if node.kind is SeenKind.SWITCH:
        reading.link_lines += 1
        reading.to_hca += peer_kind == "H"
    elif own_guid:
        reading.port_guids.setdefault(full_guid(own_guid), port)
        node.lid = _lid(lid) if node.lid is None else node.lid
    if peer_guid and peer_kind != "S":
        reading.port_guids.setdefault(full_guid(peer_guid), other)
    _add_end(port, End(other, int(lanes) if lanes else None, _speed(speed)), reading)


def _add_end(port: Key, end: End, reading: _Reading) -> None:
    if len(reading.ends.ends) >= MAX_ENDS:
        reading.doubts.add(f"more than {MAX_ENDS:,} ports: the rest was not read")
    else:
        reading.ends.add(port, end, reading.doubts)


def _read_port(found: re.Match[str], reading: _Reading) -> None:
    kind, lid, number, guid, lanes, speed, peer_number, peer, description, alone = found.groups()
    reading.forms.add("ports")
    port = (full_guid(guid), int(number))
    said = description if alone is None else alone
    if alone is not None and kind != "SW":
        return  # an HCA's own port that is down: the walk did not come through it
    node = _add(_Node(port[0], _KINDS[kind], said.split("' - '")[0], port[1], _lid(lid)), reading)
    if node is None:
        return
    node.ports = max(node.ports, port[1])
    if node.kind is SeenKind.SWITCH:
        reading.unlinked.setdefault(node.guid, set()).add(port[1])
    else:
        reading.port_guids.setdefault(node.guid, port)
    if peer:
        _add_end(port, End((full_guid(peer), int(peer_number)), int(lanes) if lanes else None, _speed(speed)), reading)


def _read_trouble(line: str, reading: _Reading) -> None:
    if line.startswith(("< ", "> ")):
        reading.doubts.add("lines of a difference (--diff), which shows no fabric", shown(line))
        return
    if (route := _SILENT.search(line)) and len(reading.silent) < MAX_NODES:
        reading.silent.append([int(hop) for hop in route[1].split(",") if hop and len(hop) <= 3])
    if (twice := _TWICE.search(line)) and len(reading.twice) < MAX_NODES:
        reading.twice[full_guid(twice[1])] = None
    reading.doubts.add_line(line)


def _close(reading: _Reading) -> Discovery:
    _end_heading(reading)
    doubts, nodes = reading.doubts, reading.nodes
    linked = reading.ends.links(nodes, doubts)
    _doubt_nodes(reading)
    silent = (reading.ends.along(reading.start, hops) for hops in reading.silent)
    return Discovery(
        nodes=tuple(node.seen() for node in nodes.values()),
        links=linked,
        doubts=doubts.all(),
        duplicates=tuple(reading.twice),
        port_guids=tuple((guid, SeenPort(*port)) for guid, port in reading.port_guids.items()),
        unanswered=tuple(dict.fromkeys(SeenPort(*port) for port in silent if port is not None)),
    )


def _doubt_nodes(reading: _Reading) -> None:
    """What a whole walk cannot have: no node, a node nothing leads to, a peer's port number that does not exist."""
    doubts, nodes, ends = reading.doubts, reading.nodes, reading.ends.ends
    if not nodes:
        doubts.add("no node in it: not the output of ibnetdiscover, or nothing answered")
    if "list" in reading.forms:
        doubts.add("a list of nodes: it shows no links")
    elif len(reading.forms) > 1:
        doubts.add("outputs of two forms in one text")
    reached = {guid for guid, _ in ends}
    for guid, node in nodes.items():
        if guid not in reached and "list" not in reading.forms:
            doubts.add("nodes that are on no link", guid)
        shown_ports = reading.unlinked.get(guid)
        # -p shows every port of a switch, cabled or not, from the last to the first
        if shown_ports is not None and len(shown_ports) != node.ports:
            doubts.add("switches of which not every port is shown", guid)
    for port, end in ends.items():
        peer = nodes.get(end.peer[0])
        if peer is not None and not 1 <= end.peer[1] <= peer.ports:
            doubts.add("ports that their node does not have", f"{end.peer[0]}[{end.peer[1]}] on {port[0]}[{port[1]}]")


def _lid(text: str | None) -> int | None:
    return int(text) if text else None


def _speed(word: str | None) -> str:
    return "" if word in (None, "???") else str(word)


def _shown(port: SeenPort) -> str:
    return f"{port.guid}[{port.number}]"

"""What the fabric's own tools showed, as values. `toolkit.facts` makes them; everything here is untrusted text parsed.

A GUID is 16 hexadecimal digits, lower case, without `0x`. A port is numbered from 1 as the fabric counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SeenKind(StrEnum):
    """What answers in the fabric."""

    HCA = "hca"
    SWITCH = "switch"
    ROUTER = "router"


@dataclass(frozen=True, slots=True, order=True)
class SeenPort:
    """A port by the GUID of the node (in the fabric's sense: HCA or switch) that it is on."""

    guid: str
    number: int


@dataclass(frozen=True, slots=True)
class SeenNode:
    """An HCA or a switch.

    description  node description: `dgx-001 mlx5_0`, `MF0;leaf1:MQM9700/U1`
    ports        how many it says it has
    lid          None where it was not shown
    """

    guid: str
    kind: SeenKind
    description: str
    ports: int
    lid: int | None = None


@dataclass(frozen=True, slots=True)
class SeenLink:
    """Two ports that see one another, `a < b`. lanes: 1, 2, 4, 8, 12; speed: SDR ... XDR as printed, empty: unknown."""

    a: SeenPort
    b: SeenPort
    lanes: int | None
    speed: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """A walk through the fabric.

    doubts  why it cannot be taken for the whole fabric (cut off, a port named by one end only, errors on the way);
            with any of them what is absent is unknown, not absent
    duplicates  GUIDs, of nodes or of ports, that the tool says it met in two places
    port_guids  (port GUID, port) of HCAs and routers: ibstat, iblinkinfo, ibqueryerrors and sminfo name a port by it
    unanswered  ports that are up, with something behind them that did not answer
    """

    nodes: tuple[SeenNode, ...]
    links: tuple[SeenLink, ...]
    doubts: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
    port_guids: tuple[tuple[str, SeenPort], ...] = ()
    unanswered: tuple[SeenPort, ...] = ()


@dataclass(frozen=True, slots=True)
class PortState:
    """A port as `iblinkinfo` shows it. state: Down, Initialize, Armed, Active; physical: Polling, Disabled, LinkUp, ...

    peer       None where nothing is seen behind it
    could_be   words the tool adds: the speed or width it could have
    """

    port: SeenPort
    state: str
    physical: str
    lanes: int | None
    gbit_per_lane: float | None
    lid: int | None
    peer: SeenPort | None
    could_be: str = ""


@dataclass(frozen=True, slots=True)
class PortCounts:
    """Counters of a port at a moment, by the standard's names (`SymbolErrorCounter`): lifetime values, never judged."""

    port: SeenPort
    counts: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class SubnetManager:
    """One subnet manager. state: MASTER, STANDBY, DISCOVERING, NOTACTIVE."""

    guid: str
    lid: int | None
    priority: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Membership:
    """P_Keys of a port, in the order of its table, zero entries left out. Bit 15 set: full member."""

    port: SeenPort
    pkeys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Neighbor:
    """An Ethernet neighbour by LLDP: our interface, and who says to be at its other end."""

    node: str
    interface: str
    system: str
    port: str


@dataclass(frozen=True, slots=True)
class Firmware:
    """What runs on an HCA or a switch: its node GUID, firmware version and board (PSID). Empty: it did not say."""

    guid: str
    version: str
    psid: str


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was looked at in one go. None: not looked at, and what needs it stays undecided.

    ports      every port of the fabric (`iblinkinfo`)
    before, after   counters of every port, `seconds` apart, under load
    neighbors  Ethernet by LLDP; needed only where the rack plans Ethernet cables
    answering  names of the nodes that answered in-band just now: tells a node that is off from a cable
    doubts     what the tools beside the discovery left unsaid, or what was not understood of them
    """

    discovery: Discovery
    ports: tuple[PortState, ...] | None = None
    before: tuple[PortCounts, ...] | None = None
    after: tuple[PortCounts, ...] | None = None
    seconds: float = 0.0
    managers: tuple[SubnetManager, ...] | None = None
    memberships: tuple[Membership, ...] | None = None
    neighbors: tuple[Neighbor, ...] | None = None
    firmware: tuple[Firmware, ...] | None = None
    answering: frozenset[str] | None = None
    doubts: tuple[str, ...] = ()

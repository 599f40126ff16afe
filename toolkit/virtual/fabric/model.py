"""Switches, adapters and ports as they behave: links that train, states that a subnet manager moves, forwarding.

A port's states and their order: InfiniBand Architecture Specification, volume 1, 7.2.7 and 14.2.5.6.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable
from enum import IntEnum

from toolkit.virtual.fabric.counters import PortCounters
from toolkit.virtual.fabric.wiring import LANES, Cable, End, Member, MemberKind, Speed, Wiring

LINEAR_ENTRIES = 48 * 1024  # unicast LIDs: 1 to 0xBFFF
NO_PORT = 0xFF
_MAX_HOPS = 64
_EMPTY_BLOCK = bytes(64)
_DEFAULT_KEYS = b"\xff\xff" + bytes(62)
_WIDTH_BITS = {1: 1, 2: 16, 4: 2}
_WIDTHS = (4, 2, 1)
# InfiniBand Architecture Specification, 14.2.5.6: capabilities that every adapter and switch of ours has.
_IS_SM = 1 << 1


class PortState(IntEnum):
    """Logical state."""

    DOWN = 1
    INITIALIZE = 2
    ARMED = 3
    ACTIVE = 4


class Physical(IntEnum):
    """Physical state."""

    POLLING = 2
    DISABLED = 3
    LINK_UP = 5


class PortModel:
    """A port. `peer` is the port at the cable's other end, whether the link is up or not.

    settings     what a subnet manager has set and this model keeps without understanding it: a PortInfo of 64 bytes
    lanes        of the link now; as `speed` it means nothing while the link is down
    """

    __slots__ = (
        "arbitration", "cable", "capability", "counters", "keys", "lanes", "lid", "lid_mask", "node", "number", "peer",
        "physical", "prefix", "settings", "sl_to_vl", "sm_lid", "speed", "speeds", "state", "widths",
    )  # fmt: skip

    def __init__(self, node: NodeModel, number: int, capability: int) -> None:
        self.node = node
        self.number = number
        self.capability = capability
        self.peer: PortModel | None = None
        self.cable: Cable | None = None
        self.state = PortState.DOWN
        self.physical = Physical.POLLING
        self.lanes = LANES
        self.speed = Speed.NDR
        self.widths = sum(_WIDTH_BITS.values())
        self.speeds = sum(speed.bit for speed in Speed)
        self.lid = self.sm_lid = self.lid_mask = 0
        self.prefix = 0xFE80 << 48
        self.keys: dict[int, bytes] = {0: _DEFAULT_KEYS}
        self.sl_to_vl: dict[int, bytes] = {}
        self.arbitration: dict[int, bytes] = {}
        self.settings = bytearray(64)
        self.counters = PortCounters()

    @property
    def up(self) -> bool:
        """Whether the link is trained."""
        return self.physical is Physical.LINK_UP

    @property
    def is_sm(self) -> bool:
        """Whether a subnet manager runs behind it."""
        return bool(self.capability & _IS_SM)

    def set_sm(self, there: bool) -> bool:
        """A subnet manager comes or goes; whether that is news."""
        before = self.capability
        self.capability = before | _IS_SM if there else before & ~_IS_SM
        return self.capability != before

    def width_bit(self) -> int:
        """LinkWidthActive."""
        return _WIDTH_BITS[self.lanes]


class NodeModel:
    """A switch or an adapter. Port 0 of a switch is its own, for management; an adapter's is its port 1."""

    __slots__ = ("change", "forwarding", "lifetime", "member", "multicast", "ports", "top")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.forwarding = bytearray(b"\xff" * LINEAR_ENTRIES) if self.is_switch else bytearray()
        self.multicast: dict[int, bytes] = {}
        self.top = 0
        self.change = False
        self.lifetime = 0x12
        capability = 0x02514A48 if not self.is_switch else 0x4848
        self.ports = tuple(PortModel(self, number, capability) for number in range(member.ports + 1))
        if self.is_switch:
            own = self.ports[0]
            own.physical, own.state = Physical.LINK_UP, PortState.ACTIVE

    @property
    def is_switch(self) -> bool:
        """Or an adapter."""
        return self.member.kind is MemberKind.SWITCH

    @property
    def own(self) -> PortModel:
        """The port its management answers at."""
        return self.ports[0 if self.is_switch else 1]

    @property
    def guid(self) -> int:
        """Of the node, and of its port: a single-port ConnectX has one for both."""
        return self.member.guid


class FabricModel:
    """All nodes, in one state. Not safe between threads.

    `changed` is called with every port whose state has changed, once it has. `clock` gives seconds that only grow.
    """

    def __init__(
        self,
        wiring: Wiring,
        training_s: float = 0.0,
        changed: Callable[[PortModel], None] = lambda port: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wiring = Wiring((), ())
        self.nodes: dict[str, NodeModel] = {}
        self.changed = changed
        self.clock = clock
        self._training_s = training_s
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.become(wiring)

    # --- what is plugged into what ---------------------------------------------------------------------------------

    def become(self, wiring: Wiring) -> None:
        """Makes the fabric what `wiring` says; what stays as it is does not notice."""
        wanted = {cable.ends: cable for cable in wiring.cables}
        for cable in self.wiring.cables:
            after = wanted.get(cable.ends)
            if after is None or (after.lanes, after.speed) != (cable.lanes, cable.speed):
                self._unplug(cable)
        for member in wiring.members:
            self._place(member)
        strays = {member for member in wiring.members if member.lid_of is not None} - set(self.wiring.members)
        for member in strays:
            port = self.nodes[member.name].own
            port.lid = self.nodes[str(member.lid_of)].own.lid
            self.changed(port)
        self.wiring = wiring
        for cable in wiring.cables:
            if self._port(cable.a).cable is None:
                self._plug(cable)
            elif self._port(cable.a).cable != cable:
                self._wear(cable)

    def _place(self, member: Member) -> None:
        """Puts a member in, or changes the one that is there. Members do not vanish: they lose their cables."""
        node = self.nodes.get(member.name)
        if node is None:
            self.nodes[member.name] = NodeModel(member)
            return
        before, node.member = node.member, member
        if (before.on, before.guid) == (member.on, member.guid):
            return
        if before.guid != member.guid or not member.on:
            self._restart(node)
        for port in node.ports:
            self._begin_training(port)

    def _restart(self, node: NodeModel) -> None:
        """It lost power, or is another one: its links go down, and it has forgotten all."""
        for port in node.ports[0 if not node.is_switch else 1 :]:
            self._down(port)
            port.keys, port.lid, port.sm_lid = {0: _DEFAULT_KEYS}, 0, 0
        if node.is_switch:
            node.forwarding[:] = b"\xff" * LINEAR_ENTRIES
            node.multicast.clear()
            node.ports[0].lid = node.ports[0].sm_lid = node.top = 0

    def _port(self, end: End) -> PortModel:
        return self.nodes[end.member].ports[end.port]

    def _plug(self, cable: Cable) -> None:
        a, b = self._port(cable.a), self._port(cable.b)
        a.peer, b.peer = b, a
        self._wear(cable)
        self._begin_training(a)

    def _wear(self, cable: Cable) -> None:
        """What is wrong with a cable, without touching its link."""
        a, b = self._port(cable.a), self._port(cable.b)
        a.cable = b.cable = cable
        b.counters.grow("SymbolErrorCounter", cable.symbol_errors_per_s, self.clock())
        if cable.drops_every_s > 0:
            self.after(cable.drops_every_s, lambda: self._drop(cable))

    def _unplug(self, cable: Cable) -> None:
        a, b = self._port(cable.a), self._port(cable.b)
        b.counters.grow("SymbolErrorCounter", 0.0, self.clock())
        self._down(a)
        a.peer = b.peer = a.cable = b.cable = None

    def _drop(self, cable: Cable) -> None:
        """A link that comes and goes."""
        port = self._port(cable.a)
        if port.cable is not cable:
            return
        if port.up:
            self._down(port)
            self._begin_training(port)
        self.after(cable.drops_every_s, lambda: self._drop(cable))

    # --- links -----------------------------------------------------------------------------------------------------

    def _begin_training(self, port: PortModel) -> None:
        if port.peer is not None and not port.up:
            self.after(self._training_s, lambda: self._train(port))

    def _train(self, port: PortModel) -> None:
        """Both ends light up if both can."""
        peer, cable = port.peer, port.cable
        if peer is None or cable is None or port.up:
            return
        ends = (port, peer)
        if any(not end.node.member.on or end.physical is Physical.DISABLED for end in ends):
            return
        for end in ends:
            end.lanes, end.speed = _agreed(port, peer, cable)
            end.physical, end.state = Physical.LINK_UP, PortState.INITIALIZE
            end.node.change = True
        self._tell(ends)

    def _down(self, port: PortModel) -> None:
        ends = [end for end in (port, port.peer) if end is not None and end.up]
        for end in ends:
            end.physical, end.state = Physical.POLLING, PortState.DOWN
            end.node.change = True
            end.counters.add("LinkDownedCounter")
        self._tell(ends)

    def _tell(self, ports: Iterable[PortModel]) -> None:
        for port in ports:
            self.changed(port)

    def disable(self, port: PortModel) -> None:
        """A manager switches the port off."""
        self._down(port)
        port.physical = Physical.DISABLED
        self.changed(port)

    def retrain(self, port: PortModel) -> None:
        """A manager sets the port to Down or Polling: it comes back by itself."""
        self._down(port)
        if port.physical is Physical.DISABLED:
            port.physical = Physical.POLLING
        self._begin_training(port)

    def advance(self, port: PortModel, wanted: int) -> bool:
        """A manager asks for Armed or Active; whether the port can be had there."""
        if not port.up or abs(wanted - port.state) > 1 or wanted < PortState.ARMED:
            return False
        if wanted != port.state:
            port.state = PortState(wanted)
            self.changed(port)
        return True

    # --- time ------------------------------------------------------------------------------------------------------

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Does it then, from `tick`; at once where it is no time."""
        if seconds <= 0:
            action()
        else:
            heapq.heappush(self._due, (self.clock() + seconds, next(self._numbers), action))

    def tick(self) -> float | None:
        """Does what is due; seconds until the next, None where nothing waits."""
        while self._due and self._due[0][0] <= self.clock():
            heapq.heappop(self._due)[2]()
        return max(0.0, self._due[0][0] - self.clock()) if self._due else None

    # --- ways ------------------------------------------------------------------------------------------------------

    def follow(self, start: PortModel, path: bytes, hops: int) -> tuple[PortModel, bytes] | None:
        """Where a directed path ends, and the ports it went in by; None where it is lost."""
        port, way_back = start, bytearray(len(path))
        if hops >= len(path):
            return None
        for hop in range(1, hops + 1):
            node, out = port.node, path[hop]
            if out >= len(node.ports) or (hop > 1 and not node.is_switch):
                return None
            leaving = node.ports[out]
            way_back[hop] = port.number
            if leaving.peer is None or not leaving.up:
                return None
            port = leaving.peer
        return port, bytes(way_back)

    def forward(self, start: PortModel, lid: int) -> PortModel | None:
        """Where a datagram to that LID ends; None where it is lost."""
        if _is_at(start, lid):
            return start
        port: PortModel | None = start if start.node.is_switch else start.peer
        if port is None or not start.up:
            return None
        for _ in range(_MAX_HOPS):
            node = port.node
            if not node.is_switch:
                return port if _is_at(port, lid) else None
            out = node.forwarding[lid] if lid <= node.top else NO_PORT
            if out == 0:
                return node.ports[0]
            if out >= len(node.ports):
                return None
            leaving = node.ports[out]
            if leaving.peer is None or leaving.state is not PortState.ACTIVE:
                return None
            port = leaving.peer
        return None


def _is_at(port: PortModel, lid: int) -> bool:
    return port.lid > 0 and port.lid <= lid < port.lid + (1 << port.lid_mask)


def _agreed(port: PortModel, peer: PortModel, cable: Cable) -> tuple[int, Speed]:
    """Lanes and speed that both ends are allowed and the cable carries."""
    widths, speeds = port.widths & peer.widths, port.speeds & peer.speeds
    lanes = next((n for n in _WIDTHS if n <= cable.lanes and widths & _WIDTH_BITS[n]), 1)
    slower = [speed for speed in Speed if speed.bit <= cable.speed.bit and speeds & speed.bit]
    return lanes, slower[-1] if slower else Speed.FDR

"""The sockets that a fabric is reached by: the umad simulator's protocol, over UNIX sockets and over UDP.

A client (any program with libumad2sim.so preloaded) attaches to one adapter or switch, and is its management from then
on. UNIX sockets have abstract names, which belong to a network namespace; clients in others come by UDP. Clients are
told apart by the address they send from: there is no limit to them, and one that dies leaves no place taken.
A datagram that is lost, or that a program does not answer, comes back as a kernel's would that had waited for the
answer: with status ETIMEDOUT.
"""

from __future__ import annotations

import os
import random
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

from toolkit.virtual.fabric import mad
from toolkit.virtual.fabric.agents import (
    ADAPTER_DEVICE,
    VENDOR,
    PerformanceAgent,
    SubnetAgent,
    keys_of,
    node_info,
    port_info,
)
from toolkit.virtual.fabric.mad import (
    DATA_BYTES,
    PERFORMANCE_DATA_BYTES,
    PERMISSIVE_LID,
    Attribute,
    Control,
    ControlType,
    Frame,
    ManagementClass,
    Method,
)
from toolkit.virtual.fabric.model import FabricModel, NodeModel, PortModel, PortState
from toolkit.virtual.fabric.outbox import Address, Outbox

UDP_PORT = 7070
_DATA_PORTS = 1  # of the data socket above the control socket: the client adds its number, which is always 0
_NAME_BYTES = 32  # of a client's node in its request, the end included
_BATCH = 256
_TRIES = 4  # a kernel asks again three times before it gives up (libibmad, opensm: 3 retries)
# A kernel gives a subnet manager's requests 0.8 s (opensm: 200 ms, 4 times). Machines that share a core are slower.
# opensm answers no trap while it is not master, and sends nothing while one of its own waits for an answer.
UNANSWERED_S = 5.0
_RECEIVE_BUFFER_BYTES = 4 << 20
_IP_RECVERR = 11  # linux/in.h
# Trap 128: links of a switch have changed. 144: capabilities of a port have (14.2.5.1)
_PORTS_CHANGED, _CAPABILITY_CHANGED = 128, 144
_URGENT, _INFORMATIONAL = 1, 4
_DEVICE = struct.Struct("=IIII Q")
_FIRMWARE = 0x1C2B03F6  # 28.43.1014: a client shows it as one number


@dataclass(eq=False, slots=True)
class Client:
    """A program that is attached. `number` marks what it asks, so that answers find it."""

    wire: socket.socket
    control: Address
    address: Address
    port: PortModel
    number: int
    is_sm: bool = False


class FabricServer:
    """Serves a fabric until it is stopped. Everything happens in the thread that calls `run`."""

    def __init__(self, fabric: FabricModel, lost_after_s: float = 0.0, seed: int = 0) -> None:
        """`lost_after_s`: how long a client waits until it hears that a datagram is lost."""
        self.fabric = fabric
        self._lost_after_s = lost_after_s
        self._random = random.Random(seed)  # noqa: S311 - which datagrams get lost is no secret
        self._subnet, self._performance = SubnetAgent(fabric), PerformanceAgent(fabric)
        self._selector = selectors.DefaultSelector()
        self._clients: dict[Address, Client] = {}  # by both of its addresses
        self._numbers: dict[int, Client] = {}
        self._unanswered: dict[bytes, Frame] = {}  # what a program was asked, by the exchange
        self._outbox = Outbox(fabric.after, self._gone)
        self._next = 0
        self._told = fabric.changed
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        fabric.changed = self._changed

    # --- from outside ------------------------------------------------------------------------------------------

    def listen_unix(self, name: str) -> None:
        """Abstract sockets `name`:ctl and `name`:out0 of this network namespace. OSError when they are taken."""
        self._listen(socket.AF_UNIX, f"\0{name}:ctl\0".encode(), f"\0{name}:out0\0".encode())

    def listen_udp(self, address: str, port: int = UDP_PORT) -> None:
        """That UDP port and the next one. OSError when they are taken."""
        self._listen(socket.AF_INET, (address, port), (address, port + _DATA_PORTS))

    def call(self, action: Callable[[], None]) -> None:
        """Has something done in the server's thread. From any thread."""
        with self._lock:
            self._calls.append(action)
        os.write(self._wake_write, b"!")

    def watch(self, descriptor: int, action: Callable[[], None]) -> None:
        """Calls it in the server's thread whenever there is something to read."""
        self._selector.register(descriptor, selectors.EVENT_READ, action)

    def stop(self) -> None:
        """Ends `run`. From any thread."""
        self.call(self._stop)

    def run(self) -> None:
        """Serves until `stop`."""
        while not self._stopping:
            for key, _ in self._selector.select(self.fabric.tick()):
                key.data()
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _stop(self) -> None:
        self._stopping = True

    def _woken(self) -> None:
        os.read(self._wake_read, 4096)
        with self._lock:
            calls, self._calls = self._calls, []
        for action in calls:
            action()

    def _listen(self, family: socket.AddressFamily, control: Address, data: Address) -> None:
        wires = []
        for address in (control, data):
            wire = socket.socket(family, socket.SOCK_DGRAM)
            wire.setblocking(False)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            if family == socket.AF_INET:
                wire.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            wire.bind(address)
            wires.append(wire)
        self._selector.register(wires[0], selectors.EVENT_READ, lambda: self._read_control(*wires))
        self._selector.register(wires[1], selectors.EVENT_READ, lambda: self._read_data(wires[1]))

    # --- clients -----------------------------------------------------------------------------------------------

    def _read_control(self, wire: socket.socket, data: socket.socket) -> None:
        received = _receive(wire, mad.CONTROL_BYTES + 1)
        if received is None:
            return
        raw, sender = received
        try:
            asked = Control.read(raw)
        except ValueError:
            return  # not of the protocol: there is nothing to answer
        self._outbox.send(wire, self._control(asked, sender, data), sender)

    def _control(self, asked: Control, sender: Address, data: socket.socket) -> bytes:
        if asked.type == ControlType.CONNECT:
            return self._connect(asked, sender, data)
        client = self._clients.get(sender)
        if client is None:
            return asked.refusal()
        if asked.type == ControlType.DISCONNECT:
            self._forget(client)
            return asked.answer(asked.data)
        if asked.type == ControlType.SET_SM:
            self._set_sm(client, bool(int.from_bytes(asked.data[:4], sys.byteorder)))
            return asked.answer(asked.data)
        told = self._told_of(client.port, asked.type)
        return asked.refusal() if told is None else asked.answer(told)

    def _told_of(self, port: PortModel, wanted: int) -> bytes | None:
        """What a client's driver would show it of its port; None for what is not known."""
        match wanted:
            case ControlType.PORT:
                return struct.pack("=HB", port.lid, port.state)
            case ControlType.VENDOR:
                return _DEVICE.pack(VENDOR, ADAPTER_DEVICE, 0, 0, _FIRMWARE)
            case ControlType.GID:
                return struct.pack(">QQ", port.prefix, port.node.guid)
            case ControlType.GUID:
                return port.node.guid.to_bytes(8, "big")
            case ControlType.NODE_INFO:
                # The client takes the port's GUID for the node's plus the port's number; here they are the same.
                return node_info(port, port.node.guid - port.number)
            case ControlType.PORT_INFO:
                return port_info(port, port.number)
            case ControlType.P_KEYS:
                return keys_of(port, 0)
            case _:
                return None

    def _connect(self, asked: Control, sender: Address, data: socket.socket) -> bytes:
        identity, queue_pair, is_sm = struct.unpack_from("=III", asked.data)
        wanted = asked.data[12 : 12 + _NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        node = self._node(wanted)
        if node is None or not node.member.on:
            return asked.refusal()
        if isinstance(sender, bytes):  # `NAME:ctlPID`; it reads at `NAME:inPID`
            address: Address = sender.rpartition(b":")[0] + b":in%d\0" % identity
        else:
            address = (sender[0], identity)
        for known in (sender, address):
            if known in self._clients:
                self._forget(self._clients[known])
        while self._next in self._numbers:
            self._next = (self._next + 1) % mad.NOBODY
        client = Client(data, sender, address, node.own, self._next)
        self._next = (self._next + 1) % mad.NOBODY
        self._clients[sender] = self._clients[address] = client
        self._numbers[client.number] = client
        if is_sm:
            self._set_sm(client, True)
        name = wanted.encode()[: _NAME_BYTES - 1].ljust(_NAME_BYTES, b"\0")
        return asked.answer(struct.pack("=III", 0, queue_pair, is_sm) + name)

    def _node(self, wanted: str) -> NodeModel | None:
        """By name; a name as long as the request can carry may have been cut."""
        exact = self.fabric.nodes.get(wanted)
        if exact is not None or len(wanted.encode()) < _NAME_BYTES - 1:
            return exact
        found = [node for name, node in self.fabric.nodes.items() if name.startswith(wanted)]
        return found[0] if len(found) == 1 else None

    def _forget(self, client: Client) -> None:
        for address in (client.control, client.address):
            self._clients.pop(address, None)
        self._numbers.pop(client.number, None)
        if client.is_sm:
            self._set_sm(client, False)

    def _set_sm(self, client: Client, there: bool) -> None:
        client.is_sm = there
        port = client.port
        if port.set_sm(any(c.is_sm and c.port is port for c in self._numbers.values())):
            details = struct.pack(">HHHI", 0, port.lid, 0, port.capability)
            self._trap(port, _CAPABILITY_CHANGED, _INFORMATIONAL, details)

    # --- datagrams ---------------------------------------------------------------------------------------------

    def _read_data(self, wire: socket.socket) -> None:
        for _ in range(_BATCH):
            received = _receive(wire, mad.FRAME_BYTES + 1)
            if received is None:
                self._bury(wire)
                return
            raw, sender = received
            client = self._clients.get(sender)
            if client is None:
                continue
            try:
                frame = Frame(raw)
            except ValueError:
                continue  # a fabric drops what is no datagram
            self._carry(client, frame)

    def _bury(self, wire: socket.socket) -> None:
        """UDP tells of clients that are gone in the socket's error queue."""
        while wire.family == socket.AF_INET:
            try:
                sent_to = wire.recvmsg(mad.FRAME_BYTES, 1024, socket.MSG_ERRQUEUE)[3]
            except OSError:
                return
            self._gone(sent_to)

    def _carry(self, client: Client, frame: Frame) -> None:
        if frame.is_answer or frame.method == Method.TRAP_REPRESS:
            self._return(client, frame)
            return
        frame.mark(client.number)
        arrived = self._route(client.port, frame)
        if arrived is None or self._loses(client.port, arrived):
            self._lose(client, frame)
            return
        answer = self._answer(arrived, frame)
        if answer is None:
            self._hand_over(client, arrived, frame)
            return
        frame.answered(*answer)
        frame.addressed(_lid(client.port), _lid(arrived))
        self._deliver(client, frame.raw)

    def _route(self, port: PortModel, frame: Frame) -> PortModel | None:
        if not frame.directed:
            return self.fabric.forward(port, frame.destination or port.lid)
        start: PortModel | None = port
        if frame.first_lid != PERMISSIVE_LID:
            start = self.fabric.forward(port, frame.destination)
        found = self.fabric.follow(start, frame.path, frame.hops) if start is not None else None
        if found is None:
            return None
        frame.arrived(found[1])
        return found[0]

    def _loses(self, source: PortModel, target: PortModel) -> bool:
        if target.node is source.node:
            return not target.node.member.on
        share = max(source.node.member.mad_loss, target.node.member.mad_loss)
        return not target.node.member.on or (share > 0 and self._random.random() < share**_TRIES)

    def _answer(self, port: PortModel, frame: Frame) -> tuple[int, bytes] | None:
        """None for what a program behind the port answers."""
        if frame.management_class == ManagementClass.PERFORMANCE:
            return self._performance.answer(port, frame.method, frame.attribute, frame.data(PERFORMANCE_DATA_BYTES))
        if frame.management_class not in (ManagementClass.SUBNET, ManagementClass.SUBNET_DIRECTED):
            return None
        if frame.attribute in (Attribute.SM_INFO, Attribute.NOTICE):
            return None
        return self._subnet.answer(port, frame.method, frame.attribute, frame.modifier, frame.data(DATA_BYTES))

    def _hand_over(self, client: Client, port: PortModel, frame: Frame) -> None:
        """To the program behind the port: the subnet manager, unless it is for others."""
        behind = self._behind(port, sm_only=frame.management_class != ManagementClass.SUBNET_ADMINISTRATION)
        if behind is None:
            self._lose(client, frame)
            return
        frame.addressed(_lid(port), _lid(client.port))
        self._unanswered[frame.exchange] = frame
        self.fabric.after(UNANSWERED_S, lambda: self._give_up(client, frame))
        self._deliver(behind, frame.raw)

    def _give_up(self, client: Client, frame: Frame) -> None:
        """Nobody answered, unless somebody did, or was asked again in the same exchange."""
        if self._unanswered.get(frame.exchange) is not frame:
            return
        del self._unanswered[frame.exchange]
        if self._numbers.get(client.number) is client:
            frame.lost()
            self._deliver(client, frame.raw)

    def _behind(self, port: PortModel, sm_only: bool) -> Client | None:
        there = [c for c in self._numbers.values() if c.port.node is port.node]
        managers = [c for c in there if c.is_sm]
        return next(iter(managers or ([] if sm_only else there)), None)

    def _return(self, client: Client, frame: Frame) -> None:
        """An answer from a program goes to whoever asked, if there still is a way; that of a trap, to who said it."""
        asker = self._numbers.get(frame.asker)
        if asker is None:
            return
        if not frame.directed and self.fabric.forward(client.port, frame.destination) is None:
            return
        frame.addressed(_lid(asker.port), _lid(client.port))
        self._unanswered.pop(frame.exchange, None)
        if frame.method == Method.TABLE_ANSWER:
            frame.cut()
        self._deliver(asker, frame.raw)

    def _lose(self, client: Client, frame: Frame) -> None:
        frame.lost()
        self.fabric.after(self._lost_after_s, lambda: self._deliver(client, frame.raw))

    def _deliver(self, client: Client, raw: bytes | bytearray) -> None:
        self._outbox.send(client.wire, raw, client.address)

    def _gone(self, address: Address) -> None:
        client = self._clients.get(address)
        if client is not None:
            self._forget(client)

    # --- traps -------------------------------------------------------------------------------------------------

    def _changed(self, port: PortModel) -> None:
        self._told(port)
        node = port.node
        if node.is_switch and port.state in (PortState.DOWN, PortState.INITIALIZE):  # the rest is the manager's doing
            own = node.own
            self._trap(own, _PORTS_CHANGED, _URGENT, own.lid.to_bytes(2, "big"))

    def _trap(self, port: PortModel, number: int, kind: int, details: bytes) -> None:
        """To the subnet manager that the port knows, if it can be reached."""
        if not port.lid or not port.sm_lid:
            return
        there = self.fabric.forward(port, port.sm_lid)
        manager = self._behind(there, sm_only=True) if there is not None else None
        if manager is not None:
            raw = bytearray(mad.trap(number, kind, 2 if port.node.is_switch else 1, port.lid, details))
            struct.pack_into(">HHHH", raw, 0, port.sm_lid, 0, port.lid, 0)
            self._deliver(manager, raw)


def _lid(port: PortModel) -> int:
    return port.lid or PERMISSIVE_LID


def _receive(wire: socket.socket, size: int) -> tuple[bytes, Address] | None:
    """None where nothing waits, or an error of an earlier datagram does."""
    try:
        return wire.recvfrom(size)
    except OSError:
        return None

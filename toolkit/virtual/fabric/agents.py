"""What a port answers: to a subnet manager (InfiniBand Architecture Specification, volume 1, 14.2.5) and to a
performance manager (16.1.3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from toolkit.virtual.fabric import counters
from toolkit.virtual.fabric.counters import ALL_PORTS
from toolkit.virtual.fabric.mad import Attribute, Counters, Method, Status
from toolkit.virtual.fabric.model import LINEAR_ENTRIES, FabricModel, Physical, PortModel, PortState
from toolkit.virtual.fabric.wiring import Speed

Answer = tuple[int, bytes]

VENDOR = 0x02C9  # Mellanox
ADAPTER_DEVICE, _SWITCH_DEVICE = 0x1021, 0xD2F2  # ConnectX-7; Quantum-2
_REVISION = 0
_ADAPTER_KEYS, _SWITCH_KEYS, _ENFORCED_KEYS = 128, 8, 32
_MULTICAST_ENTRIES = 1024
_ALL_WIDTHS, _ALL_SPEEDS = 0b10011, sum(speed.bit for speed in Speed)  # 1X, 4X, 2X
_LEGACY_SPEEDS, _LEGACY_ACTIVE = 7, 4  # 2.5, 5 and 10 Gbit/s; a link of an extended speed shows the last
_MTU_4096 = 5
_DATA_LANES_8 = 4  # VL0 to VL7
_ARBITRATION_ENTRIES = 8
_GUIDS = 8
# CapabilityMask2: widths of 2X (4), HDR (5) and NDR (10) are supported.
_CAPABILITY_2 = 1 << 4 | 1 << 5 | 1 << 10
_DEFAULT_SL_TO_VL = bytes.fromhex("0123456789abcde7")
_RESPONSE_TIME = 0x12  # 4.096 us * 2^18: about a second
_ZERO = bytes(64)
# Performance management: all ports at once (8), counters of 64 bits (9), PortXmitWait (12).
_ALL_PORTS_BIT, _EXTENDED_BIT, _WAIT_BIT = 1 << 8, 1 << 9, 1 << 12


def node_info(port: PortModel, guid: int | None = None) -> bytes:
    """NodeInfo as the port answers it."""
    node = port.node
    shown = node.guid if guid is None else guid
    return struct.pack(
        ">BBBBQQQHHIB3s", 1, 1, 2 if node.is_switch else 1, node.member.ports, node.member.system or node.guid, shown,
        node.guid, _SWITCH_KEYS if node.is_switch else _ADAPTER_KEYS,
        _SWITCH_DEVICE if node.is_switch else ADAPTER_DEVICE, _REVISION, port.number, VENDOR.to_bytes(3, "big"),
    ).ljust(64, b"\0")  # fmt: skip


def port_info(port: PortModel, by: int) -> bytes:
    """PortInfo of a port, asked at the port with the number `by`."""
    data = bytearray(port.settings)
    external = port.node.is_switch and port.number
    if not external:
        struct.pack_into(">QHHI", data, 8, port.prefix, port.lid, port.sm_lid, port.capability)
        struct.pack_into(">H", data, 60, _CAPABILITY_2)
    data[28:32] = bytes((by, port.widths, _ALL_WIDTHS, port.width_bit()))
    data[32] = _LEGACY_SPEEDS << 4 | port.state
    data[33] = port.physical << 4 | Physical.POLLING
    data[34] = port.lid_mask
    data[35] = _LEGACY_ACTIVE << 4 | _LEGACY_SPEEDS
    data[36] = data[36] or _MTU_4096 << 4
    data[37] = _DATA_LANES_8 << 4
    data[39] = data[40] = _ARBITRATION_ENTRIES
    data[41] = _MTU_4096
    data[43] = data[43] or _DATA_LANES_8 << 4
    data[50] = _GUIDS
    data[52] = _RESPONSE_TIME
    data[62] = (port.speed.bit if port.up else 0) << 4 | _ALL_SPEEDS
    data[63] = port.speeds
    return bytes(data)


def keys_of(port: PortModel, block: int) -> bytes:
    """A block of 32 P_Keys as the port holds it: of limited membership, bit 15 off, where it is faulty."""
    data = port.keys.get(block, _ZERO)
    if not port.node.member.limited:
        return data
    return struct.pack(">32H", *(key & 0x7FFF for key in struct.unpack(">32H", data)))


class SubnetAgent:
    """Answers subnet management at every port of a fabric."""

    def __init__(self, fabric: FabricModel) -> None:
        self._fabric = fabric
        self._handlers: Mapping[int, Callable[[PortModel, bool, int, bytes], Answer]] = {
            Attribute.NODE_DESCRIPTION: self._description,
            Attribute.NODE_INFO: self._node_info,
            Attribute.SWITCH_INFO: self._switch_info,
            Attribute.GUID_INFO: self._guid_info,
            Attribute.PORT_INFO: self._port_info,
            Attribute.P_KEY_TABLE: self._keys,
            Attribute.SL_TO_VL: self._service_levels,
            Attribute.VL_ARBITRATION: self._arbitration,
            Attribute.LINEAR_FORWARDING: self._forwarding,
            Attribute.MULTICAST_FORWARDING: self._multicast,
        }

    def answer(self, port: PortModel, method: int, attribute: int, modifier: int, data: bytes) -> Answer:
        """Status and attribute of the answer to what arrived at the port."""
        handler = self._handlers.get(attribute)
        if handler is None:
            return Status.UNSUPPORTED_ATTRIBUTE, data
        if method not in (Method.GET, Method.SET):
            return Status.UNSUPPORTED_METHOD, data
        return handler(port, method == Method.SET, modifier, data)

    def _description(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        return Status.OK, port.node.member.description.encode()[:63].ljust(64, b"\0")

    def _node_info(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        return Status.OK, node_info(port)

    def _guid_info(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        return Status.OK, port.node.guid.to_bytes(8, "big").ljust(64, b"\0") if modifier == 0 else _ZERO

    def _switch_info(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        node = port.node
        if not node.is_switch:
            return Status.UNSUPPORTED_ATTRIBUTE, data
        if is_set:
            node.top = int.from_bytes(data[6:8], "big")
            node.lifetime = data[11] >> 3
            if data[11] & 4:
                node.change = False
        shown = bytearray(64)
        struct.pack_into(">HHHH", shown, 0, LINEAR_ENTRIES, 0, _MULTICAST_ENTRIES, node.top)
        shown[11] = node.lifetime << 3 | node.change << 2
        struct.pack_into(">HB", shown, 14, _ENFORCED_KEYS, 0b00010000)  # enhanced port 0
        return Status.OK, bytes(shown)

    def _port_info(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        number = modifier & 0xFF
        if not port.node.is_switch:
            number = number or port.number
        if number >= len(port.node.ports) or (is_set and not port.node.is_switch and number != port.number):
            return Status.INVALID_FIELD, data
        chosen = port.node.ports[number]
        if is_set and not self._set_port(chosen, data):
            return Status.INVALID_FIELD, port_info(chosen, port.number)
        return Status.OK, port_info(chosen, port.number)

    def _set_port(self, port: PortModel, data: bytes) -> bool:
        """Whether all that was asked could be had."""
        if not (port.node.is_switch and port.number):
            before = port.lid, port.sm_lid
            prefix, port.lid, port.sm_lid = struct.unpack_from(">QHH", data, 8)
            port.prefix = prefix or port.prefix
            if (port.lid, port.sm_lid) != before and not port.node.is_switch:
                self._fabric.changed(port)
            port.lid_mask = data[34] & 7
        port.settings[:] = data
        port.settings[0:24] = bytes(24)
        port.settings[51] &= 0x7F  # ClientReregister is a request, not a state
        if data[29]:
            port.widths = (_ALL_WIDTHS if data[29] == 0xFF else data[29]) & _ALL_WIDTHS
        if data[63] & 0x1F:
            port.speeds = data[63] & _ALL_SPEEDS or _ALL_SPEEDS
        return self._move(port, data[32] & 0xF, data[33] >> 4)

    def _move(self, port: PortModel, state: int, physical: int) -> bool:
        if port.node.is_switch and not port.number:
            return True  # management's own port has no link
        if physical == Physical.DISABLED:
            self._fabric.disable(port)
        elif (physical == Physical.POLLING and port.physical is Physical.DISABLED) or state == PortState.DOWN:
            self._fabric.retrain(port)
        elif state >= PortState.ARMED:
            return self._fabric.advance(port, state)
        return state != PortState.INITIALIZE

    def _keys(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        number, block = modifier >> 16, modifier & 0xFFFF
        if port.node.is_switch:
            if number >= len(port.node.ports):
                return Status.INVALID_FIELD, data
            port = port.node.ports[number]
        if is_set:
            port.keys[block] = data
        return Status.OK, keys_of(port, block)

    def _service_levels(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        if port.node.is_switch:
            number = modifier & 0xFF
            if number >= len(port.node.ports):
                return Status.INVALID_FIELD, data
            port = port.node.ports[number]
        into = modifier >> 8 & 0xFF
        if is_set:
            port.sl_to_vl[into] = data[:8]
        return Status.OK, port.sl_to_vl.get(into, _DEFAULT_SL_TO_VL).ljust(64, b"\0")

    def _arbitration(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        number, block = modifier & 0xFFFF, modifier >> 16
        if port.node.is_switch:
            if number >= len(port.node.ports):
                return Status.INVALID_FIELD, data
            port = port.node.ports[number]
        if is_set:
            port.arbitration[block] = data
        return Status.OK, port.arbitration.get(block, _ZERO)

    def _forwarding(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        node, start = port.node, modifier * 64
        if not node.is_switch:
            return Status.UNSUPPORTED_ATTRIBUTE, data
        if start >= LINEAR_ENTRIES:
            return Status.INVALID_FIELD, data
        if is_set:
            node.forwarding[start : start + 64] = data
        return Status.OK, bytes(node.forwarding[start : start + 64])

    def _multicast(self, port: PortModel, is_set: bool, modifier: int, data: bytes) -> Answer:
        node = port.node
        if not node.is_switch:
            return Status.UNSUPPORTED_ATTRIBUTE, data
        if is_set:
            node.multicast[modifier] = data
        return Status.OK, node.multicast.get(modifier, _ZERO)


class PerformanceAgent:
    """Answers performance management at every port of a fabric."""

    def __init__(self, fabric: FabricModel) -> None:
        self._fabric = fabric

    def answer(self, port: PortModel, method: int, attribute: int, data: bytes) -> Answer:
        """Status and attribute of the answer to what arrived at the port."""
        if attribute == Attribute.CLASS_PORT_INFO and method == Method.GET:
            return Status.OK, self._class_port_info(port, len(data))
        if attribute not in (Counters.PORT_COUNTERS, Counters.PORT_COUNTERS_EXTENDED):
            return Status.UNSUPPORTED_ATTRIBUTE, data
        chosen = self._selected(port, data[1])
        if not chosen:
            return Status.INVALID_FIELD, data
        now = self._fabric.clock()
        read = counters.port_counters if attribute == Counters.PORT_COUNTERS else counters.extended_counters
        answer = read(chosen, now, data)
        if method == Method.SET and attribute == Counters.PORT_COUNTERS:
            counters.clear(chosen, now, data)
        return Status.OK, answer

    def _selected(self, port: PortModel, number: int) -> list[counters.PortCounters]:
        ports = port.node.ports
        if number == ALL_PORTS:
            return [each.counters for each in ports] if port.node.is_switch else []
        if number >= len(ports) or (not port.node.is_switch and number != port.number):
            return []
        return [ports[number].counters]

    def _class_port_info(self, port: PortModel, size: int) -> bytes:
        mask = _EXTENDED_BIT | _WAIT_BIT | (_ALL_PORTS_BIT if port.node.is_switch else 0)
        return struct.pack(">BBHI", 1, 1, mask, _RESPONSE_TIME).ljust(size, b"\0")

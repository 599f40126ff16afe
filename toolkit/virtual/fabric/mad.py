"""Management datagrams, and the frames in which the umad simulator's clients (libumad2sim of ibsim) carry them.

Datagrams: InfiniBand Architecture Specification, volume 1, 13.4 (header) and 14.2.1 (subnet management packets).
Frames: ibsim's include/ibsim.h. A control record is 80 bytes of the client's byte order; a request is 32 bytes of
addresses, of which LIDs and queue pairs are big-endian, and a datagram of 256 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

MAD_BYTES = 256
FRAME_BYTES = 32 + MAD_BYTES
DATA_AT, DATA_BYTES = 64, 64
PERFORMANCE_DATA_BYTES = MAD_BYTES - DATA_AT
PERMISSIVE_LID = 0xFFFF
# libumad2sim (0.10, 0.12: __receiver) makes room for a frame where it needs it for a user datagram, whose header is 32
# bytes longer: it keeps 224 bytes of a datagram, and hands on what lies behind them in its memory as the rest.
KEPT_BYTES = MAD_BYTES - 32
TIMED_OUT = 110  # ETIMEDOUT, the status of a request that nobody answered

NOBODY = 0xFFFF  # in a transaction's upper 16 bits: the fabric itself, which waits for no answer
_MAGIC = 0xDEADBEEF
_CONTROL = struct.Struct("=IIII64s")
CONTROL_BYTES = _CONTROL.size

_AT = 32  # of the datagram in its frame
_HEADER = struct.Struct(">BBBBHBBQHHI")
_RETURN_PATH_AT, _PATH_AT, PATH_BYTES = _AT + 192, _AT + 128, 64
_LID = struct.Struct(">H")
_STATUS = struct.Struct(">I")
_LENGTH_AT = 24


class Method(IntEnum):
    """What a datagram wants."""

    GET = 0x01
    SET = 0x02
    TRAP = 0x05
    REPORT = 0x06
    TRAP_REPRESS = 0x07
    ANSWER = 0x80  # the bit
    GET_ANSWER = 0x81
    TABLE_ANSWER = 0x92  # SubnAdmGetTableResp (15.2.2)


class ManagementClass(IntEnum):
    """Who is meant."""

    SUBNET = 0x01
    SUBNET_ADMINISTRATION = 0x03
    PERFORMANCE = 0x04
    SUBNET_DIRECTED = 0x81


class Attribute(IntEnum):
    """Of subnet management."""

    CLASS_PORT_INFO = 0x01
    NOTICE = 0x02
    NODE_DESCRIPTION = 0x10
    NODE_INFO = 0x11
    SWITCH_INFO = 0x12
    GUID_INFO = 0x14
    PORT_INFO = 0x15
    P_KEY_TABLE = 0x16
    SL_TO_VL = 0x17
    VL_ARBITRATION = 0x18
    LINEAR_FORWARDING = 0x19
    MULTICAST_FORWARDING = 0x1B
    SM_INFO = 0x20


class Counters(IntEnum):
    """Attributes of performance management."""

    PORT_COUNTERS = 0x12
    PORT_COUNTERS_EXTENDED = 0x1D


class Status(IntEnum):
    """Of an answer."""

    OK = 0
    UNSUPPORTED_METHOD = 2 << 2
    UNSUPPORTED_ATTRIBUTE = 3 << 2
    INVALID_FIELD = 7 << 2


class ControlType(IntEnum):
    """What a client asks of the simulator itself."""

    ERROR = 0
    CONNECT = 1
    DISCONNECT = 2
    PORT = 3
    VENDOR = 4
    GID = 5
    GUID = 6
    NODE_INFO = 7
    PORT_INFO = 8
    SET_SM = 9
    P_KEYS = 10


@dataclass(frozen=True, slots=True)
class Control:
    """A control record. ValueError from `read` for what is none."""

    client: int
    type: int
    length: int
    data: bytes

    @classmethod
    def read(cls, raw: bytes) -> Control:
        """Of a datagram."""
        if len(raw) != CONTROL_BYTES:
            raise ValueError(f"a control record has {CONTROL_BYTES} bytes, not {len(raw)}")
        magic, client, kind, length, data = _CONTROL.unpack(raw)
        if magic != _MAGIC:
            raise ValueError(f"a control record begins with {_MAGIC:#x}, not {magic:#x}")
        return cls(client, kind, length, data)

    def answer(self, data: bytes) -> bytes:
        """The record that answers it."""
        return _CONTROL.pack(_MAGIC, self.client, self.type, self.length, data)

    def refusal(self) -> bytes:
        """The record that says no."""
        return _CONTROL.pack(_MAGIC, self.client, ControlType.ERROR, self.length, self.data)


class Frame:
    """A datagram in its frame, changed in place on its way."""

    __slots__ = ("attribute", "hops", "management_class", "method", "modifier", "raw", "transaction")

    def __init__(self, raw: bytes) -> None:
        """ValueError for what is no frame with a datagram of version 1."""
        if len(raw) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(raw)}")
        self.raw = bytearray(raw)
        fields = _HEADER.unpack_from(raw, _AT)
        if fields[0] != 1:
            raise ValueError(f"base version {fields[0]} of a datagram")
        self.management_class: int = fields[1]
        self.method: int = fields[3]
        self.hops: int = fields[6]
        self.transaction: int = fields[7]
        self.attribute: int = fields[8]
        self.modifier: int = fields[10]

    @property
    def directed(self) -> bool:
        """Whether it goes by a path of ports."""
        return self.management_class == ManagementClass.SUBNET_DIRECTED

    @property
    def is_answer(self) -> bool:
        """Whether it answers another."""
        return bool(self.method & Method.ANSWER)

    @property
    def destination(self) -> int:
        """LID."""
        return int(_LID.unpack_from(self.raw, 0)[0])

    @property
    def path(self) -> bytes:
        """Ports to leave by, from index 1."""
        return bytes(self.raw[_PATH_AT : _PATH_AT + PATH_BYTES])

    @property
    def first_lid(self) -> int:
        """Where a directed path begins that is reached by LID; the permissive one where it begins at the sender."""
        return int(_LID.unpack_from(self.raw, _AT + 32)[0])

    def data(self, size: int) -> bytes:
        """The attribute."""
        return bytes(self.raw[_AT + DATA_AT : _AT + DATA_AT + size])

    def mark(self, sender: int) -> None:
        """Writes who asked into the transaction's upper 16 bits, where nobody else looks."""
        struct.pack_into(">H", self.raw, _AT + 8, sender)

    @property
    def exchange(self) -> bytes:
        """The transaction as it is now: the same in a marked request and in its answer."""
        return bytes(self.raw[_AT + 8 : _AT + 16])

    @property
    def asker(self) -> int:
        """Who asked what this answers."""
        return int(_LID.unpack_from(self.raw, _AT + 8)[0])

    def arrived(self, way_back: bytes) -> None:
        """Of a directed one: the ports it came in by."""
        self.raw[_RETURN_PATH_AT : _RETURN_PATH_AT + PATH_BYTES] = way_back

    def answered(self, status: int, data: bytes) -> None:
        """Makes it the answer."""
        self.raw[_AT + 3] = Method.GET_ANSWER
        struct.pack_into(">H", self.raw, _AT + 4, (0x8000 if self.directed else 0) | status)
        self.raw[_AT + DATA_AT : _AT + DATA_AT + len(data)] = data
        self.raw[8:12], self.raw[12:16] = self.raw[12:16], self.raw[8:12]

    def addressed(self, to: int, source: int) -> None:
        """Writes both LIDs."""
        struct.pack_into(">HHHH", self.raw, 0, to, 0, source, 0)

    def cut(self) -> None:
        """Says it is as long as a client gets it: the records of a table are counted by its length."""
        struct.pack_into(">Q", self.raw, _LENGTH_AT, KEPT_BYTES)

    def lost(self) -> None:
        """Makes it what a kernel hands back of a request that nobody answered."""
        _STATUS.pack_into(self.raw, 16, TIMED_OUT)


def trap(number: int, kind: int, producer: int, lid: int, details: bytes) -> bytes:
    """A frame with a Trap (13.4.9): from the port with that LID; `details` from byte 10 of the notice."""
    raw = bytearray(FRAME_BYTES)
    struct.pack_into(">Q", raw, _LENGTH_AT, MAD_BYTES)
    sender = NOBODY << 48
    _HEADER.pack_into(raw, _AT, 1, ManagementClass.SUBNET, 1, Method.TRAP, 0, 0, 0, sender, Attribute.NOTICE, 0, 0)
    struct.pack_into(">IHHH", raw, _AT + DATA_AT, 1 << 31 | kind << 24 | producer, number, lid, 0)
    raw[_AT + DATA_AT + 10 : _AT + DATA_AT + 10 + len(details)] = details
    return bytes(raw)

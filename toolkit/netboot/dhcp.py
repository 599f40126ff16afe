"""DHCP packets (RFC 2131, RFC 4578), as boot firmware and a controller that looks for servers write and read them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

_MAGIC = b"\x63\x82\x53\x63"
_HEADER = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s")
_BROADCAST_FLAG = 0x8000
_UEFI_X86_64 = 7  # option 93, RFC 4578
_PAD, _END = 0, 255
SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, ACK = 1, 2, 3, 5


@dataclass(frozen=True, slots=True)
class Lease:
    """What the server gave: address with prefix length, and the boot script's URL ("" if it has none for us)."""

    address: IPv4Address
    prefix: int
    boot_file: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's packet: the address it gives, the file field, and its options."""

    kind: int
    address: IPv4Address
    file: bytes
    options: dict[int, bytes]


def request(kind: int, transaction: int, mac: str, extra: Mapping[int, bytes] | None = None) -> bytes:
    """A client's packet; `extra` holds further options."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    options = {
        53: bytes([kind]),
        61: b"\x01" + hardware,
        55: bytes([1, 3, 12, 66, 67]),  # mask, router, host name, server, boot file
        60: b"PXEClient:Arch:%05d" % _UEFI_X86_64,
        93: struct.pack(">H", _UEFI_X86_64),
        77: b"iPXE",
        **(extra or {}),
    }
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    zero = bytes(4)
    head = _HEADER.pack(
        1, 1, 6, 0, transaction, 0, _BROADCAST_FLAG, zero, zero, zero, zero, hardware.ljust(16, b"\0"), b"", b""
    )
    return head + _MAGIC + body + bytes([_END])


def parse(packet: bytes, transaction: int) -> Answer | None:
    """A server's answer to our transaction; None for any other packet, or a broken one."""
    start = _HEADER.size + len(_MAGIC)
    if len(packet) <= start or packet[_HEADER.size : start] != _MAGIC:
        return None
    fields = _HEADER.unpack(packet[: _HEADER.size])
    if fields[0] != 2 or fields[4] != transaction:
        return None
    options = _options(packet[start:])
    if len(options.get(53, b"")) != 1:
        return None
    return Answer(options[53][0], IPv4Address(fields[8]), fields[13], options)


def _options(raw: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    at = 0
    while at < len(raw) and raw[at] != _END:
        if raw[at] == _PAD:
            at += 1
        elif at + 1 < len(raw):
            size = raw[at + 1]
            options[raw[at]] = raw[at + 2 : at + 2 + size]
            at += 2 + size
        else:
            break
    return options


def lease_of(answer: Answer) -> Lease:
    """The lease in an ACK."""
    mask = IPv4Address(answer.options[1]) if len(answer.options.get(1, b"")) == 4 else IPv4Address("255.255.255.255")
    prefix = IPv4Network(f"0.0.0.0/{mask}").prefixlen
    name = answer.options.get(67) or answer.file
    return Lease(answer.address, prefix, name.split(b"\0")[0].decode("ascii", "replace"))

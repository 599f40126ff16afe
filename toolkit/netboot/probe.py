"""Looks for DHCP servers on an in-band network: a second one can send a node to boot what nobody signed.

A DHCPDISCOVER is broadcast as a raw frame and every offer is read off the wire, with the hardware address that it came
from. Nothing is requested, so no server gives an address away. Needs CAP_NET_RAW.
"""

from __future__ import annotations

import fcntl
import random
import socket
import struct
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.netboot.dhcp import CLIENT_PORT, DISCOVER, OFFER, SERVER_PORT, Answer, parse, request

_ETHERNET = struct.Struct(">6s6sH")
_IP = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">HHHH")
_ETH_P_IP, _ETH_P_ALL, _IPPROTO_UDP = 0x0800, 0x0003, 17
_SIOCGIFHWADDR = 0x8927  # linux/sockios.h
_BROADCAST = b"\xff" * 6
_FRAME_MAX_BYTES = 4096
_REPEAT_S = 1.0
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """A server that made an offer.

    address    its identifier (option 54)
    hardware   Ethernet address that the offer came from: a relay's, where there is one
    offered    the address it would give; 0.0.0.0 by one that gives none (proxyDHCP)
    boot_file  what it would have the node boot, printable; "" for nothing
    """

    address: str
    hardware: str
    offered: str
    boot_file: str


def find_servers(interface: str, mac: str, wait_s: float = 3.0) -> tuple[DhcpServer, ...]:
    """Servers that offer something to that MAC on the interface, but for one on this machine itself.

    A frame that is sent raw does not come back to the sender: our own dnsmasq is not among them. UsageError where the
    interface is missing or raw frames are forbidden.
    """
    transaction = random.getrandbits(32)  # tells our packets from others'; nothing secret
    found: dict[tuple[str, str], DhcpServer] = {}
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as wire:
            wire.bind((interface, _ETH_P_ALL))
            frame = _broadcast(_address_of(wire, interface), request(DISCOVER, transaction, mac))
            for server in _offers(wire, frame, transaction, wait_s):
                found[server.address, server.hardware] = server
    except PermissionError as error:
        raise UsageError("looking for DHCP servers needs raw frames", "run it as root") from error
    except OSError as error:
        raise UsageError(
            f"looking for DHCP servers on {interface}: {error.strerror}", "name the in-band interface: `ip -br link`"
        ) from error
    return tuple(sorted(found.values(), key=lambda server: (server.address, server.hardware)))


def interface_to(address: str) -> str:
    """The interface whose own network has that address. UsageError where only a router leads there, or nothing does."""
    try:
        wanted = int(IPv4Address(address))
    except ValueError:
        raise UsageError(
            f"{address!r} is no IPv4 address: nobody answers it by DHCP", "give `host.address` as an address"
        ) from None
    best: tuple[int, str] | None = None
    # Of this thread's network namespace: a process may have entered another one.
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        interface, network, gateway, _, _, _, _, mask = line.split()[:8]
        of, bits = (socket.ntohl(int(word, 16)) for word in (network, mask))
        if wanted & bits == of and (best is None or bits > best[0]):
            best = (bits, interface if int(gateway, 16) == 0 else "")
    if best is None or not best[1]:
        raise UsageError(
            f"no interface of this machine is in the network of {address}: DHCP servers are not seen from here",
            "rackproof netboot probe on a machine that is",
        )
    return best[1]


def rogues(servers: Collection[DhcpServer], ours: Collection[str]) -> tuple[DhcpServer, ...]:
    """Those whose address is not one of ours."""
    return tuple(server for server in servers if server.address not in ours)


def _offers(wire: socket.socket, frame: bytes, transaction: int, wait_s: float) -> Iterator[DhcpServer]:
    until = time.monotonic() + wait_s
    send_at = 0.0
    while (left := until - time.monotonic()) > 0:
        if time.monotonic() >= send_at:
            wire.send(frame)
            send_at = time.monotonic() + _REPEAT_S  # a frame may be lost
        wire.settimeout(min(left, _REPEAT_S))
        with suppress(TimeoutError):
            server = _server(wire.recv(_FRAME_MAX_BYTES), transaction)
            if server is not None:
                yield server


def _server(frame: bytes, transaction: int) -> DhcpServer | None:
    """The offer in a frame; None for any other frame."""
    if len(frame) < _ETHERNET.size + _IP.size:
        return None
    _, source, kind = _ETHERNET.unpack_from(frame)
    at = _ETHERNET.size
    head_bytes = (frame[at] & 0x0F) * 4
    if kind != _ETH_P_IP or frame[at] >> 4 != 4 or frame[at + 9] != _IPPROTO_UDP:
        return None
    at += head_bytes
    if len(frame) < at + _UDP.size or _UDP.unpack_from(frame, at)[:2] != (SERVER_PORT, CLIENT_PORT):
        return None
    answer = parse(frame[at + _UDP.size :], transaction)
    if answer is None or answer.kind != OFFER:
        return None
    return DhcpServer(_identifier(answer), source.hex(":"), str(answer.address), _boot_file(answer))


def _identifier(answer: Answer) -> str:
    raw = answer.options.get(54, b"")
    return str(IPv4Address(raw)) if len(raw) == 4 else "0.0.0.0"  # noqa: S104 - said, not bound to: it named none


def _boot_file(answer: Answer) -> str:
    text = (answer.options.get(67) or answer.file).split(b"\0")[0].decode("ascii", "replace")
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])


def _address_of(wire: socket.socket, interface: str) -> bytes:
    """Its hardware address: netdevice(7), SIOCGIFHWADDR. /sys may be of another network namespace."""
    answer = fcntl.ioctl(wire, _SIOCGIFHWADDR, struct.pack("16s16x", interface.encode()))
    return answer[18:24]


def _broadcast(source: bytes, payload: bytes) -> bytes:
    """An Ethernet frame with IP and UDP around the payload, from nobody to everybody."""
    udp_bytes = _UDP.size + len(payload)
    nobody, everybody = bytes(4), b"\xff" * 4
    head = _IP.pack(0x45, 0, _IP.size + udp_bytes, 0, 0, 64, _IPPROTO_UDP, 0, nobody, everybody)
    head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
    pseudo = nobody + everybody + struct.pack(">BBH", 0, _IPPROTO_UDP, udp_bytes)
    bare = _UDP.pack(CLIENT_PORT, SERVER_PORT, udp_bytes, 0) + payload
    total = _checksum(pseudo + bare) or 0xFFFF  # RFC 768: 0 says that there is none
    return (
        _ETHERNET.pack(_BROADCAST, source, _ETH_P_IP)
        + head
        + _UDP.pack(CLIENT_PORT, SERVER_PORT, udp_bytes, total)
        + payload
    )


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

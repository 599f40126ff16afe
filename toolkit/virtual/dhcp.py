"""A DHCP client as network-boot firmware speaks it (RFC 2131, iPXE's user class): the wire; packets are netboot's."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable

from toolkit.netboot.dhcp import (
    ACK,
    CLIENT_PORT,
    DISCOVER,
    OFFER,
    REQUEST,
    SERVER_PORT,
    Answer,
    Lease,
    lease_of,
    parse,
    request,
)

__all__ = ["ACK", "DISCOVER", "OFFER", "REQUEST", "Answer", "Lease", "ask", "lease_of", "parse", "request"]

_TIMEOUTS_S = (0.5, 1.0, 2.0, 4.0)  # doubling, as RFC 2131 section 4.1 asks
_SO_BINDTODEVICE = 25  # asm-generic/socket.h; the socket module does not name it everywhere


def ask(interface: str, mac: str, check: Callable[[], None]) -> Lease | None:
    """DISCOVER, OFFER, REQUEST, ACK on the calling thread's network; None when nobody offers.

    `check` is called between waits and may raise to stop.
    """
    transaction = random.getrandbits(32)  # tells our packets from others'; nothing secret
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        wire.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")
        wire.bind(("0.0.0.0", CLIENT_PORT))  # noqa: S104 - bound to the one interface above
        for timeout_s in _TIMEOUTS_S:
            check()
            offer = _exchange(wire, request(DISCOVER, transaction, mac), transaction, OFFER, timeout_s)
            if offer is None:
                continue
            chosen = {50: offer.address.packed, 54: offer.options.get(54, bytes(4))}
            ack = _exchange(wire, request(REQUEST, transaction, mac, chosen), transaction, ACK, timeout_s)
            if ack is not None:
                return lease_of(ack)
    return None


def _exchange(wire: socket.socket, packet: bytes, transaction: int, kind: int, timeout_s: float) -> Answer | None:
    wire.sendto(packet, ("255.255.255.255", SERVER_PORT))
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            answer = parse(wire.recv(2048), transaction)
        except TimeoutError:
            return None
        if answer is not None and answer.kind == kind:
            return answer
    return None

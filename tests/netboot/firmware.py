"""What boot firmware sends and is answered, on the node's wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from tests.netboot.conftest import NODE
from toolkit.netboot.dhcp import CLIENT_PORT, DISCOVER, OFFER, SERVER_PORT, Answer, parse, request
from toolkit.virtual import network

_SO_BINDTODEVICE = 25


def asking(kind: str) -> Mapping[int, bytes]:
    """Options that tell what asks: bios, uefi, http, arm-http, ipxe, or linux (no boot firmware at all)."""
    architecture = {"bios": 0, "uefi": 7, "http": 16, "arm-http": 19, "ipxe": 7}.get(kind)
    if architecture is None:
        return {60: b"udhcp 1.35", 93: b"", 77: b""}
    vendor = b"HTTPClient" if "http" in kind else b"PXEClient"
    return {
        60: vendor + b":Arch:%05d:UNDI:003016" % architecture,
        93: struct.pack(">H", architecture),
        94: b"\x01\x03\x10",
        97: b"\x00" + b"u" * 16,
        77: b"iPXE" if kind == "ipxe" else b"",
    }


def offer(kind: str, mac: str, wait_s: float = 3.0) -> Answer | None:
    """The first offer that the node gets; None: nobody offered."""
    return network.inside(NODE, lambda: _offer(kind, mac, wait_s))


def _offer(kind: str, mac: str, wait_s: float) -> Answer | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        wire.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, b"eth0\0")
        wire.bind(("0.0.0.0", CLIENT_PORT))  # noqa: S104 - bound to the one interface above
        options = {code: value for code, value in asking(kind).items() if value}
        packet = _without(request(DISCOVER, 7, mac, options), asking(kind))
        wire.settimeout(wait_s / 3)
        for _ in range(3):
            wire.sendto(packet, ("255.255.255.255", SERVER_PORT))
            try:
                while (found := parse(wire.recv(2048), 7)) is None or found.kind != OFFER:
                    pass
            except TimeoutError:
                continue
            return found
    return None


def _without(packet: bytes, options: Mapping[int, bytes]) -> bytes:
    """The packet without the options that are empty there: `request` says iPXE and UEFI unless told otherwise."""
    at, kept = 240, packet[:240]
    while packet[at] != 255:
        code, size = packet[at], packet[at + 1]
        if options.get(code, b"x"):
            kept += packet[at : at + 2 + size]
        at += 2 + size
    return kept + b"\xff"

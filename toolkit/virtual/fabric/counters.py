"""Counters of a port: PortCounters and PortCountersExtended (InfiniBand Architecture Specification, volume 1, 16.1).

They grow by events, or by themselves at a rate, and stop at their width's end as the standard's do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

ALL_PORTS = 0xFF


@dataclass(frozen=True, slots=True)
class Field:
    """A counter of PortCounters: its name, its bit in CounterSelect, its place in the attribute, and its width."""

    name: str
    select: int
    at: int
    bits: int


FIELDS = (
    Field("SymbolErrorCounter", 0, 4, 16),
    Field("LinkErrorRecoveryCounter", 1, 6, 8),
    Field("LinkDownedCounter", 2, 7, 8),
    Field("PortRcvErrors", 3, 8, 16),
    Field("PortRcvRemotePhysicalErrors", 4, 10, 16),
    Field("PortRcvSwitchRelayErrors", 5, 12, 16),
    Field("PortXmitDiscards", 6, 14, 16),
    Field("PortXmitConstraintErrors", 7, 16, 8),
    Field("PortRcvConstraintErrors", 8, 17, 8),
    Field("VL15Dropped", 11, 22, 16),
    Field("PortXmitData", 12, 24, 32),
    Field("PortRcvData", 13, 28, 32),
    Field("PortXmitPkts", 14, 32, 32),
    Field("PortRcvPkts", 15, 36, 32),
)
_WAIT = Field("PortXmitWait", 16, 40, 32)
# Two of four bits share a byte.
_INTEGRITY, _OVERRUN = Field("LocalLinkIntegrityErrors", 9, 19, 4), Field("ExcessiveBufferOverrunErrors", 10, 19, 4)
NAMES = frozenset(field.name for field in (*FIELDS, _WAIT, _INTEGRITY, _OVERRUN))
_DATA = ("PortXmitData", "PortRcvData", "PortXmitPkts", "PortRcvPkts")
_FORMATS = {8: ">B", 16: ">H", 32: ">I"}
_DATA_BITS = 64


class PortCounters:
    """Counters by name. `traffic` tells words of four bytes sent and received that are counted elsewhere."""

    __slots__ = ("_counts", "_rates", "traffic")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._rates: dict[str, tuple[float, float]] = {}  # a second, since
        self.traffic: Callable[[], tuple[int, int]] | None = None

    def add(self, name: str, count: int = 1) -> None:
        """Counts events."""
        self._counts[name] = self._counts.get(name, 0) + count

    def grow(self, name: str, per_s: float, now: float) -> None:
        """Lets it grow by itself from now on; 0 ends it."""
        if per_s or name in self._rates:
            self._counts[name] = self.value(name, now)
            self._rates[name] = (per_s, now)

    def value(self, name: str, now: float) -> int:
        """Now."""
        per_s, since = self._rates.get(name, (0.0, now))
        counted = self._counts.get(name, 0) + int(per_s * (now - since))
        if self.traffic is not None and name in _DATA[:2]:
            counted += self.traffic()[_DATA.index(name)]
        return counted

    def clear(self, name: str, now: float) -> None:
        """Begins it anew. What is counted elsewhere is taken off."""
        if name in self._rates:
            self._rates[name] = (self._rates[name][0], now)
        self._counts[name] = self._counts.get(name, 0) - self.value(name, now)


def port_counters(selected: list[PortCounters], now: float, asked: bytes) -> bytes:
    """The attribute PortCounters: sums over the ports selected. `asked` is what came with the request."""
    data = bytearray(len(asked))
    data[1] = asked[1]
    for field in (*FIELDS, _WAIT):
        total = sum(counters.value(field.name, now) for counters in selected)
        struct.pack_into(_FORMATS[field.bits], data, field.at, min(total, (1 << field.bits) - 1))
    integrity, overrun = (
        min(sum(counters.value(field.name, now) for counters in selected), 15) for field in (_INTEGRITY, _OVERRUN)
    )
    data[19] = integrity << 4 | overrun
    return bytes(data)


def extended_counters(selected: list[PortCounters], now: float, asked: bytes) -> bytes:
    """The attribute PortCountersExtended: 64 bits of data and packets; unicast is all there is."""
    data = bytearray(len(asked))
    data[1] = asked[1]
    totals = [sum(counters.value(name, now) for counters in selected) for name in _DATA]
    limit = (1 << _DATA_BITS) - 1
    struct.pack_into(">6Q", data, 8, *(min(total, limit) for total in (*totals, *totals[2:])))
    return bytes(data)


def clear(selected: list[PortCounters], now: float, asked: bytes) -> None:
    """Begins those anew that CounterSelect and CounterSelect2 name."""
    mask = int.from_bytes(asked[2:4], "big") | (asked[18] & 1) << _WAIT.select
    for field in (*FIELDS, _WAIT, _INTEGRITY, _OVERRUN):
        if mask >> field.select & 1:
            for counters in selected:
                counters.clear(field.name, now)

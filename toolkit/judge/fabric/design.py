"""The fabric as designed: the rack's InfiniBand and Ethernet cables, ready to be looked up by what the tools show.

A designed end is a `Port`: `dgx-005:mlx5_0`, `leaf-1:5`. An HCA's port is the device's first one: a device of two
ports is two devices to the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from toolkit.judge.fabric.line import Place, WorkEnd
from toolkit.judge.fabric.speeds import planned_speed
from toolkit.rack.model import Link, LinkKind, Port, Rack, Unit, UnitKind

SWITCHES = (UnitKind.LEAF, UnitKind.SPINE)


@dataclass(frozen=True, slots=True)
class DesignedLink:
    """A planned cable, `a < b`. gbit: planned rate, one way; speed, gbit_per_lane: the slowest that carries it."""

    a: Port
    b: Port
    gbit: float
    speed: str
    gbit_per_lane: float
    part: str


@dataclass(frozen=True, slots=True)
class DesignedHca:
    """An HCA of the compute fabric; `guid` has 16 digits, `port` names node and device."""

    port: Port
    guid: str
    rail: int


@dataclass(frozen=True, slots=True)
class DesignedSwitch:
    """A leaf or a spine; `guid` is empty where the rack file has none: it is then known by its name."""

    name: str
    kind: UnitKind
    guid: str


@dataclass(frozen=True, slots=True)
class Design:
    """What the fabric should be.

    partner   the other end of every cabled InfiniBand port
    slots     of every unit
    ethernet  planned Ethernet cables
    """

    rack: str
    slots: Mapping[str, int]
    hcas: tuple[DesignedHca, ...]
    switches: tuple[DesignedSwitch, ...]
    links: tuple[DesignedLink, ...]
    partner: Mapping[Port, DesignedLink]
    ethernet: tuple[Link, ...]

    def end(self, port: Port, guid: str = "") -> WorkEnd:
        """The port as an end in a line of work. A unit that the plan lacks has slot 0."""
        return WorkEnd(port.unit, port.port, self.rack, self.slots.get(port.unit, 0), guid)

    def place(self, unit: str) -> Place:
        """Where the unit is."""
        return Place(self.rack, self.slots.get(unit, 0), unit)


def designed(rack: Rack) -> Design:
    """The designed fabric of a loaded rack.

    ValueError where two cables share a port: loading refuses such a file with its line, so this is a Rack made by hand.
    """
    links = tuple(_link(link) for link in rack.links if link.kind is LinkKind.INFINIBAND)
    partner: dict[Port, DesignedLink] = {}
    for link in links:
        for port in (link.a, link.b):
            if port in partner:
                raise ValueError(f"the port {port} is planned on two cables: {partner[port]} and {link}")
            partner[port] = link
    return Design(
        rack=rack.name,
        slots={unit.name: unit.slot for unit in rack.units},
        hcas=tuple(_hcas(rack.units)),
        switches=tuple(
            DesignedSwitch(unit.name, unit.kind, bare(unit.guid or "")) for unit in rack.units if unit.kind in SWITCHES
        ),
        links=links,
        partner=partner,
        ethernet=tuple(link for link in rack.links if link.kind is LinkKind.ETHERNET),
    )


def bare(guid: str) -> str:
    """A GUID as the fabric's types have it: sixteen digits, lower case, no `0x`."""
    return guid.lower().removeprefix("0x")


def _link(link: Link) -> DesignedLink:
    a, b = sorted((link.a, link.b))
    gbit = link.rate_gb_per_s * 8
    speed, lane = planned_speed(gbit)
    return DesignedLink(a, b, gbit, speed, lane, link.part)


def _hcas(units: Iterable[Unit]) -> Iterable[DesignedHca]:
    for unit in units:
        for hca in unit.hcas:
            yield DesignedHca(Port(unit.name, hca.name), bare(hca.guid), hca.rail)

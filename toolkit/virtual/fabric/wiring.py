"""A fabric as values: its members, and which cable lies between which ports. A plan is one, what became of it another.

Members are known by name: switches by their unit's, adapters as their node description has it (`node1 mlx5_0`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, StrEnum

from toolkit.errors import UsageError
from toolkit.rack.model import LinkKind, Port, Rack, Unit, UnitKind

LANES = 4
_SWITCH_PORTS = (64, 144)  # of a QM9700; of a Q3400
_FIRST_UPLINK = 33  # the upper half of a leaf of 64 ports goes up (NVIDIA DGX SuperPOD H100 reference architecture)
# Locally administered: bit 1 of the first octet. The rest of a switch's GUID is made from its serial.
_SWITCH_GUIDS = 0x0200DE01_00000000


class MemberKind(StrEnum):
    """What answers in a fabric."""

    ADAPTER = "adapter"
    SWITCH = "switch"


class Speed(Enum):
    """Signalling rate of a lane: its bit in PortInfo's extended speeds, Gbit/s on the wire and of data."""

    FDR = (1, 14.0625, 13.64)
    EDR = (2, 25.78125, 25.0)
    HDR = (4, 53.125, 50.0)
    NDR = (8, 106.25, 100.0)

    @property
    def bit(self) -> int:
        """In LinkSpeedExtActive and LinkSpeedExtEnabled."""
        return self.value[0]

    @property
    def wire_gbit(self) -> float:
        """A lane's rate as the diagnostics print it."""
        return self.value[1]

    @property
    def data_gbit(self) -> float:
        """A lane's rate as a port's is named: 100 of NDR."""
        return self.value[2]


@dataclass(frozen=True, slots=True, order=True)
class End:
    """A port of a member, numbered from 1."""

    member: str
    port: int


@dataclass(frozen=True, slots=True)
class Cable:
    """What lies between two ports, and how bad it is.

    lanes, speed            what it carries at most
    symbol_errors_per_s     counted at `b`, the end that receives them; of a rack's plan it is the switch's
    drops_every_s           it loses its link that often, for as long as training takes; 0: never
    """

    a: End
    b: End
    lanes: int = LANES
    speed: Speed = Speed.NDR
    symbol_errors_per_s: float = 0.0
    drops_every_s: float = 0.0

    @property
    def ends(self) -> tuple[End, End]:
        """Both."""
        return self.a, self.b


@dataclass(frozen=True, slots=True)
class Member:
    """A switch or an adapter.

    on             it has power
    mad_loss       share of management datagrams that never reach it
    lid_of         member whose LID it has come to have, until it is given another
    limited        its P_Keys are of limited membership whatever it is told
    """

    name: str
    kind: MemberKind
    guid: int
    description: str
    ports: int = 1
    system: int = 0
    on: bool = True
    mad_loss: float = 0.0
    lid_of: str | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True)
class Wiring:
    """All members and cables. No port has two cables."""

    members: tuple[Member, ...]
    cables: tuple[Cable, ...]

    def cable_at(self, end: End) -> Cable | None:
        """The cable that is plugged in there."""
        return next((cable for cable in self.cables if end in cable.ends), None)

    def member(self, name: str) -> Member:
        """The member of that name; KeyError without one."""
        for member in self.members:
            if member.name == name:
                return member
        raise KeyError(name)


def adapter_name(unit: str, hca: str) -> str:
    """How an adapter is called in the fabric, as the driver sets its node description."""
    return f"{unit} {hca}"


def has_fabric(rack: Rack) -> bool:
    """Whether there is any InfiniBand in it."""
    return any(link.kind is LinkKind.INFINIBAND for link in rack.links)


def planned(rack: Rack) -> Wiring:
    """The rack's InfiniBand as it was designed. Leaves that nothing joins get a spine, so that they are one subnet.

    Raises UsageError where a link's end is no port that a fabric has.
    """
    links = [link for link in rack.links if link.kind is LinkKind.INFINIBAND]
    cables = []
    for link in links:
        ends = sorted((_end(rack, link.a), _end(rack, link.b)), key=lambda end: " " not in end.member)
        cables.append(Cable(ends[0], ends[1], LANES, _speed(link.rate_gb_per_s)))
    switches = [unit for unit in rack.units if unit.kind in (UnitKind.LEAF, UnitKind.SPINE)]
    members = [*_adapters(rack), *(_switch(unit.name, unit.serial, _guid(unit), cables) for unit in switches)]
    return _joined(Wiring(tuple(members), tuple(cables)))


def _adapters(rack: Rack) -> Iterator[Member]:
    for unit in rack.nodes:
        for hca in unit.hcas:
            name, guid = adapter_name(unit.name, hca.name), int(hca.guid, 16)
            yield Member(name, MemberKind.ADAPTER, guid, name, system=guid)


def _guid(unit: Unit) -> int:
    """Of a switch: as the rack file says, else made from its serial."""
    return int(unit.guid, 16) if unit.guid else _SWITCH_GUIDS + zlib.crc32(unit.serial.encode())


def _switch(name: str, serial: str, guid: int, cables: Iterable[Cable]) -> Member:
    used = max((end.port for cable in cables for end in cable.ends if end.member == name), default=0)
    ports = next((count for count in _SWITCH_PORTS if count >= used), used)
    return Member(name, MemberKind.SWITCH, guid, f"MF0;{name}:MQM9700/U1", ports, guid)


def _end(rack: Rack, port: Port) -> End:
    unit = rack.unit(port.unit)
    if unit.kind is UnitKind.NODE:
        if port.port not in {hca.name for hca in unit.hcas}:
            raise UsageError(f"rack {rack.name}: a link ends at {port}, which {unit.name} does not have")
        return End(adapter_name(unit.name, port.port), 1)
    if not port.port.isdecimal() or not 1 <= int(port.port) <= _SWITCH_PORTS[-1]:
        raise UsageError(f"rack {rack.name}: a link ends at {port}", f"ports of a switch are 1 to {_SWITCH_PORTS[-1]}")
    return End(unit.name, int(port.port))


def _speed(gb_per_s: float) -> Speed:
    """The slowest that carries it over four lanes; NDR above that (ibsim's clients know no XDR)."""
    return next((speed for speed in Speed if speed.data_gbit * LANES >= gb_per_s * 8), Speed.NDR)


def _joined(wiring: Wiring) -> Wiring:
    """With a spine, if the plan has leaves that nothing joins: one cable from the first free uplink of each."""
    leaves = [member for member in wiring.members if member.kind is MemberKind.SWITCH]
    islands = _islands(wiring)
    if len(islands) < 2 or len(leaves) < 2:
        return wiring
    name = "spine1"
    used = {end for cable in wiring.cables for end in cable.ends}
    uplinks: list[Cable] = []
    for leaf in (leaf for leaf in leaves if any(leaf.name in island for island in islands)):
        free = next((n for n in range(_FIRST_UPLINK, leaf.ports + 1) if End(leaf.name, n) not in used), None)
        if free is not None:
            uplinks.append(Cable(End(leaf.name, free), End(name, len(uplinks) + 1)))
    spine = _switch(name, name, _SWITCH_GUIDS + zlib.crc32(name.encode()), uplinks)
    return Wiring((*wiring.members, spine), (*wiring.cables, *uplinks))


def _islands(wiring: Wiring) -> list[frozenset[str]]:
    """Names of members that reach one another."""
    of = {member.name: frozenset((member.name,)) for member in wiring.members}
    for cable in wiring.cables:
        both = of[cable.a.member] | of[cable.b.member]
        of |= dict.fromkeys(both, both)
    return list(set(of.values()))


def without_power(wiring: Wiring, units: Iterable[str]) -> Wiring:
    """The same with all adapters of these units off."""
    off = tuple(f"{unit} " for unit in units)
    if not off:
        return wiring
    members = tuple(replace(m, on=False) if m.name.startswith(off) else m for m in wiring.members)
    return replace(wiring, members=members)

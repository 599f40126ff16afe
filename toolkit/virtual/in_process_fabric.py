"""What infiniband-diags would print of a rack of files: its wiring with its faults, as the tools write it.

No time passes and no manager sweeps: a fabric that has one is up. Counters are those of the seconds it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.rack.model import Rack, Unit
from toolkit.virtual.devices.ibv_devinfo import BOARD, FIRMWARE
from toolkit.virtual.fabric.faults import faulty
from toolkit.virtual.fabric.wiring import Cable, End, Member, MemberKind, Wiring, adapter_name, planned, without_power
from toolkit.virtual.faults import Fault, FaultKind

_WORD_BITS = 32  # what PortXmitData counts
_MANAGER = 0x0200DE5F_00000001  # the site's: its adapter is none of the rack's


@dataclass(frozen=True, slots=True)
class Fabric:
    """A rack's fabric as its tools see it now. seconds: how long its counters have been growing."""

    wiring: Wiring
    managed: bool
    seconds: float = 0.0

    @classmethod
    def of(cls, rack: Rack, faults: Iterable[Fault], off: Iterable[str], seconds: float) -> Fabric:
        """With these faults, and the adapters of the nodes in `off` dark."""
        told = tuple(faults)
        managed = not any(f.kind is FaultKind.NO_SUBNET_MANAGER for f in told)
        return cls(without_power(faulty(planned(rack), told), off), managed, seconds)

    def answer(self, node: Unit, argv: Sequence[str]) -> tuple[int, str]:
        """Exit status and output of an InfiniBand tool on that node (see `is_tool`)."""
        match argv:
            case ["sh", "-c", script, *rest] if "smpquery" in script:
                return 0, "".join(f"{name}\n{self._keys(node, name)}" for name in rest[1:])
            case [tool, *rest] if tool in _TOOLS:
                start = self._start(node, rest)
                return (1, "") if start is None else _TOOLS[tool](self, start, rest)
        return 0, "".join(map(self._board, self._own(node)))

    def _own(self, node: Unit) -> list[Member]:
        return [self.wiring.member(adapter_name(node.name, h.name)) for h in node.hcas]

    def _start(self, node: Unit, arguments: Sequence[str]) -> Member | None:
        named = arguments[list(arguments).index("-C") + 1] if "-C" in arguments else ""
        return next((m for m in self._own(node) if not named or m.name.endswith(f" {named}")), None)

    def _reached(self, start: Member) -> tuple[dict[str, Member], list[Cable]]:
        """Members on the way from there, in order of names (of two with one GUID it tells), and the cables between."""
        on = {m.name: m for m in self.wiring.members if m.on and m.mad_loss < 1}
        lit = [c for c in self.wiring.cables if c.a.member in on and c.b.member in on]
        found, new = {start.name}, {start.name}
        while new:
            new = {n for c in lit for n in (c.a.member, c.b.member) if {c.a.member, c.b.member} & found} - found
            found |= new
        return {name: on[name] for name in sorted(found) if name in on}, [c for c in lit if c.a.member in found]

    def _lid(self, member: Member) -> int:
        names = [m.name for m in self.wiring.members]
        return names.index(member.lid_of or member.name) + 2 if self.managed else 0

    def discover(self, start: Member, _: Sequence[str]) -> tuple[int, str]:
        """`ibnetdiscover`."""
        members, cables = self._reached(start)
        ends = _by_end(cables)
        blocks = [self._block(m, members, ends) for m in members.values()]
        head = f"#\n# Initiated from node {start.guid:016x} port {start.guid:016x}\n\n"
        return 0, head + "\n".join(blocks)

    def _block(self, member: Member, members: Mapping[str, Member], ends: Mapping[End, Cable]) -> str:
        guid, kind = f"{member.guid:016x}", "Switch" if member.kind is MemberKind.SWITCH else "Ca"
        lid = self._lid(member)
        head = ["vendid=0x2c9", f"devid=0x{0xD2F2 if kind == 'Switch' else 0x1021:x}", f"sysimgguid=0x{guid}"]
        lines = []
        for number in range(1, member.ports + 1):
            cable = ends.get(End(member.name, number))
            if cable is None:
                continue
            far = cable.b if cable.a == End(member.name, number) else cable.a
            peer = members[far.member]
            there = f'"{_id(peer)}"[{far.port}]'
            rate = f"{cable.lanes}x{cable.speed.name}"
            port = f"({peer.guid:016x}) " if peer.kind is MemberKind.ADAPTER else ""
            if kind == "Switch":
                lines.append(f'[{number}]\t{there}{port}\t\t# "{peer.description}" lid {self._lid(peer)} {rate}')
            else:
                words = f'lid {lid} lmc 0 "{peer.description}" lid {self._lid(peer)} {rate}'
                lines.append(f"[{number}]({guid}) \t{there}\t\t# {words}")
        if kind == "Switch":
            own = f'Switch\t{member.ports} "{_id(member)}"\t\t# "{member.description}" enhanced port 0 lid {lid} lmc 0'
            return "\n".join([*head, f"switchguid=0x{guid}({guid})", own, *lines, ""])
        return "\n".join([*head, f"caguid=0x{guid}", f'Ca\t1 "{_id(member)}"\t\t# "{member.description}"', *lines, ""])

    def links(self, start: Member, _: Sequence[str]) -> tuple[int, str]:
        """`iblinkinfo -l`."""
        members, cables = self._reached(start)
        ends = _by_end(cables)
        lines = [
            self._port(member, number, members, ends)
            for member in members.values()
            for number in range(1, member.ports + 1)
        ]
        return 0, "".join(lines)

    def _port(self, member: Member, number: int, members: Mapping[str, Member], ends: Mapping[End, Cable]) -> str:
        own = f'0x{member.guid:016x} "{member.description:>30}" {self._lid(member):6d} {number:4d}[  ]'
        cable = ends.get(End(member.name, number))
        if cable is None:
            return f'{own} ==(                Down/ Polling)==>             [  ] "" ( )\n'
        far = cable.b if cable.a == End(member.name, number) else cable.a
        peer = members[far.member]
        state = "Active" if self.managed else "Initialize"
        rate = f"{cable.lanes}X {cable.speed.wire_gbit:14g} Gbps {state}/  LinkUp"
        there = f'0x{peer.guid:016x} {self._lid(peer):6d} {far.port:4d}[  ] "{peer.description}" ( )'
        return f"{own} ==( {rate})==>  {there}\n"

    def errors(self, start: Member, arguments: Sequence[str]) -> tuple[int, str]:
        """`ibqueryerrors`: with --counters, data that every port moved."""
        members, cables = self._reached(start)
        data = "--counters" in arguments
        shown: dict[str, list[str]] = {}
        for cable in cables:
            for end in (cable.a, cable.b):
                counts = _moved(cable, self.seconds) if data else _wrong(cable, end, self.seconds)
                if counts:
                    told = "".join(f" [{name} == {value}]" for name, value in counts.items())
                    guid = f"0x{members[end.member].guid:016x}"
                    shown.setdefault(end.member, []).append(f"   GUID {guid} port {end.port}:{told}\n")
        words = "Data Counters" if data else "Errors"
        blocks = [
            f'{words} for 0x{members[n].guid:016x} "{members[n].description}"\n' + "".join(lines)
            for n, lines in shown.items()
        ]
        bad = 0 if data else sum(map(len, shown.values()))
        summary = (
            f"\n## Summary: {len(members)} nodes checked, {0 if data else len(shown)} bad nodes found\n"
            f"##          {2 * len(cables)} ports checked, {bad} ports have errors beyond threshold\n"
            "## Thresholds: \n## Suppressed:\n"
        )
        return 0, "".join(blocks) + summary

    def manager(self, start: Member, _: Sequence[str]) -> tuple[int, str]:
        """`sminfo`."""
        if not self.managed or not any(start.name in (c.a.member, c.b.member) for c in self.wiring.cables):
            return 1, ""
        return 0, (
            f"sminfo: sm lid 1 sm guid 0x{_MANAGER:016x}, activity count 1234 priority 14 state 3 SMINFO_MASTER\n"
        )

    def _keys(self, node: Unit, hca: str) -> str:
        member = self.wiring.member(adapter_name(node.name, hca))
        key = "0x7fff" if member.limited else "0xffff"
        empty = " 0x0000" * 8
        rows = [f"{8 * n:4d}:{f' {key}' + ' 0x0000' * 7 if not n else empty} \n" for n in range(16)]
        return "".join(rows) + "128 pkeys capacity for this port\n"

    def _board(self, member: Member) -> str:
        guid = f"{member.guid:016x}"
        dotted = ":".join(guid[i : i + 4] for i in range(0, 16, 4))
        name = member.name.partition(" ")[2]
        return f"hca_id:\t{name}\n\tfw_ver:\t\t{FIRMWARE}\n\tnode_guid:\t{dotted}\n\tboard_id:\t{BOARD}\n"


_TOOLS = {
    "ibnetdiscover": Fabric.discover,
    "iblinkinfo": Fabric.links,
    "ibqueryerrors": Fabric.errors,
    "sminfo": Fabric.manager,
}


def is_tool(argv: Sequence[str]) -> bool:
    """Whether a command asks the fabric."""
    match argv:
        case ["sh", "-c", script, *_]:
            return "smpquery" in script or "ibv_devinfo" in script
        case [tool, *_]:
            return tool in _TOOLS
    return False


def _id(member: Member) -> str:
    return f"{'S' if member.kind is MemberKind.SWITCH else 'H'}-{member.guid:016x}"


def _by_end(cables: Iterable[Cable]) -> dict[End, Cable]:
    return {end: cable for cable in cables for end in cable.ends}


def _wrong(cable: Cable, end: End, seconds: float) -> dict[str, int]:
    """Errors are counted at the end that receives them."""
    if end != cable.b:
        return {}
    symbols = min(0xFFFF, int(cable.symbol_errors_per_s * seconds))
    drops = min(0xFF, int(seconds / cable.drops_every_s)) if cable.drops_every_s else 0
    return {n: v for n, v in (("SymbolErrorCounter", symbols), ("LinkDownedCounter", drops)) if v}


def _moved(cable: Cable, seconds: float) -> dict[str, int]:
    """Half of what the cable carries: a port under load."""
    words = int(seconds * cable.lanes * cable.speed.data_gbit * 1e9 / 2 / _WORD_BITS)
    return {"PortXmitData": words, "PortRcvData": words}

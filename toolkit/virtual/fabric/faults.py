"""Named faults of a fabric: from the wiring that was planned and the faults that are set to the wiring that is.

A cable belongs to its adapter: faults name it by the adapter's port, and a cable that moves takes its faults along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from toolkit.errors import UsageError
from toolkit.virtual.fabric.wiring import LANES, Cable, End, Member, MemberKind, Speed, Wiring, adapter_name
from toolkit.virtual.faults import Fault, FaultKind

# What a fault does where it has no value.
NARROW_LANES, SLOW_SHARE, SYMBOL_ERRORS_PER_S, DROPS_EVERY_S, MAD_LOSS_PERCENT = 1, 0.5, 70.0, 10.0, 100.0
_ALIEN_GUID = 0x0200DEFF_00000000  # another board's, which no rack file has
SUBNET_MANAGER_KINDS = frozenset((FaultKind.NO_SUBNET_MANAGER, FaultKind.SECOND_SUBNET_MANAGER))

_Change = Callable[[Wiring, Fault], Wiring]


def applies(fault: Fault) -> bool:
    """Whether it is a fault of the fabric's wiring; a subnet manager's is not."""
    return fault.kind in _CHANGES


def faulty(wiring: Wiring, faults: Iterable[Fault]) -> Wiring:
    """The wiring with those faults that are its own, in the order they were set. UsageError for one it cannot have."""
    for fault in faults:
        change = _CHANGES.get(fault.kind)
        if change is not None:
            wiring = change(wiring, fault)
    return wiring


def check(wiring: Wiring, fault: Fault) -> None:
    """Raises UsageError for a fault of the fabric that this one cannot have."""
    faulty(wiring, (fault,))


def _adapter(wiring: Wiring, fault: Fault, named: str | None = None) -> Member:
    """The adapter a fault is on: `--hca`, the first of the node where it names none; `other` is HCA or NODE:HCA."""
    wanted = fault.hca if named is None else named
    node, _, hca = (wanted or "").rpartition(":")
    node = node or fault.node
    own = [m for m in wiring.members if m.kind is MemberKind.ADAPTER and m.name.startswith(f"{node} ")]
    found = next((m for m in own if not hca or m.name == adapter_name(node, hca)), None)
    if found is None:
        known = ", ".join(m.name.partition(" ")[2] for m in own) or "none"
        raise UsageError(f"fault {fault.kind}: {node} has no HCA {hca or 'at all'}", f"it has {known}")
    return found


def _others(wiring: Wiring, fault: Fault, least: int) -> list[Member]:
    """The adapter of the fault and those that `other` names, which are all different."""
    named = [word.strip() for word in (fault.other or "").split(",") if word.strip()]
    found = [_adapter(wiring, fault), *(_adapter(wiring, fault, word) for word in named)]
    if len(found) < least + 1 or len({member.name for member in found}) != len(found):
        raise UsageError(
            f"fault {fault.kind} on {fault.node} needs --other with {least} other HCA{'s' if least > 1 else ''}",
            "--other mlx5_1 of the same node, or --other node2:mlx5_0; several with commas",
        )
    return found


def _cable(wiring: Wiring, fault: Fault, adapter: Member) -> Cable:
    cable = wiring.cable_at(End(adapter.name, 1))
    if cable is None:
        raise UsageError(f"fault {fault.kind}: no cable is plugged into {adapter.name}", "clear cable_pulled first")
    return cable


def _on_cable(wiring: Wiring, fault: Fault, change: Callable[[Cable], Cable]) -> Wiring:
    """Changes the cable of the fault's adapter."""
    chosen = _cable(wiring, fault, _adapter(wiring, fault))
    return replace(wiring, cables=tuple(change(c) if c == chosen else c for c in wiring.cables))


def _on_member(wiring: Wiring, name: str, change: Callable[[Member], Member]) -> Wiring:
    return replace(wiring, members=tuple(change(m) if m.name == name else m for m in wiring.members))


def _pulled(wiring: Wiring, fault: Fault) -> Wiring:
    chosen = _cable(wiring, fault, _adapter(wiring, fault))
    return replace(wiring, cables=tuple(c for c in wiring.cables if c != chosen))


def _moved(wiring: Wiring, fault: Fault, least: int) -> Wiring:
    """Each cable's far end into the port where the next one's was."""
    cables = [_cable(wiring, fault, adapter) for adapter in _others(wiring, fault, least)]
    ends = [_far(cable) for cable in cables]
    after = {c: replace(c, b=end) for c, end in zip(cables, (*ends[1:], ends[0]), strict=True)}
    return replace(wiring, cables=tuple(after.get(c, c) for c in wiring.cables))


def _far(cable: Cable) -> End:
    """The switch's end: plans put the adapter first."""
    return cable.b


def _narrow(wiring: Wiring, fault: Fault) -> Wiring:
    lanes = NARROW_LANES if fault.value is None else int(fault.value)
    if lanes not in (1, 2, LANES):
        raise UsageError(f"fault {fault.kind}: a link has no {lanes} lanes", "--value 1 or 2")
    return _on_cable(wiring, fault, lambda cable: replace(cable, lanes=lanes))


def _slow(wiring: Wiring, fault: Fault) -> Wiring:
    """The fastest speed at or below that share of the planned one; the slowest there is below all of them."""
    share = SLOW_SHARE if fault.value is None else fault.value

    def slowed(cable: Cable) -> Cable:
        slower = [speed for speed in Speed if speed.data_gbit <= cable.speed.data_gbit * share]
        return replace(cable, speed=slower[-1] if slower else Speed.FDR)

    return _on_cable(wiring, fault, slowed)


def _symbol_errors(wiring: Wiring, fault: Fault) -> Wiring:
    rate = SYMBOL_ERRORS_PER_S if fault.value is None else fault.value
    return _on_cable(wiring, fault, lambda cable: replace(cable, symbol_errors_per_s=rate))


def _dropping(wiring: Wiring, fault: Fault) -> Wiring:
    seconds = DROPS_EVERY_S if fault.value is None else fault.value
    if seconds <= 0:
        raise UsageError(f"fault {fault.kind}: every {seconds:g} s is no time", "--value SECONDS, more than 0")
    return _on_cable(wiring, fault, lambda cable: replace(cable, drops_every_s=seconds))


def _switch_off(wiring: Wiring, fault: Fault) -> Wiring:
    switches = [m.name for m in wiring.members if m.kind is MemberKind.SWITCH]
    if fault.node not in switches:
        raise UsageError(f"fault {fault.kind}: {fault.node} is no switch of the fabric", ", ".join(switches))
    return _on_member(wiring, fault.node, lambda member: replace(member, on=False))


def _alien(wiring: Wiring, fault: Fault) -> Wiring:
    adapter = _adapter(wiring, fault)
    guid = _ALIEN_GUID | adapter.guid & 0xFFFFFFFF
    return _on_member(wiring, adapter.name, lambda member: replace(member, guid=guid, system=guid))


def _same_guid(wiring: Wiring, fault: Fault) -> Wiring:
    adapter, other = _others(wiring, fault, 1)[:2]
    return _on_member(wiring, adapter.name, lambda m: replace(m, guid=other.guid, system=other.system))


def _same_lid(wiring: Wiring, fault: Fault) -> Wiring:
    adapter, other = _others(wiring, fault, 1)[:2]
    return _on_member(wiring, adapter.name, lambda member: replace(member, lid_of=other.name))


def _deaf(wiring: Wiring, fault: Fault) -> Wiring:
    share = (MAD_LOSS_PERCENT if fault.value is None else fault.value) / 100
    if not 0 <= share <= 1:
        raise UsageError(f"fault {fault.kind}: {fault.value:g} percent", "--value 0 to 100")
    return _on_member(wiring, _adapter(wiring, fault).name, lambda member: replace(member, mad_loss=share))


def _limited(wiring: Wiring, fault: Fault) -> Wiring:
    return _on_member(wiring, _adapter(wiring, fault).name, lambda member: replace(member, limited=True))


_CHANGES: Mapping[FaultKind, _Change] = MappingProxyType(
    {
        FaultKind.CABLE_PULLED: _pulled,
        FaultKind.SWAPPED_CABLES: lambda wiring, fault: _moved(wiring, fault, 1),
        FaultKind.ROTATED_CABLES: lambda wiring, fault: _moved(wiring, fault, 2),
        FaultKind.NARROW_LINK: _narrow,
        FaultKind.HALF_RATE_RAIL: _slow,
        FaultKind.SYMBOL_ERRORS: _symbol_errors,
        FaultKind.LINK_DOWNED: _dropping,
        FaultKind.SWITCH_DOWN: _switch_off,
        FaultKind.WRONG_GUID: _alien,
        FaultKind.DUPLICATE_GUID: _same_guid,
        FaultKind.DUPLICATE_LID: _same_lid,
        FaultKind.MAD_LOSS: _deaf,
        FaultKind.PKEY_LIMITED: _limited,
    }
)

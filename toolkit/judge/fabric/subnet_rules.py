"""The subnet manager and what it sets: states of ports, LIDs, P_Keys. Configuration, so it comes before any cable."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.picture import LINK_UP, Picture
from toolkit.judge.fabric.seen import PortState, SubnetManager
from toolkit.judge.fabric.sheet import Sheet, count, some, unread
from toolkit.rack.model import Port

ACTIVE = "Active"
MASTER, STANDBY = "MASTER", "STANDBY"
FULL_MEMBER = 0x8000  # bit 15 of a P_Key: IBTA volume 1, partition membership
UNICAST_LIDS = range(1, 0xC000)


def judge_subnet(picture: Picture, sheet: Sheet) -> frozenset[Port]:
    """Lines for the manager, the states, the LIDs and the P_Keys. Returns the ports seen Active."""
    headless = _managers(picture, sheet)
    active = _states(picture, sheet, headless)
    _lids(picture, sheet)
    _pkeys(picture, sheet)
    return active


def _managers(picture: Picture, sheet: Sheet) -> frozenset[int]:
    """Every subnet has one master. Returns the subnets that are known to have none.

    Managers of one subnet alone speak for it alone: the caller has picked the one to judge.
    """
    managers = picture.seen.managers
    if managers is None:
        return frozenset()
    of_subnet: dict[int, dict[str, SubnetManager]] = defaultdict(dict)
    for manager in managers:
        of_subnet[picture.subnets.get(picture.node_guid(manager.guid), 0)].setdefault(manager.guid, manager)
    planned = {picture.subnet(port) for port in picture.design.partner} - {0}
    asked = planned if len(planned & set(of_subnet)) > 1 else set(of_subnet) or planned
    headless = {subnet for subnet in asked if not any(m.state == MASTER for m in of_subnet[subnet].values())}
    if headless:
        said = [_said(m, picture) for m in managers if m.state != MASTER] or ["nobody answers as a subnet manager"]
        sheet.add(
            "FABRIC_SM_NONE", Action.CONFIGURE,
            f"no subnet manager is master{_of(headless, planned, picture)}: start opensm or UFM, look at its log", (),
            said, "`sminfo` shows one SMINFO_MASTER", "software",
        )  # fmt: skip
    for subnet in sorted(asked - headless):
        _masters(tuple(of_subnet[subnet].values()), picture, sheet)
    return frozenset(headless if headless & planned else planned if headless else ())


def _of(headless: set[int], planned: set[int], picture: Picture) -> str:
    """Which subnets, where there are several."""
    names = sorted(name for guid, name in picture.names.switches.items() if picture.subnets.get(guid) in headless)
    return f" in the subnet of {some(names)}" if len(planned) > 1 and names else ""


def _masters(managers: Sequence[SubnetManager], picture: Picture, sheet: Sheet) -> None:
    """Of one subnet: exactly one, and the right one."""
    masters = [m for m in managers if m.state == MASTER]
    if len(masters) == 1:
        _priorities(masters[0], managers, picture, sheet)
        return
    sheet.add(
        "FABRIC_SM_TWO_MASTERS", Action.CONFIGURE,
        f"{len(masters)} subnet managers are master at once: {some([_who(m, picture) for m in masters])}; "
        "leave one, look for different sm_key, M_Key or allowed_sm_guids", (), [_said(m, picture) for m in masters],
        "`sminfo` shows one SMINFO_MASTER from every node, the others STANDBY", "software",
    )  # fmt: skip


def _priorities(master: SubnetManager, managers: Iterable[SubnetManager], picture: Picture, sheet: Sheet) -> None:
    """A standby of a higher priority should have taken over: IBTA volume 1, SM state machine, HANDOVER."""
    own = master.priority
    higher = [m for m in managers if own is not None and m.state == STANDBY and (m.priority or 0) > own]
    if higher:
        sheet.add(
            "FABRIC_SM_PRIORITY", Action.CONFIGURE,
            f"the master {_who(master, picture)} has priority {master.priority}, a standby {higher[0].priority}: "
            "the planned master did not take over", (), [_said(m, picture) for m in (master, *higher)],
            "`sminfo` shows the planned master", "software",
        )  # fmt: skip


def _who(manager: SubnetManager, picture: Picture) -> str:
    guid = picture.node_guid(manager.guid)
    port = picture.names.hcas.get(guid)
    return picture.word(port) if port else picture.names.labels.get(guid) or manager.guid


def _said(manager: SubnetManager, picture: Picture) -> str:
    priority = "not shown" if manager.priority is None else manager.priority
    return f"{_who(manager, picture)} ({manager.guid}): {manager.state}, priority {priority}, LID {manager.lid}"


def _states(picture: Picture, sheet: Sheet, headless: frozenset[int]) -> frozenset[Port]:
    """Planned ports with light that are not Active. None Active in a subnet is one finding, not one a port."""
    if picture.seen.ports is None:
        return frozenset()
    planned = {port: state for port, state in picture.states.items() if port in picture.design.partner}
    active = frozenset(port for port, state in planned.items() if state.state == ACTIVE)
    alive = {picture.subnet(port) for port in active}
    waiting = sorted(p for p, s in planned.items() if s.physical == LINK_UP and s.state != ACTIVE)
    idle = [port for port in waiting if picture.subnet(port) not in alive]
    unsaid = [port for port in idle if picture.subnet(port) not in headless]
    if unsaid:
        sheet.add(
            "FABRIC_SM_IDLE", Action.CONFIGURE,
            f"{count(len(unsaid), 'port')} with light, none Active: no subnet manager works here; start it, "
            "look at its log", [picture.end(p) for p in unsaid],
            [_state(p, picture) for p in unsaid[:4]], "`iblinkinfo` shows Active", "software",
        )  # fmt: skip
    for ends in _cables([port for port in waiting if picture.subnet(port) in alive], picture):
        _waiting(ends, picture, sheet)
    _contradicted(planned, picture, sheet)
    hidden = [p for p in picture.design.partner if picture.links.get(p) is not None and p not in planned]
    if hidden:
        names = some([picture.word(p) for p in hidden])
        sheet.doubts.append(f"state not shown of {count(len(hidden), 'port')}: {names}")
    return active


def _contradicted(planned: Mapping[Port, PortState], picture: Picture, sheet: Sheet) -> None:
    """A port with a link by the one tool and without light by the other: it comes and goes, or the tools were cut."""
    dark = [p for p, s in planned.items() if p in picture.links and s.physical != LINK_UP and s.state != ACTIVE]
    if dark:
        names = some(sorted(_state(port, picture) for port in dark))
        sheet.doubts.append(f"the discovery shows a link and iblinkinfo none, so it comes and goes: {names}")


def _cables(ports: Sequence[Port], picture: Picture) -> list[tuple[Port, ...]]:
    """Ports by the planned cable they are on: both ends of a cable wait together."""
    cables: dict[Port, list[Port]] = defaultdict(list)
    for port in ports:
        partner = picture.partner(port) or port
        cables[min(port, partner)].append(port)
    return [tuple(ends) for _, ends in sorted(cables.items())]


def _waiting(ports: tuple[Port, ...], picture: Picture, sheet: Sheet) -> None:
    far = picture.partner(ports[0])
    sheet.add(
        "FABRIC_PORT_NOT_ACTIVE", Action.CONFIGURE,
        f"{' and '.join(_state(p, picture) for p in ports)}: the subnet manager does not bring it up; its log says why",
        [picture.end(p) for p in dict.fromkeys((*ports, *((far,) if far else ())))],
        ["other ports are Active, so a manager works: a GUID or M_Key it refuses, or a link that comes and goes"],
        f"both ends are Active; {sheet.again}", "software",
    )  # fmt: skip


def _state(port: Port, picture: Picture) -> str:
    state = picture.states[port]
    return f"{picture.word(port)} is {state.state}/{state.physical}"


def _lids(picture: Picture, sheet: Sheet) -> None:
    """In one subnet one LID is one device's. ibidsverify says nothing of it while it lasts."""
    owners: dict[tuple[int, int], set[str]] = defaultdict(set)
    for node in picture.seen.discovery.nodes:
        if node.lid in UNICAST_LIDS:
            owners[picture.subnets[node.guid], node.lid or 0].add(node.guid)
    for state in picture.seen.ports or ():
        guid = picture.node_guid(state.port.guid)
        if state.lid in UNICAST_LIDS and guid in picture.subnets:
            owners[picture.subnets[guid], state.lid or 0].add(guid)
    for (_, lid), guids in sorted(owners.items()):
        if len(guids) > 1:
            ports = sorted(filter(None, (picture.names.hcas.get(guid) for guid in guids)))
            names = [f"{_name(guid, picture)} ({guid})" for guid in sorted(guids)]
            sheet.add(
                "FABRIC_DUPLICATE_LID", Action.CONFIGURE,
                f"LID {lid} is on {len(guids)} devices: {some(names)}; have the subnet manager sweep "
                "(SIGHUP to opensm), then look for a second manager", [picture.end(p) for p in ports],
                [f"{name} says LID {lid}" for name in names], f"every LID is on one device; {sheet.again}", "software",
            )  # fmt: skip


def _name(guid: str, picture: Picture) -> str:
    port = picture.names.hcas.get(guid)
    return picture.word(port) if port else picture.names.switches.get(guid) or picture.names.labels.get(guid) or "?"


def _pkeys(picture: Picture, sheet: Sheet) -> None:
    """Every HCA of the plan needs one P_Key of full membership: limited members do not hear one another."""
    if picture.seen.memberships is None:
        return
    held = {picture.names.port(m.port): m.pkeys for m in picture.seen.memberships}
    here = [hca.port for hca in picture.design.hcas if hca.port not in picture.hcas_dark]
    empty = [port for port in here if port in held and not held[port]]
    limited = [port for port in here if held.get(port) and not any(key & FULL_MEMBER for key in held[port])]
    for code, ports, words in (
        ("FABRIC_PKEY_LIMITED", limited, "only limited membership"),
        ("FABRIC_PKEY_MISSING", empty, "no P_Key"),
    ):
        if ports:
            keys = sorted({f"0x{key:04x}" for port in ports for key in held[port]})
            sheet.add(
                code, Action.CONFIGURE,
                f"{count(len(ports), 'HCA')} with {words}: {some([picture.word(p) for p in ports])}; "
                "make them full members in partitions.conf or UFM", [picture.end(p) for p in ports],
                [f"P_Keys: {', '.join(keys[:8]) or 'none'}"], "`smpquery pkeys` shows a key with bit 15 (0x8001)",
                "software",
            )  # fmt: skip
    unread(sheet, "P_Keys", picture.ends_by_unit(port for port in here if port not in held))

"""Planned cables that nobody sees: one finding a cause. A switch or a node that is dark is named once, not per cable.

What is absent from an incomplete discovery is unknown. A port that was itself seen to be dark is seen all the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from toolkit.judge.fabric.line import Action, WorkEnd
from toolkit.judge.fabric.picture import Picture
from toolkit.judge.fabric.sheet import Sheet, count, some
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Port

Cable = tuple[Port, Port]
DISABLED = "Disabled"  # PortPhysicalState 3; Polling (2) is a port that sees no light: IBTA volume 1, PortInfo


def missing_cables(cables: Sequence[Cable], picture: Picture, sheet: Sheet) -> None:
    """A line for each dark switch, each dark node and each other cable that is not seen."""
    of_switch: dict[str, list[Cable]] = defaultdict(list)
    of_node: dict[str, list[Cable]] = defaultdict(list)
    for cable in sorted(cables):
        dark = next((p.unit for p in cable if p.unit in picture.switches_dark), None)
        off = next((p.unit for p in cable if p.unit in picture.nodes_dark), None)
        if dark is not None:
            of_switch[dark].append(cable)
        elif off is not None:
            of_node[off].append(cable)
        else:
            _cable(cable, picture, sheet)
    for switch in sorted(picture.switches_dark):
        _switch(switch, of_switch[switch], picture, sheet)
    for node, lost in sorted(of_node.items()):
        _node(node, lost, picture, sheet)


def _switch(name: str, cables: Sequence[Cable], picture: Picture, sheet: Sheet) -> None:
    strangers = [
        f"{picture.names.labels.get(guid) or 'no name'} ({guid})"
        for guid, kind in picture.kinds.items()
        if kind == "switch" and guid not in picture.names.switches
    ]
    if strangers:
        _unidentified(name, strangers, cables, picture, sheet)
        return
    sheet.add(
        "FABRIC_SWITCH_MISSING", Action.INSPECT,
        f"{name} is not in the fabric: power, fans, its console; {count(len(cables), 'planned cable')} end there",
        _device_first(name, cables, picture),
        [*_dark_ends(cables, name, picture), *_doubtful(picture)],
        f"ibswitches lists {name}; {sheet.again}", "leaf_port",
        answer=_answer(name, cables, picture),
    )  # fmt: skip


def _unidentified(name: str, strangers: Sequence[str], cables: Sequence[Cable], picture: Picture, sheet: Sheet) -> None:
    sheet.add(
        "FABRIC_SWITCH_UNIDENTIFIED", Action.CONFIGURE,
        f"which switch is {name} cannot be told: write its guid: in the rack file, or name it so on the switch",
        _device_first(name, cables, picture),
        [f"none has the plan's GUID or the name {name}, and too few cables tell", f"unnamed: {some(strangers)}"],
        f"{sheet.again}: {name} is recognised", "software", answer=Answer.INCONCLUSIVE,
    )  # fmt: skip


def _node(name: str, cables: Sequence[Cable], picture: Picture, sheet: Sheet) -> None:
    answering = picture.seen.answering
    unreachable = answering is not None and name not in answering  # an error of ours until somebody saw it run
    if answering is None:
        settle = f"whether it is off: ssh {name}, or its BMC; if it runs, `ibstat` there tells drivers from cables"
    elif name in answering:
        settle = (
            f"{name} answers in-band, so it is on: `ibstat` there: no adapters is the driver, Polling is the cables"
        )
    else:
        settle = f"{name} does not answer in-band either: it is off or hangs; look at its BMC first"
    sheet.add(
        "FABRIC_NODE_MISSING", Action.INSPECT,
        f"{name}: none of its {len(cables)} planned cables is seen: is it off?",
        _device_first(name, cables, picture),
        [*_dark_ends(cables, name, picture), f"to settle: {settle}", *_doubtful(picture)],
        f"ibhosts lists {name} {len(cables)} times; {sheet.again}", "tray",
        answer=Answer.INCONCLUSIVE if unreachable else _answer(name, cables, picture),
    )  # fmt: skip


def _cable(cable: Cable, picture: Picture, sheet: Sheet) -> None:
    """One cable, by what its ends show of themselves. A port that holds another cable shows nothing of this one."""
    far, near = sorted(cable, key=lambda port: port.port.isdigit())  # an HCA before a switch's port
    empty = [port for port in (near, far) if port not in picture.links]
    if len(empty) < len(cable):
        _taken(near, far, picture, sheet)
        return
    if any(picture.up(port) or port in picture.silent for port in empty):
        _silent(near, far, picture, sheet)
        return
    states = {port: picture.states[port].physical for port in (near, far) if port in picture.states}
    evidence = [f"{picture.word(port)} is {picture.states[port].state}/{word}" for port, word in states.items()]
    if DISABLED in states.values():
        disabled = next(port for port, word in states.items() if word == DISABLED)
        other = near if disabled == far else far
        sheet.add(
            "FABRIC_PORT_DISABLED", Action.CONFIGURE,
            f"{picture.word(disabled)} is disabled: enable it, or ask who switched it off "
            f"(cable {picture.word(disabled)} - {picture.word(other)})",
            map(picture.end, (disabled, other)), evidence,
            f"{picture.word(disabled)} is Active; {sheet.again}", "software",
        )  # fmt: skip
        return
    evidence += _settle(far, near, picture)
    dark = bool(states)
    off = picture.seen.answering is not None and not far.port.isdigit() and far.unit not in picture.seen.answering
    known = dark or picture.whole
    name = f"{picture.word(near)} - {picture.word(far)}"
    # What may be healthy is looked at, not pulled.
    hands = known and not off
    sheet.add(
        "FABRIC_LINK_DOWN" if dark else "FABRIC_LINK_MISSING", Action.RESEAT if hands else Action.INSPECT,
        f"reseat the cable {name}: no link" if hands else f"no link is seen on the cable {name}",
        map(picture.end, (near, far)), [*evidence, *([] if dark else _doubtful(picture))],
        f"both ports are Active; {sheet.again}", "cable",
        answer=Answer.FAIL if known else Answer.INCONCLUSIVE,
    )  # fmt: skip


def _taken(near: Port, far: Port, picture: Picture, sheet: Sheet) -> None:
    """Another cable is where this one belongs: first the moves that free the port, then this one."""
    held = [f"{picture.word(port)} holds another cable" for port in (near, far) if port in picture.links]
    sheet.add(
        "FABRIC_LINK_MISSING", Action.INSPECT,
        f"no cable is seen between {picture.word(near)} and {picture.word(far)}: plug it once the port is free",
        map(picture.end, (near, far)),
        [*held, *_settle(far, near, picture), *_doubtful(picture)],
        f"both ports are Active; {sheet.again}", "cable",
        answer=Answer.FAIL if picture.whole else Answer.INCONCLUSIVE,
    )  # fmt: skip


def _settle(far: Port, near: Port, picture: Picture) -> list[str]:
    """What tells the cable from the HCA from the node."""
    if far.port.isdigit():
        return []
    if picture.seen.answering is not None and far.unit not in picture.seen.answering:
        return [f"{far.unit} does not answer in-band: if it is off, this port is dark for that reason alone"]
    return [
        f"to settle: `ibstat {far.port}` on {far.unit}: Polling there too is the cable or a transceiver, "
        f"no such adapter is the HCA, no answer is the node"
    ]


def _silent(near: Port, far: Port, picture: Picture, sheet: Sheet) -> None:
    """The port has light: something is there that the discovery did not hear."""
    lit = near if picture.up(near) or near in picture.silent else far
    other = far if lit == near else near
    sheet.add(
        "FABRIC_PEER_SILENT", Action.INSPECT,
        f"what is behind {picture.word(lit)} does not answer; planned: {picture.word(other)}",
        map(picture.end, (other, lit)),
        [
            f"{picture.word(lit)} has light, and the discovery shows nothing there: lost management packets, "
            "a hung firmware, a node that reboots, an M_Key, a GUID that is there twice",
            f"to settle: `smpquery nodeinfo` by the route to it, `ibstat` on {other.unit}; then discover again",
        ],
        f"ibnetdiscover shows {picture.word(other)}; {sheet.again}", "hca", answer=Answer.INCONCLUSIVE,
    )  # fmt: skip


def _device_first(unit: str, cables: Sequence[Cable], picture: Picture) -> list[WorkEnd]:
    """All ends of its cables, the device's own before the others: that is where to go."""
    ports = sorted((port for cable in cables for port in cable), key=lambda port: port.unit != unit)
    return [picture.end(port) for port in ports] or [picture.end(Port(unit, ""))]


def _dark_ends(cables: Sequence[Cable], unit: str, picture: Picture) -> list[str]:
    """How the far ends of a device's cables look."""
    far = [port for cable in cables for port in cable if port.unit != unit]
    known = [picture.word(port) for port in far if picture.up(port) is False]
    lit = [picture.word(port) for port in far if picture.up(port)]
    return ([f"dark at the other end: {some(known)}"] if known else []) + (
        [f"with light at the other end: {some(lit)}"] if lit else []
    )


def _answer(unit: str, cables: Sequence[Cable], picture: Picture) -> Answer:
    """A device is gone where the discovery is whole, or where the far end of every cable to it was seen dark."""
    far = [port for cable in cables for port in cable if port.unit != unit]
    dark = bool(far) and all(picture.up(port) is False for port in far)
    return Answer.FAIL if picture.whole or dark else Answer.INCONCLUSIVE


def _doubtful(picture: Picture) -> list[str]:
    return [] if picture.whole else ["the discovery is incomplete: absent from it is not absent from the fabric"]

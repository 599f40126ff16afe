"""Boards and switches that are not the planned ones, and GUIDs that are there twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from toolkit.judge.fabric.identity import Strange
from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.picture import Picture, duplicate_ends
from toolkit.judge.fabric.sheet import Sheet, count, some
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Port


def judge_boards(picture: Picture, sheet: Sheet) -> None:
    """A line for every device that is not the one the plan has there."""
    hcas = [strange for strange in picture.names.replaced if strange.port.port]
    if len(hcas) > 1 and 2 * len(hcas) > len(picture.design.hcas):
        _unfilled(hcas, picture, sheet)
    else:
        for strange in hcas:
            _replaced(strange, picture, sheet)
    for strange in picture.names.replaced:
        if not strange.port.port:
            _switch_replaced(strange, picture, sheet)
    of_node: dict[str, list[Strange]] = defaultdict(list)
    for strange in picture.names.moved:
        of_node[strange.port.unit].append(strange)
    for node, moved in sorted(of_node.items()):
        _moved(node, moved, picture, sheet)
    if picture.names.exchanged:
        _exchanged(picture, sheet)
    for guid in sorted(picture.names.duplicates):
        _duplicate(guid, picture, sheet)
    _notes(picture, sheet)


def _replaced(strange: Strange, picture: Picture, sheet: Sheet) -> None:
    word = picture.word(strange.port)
    far = picture.partner(strange.port)
    sheet.add(
        "FABRIC_HCA_REPLACED", Action.CONFIGURE,
        f"{word} has GUID {strange.guid}, planned {strange.planned}: HCA replaced? "
        "update the rack file or put the right board back",
        [picture.end(strange.port), *([picture.end(far)] if far else [])],
        [f"no port of the fabric has {strange.planned}", f"{strange.guid} is in its place and is not in the plan"],
        f"the rack file and `ibstat` on {strange.port.unit} say the same GUID; {sheet.again}", "hca",
    )  # fmt: skip


def _unfilled(strange: Sequence[Strange], picture: Picture, sheet: Sheet) -> None:
    sheet.add(
        "FABRIC_GUIDS_UNFILLED", Action.CONFIGURE,
        f"{len(strange)} of {count(len(picture.design.hcas), 'HCA')} have another GUID than the rack file says: "
        "take the GUIDs over from `ibstat`, if this is the right fabric",
        [picture.end(s.port) for s in strange],
        [f"{picture.word(s.port)}: {s.guid}, planned {s.planned}" for s in strange[:4]],
        f"{sheet.again}: every GUID is the plan's", "software",
        answer=Answer.FAIL if picture.names.by_guid else Answer.INCONCLUSIVE,
    )  # fmt: skip


def _switch_replaced(strange: Strange, picture: Picture, sheet: Sheet) -> None:
    name = strange.port.unit
    sheet.add(
        "FABRIC_SWITCH_REPLACED", Action.CONFIGURE,
        f"{name} has GUID {strange.guid}, planned {strange.planned}: switch replaced? "
        "update the rack file or put the right one back",
        [picture.end(Port(name, ""))],
        [f"it calls itself {name}, and no switch of the fabric has {strange.planned}"],
        f"the rack file and `ibswitches` say the same GUID; {sheet.again}", "software",
    )  # fmt: skip


def _moved(node: str, moved: Sequence[Strange], picture: Picture, sheet: Sheet) -> None:
    """One line a node: boards are exchanged one by one, or with the whole node, or in the rack file."""
    homes = {hca.guid: hca.port for hca in picture.design.hcas}
    come = [(strange, homes.get(picture.names.planned_guid(strange.guid, homes))) for strange in moved]
    words = [f"{picture.word(s.port)} has that of {picture.word(home) if home else 'another'}" for s, home in come]
    ends = [s.port for s in moved] + [home for _, home in come if home is not None]
    sheet.add(
        "FABRIC_HCA_MOVED", Action.CONFIGURE,
        f"{node} has {count(len(moved), 'HCA')} planned elsewhere ({some(words)}): boards or nodes exchanged? "
        "update the rack file or put them back; no cable is wrong",
        map(picture.end, dict.fromkeys(ends)),
        [f"{picture.word(s.port)} by name and cable: GUID {s.guid}, planned {s.planned}" for s in moved[:4]],
        f"the rack file and `ibstat` on {node} say the same GUIDs; {sheet.again}", "hca",
    )  # fmt: skip


def _exchanged(picture: Picture, sheet: Sheet) -> None:
    """All of them in one line: two that hold one another's cables are one mistake."""
    pairs = picture.names.exchanged
    words = [f"{said} has the cables of {cabled}" for said, cabled in pairs]
    sheet.add(
        "FABRIC_SWITCHES_EXCHANGED", Action.CONFIGURE,
        f"switches under another's name: {some(words)}: correct their names, or their GUIDs in the rack file, "
        "before any cable is moved",
        [picture.end(Port(said, "")) for said, _ in pairs],
        [f"nearly all cables of the switch that goes by {said} fit {cabled} of the plan, port by port"
         for said, cabled in pairs[:4]],
        f"{sheet.again}: every switch is where its name says", "software",
    )  # fmt: skip


def _duplicate(guid: str, picture: Picture, sheet: Sheet) -> None:
    """Every place it was met at, and who is planned there: the copy hides the board it stands in for."""
    at = sorted(set(duplicate_ends(picture, guid)))
    switch, planned = picture.names.switches.get(guid), picture.names.hcas.get(guid)
    home = picture.partner(planned) if planned else None
    others = [due for port in at if port != home and (due := picture.partner(port)) is not None]
    elsewhere = [picture.word(port) for port in at if port != home]
    owner = switch or (picture.word(planned) if planned else "nobody of the plan")
    suspects = [picture.word(port) for port in others if port in picture.hcas_dark]
    own = [planned] if planned else [Port(switch, "")] if switch else []
    words = f"GUID {guid} is in the fabric twice: once as {owner}"
    words += f", once behind {some(elsewhere)}" if elsewhere and not switch else ""
    words += f", where {some(suspects)} is planned and not seen" if suspects else ""
    sheet.add(
        "FABRIC_DUPLICATE_GUID", Action.INSPECT, words,
        [picture.end(port) for port in dict.fromkeys([*([] if switch else others), *own, *at])],
        [f"seen behind {some([picture.word(port) for port in at])}" if at else "the tool says so and shows no place",
         "a board flashed with another's GUID (`flint -d <device> query`); routes to both are wrong until then"],
        f"`ibstat` on both nodes shows two GUIDs; {sheet.again}", "hca",
    )  # fmt: skip


def _notes(picture: Picture, sheet: Sheet) -> None:
    for port, said in picture.names.renamed:
        sheet.notes.append(f"{picture.word(port)} is in its place and calls itself {said}: the driver counts otherwise")
    if picture.names.by_cables:
        told = some([f"{guid} for {name}" for guid, name in picture.names.by_cables])
        sheet.notes.append(f"known by their cables alone: {told}: write each guid: in the rack file")

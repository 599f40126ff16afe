"""One board and one firmware for everything of a kind: HCAs, leaves, spines."""

from __future__ import annotations

from collections import Counter, defaultdict

from toolkit.judge.fabric.line import Action
from toolkit.judge.fabric.picture import Picture
from toolkit.judge.fabric.seen import Firmware
from toolkit.judge.fabric.sheet import Sheet, some, unread
from toolkit.judge.verdict import FEWEST_VOICES, Answer
from toolkit.rack.model import Port


def judge_sameness(picture: Picture, sheet: Sheet) -> None:
    """Lines for boards (PSID) and firmware that differ from the others of their kind."""
    if picture.seen.firmware is None:
        return
    kinds = {switch.name: f"{switch.kind} switches" for switch in picture.design.switches}
    groups: dict[str, dict[Port, Firmware]] = defaultdict(dict)
    for found in picture.seen.firmware:
        guid = picture.node_guid(found.guid)
        switch = picture.names.switches.get(guid)
        if switch is not None:
            groups[kinds[switch]][Port(switch, "")] = found
        elif guid in picture.names.hcas:
            groups["HCAs"][picture.names.hcas[guid]] = found
    for kind, members in sorted(groups.items()):
        _group(kind, members, picture, sheet)
    known = groups.get("HCAs", {})
    silent = [h.port for h in picture.design.hcas if h.port not in picture.hcas_dark and h.port not in known]
    unread(sheet, "firmware", picture.ends_by_unit(silent))


def _group(kind: str, members: dict[Port, Firmware], picture: Picture, sheet: Sheet) -> None:
    """Boards first: firmware is comparable only on boards of one PSID."""
    boards = {port: found.psid for port, found in members.items()}
    _differing("FABRIC_PSID_DIFFERS", f"board (PSID) of {kind}", boards, picture, sheet)
    for psid in sorted({psid for psid in boards.values() if psid}):
        versions = {port: found.version for port, found in members.items() if found.psid == psid}
        _differing("FABRIC_FIRMWARE_DIFFERS", f"firmware of {kind} with PSID {psid}", versions, picture, sheet)


def _differing(code: str, what: str, values: dict[Port, str], picture: Picture, sheet: Sheet) -> None:
    """Where most agree, the others are named; where none do, nobody is blamed."""
    silent = [picture.word(port) for port, value in values.items() if not value]
    if silent:
        sheet.doubts.append(f"{what} not said by {some(silent)}")
    votes = Counter(value for value in values.values() if value)
    if len(votes) < 2:
        return
    common, most = votes.most_common(1)[0]
    settled = votes.total() >= FEWEST_VOICES and 2 * most > votes.total()
    others = sorted(port for port, value in values.items() if value and value != common)
    named = others if settled else sorted(values)
    words = [f"{picture.word(port).strip()} {values[port]}" for port in named]
    sheet.add(
        code, Action.CONFIGURE,
        f"{what} differs: {some(words)}; the others have {common}: bring them to the plan's version" if settled else
        f"{what} differs, and no majority says which is right: {some(words)}",
        [picture.end(port) for port in named], [f"{n} x {value}" for value, n in votes.most_common(4)],
        f"`flint -d <device> query` says the same on all; {sheet.again}", "software",
        answer=Answer.FAIL if settled else Answer.INCONCLUSIVE,
    )  # fmt: skip

"""Plan against reality: a Design and what was Seen give one FabricReport. Pure.

Configuration comes before hardware: without a subnet manager every port is in Initialize, and that is one finding.
What is seen to be wrong fails whatever else is unknown; what is absent from an incomplete discovery is undecided; and
an incomplete look is never a PASS.
"""

from __future__ import annotations

from toolkit.judge.fabric.boards import judge_boards
from toolkit.judge.fabric.cables import judge_cables
from toolkit.judge.fabric.counters import judge_counters
from toolkit.judge.fabric.design import Design
from toolkit.judge.fabric.health import judge_health
from toolkit.judge.fabric.inband import judge_inband
from toolkit.judge.fabric.line import Action, FabricReport
from toolkit.judge.fabric.picture import Picture, picture
from toolkit.judge.fabric.sameness import judge_sameness
from toolkit.judge.fabric.seen import Seen, SeenKind
from toolkit.judge.fabric.sheet import Sheet, count, some
from toolkit.judge.fabric.subnet_rules import judge_subnet
from toolkit.judge.fabric.work_order import ordered
from toolkit.judge.verdict import Answer


def compare(design: Design, seen: Seen) -> FabricReport:
    """Everything that differs, named once, and what could not be told."""
    sheet = Sheet(design.rack)
    look = picture(design, seen)
    sheet.doubts += [f"discovery: {doubt}" for doubt in seen.discovery.doubts]
    sheet.doubts += seen.doubts
    as_designed = sound = 0
    if not design.links:
        sheet.doubts.append("the rack file plans no InfiniBand cables: there is nothing to compare with")
    elif _another(look):
        _say_another(look, sheet)
    else:
        _not_looked_at(seen, sheet)
        active = judge_subnet(look, sheet)
        judge_boards(look, sheet)
        as_designed = judge_cables(look, sheet)
        sound = judge_health(look, sheet, active)
        judge_counters(look, sheet)
        judge_sameness(look, sheet)
    judge_inband(design, seen.neighbors, sheet)
    return FabricReport(
        rack=design.rack,
        answer=_answer(sheet, min(as_designed, sound), len(design.links)),
        lines=ordered(sheet.lines),
        doubts=tuple(sheet.doubts),
        notes=tuple(sheet.notes),
        links_designed=len(design.links),
        links_as_designed=as_designed,
        links_sound=sound,
        hcas_designed=len(design.hcas),
        hcas_seen=len(design.hcas) - len(look.hcas_dark),
        switches_designed=len(design.switches),
        switches_seen=len(design.switches) - len(look.switches_dark),
        seconds_counted=seen.seconds,
    )


def _another(look: Picture) -> bool:
    """Not one GUID of the plan's HCAs, and not one of their names in its place."""
    return not look.names.hcas and not any(switch.guid in look.kinds for switch in look.design.switches if switch.guid)


def _say_another(look: Picture, sheet: Sheet) -> None:
    hcas = [node for node in look.seen.discovery.nodes if node.kind is SeenKind.HCA]
    if not look.seen.discovery.nodes:
        sheet.doubts.append("the discovery shows no node at all: was it run on a node of this fabric, as root?")
        return
    names = [node.description.strip()[:64] or node.guid for node in hcas]
    sheet.add(
        "FABRIC_OTHER", Action.INSPECT,
        f"this is another fabric: none of its {count(len(hcas), 'HCA')} is one of the {len(look.design.hcas):,} of "
        f"{look.design.rack}",
        (), [f"there: {some(names)}", f"planned: {some([f'{h.port} {h.guid}' for h in look.design.hcas])}"],
        f"run the discovery on a node of {look.design.rack}, on the compute fabric; {sheet.again}", "evidence",
        answer=Answer.INCONCLUSIVE,
    )  # fmt: skip


def _not_looked_at(seen: Seen, sheet: Sheet) -> None:
    for value, what in (
        (seen.ports, "states of ports (iblinkinfo)"),
        (seen.before, "error counters (ibqueryerrors)"),
        (seen.after if seen.before is not None else (), "error counters a second time"),
        (seen.managers, "subnet managers (sminfo)"),
        (seen.memberships, "P_Keys"),
        (seen.firmware, "firmware and PSID"),
    ):
        if value is None:
            sheet.doubts.append(f"not looked at: {what}")


def _answer(sheet: Sheet, sound: int, designed: int) -> Answer:
    """PASS takes every planned cable found sound, nothing to do and no doubt."""
    if any(line.answer is Answer.FAIL for line in sheet.lines):
        return Answer.FAIL
    if sheet.doubts or sheet.lines or sound != designed:
        return Answer.INCONCLUSIVE
    return Answer.PASS

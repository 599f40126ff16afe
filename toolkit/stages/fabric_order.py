"""The cable work order of a rack: one look at each of its fabrics, all lines in one order."""

from __future__ import annotations

from toolkit.judge.fabric.work_order import WorkOrder, counts, work_order
from toolkit.judge.nvlink.verdict import NvlinkReport
from toolkit.judge.nvlink.work import work_lines
from toolkit.judge.verdict import Answer
from toolkit.rack.model import LinkKind, Mode
from toolkit.stages import fabric, nvlink
from toolkit.stages.context import Context
from toolkit.stages.fabric_look import look


def order_of(context: Context, seconds: float) -> WorkOrder:
    """Looks now, from every node that answers; error counters are watched for that long. Changes nothing."""
    rack = context.rack
    cabled = any(link.kind in (LinkKind.INFINIBAND, LinkKind.ETHERNET) for link in rack.links)
    cables = fabric.judged(rack, look(context, rack.nodes, seconds=seconds, baseline=False)) if cabled else None
    inside = None if rack.profile.mode is Mode.PCIE else nvlink.look(context)
    answers = [report.answer for report in (cables, inside) if report is not None]
    return work_order(
        rack.name,
        _worst(answers),
        (*(cables.lines if cables else ()), *(work_lines(rack, inside) if inside else ())),
        (*(counts(cables) if cables else ()), *(_counts(inside) if inside else ())),
        cables.doubts if cables else (),
        (*(cables.notes if cables else ()), *(inside.notes if inside else ())),
    )


def _worst(answers: list[Answer]) -> Answer:
    """Nothing to look at proves nothing."""
    if Answer.FAIL in answers:
        return Answer.FAIL
    return Answer.PASS if answers and set(answers) == {Answer.PASS} else Answer.INCONCLUSIVE


def _counts(report: NvlinkReport) -> tuple[tuple[str, str], ...]:
    return (
        ("GPUs", f"{report.gpus_seen:,} of {report.gpus_planned:,}"),
        ("NVLinks up", f"{report.links_up:,} of {report.links_planned:,}"),
    )

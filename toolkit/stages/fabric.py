"""fabric: what a look at the rack's InfiniBand says of each node: its verdict, and what goes on record for certify.

A report is of the rack; a node answers for the lines that name one of its HCAs, and waits for those that name none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.fabric.compare import compare
from toolkit.judge.fabric.design import Design, designed
from toolkit.judge.fabric.line import Action, FabricReport, WorkLine
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, NewEvent, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Rack, Unit
from toolkit.stages.context import Context, Result, error
from toolkit.stages.fabric_look import Look, look

METRIC = "hca_link_fault"
COUNTED_SECONDS = 2.0  # between two readings of the counters, where there is no earlier one
SOUND = "none"
MISCABLED = frozenset({"FABRIC_CABLES_SWAPPED", "FABRIC_CABLES_ROTATED", "FABRIC_CABLE_MISPLACED"})
SHOWN = 3


def judged(rack: Rack, looked: Look) -> FabricReport:
    """The rack's fabric, plan against what was seen."""
    return compare(designed(rack), looked.seen)


def of_node(report: FabricReport, node: Unit) -> tuple[WorkLine, ...]:
    """Lines that name one of the node's HCAs, or no node's."""
    return tuple(line for line in report.lines if not (on := _nodes(line)) or node.name in on)


def _nodes(line: WorkLine) -> frozenset[str]:
    """Whose HCAs a line names: an HCA's port has a name, a switch's a number."""
    return frozenset(end.unit for end in line.ends if not end.port.isdigit() and end.port)


def result_of(context: Context, report: FabricReport, node: Unit) -> Result | None:
    """What stands against the node, first what is to be done first; None: nothing does.

    A setting, its own or the rack's, explains what its cables show: ERROR. Then a part at its own HCAs: FAILED. A part
    that is nobody's and whatever is open or was not looked at: ERROR.
    """
    again = f"rackproof fabric {context.rack.name}"
    lines = [line for line in of_node(report, node) if line.answer is not Answer.PASS]
    wrong = [line for line in lines if line.answer is Answer.FAIL]
    settings = [line for line in wrong if line.action is Action.CONFIGURE]
    own = [line for line in wrong if node.name in _nodes(line)]
    if own and not settings:
        words, deed = _words(own[0]), f"{own[0].text}, then: rackproof release {node.name}; all lines: {again}"
        return Result(Outcome.FAILED, own[0].code, words, _part(own[0]), deed)
    if wrong:
        first = (settings or wrong)[0]
        return error(first.code, _words(first), f"{first.text}, then: {again}")
    if lines:
        return error(lines[0].code, _words(lines[0]), again)
    if report.doubts:
        return error("FABRIC_UNDECIDED", "; ".join(report.doubts[:SHOWN])[:600], again)
    return None


def _words(line: WorkLine) -> str:
    return "; ".join((line.text, *line.evidence))[:600]


def _part(line: WorkLine) -> str:
    ends = " and ".join(f"{end.unit}:{end.port}" for end in line.ends[:4])
    return f"{line.part} {ends}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A look, and what it comes to, on record.

    origin   sha256 of the report, which names what each tool said by its own: a certificate binds it
    """

    design: Design
    report: FabricReport
    at: datetime
    origin: str

    def measured(self, node: Unit, run: str) -> tuple[Measurement, ...]:
        """Of each planned HCA link the code that stands against it, or none; no measurement where that is open."""
        told: list[Measurement] = []
        for hca in node.hcas:
            if not any(port.unit == node.name and port.port == hca.name for port in self.design.partner):
                continue
            code = _code(self.report, node.name, hca.name)
            if code:
                subject = Subject(Scope.HCA, node.name, hca=hca.name)
                unit = METRICS[METRIC].unit
                told.append(Measurement(METRIC, unit, code, subject, self.at, run, self.origin))
        return tuple(told)


def look_and_judge(context: Context, nodes: Sequence[Unit], since: Look | None = None) -> Judged:
    """Looks at the fabric from these nodes; what was seen and what it comes to go on record.

    since   counters are judged by what they grew since that look
    """
    rack = context.rack
    looked = look(context, nodes, seconds=COUNTED_SECONDS, since=since)
    report = judged(rack, looked)
    body = dict(in_record(report))
    whole = body | {"at": looked.at.isoformat(), "said": dict(looked.artifacts)}
    origin = context.ledger.artifacts.put(json.dumps(whole, indent=1).encode())
    body["artifact"] = origin
    context.ledger.append(NewEvent(EventKind.JUDGED, rack.name, "", body, f"fabric {report.answer}"))
    return Judged(designed(rack), report, looked.at, origin)


def _code(report: FabricReport, node: str, hca: str) -> str:
    """Empty where it is not known whether anything stands against the link: a setting comes before any cable."""
    own = [line for line in report.lines if any((e.unit, e.port) == (node, hca) for e in line.ends)]
    shared = [line for line in report.lines if not _nodes(line)]
    failed = [line for line in own if line.answer is Answer.FAIL]
    if any(line.action is Action.CONFIGURE and line.answer is Answer.FAIL for line in (*own, *shared)):
        return ""
    if failed:
        return failed[0].code
    return "" if own or shared or report.doubts else SOUND


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a look adds to the verdict of nodes. report: None where the rack file plans no InfiniBand cables."""

    report: FabricReport | None
    measured: Mapping[str, tuple[Measurement, ...]]
    silent: frozenset[str]


def evidence(context: Context, runs: Mapping[str, Run], since: Look | None = None) -> Evidence:
    """Looks at the fabric from the nodes of these runs, and puts on record what it means for each.

    since   counters are judged by what they grew since that look
    """
    if not designed(context.rack).links:
        return Evidence(None, {}, frozenset({METRIC}))
    if not runs:
        return Evidence(None, {}, frozenset())
    nodes = [context.rack.unit(name) for name in runs]
    told = look_and_judge(context, nodes, since)
    measured = {node.name: told.measured(node, runs[node.name].id) for node in nodes}
    for name, of_links in measured.items():
        context.ledger.record_measurements(runs[name], of_links)
    return Evidence(told.report, measured, frozenset())


def in_record(report: FabricReport) -> Mapping[str, object]:
    """For the ledger: the answer and every line, as read."""
    return {
        "answer": report.answer,
        "links": [report.links_designed, report.links_as_designed, report.links_sound],
        "lines": [
            {
                "code": line.code,
                "action": line.action,
                "answer": line.answer,
                "text": line.text,
                "ends": [f"{end.unit}:{end.port}" for end in line.ends[:64]],
                "evidence": list(line.evidence[:8]),
            }
            for line in report.lines[:200]
        ],
        "doubts": list(report.doubts[:50]),
        "seconds": report.seconds_counted,
    }


def unproven(report: FabricReport | None, nodes: Sequence[str]) -> Iterable[str]:
    """What a certificate must say was not verified of the cables."""
    if report is None:
        yield "cabling was not compared with the design: the rack file plans no InfiniBand cables"
        return
    dark = sorted({name for line in report.lines for name in _nodes(line)} - set(nodes))
    if dark:
        yield f"cables of nodes that are not in this certificate: {', '.join(dark)}"
    yield from report.notes

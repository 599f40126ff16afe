"""NVLink findings as lines of the cable work order."""

from __future__ import annotations

from toolkit.judge.fabric.line import Action, Place, WorkEnd, WorkLine
from toolkit.judge.nvlink.finding import Blame, NvlinkFinding, Standing
from toolkit.judge.nvlink.verdict import NvlinkReport
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Port, Rack

_ACTIONS = {
    Blame.SOFTWARE: Action.CONFIGURE,
    Blame.CARTRIDGE: Action.RESEAT,
    Blame.TRAY: Action.RESEAT,
    Blame.GPU: Action.INSPECT,
    Blame.SWITCH_TRAY: Action.INSPECT,
    Blame.SYMPTOM: Action.INSPECT,
    Blame.EVIDENCE: Action.INSPECT,
}


def work_lines(rack: Rack, report: NvlinkReport) -> tuple[WorkLine, ...]:
    """One line a finding, in the report's order: configuration, then parts, then what could not be told."""
    return tuple(_line(rack, finding) for finding in report.findings)


def _line(rack: Rack, finding: NvlinkFinding) -> WorkLine:
    ends = tuple(_end(rack, port) for port in finding.ends)
    part = finding.blame.value
    walked = finding.blame.is_hardware or finding.blame is Blame.SYMPTOM
    return WorkLine(
        code=finding.code,
        action=_ACTIONS[finding.blame],
        answer=Answer.FAIL if finding.standing is Standing.FAIL else Answer.INCONCLUSIVE,
        text=f"{finding.part}: {finding.text}" if finding.part else finding.text,
        ends=ends,
        place=_place(rack, finding) if walked else None,
        evidence=finding.evidence,
        proof=finding.settled_by,
        part=part,
    )


def _end(rack: Rack, port: Port) -> WorkEnd:
    return WorkEnd(port.unit, port.port, rack.name, rack.unit(port.unit).slot)


def _place(rack: Rack, finding: NvlinkFinding) -> Place | None:
    """Where to go: to the switch tray it blames, else to the first compute tray."""
    names = [port.unit for port in finding.ends]
    if finding.blame is Blame.SWITCH_TRAY:
        names = [name for name in names if name not in finding.nodes and rack.unit(name) not in rack.nodes]
    names += list(finding.nodes)
    if not names:
        return None
    unit = rack.unit(names[0])
    return Place(rack.name, unit.slot, unit.name)

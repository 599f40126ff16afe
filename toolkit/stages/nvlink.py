"""nvlink: the control plane on one switch tray, the services on every node, then every GPU, link and domain.

A fabric that is still coming up is looked at again until the profile's `fabric_wait` is over. What spans the trays of a
rack is judged on one look at all of them; configuration goes before hardware, and both ends of a link before its part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import chain, repeat

from toolkit.errors import UndecidedError
from toolkit.facts import probe
from toolkit.facts.probe import Probe, read
from toolkit.facts.tray import tray_seen
from toolkit.judge.nvlink.finding import NvlinkFinding, Standing
from toolkit.judge.nvlink.seen import NvlinkSeen, SwitchSeen, TraySeen
from toolkit.judge.nvlink.verdict import NvlinkReport, judge_nvlink
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, NewEvent
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.model import MNNVL, Mode, Unit
from toolkit.stages import version_guard
from toolkit.stages.context import Context, Progress, Result, Work, error, passed
from toolkit.stages.nvlink_control import bring_up, seen_of, switch_trays
from toolkit.stages.readback import Configuration, Reading, judge_node, play, record, result_of, take

# Seconds between two looks at a fabric that comes up: a domain of 18 trays is 100 commands.
POLLS_S = (5.0, 10.0, 20.0, 30.0)
AT_ONCE = 32
_COMMON = (probe.GPUS, probe.NVLINK, probe.FABRIC_MANAGER, probe.STATES)
_BY_MODE: Mapping[Mode, tuple[Probe, ...]] = {
    Mode.NVSWITCH_GEN3: (*_COMMON, probe.MANAGER_LOG),
    Mode.NVLINK5_SINGLE: (*_COMMON, probe.MANAGER_LOG, probe.MODULES, probe.PACKAGES),
    Mode.MNNVL_HOST_IMEX: (*_COMMON, probe.IMEX, probe.IMEX_NODES),
    Mode.MNNVL_DRA: _COMMON,
    Mode.PCIE: _COMMON,
}


def run(context: Context, work: Work) -> None:
    """Brings up the control plane, plays nvlink.yml, waits for the fabric, and judges it."""
    work = version_guard.admitted(context, work, Stage.NVLINK)
    if not work.nodes:
        return
    mode = context.rack.profile.mode
    what = Configuration(Stage.NVLINK, "nvlink.yml", _BY_MODE[mode])
    refused = bring_up(context) if mode in MNNVL else None
    if refused is not None:
        for node in work.nodes:
            work.finish(node.name, refused)
        return
    played = play(context, work, what, work.finish)
    if not played:
        return
    _settle(context, played, what.probes)
    readings: dict[str, Reading] = {}

    def take_one(node: Unit) -> Result | None:
        context.progress(Progress(node.name, Stage.NVLINK, "reading back"))
        readings[node.name] = take(context, work.runs[node.name], node, what.probes)
        return None

    work.each(played, take_one)
    seen = NvlinkSeen(
        (
            *(tray_seen(name, reading.facts) for name, reading in readings.items()),
            *_look_at(context, _others(context, readings), what.probes),
        ),
        _switches(context),
    )
    report = judge_nvlink(context.rack, seen)
    _record(context, seen, report)
    work.each(
        [node for node in played if node.name in readings],
        lambda node: _result(context, node, report, readings[node.name]),
    )


def look(context: Context) -> NvlinkReport:
    """One look at the whole rack's NVLink. Changes nothing and records its report alone: `rackproof fabric`."""
    probes = _BY_MODE[context.rack.profile.mode]
    seen = NvlinkSeen(_look_at(context, context.rack.nodes, probes), _switches(context))
    report = judge_nvlink(context.rack, seen)
    _record(context, seen, report)
    return report


def _settle(context: Context, played: Sequence[Unit], probes: Sequence[Probe]) -> None:
    """Looks again while something may still come up by itself."""
    until = context.clock() + context.rack.profile.fabric_wait
    across = context.rack.profile.mode in MNNVL
    nodes = context.rack.nodes if across else tuple(played)
    most = int(context.rack.profile.fabric_wait.total_seconds() / POLLS_S[-1])
    for pause_s in chain(POLLS_S, repeat(POLLS_S[-1], most)):
        seen = NvlinkSeen(_look_at(context, nodes, probes), _switches(context))
        report = judge_nvlink(context.rack, seen, final=False)
        if not report.holding or context.clock() >= until:
            return
        held = next(finding for finding in report.findings if finding.standing is Standing.HOLD)
        for node in played:
            context.progress(Progress(node.name, Stage.NVLINK, f"waiting: {held.text}"))
        context.sleep(pause_s)


def _others(context: Context, readings: Mapping[str, Reading]) -> tuple[Unit, ...]:
    """Trays of the same domain that are not in this work: it is judged as a whole."""
    if context.rack.profile.mode not in MNNVL:
        return ()
    return tuple(node for node in context.rack.nodes if node.name not in readings)


def _look_at(context: Context, nodes: Iterable[Unit], probes: Sequence[Probe]) -> tuple[TraySeen, ...]:
    """The nodes that answer, read without a record."""

    def one(node: Unit) -> TraySeen | None:
        try:
            return tray_seen(node.name, [read(context.hands.shell, node, p, context.clock) for p in probes])
        except UndecidedError:  # it does not answer, or was never imaged
            return None  # a tray that nobody looked at leaves the domain unproven; the report says which

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(tray for tray in pool.map(one, nodes) if tray is not None)


def _switches(context: Context) -> tuple[SwitchSeen, ...] | None:
    """Every switch tray that the rack file gives access to; None: none."""
    trays = switch_trays(context)
    if not trays:
        return None
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda unit: seen_of(context, unit), trays))


def _record(context: Context, seen: NvlinkSeen, report: NvlinkReport) -> None:
    """What the switch trays said, as artifacts; the report, as the rack's."""
    rack = context.rack.name
    events = []
    for switch in seen.switches or ():
        text = json.dumps(asdict(switch), sort_keys=True).encode()
        body = {"artifact": context.ledger.artifacts.put(text), "problems": list(switch.problems[:8])}
        events.append(NewEvent(EventKind.OBSERVED, rack, switch.unit, body, "nvue"))
    told: dict[str, object] = {
        "answer": report.answer,
        "gpus": [report.gpus_seen, report.gpus_planned],
        "links": [report.links_up, report.links_joined, report.links_planned],
        "domains": [list(domain) for domain in report.domains[:16]],
        "findings": [_in_record(finding) for finding in report.findings[:200]],
        "notes": list(report.notes),
    }
    events.append(NewEvent(EventKind.JUDGED, rack, "", told, "nvlink"))
    context.ledger.append_all(events)


def _in_record(finding: NvlinkFinding) -> dict[str, object]:
    return {
        "code": finding.code,
        "answer": finding.standing,
        "blame": finding.blame,
        "text": finding.text,
        "part": finding.part,
        "nodes": list(finding.nodes),
        "ends": [str(end) for end in finding.ends],
        "evidence": list(finding.evidence),
        "settled_by": finding.settled_by,
    }


def _result(context: Context, node: Unit, report: NvlinkReport, reading: Reading) -> Result:
    """The node's gates and its findings. Across trays the joined view goes first: it knows both ends."""
    verdict = judge_node(context, node, (Stage.NVLINK,), reading.measurements)
    own = report.of(node.name)
    if not own or (context.rack.profile.mode not in MNNVL and verdict.answer is not Answer.PASS):
        return result_of(context, Stage.NVLINK, node, verdict, reading)
    record(context, node, verdict)
    return of_findings(context, node, own) or passed()


def of_findings(context: Context, node: Unit, own: Sequence[NvlinkFinding]) -> Result | None:
    """FAILED where a part is blamed and the finding is about this node; ERROR for everything else."""
    if not own:
        return None
    first = own[0]
    more = sorted({finding.code for finding in own} - {first.code})
    words = (first.text + (f"; also {', '.join(more)}" if more else ""))[:600]
    again = f"rackproof bringup {context.rack.name}"
    if first.standing is Standing.FAIL and first.blame.is_hardware and node.name in first.nodes:
        deed = f"{first.settled_by}, then: rackproof release {node.name}"
        return Result(Outcome.FAILED, first.code, words, first.part, deed)
    hint = f"{first.settled_by}, then: {again}" if first.settled_by else again
    if first.blame.is_hardware and first.part:
        return error(first.code, f"{words} ({first.part})"[:600], hint)
    return error(first.code, words, hint)

"""infiniband: host software and limits, state and rate of every HCA, then every cable against the plan."""

from __future__ import annotations

from toolkit.facts import probe
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.stages import fabric, version_guard
from toolkit.stages.context import Context, Result, Work
from toolkit.stages.readback import Configuration, play_and_judge

CONFIGURATION = Configuration(Stage.INFINIBAND, "infiniband.yml", (probe.IBSTAT,), frozenset({fabric.METRIC}))


def run(context: Context, work: Work) -> None:
    """Plays infiniband.yml, reads the ports, and then looks at the fabric once, from all nodes that got there."""
    work = version_guard.admitted(context, work, Stage.INFINIBAND)
    ended: dict[str, Result] = {}
    play_and_judge(context, work, CONFIGURATION, ended.__setitem__)
    told = fabric.evidence(context, {n.name: work.runs[n.name] for n in work.nodes if n.name in ended})
    for node in (n for n in work.nodes if n.name in ended):
        cables = fabric.result_of(context, told.report, node) if told.report else None
        work.finish(node.name, _first(ended[node.name], cables))


def _first(own: Result, cables: Result | None) -> Result:
    """What is acted on first. A setting, or a cable in another's port, explains a port that is down or slow; nothing
    explains a node that could not be read.
    """
    if cables is None or own.outcome is Outcome.ERROR:
        return own
    explains = own.outcome is Outcome.PASSED or cables.outcome is Outcome.ERROR or cables.code in fabric.MISCABLED
    return cables if explains else own

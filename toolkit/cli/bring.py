"""`plan` and `bringup`."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr, stdout
from toolkit.cli.wiring import context_of, ledger_of, rack_named
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.rack.model import Rack
from toolkit.rack.plan import Plan, make_plan
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.rack.burnin_plan import BurninPlan
    from toolkit.report.standing import Standing
    from toolkit.stages.context import Progress

GOALS = [s.value for s in (NodeState.IMAGED, NodeState.CONFIGURED, NodeState.CONNECTED, NodeState.JOINED)]
GOALS += [s.value for s in (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)]
_CERTIFIED = (NodeState.CERTIFIED, NodeState.ADMITTED)
goal_option = click.option(
    "--to", "goal", type=click.Choice(GOALS, case_sensitive=False), default=NodeState.ADMITTED.value, show_default=True
)


@click.command()
@click.argument("rack_name", metavar="RACK")
@goal_option
@json_option
def plan(rack_name: str, goal: str, as_json: bool) -> None:
    """Show what would be done to RACK and why. Changes nothing."""
    from toolkit.report.standing import status_of
    from toolkit.report.terminal import plan_view

    settings = installed.load()
    rack = rack_named(rack_name, settings)
    with ledger_of(settings) as ledger:
        made = make_plan(rack, status_of(ledger, rack), NodeState(goal))
    burnin = _burnin(made, rack, settings)
    emit({"digest": made.digest, "burnin": burnin} | _plain(made), as_json, lambda: plan_view(made, burnin))


def _burnin(made: Plan, rack: Rack, settings: Settings) -> BurninPlan | None:
    """What the plan's burn-in will take; None where it has none."""
    from toolkit.cli.burnin import planned_burnin

    nodes = [target.node for step in made.steps if step.stage is Stage.BURNIN for target in step.targets]
    return planned_burnin(settings, rack, nodes, rack.profile.suite) if nodes else None


def _plain(made: Plan) -> dict[str, object]:
    import json

    value: dict[str, object] = json.loads(made.canonical())
    return value


@click.command()
@click.argument("rack_name", metavar="RACK")
@goal_option
@click.option("--confirm", metavar="RACK", help="Type the rack's name: disks will be erased.")
@json_option
def bringup(rack_name: str, goal: str, confirm: str | None, as_json: bool) -> None:
    """Bring RACK up. Run the same command again to resume; what passed is not repeated."""
    from toolkit.bringup import bringup as carry_out
    from toolkit.bringup import lapse_expired
    from toolkit.report.standing import status_of
    from toolkit.report.terminal import Watch, plan_view, standings_view

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, _line(p), p.done)) as context:
        for node in lapse_expired(context):
            stderr().print(f"{node}: its certificate has expired; it is out of the pool until it passes again")
        made = make_plan(rack, status_of(context.ledger, rack), NodeState(goal))
        stderr().print(plan_view(made, _burnin(made, rack, context.settings)))
        if made.destructive and confirm != rack.name:
            erased = ", ".join(t.node for s in made.steps if s.destructive for t in s.targets)
            raise UsageError(
                f"this erases the disks of {erased}", f"rackproof bringup {rack_name} --confirm {rack.name}"
            )
        summary = carry_out(context, made, on_step=lambda s, nodes: watch.open_stage(s.stage, nodes))
    emit(summary, as_json, lambda: standings_view(f"{rack.name}: {_count(summary.nodes)}", summary.nodes))
    if not as_json:
        _tell_times(summary.seconds)
        if summary.certificate and any(n.state in _CERTIFIED for n in summary.nodes):
            stdout().print(f"certificate: {summary.certificate}")
    sys.exit(summary.exit_code)


def _line(progress: Progress) -> str:
    return progress.text if progress.gpu is None else f"gpu{progress.gpu} {progress.text}"


def _count(nodes: tuple[Standing, ...]) -> str:
    states = Counter(node.state for node in nodes)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _tell_times(seconds: tuple[tuple[object, float], ...]) -> None:
    total = sum(s for _, s in seconds)
    if seconds:
        stdout().print(
            "stages: " + ", ".join(f"{stage} {s:.0f} s" for stage, s in seconds) + f"; together {total:.0f} s"
        )

"""`plan` and `bringup`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr, stdout
from toolkit.cli.wiring import context_of, ledger_of, now, rack_named
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.rack.model import Rack
from toolkit.rack.plan import Plan, make_plan
from toolkit.settings import Settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from toolkit.bringup import Summary
    from toolkit.ledger import Ledger
    from toolkit.rack.burnin_plan import BurninPlan
    from toolkit.report.eta import Usual
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
    from toolkit.report.lines import plan_next
    from toolkit.report.standing import status_of

    settings = installed.load()
    rack = rack_named(rack_name, settings)
    with ledger_of(settings) as ledger:
        made = make_plan(rack, status_of(ledger, rack), NodeState(goal))
        usual = usual_of(settings, ledger, rack, made)
    burnin = _burnin(made, rack, settings)

    def view() -> RenderableType:
        from toolkit.report.terminal import plan_view

        return plan_view(made, burnin, usual)

    emit(
        {"digest": made.digest, "burnin": burnin, "usual": usual, "next": plan_next(made)} | _plain(made),
        as_json,
        view,
        lines=lambda: _plan_lines(made, burnin, usual),
        next=lambda: plan_next(made),
    )


def usual_of(settings: Settings, ledger: Ledger, rack: Rack, made: Plan) -> dict[Stage, Usual]:
    """How long each stage of the plan usually takes, where that is on record."""
    from toolkit.report.eta import alike, usual_times

    stages = [step.stage for step in made.steps]
    return usual_times(ledger, rack, alike(settings, ledger, rack), rack.profile.suite, stages) if stages else {}


def _plan_lines(made: Plan, burnin: BurninPlan | None, usual: Mapping[Stage, Usual]) -> Iterator[str]:
    from rich.console import Console

    from toolkit.report.burnin_plan import burnin_plan_view
    from toolkit.report.lines import plan_lines, plan_next

    yield from plan_lines(made, usual)
    if burnin:
        console = Console(width=160, highlight=False, emoji=False, markup=False, color_system=None)
        with console.capture() as caught:
            console.print(burnin_plan_view(burnin))
        yield from (line.rstrip() for line in caught.get().splitlines())
    yield f"next: {plan_next(made)}"


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
    from toolkit.report.lines import status_lines
    from toolkit.report.overview import overview
    from toolkit.report.standing import status_of
    from toolkit.report.terminal import plan_view, status_view
    from toolkit.report.watch import Watch

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, _line(p), p.done)) as context:
        for node in lapse_expired(context):
            stderr().print(f"{node}: its certificate has expired; it is out of the pool until it passes again")
        made = make_plan(rack, status_of(context.ledger, rack), NodeState(goal))
        watch.usual = usual_of(context.settings, context.ledger, rack, made)
        stderr().print(plan_view(made, _burnin(made, rack, context.settings), watch.usual))
        if made.destructive and confirm != rack.name:
            erased = ", ".join(t.node for s in made.steps if s.destructive for t in s.targets)
            raise UsageError(
                f"this erases the disks of {erased}", f"rackproof bringup {rack_name} --confirm {rack.name}"
            )
        summary = carry_out(context, made, on_step=lambda s, nodes: watch.open_stage(s.stage, nodes))
        seen = overview(context.ledger, rack, context.clock())
    if not as_json:
        tell_end(summary)
    emit(
        summary,
        as_json,
        lambda: status_view(rack, seen, now()),
        lines=lambda: status_lines([seen]),
        next=lambda: seen.next,
    )
    sys.exit(summary.exit_code)


def _line(progress: Progress) -> str:
    return progress.text if progress.gpu is None else f"gpu{progress.gpu} {progress.text}"


def tell_end(summary: Summary) -> None:
    """How long the stages took, and where the certificate is."""
    total = sum(s for _, s in summary.seconds)
    if summary.seconds:
        stages = ", ".join(f"{stage} {s:.0f} s" for stage, s in summary.seconds)
        stdout().print(f"stages: {stages}; together {total:.0f} s")
    if summary.certificate and any(n.state in _CERTIFIED for n in summary.nodes):
        stdout().print(f"certificate: {summary.certificate}")

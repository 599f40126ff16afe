"""`burnin`: measure and judge nodes that are up, outside of the pipeline."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.look import resolve
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import context_of, ledger_of
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack, Suite
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.bringup import Examined
    from toolkit.ledger import Run
    from toolkit.rack.burnin_plan import BurninPlan
    from toolkit.report.burnin import NodeBurnin


@click.command()
@click.argument("name", metavar="NODE|RACK")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@click.option(
    "--suite", type=click.Choice([s.value for s in Suite]), help="How much; by default what the profile says."
)
@click.option("--power-step", is_flag=True, help="All GPUs take up their load at once, instead of in steps.")
@click.option("--plan", "only_plan", is_flag=True, help="Show tests, minutes, kWh and power, and run nothing.")
@click.option("--with", "other_racks", metavar="RACK", multiple=True, help="With --plan: a rack to measure it against.")
@json_option
def burnin(
    name: str, rack_name: str | None, suite: str | None, power_step: bool, only_plan: bool,
    other_racks: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Burn in NODE, or the nodes of RACK that are up and not admitted: memory, compute, both together, host link.

    quick takes a minute, standard ten, long two hours, and longer on a slow node. Judged by the profile's gates. A
    node that fails on evidence about its hardware is quarantined; nothing is admitted and no certificate is issued.

    The site's pool file says what takes it to the nodes: SSH, or Jobs of its Kubernetes cluster or Slurm, which wait
    for idle GPUs and give way to every job. The plan says which; the evidence and the verdict are the same.
    """
    from rich.console import Group

    from toolkit.bringup import burn_in
    from toolkit.report.burnin import burnin_view
    from toolkit.report.burnin_plan import burnin_plan_view
    from toolkit.report.gpu_watch import GpuWatch

    settings = installed.load()
    rack, nodes = resolve(settings, name, rack_name)
    chosen = _suite(rack, suite)
    if other_racks and not only_plan:
        raise UsageError("--with goes with --plan: nothing is run between racks yet", f"rackproof burnin {name} --plan")
    if only_plan:
        planned = planned_burnin(settings, rack, nodes, chosen, other_racks, step=power_step)
        emit(planned, as_json, lambda: burnin_plan_view(planned, explain=True), document="burnin-plan")
        return
    with ledger_of(settings) as ledger:
        states = {node: row.state for node, row in ledger.node_states(rack.name).items()}
    nodes = _free(rack, nodes, states)
    stderr().print(burnin_plan_view(planned_burnin(settings, rack, nodes, chosen, step=power_step)))
    with (
        GpuWatch(stderr()) as watch,
        context_of(rack, lambda p: watch.show(p.node, p.gpu, p.text, p.done)) as context,
    ):
        examined = burn_in(context, nodes, chosen, step=power_step)
    found = [_of_node(rack, examined, run) for run in examined.runs]
    emit({"rack": rack.name, "nodes": found}, as_json, lambda: Group(*(burnin_view(f) for f in found)))
    sys.exit(examined.exit_code)


def planned_burnin(
    settings: Settings,
    rack: Rack,
    nodes: Sequence[str],
    suite: Suite,
    other_racks: Sequence[str] = (),
    *,
    step: bool = False,
) -> BurninPlan:
    """What burning in these nodes will take. Rates of collectives are unknown to an inventory without SKUs."""
    from dataclasses import replace

    from toolkit.judge.forecast import forecast
    from toolkit.pool.policy_file import load_policy
    from toolkit.rack.claims import load_skus
    from toolkit.stages.carriers import in_words

    if rack.name in other_racks or len(set(other_racks)) < len(other_racks):
        raise UsageError(f"--with {' --with '.join(other_racks)}: a rack is named twice", "each rack once")
    others = [load_rack(other, settings.inventory) for other in other_racks]
    skus = load_skus(settings.inventory) if (settings.inventory / "skus.yml").exists() else ()
    carried = in_words(load_policy(settings, rack.site), map(rack.unit, nodes))
    return replace(forecast(rack, nodes, suite, skus, others, step=step), carried=carried)


def _suite(rack: Rack, asked: str | None) -> Suite:
    suite = Suite(asked) if asked else rack.profile.suite
    if suite is Suite.REHEARSAL and not rack.profile.virtual:
        raise UsageError(f"a rehearsal proves nothing of {rack.name}, which is no virtual rack", "--suite quick")
    return suite


def _free(rack: Rack, nodes: tuple[str, ...], states: Mapping[str, NodeState]) -> tuple[str, ...]:
    """Of a rack, the nodes that may be burnt in; the others are named on stderr. One named node must be free."""
    from toolkit.bringup import refuse_unless_free

    free: list[str] = []
    for node in nodes:
        try:
            refuse_unless_free(rack, node, states.get(node, NodeState.PLANNED))
        except UsageError as refusal:
            if len(nodes) == 1:
                raise
            stderr().print(f"left alone: {refusal.message}")
            last = refusal
        else:
            free.append(node)
    if not free:
        raise UsageError(f"no node of {rack.name} can be burnt in", last.hint)
    return tuple(free)


def _of_node(rack: Rack, examined: Examined, run: Run) -> NodeBurnin:
    from toolkit.judge.verdict import Answer
    from toolkit.rack.lifecycle import Outcome
    from toolkit.report.burnin import NodeBurnin, collective_lines, finding_lines, gpu_lines
    from toolkit.stages.burnin_collectives import not_asked

    burned = examined.burned.get(run.node)
    answers = {Outcome.PASSED: Answer.PASS, Outcome.FAILED: Answer.FAIL}
    unit = rack.unit(run.node)
    return NodeBurnin(
        node=run.node,
        suite=examined.suite,
        answer=answers.get(run.outcome, Answer.INCONCLUSIVE) if run.outcome else Answer.INCONCLUSIVE,
        code=run.code,
        message=run.message,
        gpus=gpu_lines(burned.measurements, burned.seats, rack.profile.gpus_per_node) if burned else (),
        findings=finding_lines(burned.verdict, unit, burned.seats) if burned else (),
        next=run.next,
        collectives=collective_lines(burned.measurements) if burned else (),
        not_asked=not_asked(rack.profile, burned.suite) if burned else (),
        alone=tuple(f.gate.code for f in burned.verdict.findings if f.excused) if burned else (),
    )

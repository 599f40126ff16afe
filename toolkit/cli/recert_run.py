"""`recert run`: carries out what `recert plan` shows, or whatever is due; by hand, and from a timer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import context_of, now, rack_named
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import Stage

if TYPE_CHECKING:
    from toolkit.pool.recert_candidates import Budget, Known
    from toolkit.pool.recert_file import Beliefs
    from toolkit.recertify import Recertified
    from toolkit.stages.context import Context, Progress
    from toolkit.stages.recert_turn import Bounds, Task


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--due", is_flag=True, help="Evidence that is too old, and certificates that are about to end.")
@click.option("--after", "changes", metavar="CHANGE", multiple=True, help="As in 'swap node07'; may be repeated.")
@click.option("--whole-levels", "whole", is_flag=True, help="With --after: leaf, unit and domain with all their nodes.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Node-minutes, of all nodes together.")
@click.option("--kwh", type=click.FloatRange(min=0, min_open=True), help="Energy, of all nodes together.")
@click.option("--job-nodes", type=click.IntRange(1), help="Nodes of a job that a fault would stop; else the pool's.")
@click.option("--yes", is_flag=True, help="With --after: do not ask before partners are taken out of the pool.")
@json_option
def run(
    rack_name: str, due: bool, changes: tuple[str, ...], whole: bool, minutes: float | None, kwh: float | None,
    job_nodes: int | None, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Measure nodes of RACK again, and certify them anew: what `recert plan` shows, or what is due.

    Only idle nodes are taken, each is given back at once, and a node that a job waits for within seconds. The same
    command again goes on after an interruption. For timers: 0 renewed or nothing due, 1 a node failed on evidence,
    3 undecided, the next run tries again.
    """
    from toolkit.pool.recert_candidates import Budget

    budgeted = minutes is not None or kwh is not None
    modes = (due, bool(changes), budgeted)
    if sum(modes) != 1 or (job_nodes and not budgeted) or ((whole or yes) and not changes):
        raise UsageError(
            "say what: what is due, a change, or a budget, each with its own options",
            f"rackproof recert run {rack_name} --due; or --after 'swap NODE'; or --minutes 30 --kwh 5",
        )
    if changes:
        from toolkit.cli.recert_after import run_after

        run_after(rack_name, changes, whole=whole, yes=yes, as_json=as_json)
        return
    _run(rack_name, None if due else Budget(minutes, kwh, job_nodes), as_json)


def _run(rack_name: str, budget: Budget | None, as_json: bool) -> None:
    from toolkit.bringup import lapse_expired
    from toolkit.recertify import recertify
    from toolkit.report.recert_run import turns_view
    from toolkit.report.watch import Watch

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, _line(p), p.done)) as context:
        for node in lapse_expired(context):
            stderr().print(f"{node}: its certificate has expired; it is out of the pool until rackproof bringup")
        planned = _planned(context, budget)

        def on_wave(number: int, tasks: Sequence[Task]) -> None:
            _tell_wave(number, tasks)
            watch.open_stage(Stage.BURNIN, [t.node for t in tasks])

        done = recertify(context, planned.tasks, planned.bounds, on_wave)
        watch.close_stage()
        ahead = _ahead(context, done, planned, budget)
    shown = {"rack": done.rack, "turns": done.turns, "ahead": ahead, "unverified": ()}
    emit(shown, as_json, lambda: turns_view(done.rack, done.turns, ahead))
    sys.exit(done.exit_code)


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is to be done. `known` is None where no node is in service."""

    tasks: tuple[Task, ...]
    bounds: Bounds
    known: tuple[Known, Beliefs] | None


def _planned(context: Context, budget: Budget | None) -> _Planned:
    """What is to be done, the most urgent first; shown on stderr as the plan shows it."""
    from toolkit.cli.recert import best_choice, site_of, what_is_known
    from toolkit.pool.recert_candidates import Budget
    from toolkit.pool.recert_due import certificate_ends, due
    from toolkit.pool.recert_file import load_beliefs
    from toolkit.rack.model import Suite
    from toolkit.report.recert import budget_view
    from toolkit.stages.recert_turn import Bounds, Task

    settings, rack, floor = context.settings, context.rack, context.hands.policy.regulation.floor
    site = site_of(settings, rack)
    if budget is None and not _in_service(context):
        take_over_s = load_beliefs(settings).cells_hours.value * 3600
        return _Planned((), Bounds({}, 1, floor, site, take_over_s), None)
    found, beliefs = what_is_known(settings, context.ledger, rack, budget or Budget(None, None))
    if budget is None:
        turns = due(rack, found, certificate_ends(context.ledger, rack), beliefs, now())
        tasks = tuple(Task(one.node, one.suite, one.why, one.whole) for one in turns)
        for task in tasks:
            whole = " with rails and levels" if task.whole else ""
            stderr().print(f"due: {task.node}, suite {task.suite}{whole}: {task.why}")
    else:
        choice = best_choice(found, beliefs)
        stderr().print(budget_view(rack.name, choice, found, beliefs))
        tasks = tuple(Task(pick.node, Suite(pick.trial), pick.why) for pick in choice.picks)
    near = {candidate.node: candidate.near for candidate in found.candidates}
    take_over_s = beliefs.cells_hours.value * 3600
    return _Planned(tasks, Bounds(near, found.terms.at_once, floor, site, take_over_s), (found, beliefs))


def _in_service(context: Context) -> bool:
    from toolkit.rack.lifecycle import NodeState

    serving = (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)
    return any(row.state in serving for row in context.ledger.node_states(context.rack.name).values())


def _ahead(context: Context, done: Recertified, planned: _Planned, budget: Budget | None) -> tuple[str, ...]:
    """What stays uncovered by this run, and what is due next."""
    from toolkit.cli.recert import best_choice, what_is_known
    from toolkit.pool.recert_candidates import Budget
    from toolkit.pool.recert_due import certificate_ends, next_due
    from toolkit.report.recert import uncovered
    from toolkit.report.recert_run import End

    left = [turn.node for turn in done.turns if turn.end not in (End.RENEWED, End.FAILED)]
    lines = [f"stays uncovered for now: {', '.join(dict.fromkeys(left))}"] if left else []
    if budget is not None and planned.known is not None:
        lines += uncovered(best_choice(*planned.known), planned.known[0])
    if not _in_service(context):
        return (*lines, f"no node of {context.rack.name} is in service: rackproof bringup {context.rack.name}")
    after, beliefs = what_is_known(context.settings, context.ledger, context.rack, Budget(None, None))
    following = next_due(after, certificate_ends(context.ledger, context.rack), beliefs, now())
    return (*lines, *([following] if following else []))


def _tell_wave(number: int, tasks: Sequence[Task]) -> None:
    from toolkit.rack.nodeset import fold

    whole = " with rails and levels" if tasks[0].whole else ""
    stderr().print(f"wave {number}: {fold([t.node for t in tasks])}, suite {tasks[0].suite}{whole}")


def _line(progress: Progress) -> str:
    return progress.text if progress.gpu is None else f"gpu{progress.gpu} {progress.text}"

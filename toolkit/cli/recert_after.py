"""`recert run --after`: the steps that `recert plan --after` shows, carried out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from toolkit.cli.output import emit, stderr
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import NodeState, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from toolkit.judge.recert.differential import Differential
    from toolkit.stages.context import Context, Progress
    from toolkit.stages.recert_turn import Bounds, Task


def run_after(rack_name: str, words: tuple[str, ...], *, whole: bool, yes: bool, as_json: bool) -> None:
    """Shows the plan, asks where jobs lose a node for a while, carries it out. Exits with the run's code."""
    from toolkit.bringup import lapse_expired
    from toolkit.cli.recert import after_change, of_states
    from toolkit.recertify import recertify_after
    from toolkit.report.recert import differential_view
    from toolkit.report.recert_run import turns_view
    from toolkit.report.watch import Watch

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, _line(p), p.done)) as context:
        for node in lapse_expired(context):
            stderr().print(f"{node}: its certificate has expired; it is out of the pool until rackproof bringup")
        states = context.ledger.node_states(rack.name)
        made = after_change(context.settings, rack, states, words, whole)
        stderr().print(differential_view(made, of_states(rack, states, made)))
        serving = sorted({n for step in made.steps for n in step.nodes
                          if n in states and states[n].state is NodeState.ADMITTED})  # fmt: skip
        if serving and not yes:
            _ask(rack.name, serving)

        def on_wave(number: int, tasks: Sequence[Task]) -> None:
            watch.open_stage(Stage.BURNIN, [t.node for t in tasks])

        done = recertify_after(context, made, _bounds(context, made), on_wave)
        watch.close_stage()
    left = [f"not verified by this: {words}" for words in made.unverified]
    shown = {"rack": done.rack, "turns": done.turns, "ahead": (), "unverified": made.unverified}
    emit(shown, as_json, lambda: turns_view(done.rack, done.turns, left))
    sys.exit(done.exit_code)


def _bounds(context: Context, made: Differential) -> Bounds:
    """The floor alone: the plan says which nodes, and an operator has seen it."""
    from toolkit.cli.recert import site_of
    from toolkit.pool.recert_file import load_beliefs
    from toolkit.stages.recert_turn import Bounds

    beliefs = load_beliefs(context.settings)
    floor = context.hands.policy.regulation.floor
    nodes = len({n for step in made.steps for n in step.nodes})
    take_over_s = beliefs.cells_hours.value * 3600
    return Bounds({}, max(1, nodes), floor, site_of(context.settings, context.rack), take_over_s)


def _ask(rack: str, serving: list[str]) -> None:
    from toolkit.rack.nodeset import fold

    what = f"{fold(serving)} of {rack} take no jobs while this runs, if they are idle"
    if not sys.stdin.isatty():
        raise UsageError(what, "say so on the command line: --yes")
    if not click.confirm(f"{what}. Go on?", err=True):
        raise UsageError("nothing was done", "--yes goes on without asking")


def _line(progress: Progress) -> str:
    return progress.text if progress.gpu is None else f"gpu{progress.gpu} {progress.text}"

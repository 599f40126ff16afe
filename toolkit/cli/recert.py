"""`recert plan`: what to test again, after a change or within a budget. `recert run` is in recert_run.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of, now, rack_named
from toolkit.errors import UsageError
from toolkit.rack.lifecycle import NodeState

if TYPE_CHECKING:
    from toolkit.judge.recert.choose import Choice
    from toolkit.judge.recert.differential import Differential
    from toolkit.ledger import Ledger, NodeRow
    from toolkit.pool.recert_candidates import Budget, Known
    from toolkit.pool.recert_file import Beliefs
    from toolkit.rack.claim import Sku
    from toolkit.rack.model import Rack
    from toolkit.settings import Settings

# The more welcome as a partner, the earlier: jobs run on none but the last.
_PARTNERS = (NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED)


@click.group()
def recert() -> None:
    """Renew evidence: the smallest set of tests after a change, the best within a budget, whatever is due."""


@recert.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--after", "changes", metavar="CHANGE", multiple=True, help="As in 'swap node07'; may be repeated.")
@click.option("--whole-levels", "whole", is_flag=True, help="With --after: leaf, unit and domain with all their nodes.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Node-minutes, of all nodes together.")
@click.option("--kwh", type=click.FloatRange(min=0, min_open=True), help="Energy, of all nodes together.")
@click.option("--job-nodes", type=click.IntRange(1), help="Nodes of a job that a fault would stop; else the pool's.")
@json_option
def plan(
    rack_name: str, changes: tuple[str, ...], whole: bool, minutes: float | None, kwh: float | None,
    job_nodes: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Show which tests RACK needs again, what they take and why. Runs nothing.

    After a change: swap node07, swap node07:gpu3, swap node07:mlx5_3, swap cable node07:mlx5_3, swap leaf2,
    move cable node07:mlx5_3, update driver [node07], update firmware node07:mlx5_3, update package NAME [node07],
    update profile. Within a budget: the nodes and suites that are expected to save most, oldest evidence first.
    """
    from toolkit.pool.recert_candidates import Budget

    budgeted = minutes is not None or kwh is not None
    if bool(changes) is budgeted or (job_nodes and not budgeted) or (whole and budgeted):
        raise UsageError(
            "give a change or a budget, each with its own options",
            f"rackproof recert plan {rack_name} --after 'swap NODE'; or --minutes 30 --kwh 5 --job-nodes 64",
        )
    settings = installed.load()
    rack = rack_named(rack_name, settings)
    if changes:
        _after(settings, rack, changes, whole, as_json)
    else:
        _within(settings, rack, Budget(minutes, kwh, job_nodes), as_json)


def after_change(
    settings: Settings, rack: Rack, states: Mapping[str, NodeRow], words: tuple[str, ...], whole: bool
) -> Differential:
    """The smallest set of tests after these changes: what is planned, and what is run."""
    from toolkit.judge.recert.changes import parse_change
    from toolkit.judge.recert.differential import differential
    from toolkit.judge.recert.touch import touch

    found = touch(rack, [parse_change(rack, text) for text in words])
    return differential(rack, found, _skus(settings), _serving(rack, states) or None, whole=whole)


def _after(settings: Settings, rack: Rack, words: tuple[str, ...], whole: bool, as_json: bool) -> None:
    from toolkit.report.recert import differential_view

    with ledger_of(settings) as ledger:
        states = ledger.node_states(rack.name)
    made = after_change(settings, rack, states, words, whole)
    remarks = of_states(rack, states, made)
    emit(
        _plain(made, remarks),
        as_json,
        lambda: differential_view(made, remarks),
        document="recert-differential",
    )


def _serving(rack: Rack, states: Mapping[str, NodeRow]) -> tuple[str, ...]:
    """Nodes that passed their burn-in, those without jobs first."""
    return tuple(
        node.name
        for state in _PARTNERS
        for node in rack.nodes
        if node.name in states and states[node.name].state is state
    )


def of_states(rack: Rack, states: Mapping[str, NodeRow], made: Differential) -> tuple[str, ...]:
    """What the ledger has against a plan that rests on evidence of others."""
    from toolkit.rack.nodeset import fold

    serving = _serving(rack, states)
    if not serving:
        return (f"no node of {rack.name} has passed a burn-in on record: nothing holds yet, a whole one comes first",)
    changed = {node for step in made.steps for node in step.changed}
    apart = [n.name for n in rack.nodes if n.name not in serving and n.name not in changed]
    admitted = {n for n in serving if states[n].state is NodeState.ADMITTED}
    busy = sorted({n for step in made.steps for n in step.nodes} & admitted)
    meant = {change.unit for change in made.touch.changes}
    away = [n.name for n in rack.nodes if n.name in changed - meant and n.name not in serving]
    found = [f"not in service, and without them the tests that name them are smaller: {fold(away)}"] if away else []
    found += [f"no evidence of theirs holds, and they are no partners: {fold(apart)}"] if apart else []
    found += [f"admitted, to be drained first: {fold(busy)}, unless they are idle when it is run"] if busy else []
    return tuple(found)


def _plain(made: Differential, remarks: tuple[str, ...]) -> dict[str, object]:
    """As JSON: of what holds the number alone, it is thousands of pieces."""
    value = asdict(made)
    found = value.pop("touch")
    value |= {"changes": found["changes"], "touched": found["touched"], "holds": len(found["holds"])}
    return value | {"share": made.share, "remarks": remarks}


def what_is_known(settings: Settings, ledger: Ledger, rack: Rack, budget: Budget) -> tuple[Known, Beliefs]:
    """What there is to choose from within a budget, and what is believed of it."""
    from toolkit.pool.policy_file import load_policy
    from toolkit.pool.recert_candidates import known
    from toolkit.pool.recert_file import load_beliefs

    beliefs = load_beliefs(settings)
    floor = load_policy(settings, rack.site).regulation.floor
    return known(ledger, rack, site_of(settings, rack), beliefs, floor, _skus(settings), budget, now()), beliefs


def best_choice(found: Known, beliefs: Beliefs) -> Choice:
    """The tests that are expected to save most within the terms: what is planned, and what is run."""
    from toolkit.judge.recert.choose import choose
    from toolkit.judge.recert.published import priors

    rates = priors(beliefs.gray.value, beliefs.gray_hours.value, beliefs.shape.value)
    return choose(found.candidates, found.trials, rates, found.terms)


def _within(settings: Settings, rack: Rack, budget: Budget, as_json: bool) -> None:
    from toolkit.judge.recert.published import SOURCE
    from toolkit.report.recert import budget_view, uncovered

    with ledger_of(settings) as ledger:
        found, beliefs = what_is_known(settings, ledger, rack, budget)
    choice = best_choice(found, beliefs)
    shown = _choice(choice) | {
        "rack": rack.name,
        "terms": asdict(found.terms),
        "stays_uncovered": uncovered(choice, found),
        "aside": found.aside,
        "remarks": found.remarks,
        "assumed": beliefs.assumed,
        "rates": SOURCE,
    }
    emit(shown, as_json, lambda: budget_view(rack.name, choice, found, beliefs), document="recert-budget")


def _choice(choice: Choice) -> dict[str, object]:
    """JSON has no nan: an energy that is unknown is null."""
    picks = [asdict(pick) | {"kwh": _known(pick.kwh)} for pick in choice.picks]
    return {"picks": picks, "node_minutes": choice.node_minutes, "kwh": _known(choice.kwh),
            "uncovered": [asdict(left) for left in choice.uncovered]}  # fmt: skip


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def site_of(settings: Settings, rack: Rack) -> tuple[Rack, ...]:
    """The racks of its pool: of its site, in the inventory."""
    from toolkit.rack.loading import list_racks, load_rack

    others = (load_rack(name, settings.inventory) for name in list_racks(settings.inventory) if name != rack.name)
    return (rack, *(other for other in others if other.site == rack.site))


def _skus(settings: Settings) -> tuple[Sku, ...]:
    from toolkit.rack.claims import load_skus

    return load_skus(settings.inventory) if (settings.inventory / "skus.yml").exists() else ()


def _add_run() -> None:
    from toolkit.cli.recert_run import run

    recert.add_command(run)


_add_run()

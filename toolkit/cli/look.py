"""`status`, `why`, `facts`, `explain`: they read, they change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import context_of, ledger_of, rack_named
from toolkit.errors import UsageError
from toolkit.judge.ceilings import Ceiling
from toolkit.ledger import Event, EventKind, Ledger
from toolkit.rack.gate import Gate, Operator
from toolkit.rack.loading import list_racks, load_rack
from toolkit.rack.model import Rack
from toolkit.settings import Settings


@click.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@json_option
def status(rack_name: str | None, as_json: bool) -> None:
    """Show where every node of RACK stands; without RACK, of every rack on record."""
    from rich.console import Group

    from toolkit.report.standing import standings
    from toolkit.report.terminal import standings_view

    settings = installed.load()
    with ledger_of(settings) as ledger:
        names = [rack_name] if rack_name else [r for r in list_racks(settings.inventory) if ledger.node_states(r)]
        found = {name: standings(ledger, rack_named(name, settings)) for name in names}
    emit(found, as_json, lambda: Group(*(standings_view(name, nodes) for name, nodes in found.items())))


@click.command()
@click.argument("name", metavar="NODE|RACK")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@json_option
def why(name: str, rack_name: str | None, as_json: bool) -> None:
    """Say what keeps NODE from the pool: the first unmet fact, its owner, the evidence, the next command."""
    from rich.console import Group

    from toolkit.rack.lifecycle import NodeState
    from toolkit.report.standing import standings
    from toolkit.report.terminal import why_view
    from toolkit.report.why import why as answer

    settings = installed.load()
    with ledger_of(settings) as ledger:
        rack, nodes = resolve(settings, name, rack_name)
        answers = [
            answer(rack.name, standing, _since_last_run(ledger, rack.name, standing.node))
            for standing in standings(ledger, rack)
            if standing.node in nodes
        ]
    if len(nodes) > 1:
        answers = [a for a in answers if a.state is not NodeState.ADMITTED]
    emit(answers, as_json, lambda: Group(*(why_view(a) for a in answers)) if answers else "all nodes are admitted")


def _since_last_run(ledger: Ledger, rack: str, node: str) -> tuple[Event, ...]:
    last = ledger.last_run(rack, node)
    begun = ledger.find(rack, node, EventKind.RUN_STARTED, last.stage) if last else None
    return ledger.events(rack, node, after=begun.id) if begun else ()


def resolve(settings: Settings, name: str, rack_name: str | None) -> tuple[Rack, tuple[str, ...]]:
    """The rack and the nodes NAME means: a rack's name means all its nodes."""
    racks = list_racks(settings.inventory)
    if rack_name is None and name in racks:
        rack = load_rack(name, settings.inventory)
        return rack, tuple(n.name for n in rack.nodes)
    found = []
    with ledger_of(settings) as ledger:
        for candidate in [rack_name] if rack_name else racks:
            if rack_name or ledger.node_states(candidate):
                rack = load_rack(candidate, settings.inventory)
                found += [rack] if any(n.name == name for n in rack.nodes) else []
    if len(found) == 1:
        return found[0], (name,)
    if found:
        raise UsageError(f"{name} is a node of {', '.join(r.name for r in found)}", "name one with --rack")
    raise UsageError(f"no rack on record has a node {name}", f"racks in the inventory: {', '.join(racks)}")


def node_named(settings: Settings, name: str, rack_name: str | None) -> tuple[Rack, str]:
    """The rack and the node NAME means. UsageError where it is a rack, nobody, or a node of several racks."""
    rack, nodes = resolve(settings, name, rack_name)
    if nodes != (name,):
        raise UsageError(f"{name} is a rack; this wants one of its nodes", ", ".join(nodes[:8]))
    return rack, name


@click.command()
@click.argument("name", metavar="NODE")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@json_option
def facts(name: str, rack_name: str | None, as_json: bool) -> None:
    """Read NODE now. Shows what its tools say; judges nothing and records nothing."""
    from rich.pretty import Pretty

    from toolkit.facts.probe import PROBES, read

    rack, node = node_named(installed.load(), name, rack_name)
    with context_of(rack) as context:
        found = [read(context.hands.shell, rack.unit(node), probe, context.clock) for probe in PROBES]
    shown = {f.name: {"value": f.value, "problem": f.problem, "at": f.at} for f in found}
    emit(shown, as_json, lambda: Pretty(shown))


@click.command()
@click.argument("code")
@json_option
def explain(code: str, as_json: bool) -> None:
    """Say what CODE means: its gate, its limit and source in every profile, or our own words for an ERROR."""
    from rich.console import Group
    from rich.text import Text

    from toolkit.judge.lint import ceiling_of
    from toolkit.rack.claims import load_skus, profile_claims
    from toolkit.rack.loading import list_profiles
    from toolkit.report.codes import ERROR_CODES

    settings = installed.load()
    code = code.upper()
    skus = load_skus(settings.inventory)
    gates: list[dict[str, Any]] = [
        {"profile": profile, "gate": gate, "ceiling": ceiling_of(claim, skus)}
        for profile in list_profiles(settings.inventory)
        for gate, claim in profile_claims(profile, settings.inventory)
        if gate.code == code
    ]
    if not gates and code not in ERROR_CODES:
        raise UsageError(f"no profile and no stage has a code {code}", "codes are shown by: rackproof status RACK")
    shown = {"code": code, "meaning": ERROR_CODES.get(code, ""), "gates": gates}

    def view() -> Group:
        lines = [Text(f"{code}  {ERROR_CODES.get(code, '')}", "bold")]
        for found in gates:
            lines += [Text(line) for line in _explained(**found)]
        return Group(*lines)

    emit(shown, as_json, view)


def _explained(profile: str, gate: Gate, ceiling: Ceiling | None) -> Iterator[str]:
    limit = "a limit nobody has sourced yet: INCONCLUSIVE" if gate.limit is None else f"{gate.limit} {gate.unit}"
    must = "the same on all" if gate.operator is Operator.SAME_ACROSS else f"{gate.operator.replace('_', ' ')} {limit}"
    yield f"{profile}: {gate.metric} must be {must}"
    yield f"    after {gate.stage}; part: {gate.part}. {gate.why}"
    if ceiling:
        yield f"    ceiling: {ceiling.formula}"
    yield f"    source: {gate.source} ({gate.date})"

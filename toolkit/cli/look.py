"""`status`, `why`, `facts`, `explain`: they read, they change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import context_of, ledger_of, now
from toolkit.errors import UsageError
from toolkit.ledger import Event, EventKind, Ledger
from toolkit.rack.loading import list_racks, load_rack

if TYPE_CHECKING:
    from rich.console import RenderableType

    from toolkit.judge.ceilings import Ceiling
    from toolkit.rack.gate import Gate
    from toolkit.rack.model import Profile, Rack
    from toolkit.report.overview import Overview
    from toolkit.report.standing import Standing
    from toolkit.settings import Settings

WHOLE = 2  # racks that are shown with their units; more get a line each


@click.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@json_option
def status(rack_name: str | None, as_json: bool) -> None:
    """Show where every node of RACK stands; without RACK, of every rack on record.

    What is wrong comes first, then what is at work and how long that usually takes, then the rack's units in their
    slots; of many racks a line each. Without a terminal: a line a node.
    """
    from toolkit.report.lines import severity, status_lines
    from toolkit.report.overview import overview

    settings = installed.load()
    at, profiles = now(), dict[str, "Profile"]()
    with ledger_of(settings) as ledger:
        known = ledger.racks() if rack_name is None else ()
        names = [rack_name] if rack_name else [r for r in list_racks(settings.inventory) if r in known]
        racks = {name: load_rack(name, settings.inventory, profiles) for name in names}
        seen = {name: _timed(settings, ledger, rack, overview(ledger, rack, at)) for name, rack in racks.items()}
    if not racks and not as_json:
        emit(None, False, lambda: "no rack is on record", next=lambda: "rackproof inventory")
        return

    def view() -> RenderableType:
        from rich.console import Group

        from toolkit.report.terminal import fleet_view, status_view

        if len(seen) > WHOLE:
            return fleet_view(tuple(seen.values()))
        return Group(*(status_view(racks[name], one, at, _said(settings, one)) for name, one in seen.items()))

    emit(
        {"racks": seen},
        as_json,
        view,
        lines=lambda: status_lines(seen.values()),
        next=lambda: max(seen.values(), key=severity).next,
    )


def _timed(settings: Settings, ledger: Ledger, rack: Rack, seen: Overview) -> Overview:
    """With the usual times of what is at work, which only then are looked for."""
    if not seen.at_work:
        return seen
    from toolkit.report.eta import alike, usual_times
    from toolkit.report.overview import timed

    stages = [one.stage for one in seen.at_work]
    return timed(seen, usual_times(ledger, rack, alike(settings, ledger, rack), rack.profile.suite, stages))


def _said(settings: Settings, seen: Overview) -> dict[str, str]:
    """The newest words of the nodes at work, as their driver tells them; none where it tells nothing."""
    if not seen.at_work:
        return {}
    from toolkit.report.progress import progress_file, read_progress

    told = read_progress(progress_file(settings, seen.rack))
    if told is None or told.holder.partition(" (")[0] != seen.driver:
        return {}
    lines = (line for line in told.lines if line.gpu is None and line.node in seen.busy and line.done != 1.0)
    return {line.node: f"{'' if line.done is None else f'{line.done:.0%} '}{line.text}" for line in lines}


@click.command()
@click.argument("name", metavar="NODE|RACK")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@json_option
def why(name: str, rack_name: str | None, as_json: bool) -> None:
    """Say what keeps NODE from the pool: the first unmet fact, its owner, the evidence, the next command."""
    from toolkit.rack.lifecycle import NodeState
    from toolkit.report.lemons import lemon_list, lemons_in, load_thresholds, serials_of
    from toolkit.report.lines import why_lines
    from toolkit.report.standing import standings
    from toolkit.report.why import drifting
    from toolkit.report.why import why as answer

    settings = installed.load()
    with ledger_of(settings) as ledger:
        rack, nodes = resolve(settings, name, rack_name)
        lemons = lemon_list(ledger, load_thresholds(settings), now()).lemons
        answers = [
            replace(
                answer(rack.name, standing, _since_last_run(ledger, rack.name, standing.node)),
                warnings=(
                    *drifting(ledger.find(rack.name, standing.node, EventKind.OBSERVED, "trend")),
                    *lemons_in(lemons, serials_of(ledger, rack, rack.unit(standing.node))),
                ),
                rungs=_rungs(ledger, rack, standing),
            )
            for standing in _worst_first(standings(ledger, rack))
            if standing.node in nodes
        ]
    if len(nodes) > 1:
        answers = [a for a in answers if a.state is not NodeState.ADMITTED or a.warnings]

    def view() -> RenderableType:
        from rich.console import Group

        from toolkit.report.terminal import why_view

        last = "next" if len(answers) > 1 else ""  # of a single node it is the last line
        return Group(*(Group(why_view(a, last), "") for a in answers)) if answers else "all nodes are admitted"

    emit(
        {"rack": rack.name, "nodes": answers},
        as_json,
        view,
        lines=lambda: why_lines(answers) if answers else ("all nodes are admitted",),
        next=lambda: answers[0].next if answers else f"rackproof status {rack.name}",
    )


def _worst_first(stood: Sequence[Standing]) -> list[Standing]:
    from toolkit.report.overview import troubled

    return [*troubled(stood), *(s for s in stood if not s.trouble)]


def _rungs(ledger: Ledger, rack: Rack, standing: Standing) -> tuple[str, ...]:
    """What `recover` could try for a node that failed."""
    if not standing.trouble:
        return ()
    from toolkit.repair import plan

    try:
        return tuple(rung for rung, _ in plan(ledger, rack, rack.unit(standing.node)).left.rungs)
    except UsageError:
        return ()


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
            # A node whose first stage ended in an error is where it was: its run alone is on record.
            if rack_name or ledger.node_states(candidate) or ledger.last_run(candidate, name):
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
    emit({"rack": rack.name, "node": node, "facts": shown}, as_json, lambda: Pretty(shown))


@click.command()
@click.argument("code")
@json_option
def explain(code: str, as_json: bool) -> None:
    """Say what CODE means: its gate, its limit and source in every profile, or our own words for an ERROR.

    In place of a code, the words of a tool in quotes: what is known to stand behind them.
    """
    from rich.console import Group
    from rich.text import Text

    from toolkit.judge.dictionary import known_error, known_errors
    from toolkit.judge.ladder import HELPS
    from toolkit.judge.lint import ceiling_of
    from toolkit.rack.claims import load_skus, profile_claims
    from toolkit.rack.loading import list_profiles
    from toolkit.report.codes import ERROR_CODES, explained_as
    from toolkit.report.runbook import runbook

    settings = installed.load()
    words, code = code, explained_as(code.upper())
    skus = load_skus(settings.inventory)
    gates: list[dict[str, Any]] = [
        {"profile": profile, "gate": gate, "ceiling": ceiling_of(claim, skus)}
        for profile in list_profiles(settings.inventory)
        for gate, claim in profile_claims(profile, settings.inventory)
        if gate.code == code
    ]
    by_code = known_error(code)
    known = (by_code,) if by_code else () if gates or code in ERROR_CODES else known_errors(words)
    if not gates and code not in ERROR_CODES and not known:
        wrong = f"no profile and no stage has a code {code}, and nothing is known of such words"
        raise UsageError(wrong, "codes are shown by: rackproof status RACK")
    rungs = HELPS.get(code)
    page = runbook(code)
    shown: dict[str, object] = {"code": code, "meaning": ERROR_CODES.get(code, ""), "gates": gates, "known": known}
    shown |= {"ladder": rungs, "runbook": dict(page.sections) if page else None}

    def view() -> Group:
        lines = (
            []
            if known and not gates and code not in ERROR_CODES
            else [Text(f"{code}  {ERROR_CODES.get(code, '')}", "bold")]
        )
        for found in gates:
            lines += [Text(line) for line in _explained(**found)]
        if rungs is not None:
            can = ", ".join(rungs.rungs) or "no restart helps"
            lines += [Text(f"after a failure: {can}. {rungs.source}")]
        for entry in known:
            lines += [Text(f"{entry.code}  {entry.says}", "bold"), Text(f"    cause: {entry.cause}")]
            lines += [Text(f"    next: {entry.next}"), Text(f"    source: {entry.source}")]
        lines += [Text(line) for line in (page.lines if page else ())]
        return Group(*lines)

    emit(shown, as_json, view)


def _explained(profile: str, gate: Gate, ceiling: Ceiling | None) -> Iterator[str]:
    from toolkit.judge.relative import explained, must_be
    from toolkit.rack.gate import Operator, WithoutPeers

    limit = "a limit nobody has sourced yet: INCONCLUSIVE" if gate.limit is None else f"{gate.limit} {gate.unit}"
    must = "the same on all" if gate.operator is Operator.SAME_ACROSS else f"{gate.operator.replace('_', ' ')} {limit}"
    share = gate.limit if gate.operator is Operator.PEERS and isinstance(gate.limit, float) else None
    must = must if share is None else must_be(share)
    yield f"{profile}: {gate.metric} must be {must}"
    yield f"    after {gate.stage}; part: {gate.part}. {gate.why}"
    if share is not None:
        yield from (f"    {line}" for line in explained(share, gate.without_peers is WithoutPeers.NOT_ASKED))
    if ceiling:
        yield f"    ceiling: {ceiling.formula}"
    yield f"    source: {gate.source} ({gate.date})"

"""Plans of re-certification in 80 columns: after a change, and within a budget. The unknown is a word, not a zero."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.judge.recert.choose import Choice
from toolkit.judge.recert.differential import Differential, Step
from toolkit.judge.recert.published import SOURCE
from toolkit.judge.recert.touch import Evidence, Proof
from toolkit.pool.recert_candidates import Known
from toolkit.pool.recert_file import Beliefs
from toolkit.rack.burnin_plan import Figure
from toolkit.rack.gate import Scope
from toolkit.rack.nodeset import fold
from toolkit.report.text import printable

_LONG = 1000
# What a certificate's reader asks for first: a line of numbers, not one of 5,000 pieces of evidence.
_HOLDS = (
    (Proof.SUITE, Scope.NODE, "suites of {} nodes"),
    (Proof.COLLECTIVES, Scope.NODE, "collectives of {} nodes"),
    (Proof.RAILS, Scope.HCA, "rails of {} HCAs"),
    (Proof.LEAF, Scope.LEAF, "{} leaves"),
    (Proof.DOMAIN, Scope.DOMAIN, "{} NVLink domain"),
    (Proof.UNIT, Scope.RACK, "{} scalable unit"),
)


def differential_view(plan: Differential, remarks: Sequence[str] = ()) -> RenderableType:
    """A line a test, totals against a whole burn-in, then why each, what stays good and what stays unverified."""
    words = "; ".join(change.words for change in plan.touch.changes)
    table = _table((("test", False), ("nodes", False), ("minutes", True), ("node-min", True), ("kWh", True)))
    for step in plan.steps:
        on = f"{len(step.nodes)}: {fold(step.nodes)}"
        table.add_row(step.level, printable(on), *map(_number, (step.minutes, step.node_minutes, step.kwh)))
    table.add_row(Text("together", "bold"), "", "", _number(plan.node_minutes), _number(plan.kwh))
    table.add_row(Text("a whole burn-in", "dim"), "", "", _number(plan.full), _number(plan.full_kwh))
    lacking = dict.fromkeys((*plan.full.lacking, *plan.node_minutes.lacking))
    share = "of unknown share" if plan.share is None else f"{plan.share:.1%} of its node-minutes"
    lines = [Text(f"to be measured: {share}", "bold")] if plan.steps else []
    return Group(
        Text(printable(f"re-certification of {plan.rack} after: {words}", _LONG), "bold"),
        *([table] if plan.steps else [Text("nothing has to be measured: facts are read again when it is certified")]),
        *lines,
        *(Text(printable(f"unknown: {words}"), "yellow") for words in lacking),
        *_whys(plan.steps),
        Text(printable(f"stays good: {_counted(plan.touch.holds) or 'nothing that was measured'}")),
        *(Text(printable(f"not verified by this: {words}", _LONG), "yellow") for words in plan.unverified),
        *(Text(printable(words, _LONG), "yellow") for words in remarks),
        Text("not counted: draining, starting programs, reading facts again, what runs again on a doubt", "dim"),
    )


def _whys(steps: Iterable[Step]) -> Iterator[Text]:
    for step in steps:
        of = f", {', '.join(step.of)}" if step.of else ""
        yield Text(printable(f"{step.level}: {step.tests}{of}", _LONG))
        for words in step.why[:3]:
            yield Text(printable(f"  for {words}", _LONG), "dim")
        if len(step.why) > 3:
            yield Text(f"  and {len(step.why) - 3} reasons more: --json", "dim")
        if step.partners:
            yield Text(printable(f"  against {fold(step.partners)}, free of jobs meanwhile", _LONG), "dim")


def _counted(holds: Iterable[Evidence]) -> str:
    counts = Counter((e.proof, e.subject.scope) for e in holds)
    return ", ".join(words.format(counts[proof, scope]) for proof, scope, words in _HOLDS if counts[proof, scope])


def budget_view(rack: str, choice: Choice, found: Known, beliefs: Beliefs) -> RenderableType:
    """A line a test with its reason, what it takes, what stays uncovered and why, and on what this rests."""
    table = _table((("node", False), ("suite", False), ("minutes", True), ("kWh", True), ("why", False)))
    for pick in choice.picks:
        table.add_row(pick.node, pick.trial, f"{pick.minutes:.1f}", _kwh(pick.kwh), printable(pick.why))
    terms = found.terms
    used = f"{choice.node_minutes:,.1f}{_of(terms.node_minutes)} node-minutes, {_kwh(choice.kwh)}{_of(terms.kwh)} kWh"
    lines = [
        Text(f"used: {used}", "bold"),
        *(Text(printable(words, _LONG), "yellow") for words in uncovered(choice, found)),
        *(Text(printable(f"{fold([n])} is {state}: not in service", _LONG), "dim") for n, state in found.aside),
        *(Text(printable(words, _LONG), "dim") for words in found.remarks),
        Text(printable(f"rates of faults: {SOURCE}", _LONG), "dim"),
        Text(printable(f"assumed, published by nobody: {', '.join(beliefs.assumed) or 'nothing'}", _LONG), "dim"),
    ]
    title = Text(printable(f"re-certification of {rack} within a budget"), "bold")
    return Group(title, table if choice.picks else Text("no test is chosen"), *lines)


def uncovered(choice: Choice, found: Known) -> tuple[str, ...]:
    """By reason: nodes that stay as they are."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for left in choice.uncovered:
        by_reason.setdefault((left.trial, left.why), []).append(left.node)
    lines = [f"stays uncovered by {trial}: {fold(nodes)}: {why}" for (trial, why), nodes in by_reason.items()]
    spoken = {pick.node for pick in choice.picks} | {left.node for left in choice.uncovered}
    rest = [c.node for c in found.candidates if c.node not in spoken]
    if rest:
        lines.append(f"left alone: {fold(rest)}: no test is expected to save more node-minutes than it takes")
    return tuple(lines)


def _table(columns: Iterable[tuple[str, bool]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name, number in columns:
        table.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold", header_style="dim"
        )
    return table


def _number(figure: Figure) -> str:
    """What is too small to show is said to be so."""
    if figure.value is None:
        return "unknown"
    text = "< 0.1" if 0 < figure.value < 0.05 else f"{figure.value:,.1f}"
    return f"> {text}" if figure.lacking else text


def _kwh(kwh: float) -> str:
    return "unknown" if math.isnan(kwh) else f"{kwh:,.2f}"


def _of(bound: float | None) -> str:
    return "" if bound is None else f" of {bound:g}"

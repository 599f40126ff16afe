"""Racks, plans and answers as plain lines, for programs that read on; and the words that a terminal shows as well.

Nothing of rich is imported here: a line is printed before a terminal's library would be loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from re import escape, sub
from typing import TYPE_CHECKING

from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.nodeset import fold
from toolkit.report.eta import NO_HISTORY, Usual
from toolkit.report.overview import Overview, troubled
from toolkit.report.standing import Standing
from toolkit.report.text import printable

if TYPE_CHECKING:
    from toolkit.rack.plan import Plan, Step
    from toolkit.report.why import Why

LONG = 4_000  # of what we write ourselves: names of a rack's nodes, reasons of a plan
EACH = "NODE"  # stands for each of several nodes in words that are otherwise the same


def folded(names: Iterable[str]) -> str:
    """Names as rack files write them: `node[1-4,6]`."""
    return printable(fold(names), LONG)


def count_states(nodes: Iterable[Standing]) -> str:
    """How many nodes are in which state: `2 ADMITTED, 1 PLANNED`."""
    states = Counter(node.state for node in nodes)
    return ", ".join(f"{states[state]} {state}" for state in reversed(NodeState) if state in states)


def severity(seen: Overview) -> int:
    """2: something failed on evidence; 1: something is undecided; 0: neither."""
    bad = troubled(seen.nodes)
    return 2 if any(n.outcome is Outcome.FAILED for n in bad) else 1 if bad else 0


def each(text: str, node: str) -> str:
    """The text with NODE in place of the node's own name."""
    return sub(rf"(?<![\w.-]){escape(node)}(?![\w-])", EACH, text)


def status_lines(racks: Iterable[Overview]) -> Iterator[str]:
    """A line a node, those with trouble first, for `grep` and `awk`; then the next command of each rack."""
    seen = tuple(racks)
    rows: list[tuple[str, ...]] = [("RACK", "NODE", "STATE", "STAGE", "CODE", "PART", "NEXT")]
    for one in seen:
        bad = troubled(one.nodes)
        for s in (*bad, *(n for n in one.nodes if not n.trouble)):
            stage = str(s.stage or "") if s.trouble or s.node in one.busy else ""
            told = (one.rack, s.node, s.state, stage, s.code, s.part, s.next if s.trouble else "")
            rows.append(tuple(printable(str(cell)) or "-" for cell in told))
    yield from aligned(rows)
    yield from (f"next: {one.next}" for one in seen)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns two spaces apart, the last as long as it is."""
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join((*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1])).rstrip()


def reasons(step: Step) -> str:
    """Why the step's nodes are in it, each reason once."""
    return printable(", ".join(sorted({each(t.why, t.node) for t in step.targets})), LONG)


def plan_lines(plan: Plan, usual: Mapping[Stage, Usual]) -> Iterator[str]:
    """A line a step and a line a node that is left alone."""
    yield f"plan for {plan.rack} to {plan.goal}  [{plan.digest[:12]}]"
    rows = [("STAGE", "NODES", "USUALLY", "WHY")]
    for step in plan.steps:
        known = usual.get(step.stage)
        erases = "; erases disks" if step.destructive else ""
        takes = known.words if known else NO_HISTORY
        rows.append((str(step.stage), folded(t.node for t in step.targets), takes, reasons(step) + erases))
    yield from aligned(rows) if plan.steps else ("no step",)
    yield from (f"left alone: {h.node}  {h.state}: {printable(h.why)}" for h in plan.held)


def plan_next(plan: Plan) -> str:
    """What carries the plan out; where it has nothing to do, what tells why."""
    if plan.steps:
        to = "" if plan.goal is NodeState.ADMITTED else f" --to {plan.goal}"
        return f"rackproof bringup {plan.rack}{to}{f' --confirm {plan.rack}' if plan.destructive else ''}"
    away = any(h.state is NodeState.QUARANTINED for h in plan.held)
    return f"rackproof {'why' if away else 'status'} {plan.rack}"


def why_rows(why: Why) -> Iterator[tuple[str, str]]:
    """What is known, by name, the first unmet fact first; without the next step."""
    rows = [("unmet", f"{why.code} {why.unmet}".strip()), *(("known cause", cause) for cause in why.known)]
    rows += [("stage", why.stage), ("part", why.part), ("owner", why.owner)]
    rows += [("evidence", line) for line in why.evidence] + [("warning", line) for line in why.warnings]
    rows += [("can help", f"{', '.join(why.rungs)}: rackproof recover {why.node} --plan")] if why.rungs else []
    rows += [("runbook", f"rackproof explain {why.code}")] if why.code else []
    yield from ((name, text) for name, text in rows if text)


def why_lines(answers: Iterable[Why]) -> Iterator[str]:
    """`node: name: text`, a line each."""
    for why in answers:
        yield f"{why.node}: {why.state}"
        yield from (f"{why.node}: {name}: {printable(text)}" for name, text in why_rows(why))
        yield f"{why.node}: next: {printable(why.next)}"

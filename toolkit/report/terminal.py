"""Plans, racks and answers on a terminal, and the same as plain lines elsewhere.

Everything a node said goes through `printable` first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from re import sub
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.report.elevation import FAILED_STYLE, STATE_STYLE, TROUBLE_STYLE, Elevation, slots_of
from toolkit.report.eta import NO_HISTORY, Usual, lasting
from toolkit.report.lines import EACH, LONG, count_states, each, folded, reasons, severity, why_rows
from toolkit.report.overview import Overview, troubled
from toolkit.report.standing import Standing
from toolkit.report.text import printable

if TYPE_CHECKING:
    from toolkit.rack.burnin_plan import BurninPlan
    from toolkit.rack.model import Rack
    from toolkit.rack.plan import Held, Plan, Step
    from toolkit.report.why import Why


def next_line(command: str) -> Text:
    """The last line of a screen."""
    return Text.assemble(("next: ", "bold"), (printable(command), "bold cyan"))


# Racks


def status_view(rack: Rack, seen: Overview, now: datetime, said: Mapping[str, str] | None = None) -> RenderableType:
    """A rack: what is wrong first, what is at work, then every unit in its slot.

    said  the newest words of nodes at work
    """
    nodes = "1 node" if len(seen.nodes) == 1 else f"{len(seen.nodes)} nodes"
    parts: list[RenderableType] = [
        Text.assemble((seen.rack, "bold"), f"  {nodes}: {count_states(seen.nodes) or 'none'}"),
        Text(f"profile {seen.profile}, site {seen.site}", "dim"),
    ]
    if troubled(seen.nodes):
        parts += [Text(), troubles_view(seen.nodes)]
    if seen.driver:
        parts += [Text(), _driven(seen, now, said or {})]
    return Group(*parts, Text(), Elevation(slots_of(rack, seen.nodes, seen.busy)), Text())


def _driven(seen: Overview, now: datetime, said: Mapping[str, str]) -> RenderableType:
    lines = [Text(f"driven by {printable(seen.driver, 80)}", "dim")]
    for one in seen.at_work:
        elapsed = max(0.0, (now - one.since).total_seconds())
        left = f"usually {one.usual.words}: {one.usual.left(elapsed)}" if one.usual else NO_HISTORY
        line = Text.assemble((one.stage, "bold"), f" on {folded(one.nodes)} for {lasting(elapsed)}; {left}")
        lines += [line, *(Text(f"  {n}  {printable(said[n], 160)}", "dim") for n in one.nodes if said.get(n))]
    return Group(*lines)


def standings_view(title: str, nodes: Sequence[Standing]) -> RenderableType:
    """Where nodes stand, without their rack: what is wrong first, then the others by state."""
    well = [node for node in nodes if not node.trouble]
    lines: list[RenderableType] = [Text(printable(title, LONG), "bold")]
    if len(well) < len(nodes):
        lines.append(troubles_view(nodes))
    for state in reversed(NodeState):
        if of := [node.node for node in well if node.state is state]:
            lines.append(Text.assemble((f"{state}  ", STATE_STYLE.get(state, "")), folded(of)))
    return Group(*lines)


def troubles_view(nodes: Iterable[Standing]) -> RenderableType:
    """What keeps nodes from their goal: those that failed before those that are undecided; the same words once."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=False, overflow="fold", max_width=24)
    table.add_column(overflow="fold")
    for of in _alike(troubled(nodes)):
        first = of[0]
        style = FAILED_STYLE if first.outcome is Outcome.FAILED else TROUBLE_STYLE
        at = f" at {first.stage}" if first.stage else ""
        body = Text.assemble((first.state, STATE_STYLE.get(first.state, "")), f"{at}: ", (printable(first.code), style))
        lines = [body, *(Text(line) for line in _facts(of))]
        table.add_row(Text(folded([n.node for n in of]), style), Group(*lines))
    return table


def _facts(of: Sequence[Standing]) -> Iterator[str]:
    """Part, or the message where no part is blamed, and the next step; NODE for each where they are several."""
    first = of[0]
    one = len(of) == 1
    part, message, step = (t if one else each(t, first.node) for t in (first.part, first.message, first.next))
    if part:
        yield f"part: {printable(part)}"
    elif message:
        yield printable(message)
    if step:
        yield from steps(step)


def steps(step: str) -> Iterator[str]:
    """`swap A and B, then: COMMAND` as a line each: a command that is folded cannot be copied."""
    first, *others = sub(r"(, then: |; all lines: )", r"\n\1", printable(step)).split("\n")
    yield f"next: {first}"
    yield from (other.lstrip(",; ") for other in others)


def _alike(nodes: Iterable[Standing]) -> list[list[Standing]]:
    """Nodes of which the same is said, but for their own name."""
    groups: dict[tuple[object, ...], list[Standing]] = {}
    for s in nodes:
        said = (each(text, s.node) for text in (s.part, s.message, s.next))
        groups.setdefault((s.state, s.outcome, s.stage, s.code, *said), []).append(s)
    return list(groups.values())


def fleet_view(racks: Sequence[Overview]) -> RenderableType:
    """Many racks: a line each, those with failures first, then those in doubt."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for column in ("rack", "nodes", "states", "wrong"):
        table.add_column(column, overflow="fold")
    for one in sorted(racks, key=severity, reverse=True):
        bad = troubled(one.nodes)
        codes = Counter(printable(s.code) for s in bad)
        wrong = ", ".join(f"{count} {code}" if count > 1 else code for code, count in codes.items())
        style = FAILED_STYLE if severity(one) > 1 else TROUBLE_STYLE
        driven = Text(f"\ndriven by {printable(one.driver, 80)}", "dim") if one.driver else Text()
        states = Text(count_states(one.nodes)).append_text(driven)
        table.add_row(Text(one.rack, "bold"), Text(str(len(one.nodes))), states, Text(wrong, style))
    return Group(table, Text())


# Plans


def plan_view(
    plan: Plan, burnin: BurninPlan | None = None, usual: Mapping[Stage, Usual] | None = None
) -> RenderableType:
    """The plan: its stages with how long each usually takes, what it leaves alone, what its burn-in will take."""
    from toolkit.report.burnin_plan import burnin_plan_view

    parts: list[RenderableType] = [Text(f"plan for {plan.rack} to {plan.goal}  [{plan.digest[:12]}]", "bold")]
    parts += [_steps(plan.steps, usual or {}), _together(plan.steps, usual or {})] if plan.steps else [Text("no step")]
    parts += [_held(plan.held)] if plan.held else []
    return Group(*parts, *([Text(), burnin_plan_view(burnin)] if burnin else []), Text())


def _steps(steps: Sequence[Step], usual: Mapping[Stage, Usual]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("stage", no_wrap=True)
    table.add_column("nodes", overflow="fold")
    table.add_column("why", overflow="fold")
    table.add_column("usually", overflow="fold", min_width=9)
    for step in steps:
        stage = Text(str(step.stage), "bold")
        if step.destructive:
            stage = Text.assemble(stage, ("\nerases disks", "bold red"))
        known = usual.get(step.stage)
        takes = Text(known.words) if known else Text(NO_HISTORY, "dim")
        table.add_row(stage, Text(folded(t.node for t in step.targets)), Text(reasons(step)), takes)
    return table


def _together(steps: Sequence[Step], usual: Mapping[Stage, Usual]) -> Text:
    unknown = [str(step.stage) for step in steps if step.stage not in usual]
    total = sum(usual[step.stage].median_s for step in steps if step.stage in usual)
    if len(unknown) == len(steps):
        return Text(f"together: {NO_HISTORY} of this profile", "dim")
    but = f", and {', '.join(unknown)}, of which there is {NO_HISTORY}" if unknown else ""
    return Text(f"together: usually {lasting(total)}, the nodes side by side{but}")


def _held(held: Sequence[Held]) -> RenderableType:
    groups: dict[tuple[str, str], list[str]] = {}
    for one in held:
        groups.setdefault((one.state, each(one.why, one.node)), []).append(one.node)
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=24)
    table.add_column(overflow="fold")
    for (state, why), names in groups.items():
        said = why if len(names) > 1 else why.replace(EACH, names[0])
        style = STATE_STYLE.get(NodeState(state), "")
        table.add_row(Text(folded(names)), Text.assemble((state, style), f": {printable(said)}"))
    return Group(Text("\nleft alone", "dim"), table)


# Why


def why_view(why: Why, last: str = "next") -> RenderableType:
    """One node's answer, as lines. `last`: what its next step is called; empty: it is told elsewhere."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("node", Text(f"{why.node} is {why.state}", STATE_STYLE.get(why.state, "bold")))
    before = ""
    for name, text in why_rows(why):
        style = FAILED_STYLE if name == "evidence" and text.startswith("FAIL ") else ""
        table.add_row("" if name == before else name, Text(printable(text), style))
        before = name
    if last and why.next:
        first, *others = steps(why.next)
        table.add_row(last, Text(first.removeprefix("next: ")))
        for other in others:
            table.add_row("", Text(other))
    return table

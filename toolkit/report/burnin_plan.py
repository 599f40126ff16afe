"""A burn-in before it runs, in 80 columns: its levels, minutes, energy and power. The unknown is a word, not a zero."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.rack.burnin_plan import BurninPlan, Cost, Figure, Level, total
from toolkit.report.text import printable

RUNS, PLANNED = "runs", "planned"
_COLUMNS = ("level", "today", "tests", "minutes", "at most", "kWh", "kW")
_LONG = 2000  # a suite of many workloads is a long sum
_NUMBERS = ("minutes", "at most", "kWh", "kW")


def burnin_plan_view(plan: BurninPlan, *, explain: bool = False) -> RenderableType:
    """A line a level and totals. `explain`: a line a test instead, on whom it runs, and where its numbers come from."""
    title = f"burn-in of {plan.rack}: suite {plan.suite} on {_count(len(plan.nodes), 'node')}, {plan.gpus} GPUs"
    table = Table(title=Text(title, "bold"), title_justify="left", box=None, padding=(0, 1), pad_edge=False)
    for name in _COLUMNS:
        number = name in _NUMBERS
        table.add_column(
            name, justify="right" if number else "left", no_wrap=number, overflow="fold", header_style="dim"
        )
    there = [level for level in plan.levels if not level.absent]
    for level in there:
        _add(table, level, explain)
    for name, cost in _totals(plan, there):
        table.add_row(Text(name, "bold"), "", "", *_cells(cost, "bold"))
    lines = [*_absent(plan.levels), *_remarks(plan, there)]
    return Group(table, *lines, *(_sources(there) if explain else ()))


def _add(table: Table, level: Level, explain: bool) -> None:
    style = "" if level.runs_today else "dim"
    today = Text(RUNS if level.runs_today else PLANNED, style)
    if not explain:
        names = ", ".join(test.name for test in level.tests) if len(level.tests) < 3 else f"{len(level.tests)} tests"
        table.add_row(Text(level.name, style), today, Text(printable(names), style), *_cells(level.cost, style))
        return
    for number, test in enumerate(level.tests):
        first = (Text("" if number else level.name, style), Text("") if number else today)
        table.add_row(*first, Text(printable(test.name), style), *_cells(test.cost, style))


def _totals(plan: BurninPlan, there: Iterable[Level]) -> list[tuple[str, Cost]]:
    """One where all that is planned is run."""
    if all(level.runs_today for level in there):
        return [("total", plan.today)]
    return [("total today", plan.today), ("total planned", plan.whole)]


def _cells(cost: Cost, style: str) -> list[Text]:
    return [
        Text(_number(cost.minutes), style),
        Text(_bound(cost.minutes_at_most), style),
        Text(_number(cost.kwh), style),
        Text(_bound(cost.kw), style),
    ]


def _number(figure: Figure) -> str:
    """What is too small to show is said to be so: nothing that takes time or energy takes none."""
    if figure.value is None:
        return "unknown"
    text = "< 0.1" if 0 < figure.value < 0.05 else f"{figure.value:,.1f}"
    return f"> {text}" if figure.lacking else text


def _bound(figure: Figure) -> str:
    """Rounded up."""
    if figure.value is None:
        return "unknown"
    text = f"{math.ceil(figure.value):,}"
    return f"> {text}" if figure.lacking else text


def _absent(levels: Iterable[Level]) -> list[Text]:
    """A line a reason."""
    names: dict[str, list[str]] = {}
    for level in levels:
        if level.absent:
            names.setdefault(level.absent, []).append(level.name)
    return [Text(printable(f"not there: {', '.join(found)}: {why}"), "dim") for why, found in names.items()]


def _remarks(plan: BurninPlan, there: list[Level]) -> list[Text]:
    cost = plan.whole
    lacking = total((cost.minutes, cost.minutes_at_most, cost.kwh, cost.kw)).lacking
    lines = [Text(printable(f"by {words}"), "dim") for words in plan.carried]
    lines += [Text(printable(f"unknown: {words}"), "yellow") for words in lacking]
    if any(not level.runs_today for level in there):
        lines.append(Text(printable(f"{PLANNED}: {plan.held}"), "yellow"))
    if cost.kw.value is not None:
        lines.append(Text(printable(f"kW: {plan.power}"), "dim"))
    lines.append(Text(printable(_ramp(plan)), "dim"))
    lines.append(Text(printable(f"not counted: {'; '.join(plan.aside)}"), "dim"))
    return lines


def _ramp(plan: BurninPlan) -> str:
    ramp = plan.ramp
    if ramp.gpu_kw.value is None:
        return "ramp: the GPUs take up their load all at once, a step of unknown size"
    if not ramp.kw_per_s:
        return f"ramp: none: the GPUs take up {ramp.gpu_kw.value:,.1f} kW in one step"
    return (
        f"ramp: the GPUs take up {ramp.gpu_kw.value:,.1f} kW at {ramp.kw_per_s:g} kW/s, in {ramp.seconds.value:,.0f} s"
    )


def _sources(levels: Iterable[Level]) -> Iterable[Text]:
    """On whom each test runs, and where its numbers come from."""
    yield Text("where the numbers come from", "bold")
    for level in levels:
        for test in level.tests:
            yield Text(printable(f"{level.name}, {test.name}: {test.on}"))
            sources = [("minutes", test.cost.minutes), ("at most", test.cost.minutes_at_most), ("kWh", test.cost.kwh)]
            for name, figure in (*sources, ("kW", test.cost.kw)):
                if figure.value is not None:  # why not, is said above for all of them
                    yield Text(f"  {name}: ", "dim") + Text(printable(figure.source, _LONG))


def _count(number: int, of: str) -> str:
    return f"{number} {of}{'' if number == 1 else 's'}"

"""A work order on a terminal, as JSON, as a spreadsheet and as a page to print. What the fabric said is never markup.

Names in a work order come from node descriptions, which whoever runs a node can write: on the terminal they go through
`printable`, in CSV no cell can be a formula, in HTML everything is escaped and the page may load and run nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.judge.fabric.line import Action, Place, WorkEnd, WorkLine
from toolkit.judge.fabric.work_order import WorkOrder
from toolkit.judge.verdict import Answer
from toolkit.report.burnin import ANSWER_STYLE
from toolkit.report.text import cell, printable

if TYPE_CHECKING:
    from jinja2 import Template

SCHEMA = "rackproof/work-order/v1"
SHOWN_LINES = 40  # on a terminal; all of them are in JSON, CSV and on the page
SHOWN_EVIDENCE = 3
LONGEST = 1000
_BOX = "[ ]"
_ACTION_STYLE = {
    Action.CONFIGURE: "cyan", Action.SWAP: "bold", Action.MOVE: "bold", Action.RESEAT: "bold",
    Action.REPLACE: "bold", Action.INSPECT: "",
}  # fmt: skip


def where(place: Place | None) -> str:
    """A place in words."""
    if place is None:
        return "settings: nobody walks"
    return f"{place.rack}, slot {place.slot}: {place.unit}" if place.slot else f"{place.rack}: {place.unit}"


def work_order_view(order: WorkOrder) -> RenderableType:
    """The order within 80 columns."""
    parts: list[RenderableType] = [
        Text(f"{printable(order.rack)}: work order  ", "bold") + Text(order.answer, ANSWER_STYLE[order.answer]),
        Text(printable("; ".join(f"{name} {value}" for name, value in order.counts)), "dim"),
    ]
    number = 0
    for visit in order.visits:
        if number >= SHOWN_LINES:
            break
        parts.append(Text(printable(where(visit.place)), "underline"))
        for line in visit.lines[: SHOWN_LINES - number]:
            number += 1
            parts.append(_line_view(number, line))
    if number < len(order.lines):
        parts.append(Text(f"and {len(order.lines) - number:,} more lines: all with --json, --csv or --html", "dim"))
    parts += [Text(printable(f"undecided: {doubt}"), "yellow") for doubt in order.doubts]
    parts += [Text(printable(f"note: {note}"), "dim") for note in order.notes]
    if not order.lines and order.answer is Answer.PASS:
        parts.append(Text("nothing to do", "green"))
    return Group(*parts)


def _line_view(number: int, line: WorkLine) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", width=4)
    grid.add_column(width=3)
    grid.add_column(overflow="fold")
    doubt = line.answer is Answer.INCONCLUSIVE
    text = Text(printable(line.text, LONGEST), "yellow" if doubt else _ACTION_STYLE[line.action])
    grid.add_row(str(number), "[?]" if doubt else _BOX, text)
    if line.instead:
        grid.add_row("", "", Text(printable(f"or {line.instead}", LONGEST), "dim"))
    for fact in line.evidence[:SHOWN_EVIDENCE]:
        grid.add_row("", "", Text(printable(fact, LONGEST), "dim"))
    grid.add_row("", "", Text(line.code, "dim") + Text(printable(f"  then: {line.proof}", LONGEST), "dim"))
    return grid


def work_order_json(order: WorkOrder) -> dict[str, Any]:
    """The order as JSON says it: `schema` names its version; a new field is no new version, a changed one is."""
    lines = []
    for number, line in enumerate(order.lines, 1):
        lines.append({"number": number, **asdict(line)})
    return {
        "schema": SCHEMA,
        "rack": order.rack,
        "answer": order.answer,
        "counts": dict(order.counts),
        "lines": lines,
        "doubts": list(order.doubts),
        "notes": list(order.notes),
    }


COLUMNS = (
    "number", "job", "step", "rack", "slot", "unit", "action", "answer", "code", "do", "or", "end 1", "end 2",
    "other ends", "part", "evidence", "then", "done", "by",
)  # fmt: skip


def work_order_csv(order: WorkOrder) -> str:
    """One row a line, for a spreadsheet: RFC 4180, every cell quoted, no cell a formula."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for number, line in enumerate(order.lines, 1):
        writer.writerow([cell(value) for value in _row(number, line)])
    for doubt in order.doubts:
        writer.writerow([cell(v) for v in ("", "", "", order.rack, "", "", "", "INCONCLUSIVE", "", doubt)])
    return out.getvalue()


def _row(number: int, line: WorkLine) -> Iterator[object]:
    place = line.place
    ends = [_end(end) for end in line.ends]
    yield from (number, line.job or "", line.step or "")
    yield from (place.rack, place.slot or "", place.unit) if place else ("", "", "")
    yield from (line.action, line.answer, line.code, line.text, line.instead)
    yield from (ends[0] if ends else "", ends[1] if len(ends) > 1 else "", "; ".join(ends[2:]))
    yield from (line.part, "; ".join(line.evidence), line.proof, "", "")


def _end(end: WorkEnd) -> str:
    return f"{end.unit} {'port ' if end.port.isdigit() else ''}{end.port}".strip()


def work_order_page(order: WorkOrder, made_at: datetime) -> str:
    """A page of its own to print on A4: a box for every line, a field to sign. It loads nothing and runs nothing."""
    visits = []
    number = 0
    for visit in order.visits:
        rows = []
        for line in visit.lines:
            number += 1
            rows.append({"number": number, "line": line, "ends": [_end(end) for end in line.ends[:8]],
                         "more_ends": max(0, len(line.ends) - 8)})  # fmt: skip
        visits.append({"where": where(visit.place), "rows": rows})
    return _template().render(order=order, visits=visits, made_at=f"{made_at:%Y-%m-%d %H:%M} UTC", total=number)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("toolkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line"] = lambda text: printable(str(text), LONGEST)
    return environment.get_template("work_order.html")

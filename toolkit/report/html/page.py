"""A rack's report as one HTML file that loads nothing and runs nothing, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.judge.verdict import Answer
from toolkit.rack.lifecycle import NodeState
from toolkit.report.html.layout import cable_map, elevation, heat_map, number, strip
from toolkit.report.html.series import CHARTED
from toolkit.report.html.timeline import lasted, timeline
from toolkit.report.html.values import SCHEMA, FabricLine, RackReport, Series
from toolkit.report.runbook import html_of, runbook
from toolkit.report.standing import LETTERS
from toolkit.report.text import printable

if TYPE_CHECKING:
    from jinja2 import Template

LONGEST = 600
MOST_RUNBOOKS = 12


def report_json(report: RackReport) -> dict[str, Any]:
    """As JSON says it: `schema` names its version; a new field is no new version, a changed one is."""
    return {"schema": SCHEMA, **asdict(report)}


def report_page(report: RackReport) -> str:
    """The page, whole."""
    heat = {chart.metric for chart in CHARTED if chart.heat}
    spread = {chart.metric for chart in CHARTED if chart.strip}
    height, places = elevation(report.seats)
    nodes = [seat for seat in report.seats if seat.state is not None]
    return _template().render(
        report=report,
        nodes=nodes,
        letters={state.value: letter for state, letter in LETTERS.items()},
        used=[(LETTERS[s], s.value) for s in NodeState if any(seat.state is s for seat in report.seats)],
        elevation={"height": height, "places": places},
        maps=[heat_map(s) for s in report.series if s.metric in heat and _on_record(s)],
        strips=[made for s in report.series if s.metric in spread and (made := strip(s)) is not None],
        absent=[s for s in report.series if not _on_record(s)],
        cables=cable_map(report.cables),
        bad_lines=_bad_lines(report),
        time=timeline(report.bars, report.made_at, [seat.unit for seat in nodes[::-1]]),
        runbooks=_runbooks(report),
    )


def _runbooks(report: RackReport) -> dict[str, list[tuple[str, str]]]:
    """Of every code that keeps a node where it is, its page as (heading, HTML of our own text)."""
    codes = dict.fromkeys(f.code for f in report.findings if f.blamed)
    pages = ((code, runbook(code)) for code in list(codes)[:MOST_RUNBOOKS])
    return {code: [(name, html_of(text)) for name, text in page.sections] for code, page in pages if page}


def _bad_lines(report: RackReport) -> list[FabricLine]:
    """What is wrong with the fabric before what is open."""
    lines = report.look.lines if report.look else ()
    return sorted((line for line in lines if line.answer is not Answer.PASS), key=lambda line: line.answer)


def _on_record(series: Series) -> bool:
    return any(p.value is not None for p in series.points)


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("toolkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_one_line,
    )
    environment.filters["line"] = lambda text, limit=LONGEST: printable(str(text), limit)
    environment.filters["number"] = number
    environment.filters["lasted"] = lasted
    environment.filters["seconds"] = lambda value: lasted(timedelta(seconds=value))
    environment.filters["when"] = _when
    environment.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    return environment.get_template("rack_report.html")


def _one_line(value: object) -> object:
    """Whatever a template shows: text without control characters, before it is escaped."""
    return printable(value, LONGEST) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _when(at: datetime | None) -> str:
    return "" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"

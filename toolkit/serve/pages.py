"""Templates: everything is escaped, cut, and without control characters before it is shown."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import quote

from toolkit import __version__
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.report.html.layout import number
from toolkit.report.html.timeline import lasted
from toolkit.report.standing import LETTERS
from toolkit.report.text import printable
from toolkit.serve.activity import holder_words
from toolkit.serve.runbook_view import has_page

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 600  # characters of any text
STATIC = {
    "page.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
# In the order of the lifecycle, in the words of its pictures.
_OUTCOMES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.ERROR: "doubt", None: "open"}


def render(template: str, **values: object) -> str:
    """The page."""
    return _environment().get_template(template).render(values)


@cache
def static(name: str) -> tuple[bytes, str]:
    """(content, its digest) of a file of ours."""
    content = resources.files("toolkit.serve").joinpath("static", name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:16]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("toolkit.serve", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_one_line,
    )
    made.filters |= {
        "line": lambda text, limit=LONGEST: printable(str(text), limit),
        "number": number,
        "lasted": lasted,
        "when": when,
        "iso": lambda at: at.isoformat(timespec="seconds"),
        "ago": ago,
        "clock": clock,
        "px": lambda value: f"{value:.1f}".removesuffix(".0"),
        "segment": lambda text: quote(str(text), safe=""),
        "holder": holder_words,
        "outcome_tone": lambda outcome: _OUTCOMES[outcome],
        "percent": lambda share: f"{share:.0%}",
    }
    made.globals |= {
        "version": __version__,
        "letters": {state.value: letter for state, letter in LETTERS.items()},
        "states": tuple(state.value for state in NodeState),
        "asset": lambda name: f"/static/{name}?v={static(name)[1]}",
        "has_page": has_page,
    }
    return made


def _one_line(value: object) -> object:
    """Whatever a template shows: text without control characters, before it is escaped."""
    return printable(value, LONGEST) if isinstance(value, str) and not hasattr(value, "__html__") else value


def when(at: datetime | None) -> str:
    """`2026-11-23 17:03Z`; nothing where there is no time."""
    return "" if at is None else f"{at:%Y-%m-%d %H:%M}Z"


def clock(at: datetime, now: datetime) -> str:
    """`17:03:45` of the last day; of an earlier one `11-22 17:03`. All times are UTC."""
    return f"{at:%H:%M:%S}" if now - at < timedelta(days=1) and at.day == now.day else f"{at:%m-%d %H:%M}"


def ago(at: datetime, now: datetime) -> str:
    """`3 min ago`, `in 6 d`: as exact as a glance is."""
    apart = at - now
    words = _span(abs(apart))
    return f"in {words}" if apart > timedelta(0) else f"{words} ago"


def _span(apart: timedelta) -> str:
    seconds = apart.total_seconds()
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h"
    return f"{apart.days} d"

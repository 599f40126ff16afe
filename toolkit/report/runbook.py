"""Runbooks: a page for every code, of gates and of our own ERRORs. Data of the package, `runbooks/<CODE>.md`.

A page says what limit, source and restart do not: those `explain` reads from the profiles and from the ladder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from toolkit.errors import RackproofError
from toolkit.report.codes import explained_as

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

SECTIONS = ("Means", "Confirm", "Fix", "Replace", "Sources")
_SUFFIX = ".md"


@dataclass(frozen=True, slots=True)
class Runbook:
    """One page. `sections`: (heading, text) in the order of SECTIONS, the text as Markdown."""

    code: str
    sections: tuple[tuple[str, str], ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """As `explain` shows it."""
        found: list[str] = []
        for heading, body in self.sections:
            found += ["", heading, *(f"    {line}" for line in body.splitlines())]
        return tuple(found)


def runbook_codes() -> tuple[str, ...]:
    """Codes that have a page, sorted."""
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in _folder().iterdir() if f.name.endswith(_SUFFIX)))


def runbook(code: str) -> Runbook | None:
    """The page of that code, or of its family; None where there is none. RackproofError for one that is not whole."""
    code = explained_as(code)
    if code not in runbook_codes():  # also keeps a path in a code from leaving the folder
        return None
    return read_page(code, _folder().joinpath(f"{code}{_SUFFIX}").read_text(encoding="utf-8"))


def read_page(code: str, text: str) -> Runbook:
    """A page's text, taken apart. RackproofError unless it has its code as title and every section once, in order."""
    head, *parts = text.split("\n## ")
    # A block of commands may begin a section: its indentation is Markdown's.
    told = [(name, body.strip("\n").rstrip()) for name, _, body in (part.partition("\n") for part in parts)]
    names = tuple(name for name, _ in told)
    if head.strip() != f"# {code}" or names != SECTIONS or not all(body.strip() for _, body in told):
        raise RackproofError(f"the runbook of {code} is not a title and {', '.join(SECTIONS)}: {head.strip()}, {names}")
    return Runbook(code, tuple(told))


def html_of(text: str) -> str:
    """A section's Markdown as HTML: CommonMark, in which HTML is text."""
    return str(_markdown().render(text))


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _folder() -> Traversable:
    return resources.files("toolkit.report").joinpath("runbooks")

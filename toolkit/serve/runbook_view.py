"""A code's page: what it means, its runbook, and every profile's limit with its source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from toolkit.rack.gate import Gate
from toolkit.report.codes import ERROR_CODES
from toolkit.report.runbook import html_of, runbook, runbook_codes
from toolkit.serve.site import Site


@dataclass(frozen=True, slots=True)
class GateOf:
    """A gate of a profile."""

    profile: str
    gate: Gate


@dataclass(frozen=True, slots=True)
class CodePage:
    """A code. `sections`: (heading, HTML made from our own Markdown)."""

    code: str
    meaning: str
    sections: tuple[tuple[str, str], ...]
    gates: tuple[GateOf, ...]


def code_page(site: Site, code: str) -> CodePage | None:
    """The page of that code; None for a word that is none."""
    page = runbook(code)
    if page is None and code not in ERROR_CODES:
        return None
    sections = tuple((heading, html_of(text)) for heading, text in page.sections) if page else ()
    return CodePage(code, ERROR_CODES.get(code, ""), sections, tuple(_gates(site, code)))


def codes() -> tuple[tuple[str, str], ...]:
    """(code, its meaning or nothing) of every page, sorted."""
    return tuple((code, ERROR_CODES.get(code, "")) for code in sorted({*runbook_codes(), *ERROR_CODES}))


def has_page(code: str) -> bool:
    """Whether a link to it leads anywhere."""
    return code in _pages()


@cache
def _pages() -> frozenset[str]:
    return frozenset({*runbook_codes(), *ERROR_CODES})


def _gates(site: Site, code: str) -> Iterable[GateOf]:
    """Of every profile that a rack of the inventory has."""
    profiles = {rack.profile.name: rack.profile for name in site.designs.names() if (rack := site.designs.rack(name))}
    for name, profile in sorted(profiles.items()):
        yield from (GateOf(name, gate) for gate in profile.gates if gate.code == code)

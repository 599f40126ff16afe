"""`gates lint` and `gates show`: do the limits obey physics, and where do they stand under it?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.errors import EvidenceError
from toolkit.rack.claim import Claim
from toolkit.rack.gate import Gate, Operator

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from toolkit.judge.ceilings import Ceiling
    from toolkit.judge.lint import Finding, Lint


@click.group()
def gates() -> None:
    """Check gates against physics and what healthy hardware measured."""


@gates.command(name="lint")
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@json_option
def lint_verb(files: tuple[Path, ...], as_json: bool) -> None:
    """Lint gates: FILEs of neutral YAML, profiles by name; without any, every profile of the inventory.

    A neutral FILE has a list `gates:` of entries with sku, test, scope (gpu, link, hca, node, domain, fabric),
    operator, limit, unit and source; and where they matter ranks, nodes, environment, message_bytes, nics,
    nic_gb_per_s, tolerance, publisher. Of the operator `peers` the limit is the share of its siblings' rate that a part
    may be below them: 0.03, or 3 with the unit "%". Exit 0: no defect (warnings are none). Exit 1: defects.
    """
    from toolkit.judge.lint import lint
    from toolkit.rack.claims import load_claims, load_skus, profile_claims
    from toolkit.rack.loading import list_profiles

    inventory = installed.load().inventory
    profiles = list_profiles(inventory)
    claims: list[Claim] = []
    for file in files or [Path(name) for name in profiles]:
        if str(file) in profiles:
            claims += [claim for _, claim in profile_claims(str(file), inventory)]
        elif file.parent.resolve() == inventory / "profiles" and file.stem in profiles:
            claims += [claim for _, claim in profile_claims(file.stem, inventory)]
        else:
            claims += load_claims(file)
    found = lint(tuple(dict.fromkeys(claims)), load_skus(inventory))
    emit(_as_json(found), as_json, lambda: _lint_view(found))
    sys.exit(EvidenceError.exit_code if found.defects else 0)


@gates.command()
@click.argument("profile")
@json_option
def show(profile: str, as_json: bool) -> None:
    """Show PROFILE's gates with the ceiling each stands under, and its share of it."""
    from toolkit.judge.lint import TO_GB_PER_S, ceiling_of
    from toolkit.rack.claims import load_skus, profile_claims

    inventory = installed.load().inventory
    skus = load_skus(inventory)
    rows = []
    for gate, claim in profile_claims(profile, inventory):
        ceiling = ceiling_of(claim, skus)
        floor = claim.limit * TO_GB_PER_S[claim.unit] if ceiling and claim.limit is not None else None
        rows.append(_Row(gate, claim.place, ceiling, ceiling.share(floor) if ceiling and floor is not None else None))
    emit({"profile": profile, "gates": rows}, as_json, lambda: _gates_view(profile, rows))


@dataclass(frozen=True, slots=True)
class _Row:
    """A gate, where it is written, and how it stands under its ceiling (None: there is none, or no limit)."""

    gate: Gate
    place: str
    ceiling: Ceiling | None
    share: float | None


def _gates_view(profile: str, rows: Sequence[_Row]) -> RenderableType:
    from rich.table import Table

    from toolkit.judge.relative import must_be

    table = Table(title=f"gates of {profile}", title_justify="left")
    for column, width in (("code", None), ("metric", 30), ("must be", 34), ("ceiling", None), ("share", None)):
        table.add_column(column, overflow="fold", max_width=width)
    for row in rows:
        limit = row.gate.limit
        text = ", ".join(limit) if isinstance(limit, tuple) else str(limit)
        must = f"{row.gate.operator.replace('_', ' ')} {text} {row.gate.unit}"
        table.add_row(
            row.gate.code,
            row.gate.metric,
            must_be(limit)
            if row.gate.operator is Operator.PEERS and isinstance(limit, float)
            else must
            if limit is not None
            else _without_limit(row.gate),
            f"{row.ceiling.name}: {row.ceiling.formula}" if row.ceiling else "",
            f"{row.share:.0%}" if row.share is not None else "",
        )
    return table


def _without_limit(gate: Gate) -> str:
    return "the same on all" if gate.operator is Operator.SAME_ACROSS else "not sourced: INCONCLUSIVE"


def _as_json(found: Lint) -> dict[str, object]:
    return {
        "claims": found.claims,
        "defects": len(found.defects),
        "findings": [
            {
                "code": f.code,
                "warning": f.warning,
                "place": f.claim.place,
                "gate": f.claim.code,
                "sku": f.claim.sku,
                "test": f.claim.test,
                "scope": f.claim.scope,
                "why": f.why,
                "formula": f.formula,
                "right": f.right,
            }
            for f in found.findings
        ],
        "unchecked": [
            {"place": u.claim.place, "gate": u.claim.code, "test": u.claim.test, "why": u.why} for u in found.unchecked
        ],
    }


def _lint_view(found: Lint) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from toolkit.report.text import printable

    lines: list[Text] = []
    for finding in found.findings:
        lines.append(_headline(finding))
        details = (("formula", finding.formula), ("right", finding.right))
        lines += [Text(f"    {name}: {printable(text)}", "dim") for name, text in details if text]
    checked = found.claims - len(found.unchecked)
    warnings = len(found.findings) - len(found.defects)
    lines.append(
        Text(
            f"{found.claims} gates: {len(found.defects)} defects, {warnings} warnings;"
            f" {checked} compared with a ceiling or a count, {len(found.unchecked)} only for their source",
            "bold red" if found.defects else "green",
        )
    )
    return Group(*lines)


def _headline(finding: Finding) -> Text:
    from rich.text import Text

    from toolkit.report.text import printable

    claim = finding.claim
    style = "yellow" if finding.warning else "bold red"
    what = " ".join(word for word in (claim.code, claim.sku, claim.test, claim.scope) if word)
    return Text(f"{printable(claim.place)}: ") + Text(finding.code, style) + Text(printable(f" {what}: {finding.why}"))

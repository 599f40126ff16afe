"""Pages of reference, generated from the code that they are about: verbs, files, exit codes, metrics, the lifecycle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import click
import yaml
from keys import GATE_KEYS, PROFILE_KEYS, RACK_KEYS, UNIT_KEYS
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from toolkit import errors
from toolkit.cli import VERBS, rackproof
from toolkit.rack import lifecycle
from toolkit.rack.schema import GateFile, ProfileFile, RackFile, UnitFile
from toolkit.report.metrics import HELP, LABELS

REPOSITORY = Path(__file__).parents[2]
_RULES = REPOSITORY / "toolkit/report/prometheus/rackproof.rules.yml"


# Verbs


def verbs() -> str:
    """Every verb with its help, as click prints it."""
    lines = [
        "# Verbs",
        "",
        "Results go to stdout, progress and errors to stderr. Made from the program's own help.",
        "",
    ]
    for name in VERBS:
        command = rackproof.get_command(click.Context(rackproof), name)
        if command is None:
            raise LookupError(name)
        lines += _verb(command, click.Context(command, info_name=f"rackproof {name}"))
    return "\n".join(lines)


def _verb(command: click.Command, context: click.Context) -> list[str]:
    depth = "##" if context.parent is None else "###"
    lines = [f"{depth} `{context.command_path}`", ""]
    lines += ["```text", command.get_help(context).replace("\b", "").rstrip(), "```", ""]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                lines += _verb(below, click.Context(below, info_name=name, parent=context))
    return lines


# Files


def files() -> str:
    """Every key of rack files and profiles."""
    return "\n".join(
        [
            "# Keys of files", "",
            "A rack file and a profile are read by a closed schema: a key that is not here is an error with file, line",
            "and what was probably meant. `rackproof inventory RACK` reads them all.", "",
            "## Rack file: `inventory/racks/RACK.yml`", "", *_keys(RackFile, RACK_KEYS),
            "### A unit", "", *_keys(UnitFile, UNIT_KEYS),
            "## Profile: `inventory/profiles/PROFILE.yml`", "", *_keys(ProfileFile, PROFILE_KEYS),
            "### A gate", "", *_keys(GateFile, GATE_KEYS),
        ]
    )  # fmt: skip


def _keys(model: type[BaseModel], words: dict[str, str]) -> Iterator[str]:
    yield "| key | must be there | what it says |"
    yield "| --- | --- | --- |"
    for name, field in model.model_fields.items():
        must = "yes" if field.is_required() else _default(field.default)
        choices = _choices(field.annotation)
        more = f" One of {', '.join(f'`{c}`' for c in choices)}." if choices else ""
        yield f"| `{name}` | {must} | {words[name]}{more} |"
    yield ""


def _default(value: Any) -> str:
    if value is PydanticUndefined or value in (None, (), "", {}):
        return "no"
    if isinstance(value, timedelta):
        minutes = int(value.total_seconds() // 60)
        return f"no: {minutes // 1440} d" if minutes % 1440 == 0 else f"no: {minutes} min"
    return f"no: `{str(value).lower() if isinstance(value, bool) else value}`"


def _choices(annotation: Any) -> list[str]:
    """Words of an enumeration, wherever in the annotation it stands."""
    if isinstance(annotation, type) and hasattr(annotation, "__members__"):
        return [str(member.value) for member in annotation]
    if get_origin(annotation) is not None or isinstance(annotation, UnionType):
        for inside in get_args(annotation):
            if found := _choices(inside):
                return found
    return []


# Exit codes, metrics, alerts


def exit_codes() -> str:
    """The classes of errors with their exit codes, from their own docstrings."""
    lines = [
        "# Exit codes", "",
        "For scripts, timers and pipelines: 1 is the only code that speaks of hardware.", "",
        "| code | when | error |", "| --- | --- | --- |", "| 0 | all at goal | |",
    ]  # fmt: skip
    known = {1: "some failed on evidence", 2: "usage or input", 3: "undecided: trying again may help",
             4: "a defect of rackproof"}  # fmt: skip
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.RackproofError)]
    for code, words in known.items():
        for cls in (c for c in classes if c.exit_code == code):
            lines.append(f"| {code} | {words} | `{cls.__name__}`: {(cls.__doc__ or '').splitlines()[0]} |")
    return "\n".join([*lines, ""])


def metrics() -> str:
    """Every metric with its labels, and every alert with what to do."""
    lines = [
        "# Metrics and alerts", "",
        "`rackproof metrics` prints the ledger as Prometheus metrics; `--textfile FILE` is for node_exporter. Series",
        "are",
        "bounded, and `rackproof_exporter_left_out` counts what the bounds kept out. What is not on record has no",
        "sample: a missing number is never 0.", "",
        "| metric | labels | what it says |", "| --- | --- | --- |",
        *(f"| `{name}` | {', '.join(f'`{of}`' for of in LABELS[name])} | {text} |" for name, text in HELP.items()),
        "", "## Alerts", "",
        "`rackproof metrics --shipped rules > rackproof.rules.yml` writes them; `--shipped dashboard` writes the",
        "Grafana",
        "dashboard. Times in them are policy of this project: an hour, a day and three days are times in which a",
        "person",
        "can act.", "",
    ]  # fmt: skip
    for group in yaml.safe_load(_RULES.read_text())["groups"]:
        for rule in group["rules"]:
            lines += [f"### {rule['alert']}", "", f"Severity: {rule['labels']['severity']}.", ""]
            lines += [_plain(rule["annotations"]["summary"]) + ".", "", _plain(rule["annotations"]["description"]), ""]
            lines += ["```text", str(rule["expr"]).strip(), "```", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """An annotation with its templates as words: `{{ $labels.node }}` is NODE."""
    text = re.sub(r"\{\{\s*\$labels\.(\w+)\s*\}\}", lambda m: m[1].upper(), text)
    return re.sub(r"\{\{\s*\$value[^}]*\}\}", "N", text)


# The lifecycle, drawn


def lifecycle_svg() -> str:
    """The states in a row and the moves between them: forward above, back below. Drawn from the table of moves."""
    row = [s for s in lifecycle.NodeState if s not in (lifecycle.NodeState.QUARANTINED, lifecycle.NodeState.RETIRED)]
    at = {state: 70 + 125 * number for number, state in enumerate(row)}
    kept = [(a, m, b) for (a, m), b in lifecycle.MOVES.items() if a in at and b in at]
    parts, below = [], 0
    for a, move, b in kept:
        if at[b] > at[a]:
            height = 18 + 26 * sum(x == a and y == b for x, _, y in kept[: kept.index((a, move, b))])
            parts.append(_arc(at[a] + 12, at[b] - 12, 60, -height, move))
        else:
            below += 1
            parts.append(_arc(at[a] - 12, at[b] + 12, 96, 26 + 16 * below, move))
    boxes = "".join(
        f'<rect x="{x - 55}" y="60" width="110" height="36" rx="6" fill="none" stroke="currentColor"/>'
        f'<text x="{x}" y="83" text-anchor="middle" font-size="13" font-weight="600">{state}</text>'
        for state, x in at.items()
    )
    width, height = 125 * len(row) + 20, 150 + 16 * below
    names = ", ".join(f"{a} to {b} by {m}" for a, m, b in kept)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="100%" role="img" fill="currentColor" '
        f'aria-label="States of a node: {names}"><defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{boxes}{''.join(parts)}</svg>"
    )


def _arc(x1: int, x2: int, y: int, lift: int, word: str) -> str:
    middle = (x1 + x2) // 2
    return (
        f'<path d="M{x1} {y} Q{middle} {y + 2 * lift} {x2} {y}" fill="none" stroke="currentColor" '
        f'marker-end="url(#end)"/><text x="{middle}" y="{y + lift + (12 if lift > 0 else -4)}" text-anchor="middle" '
        f'font-size="11">{word}</text>'
    )


def moves() -> str:
    """The table of moves, as a table: what the drawing leaves out is here."""
    lines = ["| from | move | to |", "| --- | --- | --- |"]
    anyone: dict[str, list[str]] = {}
    for (before, move), after in lifecycle.MOVES.items():
        if move in (lifecycle.Move.QUARANTINE, lifecycle.Move.RETIRE):
            anyone.setdefault(f"{move}|{after}", []).append(before)
        else:
            lines.append(f"| {before} | {move} | {after} |")
    for key, states in anyone.items():
        move, after = key.split("|")
        lines.append(f"| {', '.join(states)} | {move} | {after} |")
    return "\n".join(lines)


# Figures


def figures() -> str:
    """The README's table of figures and what it says about them: one place only says how good it is."""
    text = (REPOSITORY / "README.md").read_text()
    return text.split("\n## How good is it\n", 1)[1].split("\n## ", 1)[0].strip()

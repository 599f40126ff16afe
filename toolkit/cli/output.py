"""How results leave: JSON or a view on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli.documents import DOCUMENTS, identity

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """`--json` on every verb."""
    return click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")(command)


def plain(value: object) -> object:
    """Dataclasses, paths, times and periods as JSON can say them: RFC 3339, ISO 8601."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():g}S"
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.as_posix() if isinstance(value, Path) else str(value)


def documented(value: object, document: str = "") -> object:
    """The value as a document: an object gets the field `schema`, unless it has one; see toolkit.cli.documents.

    document  its name, where the verb has several; empty: by the command that runs
    """
    fields = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    if not isinstance(fields, Mapping) or "schema" in fields:
        return fields
    context = click.get_current_context(silent=True)
    name = document or DOCUMENTS.get(context.command_path.partition(" ")[2] if context else "", "")
    return {"schema": identity(name), **fields} if name else fields


def emit(
    value: object,
    as_json: bool,
    view: Callable[[], RenderableType],
    *,
    lines: Callable[[], Iterable[str]] | None = None,
    next: Callable[[], str] | None = None,
    document: str = "",
) -> None:
    """`value` as JSON, or its view, on stdout.

    lines  the same for a program that reads on: what is printed where stdout is no terminal; None: the view
    next   the command that comes next: the last line of a view; lines have their own
    document  of the JSON, where the verb has several
    """
    if as_json:
        click.echo(json.dumps(documented(value, document), default=plain, indent=2, sort_keys=True))
        return
    if lines is not None and not _is_terminal(sys.stdout):
        for line in lines():
            click.echo(line)
        return
    console = stdout()
    console.print(view())
    if next is not None:
        from toolkit.report.terminal import next_line

        console.print(next_line(next()), soft_wrap=True)  # a command that is folded cannot be copied


def stdout() -> Console:
    """Console for results."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Console for progress and logs."""
    return _console(sys.stderr)


def _is_terminal(stream: Any) -> bool:
    """As rich has it; asked before rich is loaded, which lines do without."""
    return bool(os.environ.get("FORCE_COLOR")) or os.environ.get("TTY_COMPATIBLE") == "1" or stream.isatty()


def _console(stream: Any) -> Console:
    """NO_COLOR, FORCE_COLOR and TERM=dumb are rich's to keep: no-color.org, force-color.org.

    Without a terminal it is wide enough not to fold what a program will read, unless it is told to be one: then it is
    as wide as COLUMNS says.
    """
    from rich.console import Console

    if hasattr(stream, "reconfigure") and not str(stream.encoding).lower().startswith("utf"):
        stream.reconfigure(errors="replace")  # a terminal without our dashes and boxes still gets every letter
    width = None if _is_terminal(stream) else 160
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)

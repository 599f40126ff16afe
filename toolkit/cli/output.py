"""How results leave: JSON or a view on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """`--json` on every verb."""
    return click.option("--json", "as_json", is_flag=True, help="Result as JSON on stdout.")(command)


def plain(value: object) -> object:
    """Dataclasses, paths and times as JSON can say them."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.as_posix() if isinstance(value, Path) else str(value)


def emit(value: object, as_json: bool, view: Callable[[], RenderableType]) -> None:
    """`value` as JSON, or its view, on stdout."""
    if as_json:
        click.echo(json.dumps(value, default=plain, indent=2, sort_keys=True))
    else:
        stdout().print(view())


def stdout() -> Console:
    """Console for results. Without a terminal it is wide enough not to fold what a program will read."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Console for progress and logs."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else 160, highlight=False, emoji=False, markup=False)

"""`drift`: what is installed on a rack's nodes against its one version lock."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import context_of, rack_named
from toolkit.errors import EvidenceError, UndecidedError

if TYPE_CHECKING:
    from toolkit.judge.skew import Installed
    from toolkit.rack.model import Unit
    from toolkit.stages.context import Context

AT_ONCE = 32


@click.command()
@click.argument("name", metavar="RACK")
@json_option
def drift(name: str, as_json: bool) -> None:
    """Compare packages and adapter firmware of every node of RACK with the rack's version lock. Changes nothing."""
    from rich.text import Text

    from toolkit.judge.verdict import Answer
    from toolkit.judge.version_drift import drift as compared
    from toolkit.judge.version_drift import optional_pins
    from toolkit.report.version_drift import lines

    rack = rack_named(name)
    with context_of(rack) as context, ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip((n.name for n in rack.nodes), pool.map(lambda n: _read(context, n), rack.nodes), strict=True))
    report = compared(rack.profile, found, optional_pins(rack.profile.mode))
    emit(report, as_json, lambda: Text("\n".join(lines(report))))
    codes = {Answer.PASS: 0, Answer.FAIL: EvidenceError.exit_code}
    sys.exit(codes.get(report.answer, UndecidedError.exit_code))


def _read(context: Context, node: Unit) -> Installed:
    from toolkit.judge.skew import Installed
    from toolkit.stages.version_guard import read_installed

    try:
        return read_installed(context, node)
    except UndecidedError:
        return Installed(None)

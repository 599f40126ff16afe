"""`report`: all that the ledger has of a rack, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option, stderr
from toolkit.cli.wiring import ledger_of, now, rack_named
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.judge.ceilings import Ceiling
    from toolkit.rack.model import Rack
    from toolkit.report.html.values import RackReport
    from toolkit.settings import Settings


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option("-o", "--output", "page", type=click.Path(path_type=Path, dir_okay=False), help="Default: RACK.html.")
@json_option
def report(rack_name: str, page: Path | None, as_json: bool) -> None:
    """Write the report of RACK: one file that needs no network, to look at, to print or to send. No node is asked.

    Verdict and certificates, elevation, findings with the next command, every part's numbers in their places with
    gates and ceilings, cables, timeline, evidence. With --json the same as JSON on stdout, and no file unless -o says.
    """
    from toolkit.durable import write_whole
    from toolkit.report.html.gather import gather
    from toolkit.report.html.page import report_json, report_page
    from toolkit.report.in_force import in_force, own_trust

    settings = installed.load()
    rack = rack_named(rack_name, settings)
    at = now()
    with ledger_of(settings) as ledger:
        held = in_force(ledger, rack, own_trust(settings.keys, at), at)
        found = gather(ledger, rack, held, _ceilings(rack, settings), at)
    file = page or (None if as_json else Path(f"{rack.name}.html"))
    if file is not None:
        try:
            write_whole(file, report_page(found).encode())
        except OSError as failure:
            raise UsageError(f"{file} cannot be written: {failure.strerror}", "name another with -o") from failure
        stderr().print(f"written: {file}")
    emit(report_json(found) if as_json else None, as_json, lambda: _summary(found), next=lambda: found.next)


def _summary(found: RackReport) -> str:
    """What the page says first."""
    vouched = sum(seat.certified for seat in found.seats)
    nodes = sum(seat.state is not None for seat in found.seats)
    blamed = sum(row.blamed for row in found.findings)
    blame = f"{blamed} findings keep nodes out" if blamed else "nothing stands against a node"
    return f"{found.rack}: {found.answer}; certificates vouch for {vouched} of {nodes} nodes; {blame}"


def _ceilings(rack: Rack, settings: Settings) -> dict[str, Ceiling]:
    """What physics allows of each metric that a gate of the profile reads, where there is a closed form."""
    from toolkit.judge.lint import ceiling_of
    from toolkit.rack.claims import load_skus, profile_claims

    skus = load_skus(settings.inventory)
    claims = profile_claims(rack.profile.name, settings.inventory)
    return {gate.metric: top for gate, claim in claims if (top := ceiling_of(claim, skus)) is not None}

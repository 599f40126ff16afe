"""`lemons`: parts that were taken out again and again, by serial."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of, now, rack_named

if TYPE_CHECKING:
    from rich.console import RenderableType

    from toolkit.report.lemons import LemonList


@click.command()
@click.argument("rack_name", metavar="[RACK]", required=False)
@json_option
def lemons(rack_name: str | None, as_json: bool) -> None:
    """Show lemons: serials of nodes, GPUs and HCAs that were taken out on evidence again and again.

    They follow the serial over racks and slots. With RACK: those that are in it now, or were last taken out of it.
    """
    from dataclasses import replace

    from toolkit.report.lemons import lemon_list, load_thresholds, serials_of

    settings = installed.load()
    thresholds = load_thresholds(settings)
    rack = rack_named(rack_name, settings) if rack_name else None
    with ledger_of(settings) as ledger:
        found = lemon_list(ledger, thresholds, now())
        if rack is not None:
            here = frozenset(s for node in rack.nodes for s in serials_of(ledger, rack, node))
            mine = tuple(x for x in found.lemons if x.serial in here or x.last.rack == rack.name)
            found = replace(found, lemons=mine)
    emit(found, as_json, lambda: _view(found, rack_name))


def _view(found: LemonList, rack: str | None) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    from toolkit.report.text import printable

    unknown = f", {found.untold} for a part whose serial nobody knows" if found.untold else ""
    rests = f"{found.removals} removals of nodes on record{unknown}"
    if not found.lemons:
        return f"no lemons{f' in {rack}' if rack else ''}: {rests}"
    table = Table(title=f"lemons: {rests}", title_justify="left")
    for column in ("part", "serial", "times", "taken out of", "for", "threshold"):
        table.add_column(column, overflow="fold")
    for lemon in found.lemons:
        places = "\n".join(printable(f"{r.at:%Y-%m-%d} {r.rack}/{r.node} {r.place}", 120) for r in lemon.removals)
        codes = ", ".join(dict.fromkeys(r.code for r in lemon.removals))
        row = (lemon.kind, printable(lemon.serial), str(len(lemon.removals)))
        table.add_row(*row, places, printable(codes), printable(lemon.why))
    return Group(table, "next: rackproof rma NODE packs what is known of such a part for its vendor")

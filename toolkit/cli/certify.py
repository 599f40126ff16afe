"""`certify`: a certificate from the evidence on record."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from toolkit.cli.output import emit, json_option, stderr, stdout
from toolkit.cli.wiring import context_of, rack_named
from toolkit.report.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.reissue import Certified


@click.command()
@click.argument("rack_name", metavar="RACK")
@json_option
def certify(rack_name: str, as_json: bool) -> None:
    """Sign a new certificate for RACK's nodes from the evidence on record, under the key of today.

    Facts are read again, nothing is loaded. For nodes whose burn-in is done, after `keys rotate --stolen`, and before
    the old certificate ends, as long as its evidence is young enough. Nodes in the pool stay there, by the new one.
    """
    from dataclasses import asdict

    from toolkit.reissue import certify_rack
    from toolkit.report.watch import Watch

    rack = rack_named(rack_name)
    with Watch(stderr()) as watch, context_of(rack, lambda p: watch.show(p.node, p.text, p.done)) as context:
        done = certify_rack(context)
        file = context.settings.certificate(rack.name)
    emit(asdict(done), as_json, lambda: _view(done))
    if not as_json:
        for standing in done.away:
            words = printable(f"{standing.node}: {standing.state} {standing.code} {standing.message}".rstrip())
            stdout().print(words, markup=False)
        stdout().print(f"next: rackproof {'verify ' + str(file) if done.digest else 'why ' + rack.name}", markup=False)
    sys.exit(done.exit_code)


def _view(done: Certified) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"certificate {done.digest[:12]} of {done.rack}" if done.digest else f"{done.rack}: nothing was signed"
    view = Table(title=Text(title, "bold"), title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("NODE", "CERTIFICATE", "POOL, OR WHY"):
        view.add_column(name, overflow="fold")
    for node in done.nodes:
        view.add_row(node, "new", Text(printable(done.pool.get(node, "not in it"))))
    for node, why in done.kept.items():
        view.add_row(node, "as it was", Text(printable(why)))
    return view

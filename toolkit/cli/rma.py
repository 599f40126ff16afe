"""`rma`: one archive of what is known of a failed node, for its vendor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import settings as installed
from toolkit.cli.look import node_named
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.rma.pack import Packed

KINDS = ("tar.gz", "zip")


@click.command()
@click.argument("name", metavar="NODE")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="FILE.tar.gz or FILE.zip.")
@click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")
@json_option
def rma(name: str, output: Path | None, rack_name: str | None, as_json: bool) -> None:
    """Pack NODE's last failure for its vendor: serials, firmware, Xids, counters, measurements, logs, history.

    Read from the ledger: the node may be off, or gone. Names of the site are hidden as rma.yml has it, and counted. The
    vendor's questions are answered from evidence, or said to be unknown. The same evidence gives the same bytes.
    """
    from toolkit.durable import write_whole
    from toolkit.rma.build import build
    from toolkit.rma.form import load_form
    from toolkit.rma.pack import archive

    settings = installed.load()
    form = load_form(settings)
    rack, node = node_named(settings, name, rack_name)
    with ledger_of(settings) as ledger:
        packed = build(ledger, rack, rack.unit(node), form)
    target = output or Path(f"{packed.root}.tar.gz")
    kind = next((k for k in KINDS if target.name.endswith(f".{k}")), None)
    if kind is None:
        raise UsageError(f"{target.name} is neither a tar.gz nor a zip", f"-o {target.name}.tar.gz")
    content = archive(packed, kind)
    try:
        write_whole(target, content, 0o600)
    except OSError as problem:
        raise UsageError(f"{target} could not be written: {problem.strerror}", "choose another with -o") from problem
    unknown = [a.ask for a in packed.answers if not a.known]
    shown = {
        "archive": target, "bytes": len(content), "files": sorted(packed.files), "answers": packed.answers,
        "unknown": unknown, "replaced_or_removed": packed.redacted, "left_out": packed.left_out,
    }  # fmt: skip
    emit(shown, as_json, lambda: _view(packed, target, len(content)))


def _view(packed: Packed, target: Path, size: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    from toolkit.report.text import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    table.add_row("archive", Text(f"{target}  {size} bytes, {len(packed.files)} files", "bold"))
    for told in packed.answers:
        style = "" if told.known else "yellow"
        table.add_row(
            "answer" if told.known else "unknown",
            Text(printable(f"{told.ask}  {told.answer.removeprefix('unknown: ')}", 300), style),
        )
    hidden = ", ".join(f"{count} {kind}" for kind, count in packed.redacted.items())
    table.add_row("hidden", hidden)
    for one in packed.left_out:
        table.add_row("left out", printable(f"{one.name}: {one.why}"))
    table.add_row("next", "read it before it leaves: README.txt first; add what is unknown beside it")
    return table

"""`export`: the results of a rack in the formats that others' tools read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import __version__
from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of, now, rack_named
from toolkit.errors import UndecidedError, UsageError

if TYPE_CHECKING:
    from toolkit.export.results import Results
    from toolkit.rack.model import Rack
    from toolkit.settings import Settings

FORMATS = ("ocptv", "junit", "csv", "ctrf", "events")


@click.command()
@click.argument("rack_name", metavar="RACK")
@click.option("--format", "form", type=click.Choice(FORMATS), required=True, help="What the reader takes.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; without it, stdout."
)
@json_option
def export(rack_name: str, form: str, output: Path | None, as_json: bool) -> None:
    """Write the results of RACK: the newest run of every stage, and every gate with its value, limit and answer.

    ocptv: JSON lines of OCP Test & Validation 2.0. junit: XML, for CI servers. csv: for a spreadsheet. ctrf: Common
    Test Report Format. events: Kubernetes Events of the nodes, for kubectl apply. In each a failure on evidence, an
    error of ours and what was not asked are three things, and none is a pass. Exit code 0 says that it was written.
    """
    if as_json and output is None:
        raise UsageError(
            "--json tells of a file: name it with -o", f"rackproof export {rack_name} --format {form} -o FILE"
        )
    settings = installed.load()
    found = results_of(settings, rack_named(rack_name, settings))
    content = _writer(form)(found)
    if output is None:
        click.echo(content.decode(), nl=False)
        return
    _write(output, content)
    emit(_told(found, form, output), as_json, lambda: _line(found, output))


def results_of(settings: Settings, rack: Rack) -> Results:
    """What is on record of the rack."""
    from toolkit.export.on_record import results
    from toolkit.pool.policy import PoolKind
    from toolkit.pool.policy_file import load_policy

    kubelets = load_policy(settings, rack.site).kind is not PoolKind.SLURM
    with ledger_of(settings) as ledger:
        return results(ledger, rack, now(), __version__, kubelets=kubelets)


def _writer(form: str) -> Callable[[Results], bytes]:
    from toolkit.export.ctrf import ctrf
    from toolkit.export.events import events
    from toolkit.export.junit import junit
    from toolkit.export.ocptv import ocptv
    from toolkit.export.table import table

    return {"ocptv": ocptv, "junit": junit, "csv": table, "ctrf": ctrf, "events": events}[form]


def _write(output: Path, content: bytes) -> None:
    from toolkit.durable import write_whole

    try:
        write_whole(output, content)
    except OSError as exc:
        raise UndecidedError(
            f"{output} could not be written: {exc.strerror}; what it held is there still",
            "check the folder's owner and permissions, and the space there",
        ) from exc


def _told(found: Results, form: str, output: Path) -> dict[str, object]:
    from toolkit.export.results import Answered

    counts = {answer.lower(): found.count(answer) for answer in Answered}
    return {"rack": found.rack, "format": form, "file": output, "answer": found.answer, "cases": counts}


def _line(found: Results, output: Path) -> str:
    from toolkit.export.results import Answered

    counts = ", ".join(f"{found.count(answer)} {answer.lower()}" for answer in Answered)
    return f"{found.rack}: {counts}; all of it: {found.answer}. Written to {output}"

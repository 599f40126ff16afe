"""`metrics`: the ledger for Prometheus, its alert rules and its dashboard."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolkit import __version__
from toolkit import settings as installed
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of, now
from toolkit.errors import UndecidedError, UsageError

if TYPE_CHECKING:
    from toolkit.rack.model import Profile, Rack
    from toolkit.settings import Settings

# node_exporter reads what ends so, as its own user.
_SUFFIX, _MODE = ".prom", 0o644
_RUNBOOK = 'runbook_url: "'
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?")
_SHIPPED = {"rules": "rackproof.rules.yml", "dashboard": "rackproof.dashboard.json"}


@click.command()
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file, whole or not at all, for the textfile collector of node_exporter.",
)
@click.option("--openmetrics", is_flag=True, help="OpenMetrics 1.0 in place of Prometheus' own text format.")
@click.option(
    "--shipped",
    type=click.Choice(list(_SHIPPED)),
    help="Print the alert rules, or the Grafana dashboard; read nothing.",
)
@click.option("--docs", metavar="URL", help="With --shipped rules: where the site serves the documentation.")
@json_option
def metrics(textfile: Path | None, openmetrics: bool, shipped: str | None, docs: str | None, as_json: bool) -> None:
    """Print what the ledger says of every rack as Prometheus metrics.

    States, certificates and when they expire, the last run of every stage, the age of evidence, gates with value and
    limit, waves. What is not on record has no sample. From cron or a systemd timer: --textfile; an alert of --shipped
    rules tells when that has stopped.
    """
    if shipped and (textfile or openmetrics or as_json):
        raise UsageError("--shipped prints a file and takes no other option", f"rackproof metrics --shipped {shipped}")
    if textfile and (openmetrics or as_json or textfile.suffix != _SUFFIX):
        raise UsageError(
            "the textfile collector reads Prometheus' own format, from files that end in .prom",
            "rackproof metrics --textfile /var/lib/prometheus/node-exporter/rackproof.prom",
        )
    if docs is not None and (shipped != "rules" or not _URL.fullmatch(docs)):
        raise UsageError(
            "--docs takes an http or https URL, and only with --shipped rules",
            "rackproof metrics --shipped rules --docs https://docs.example/rackproof",
        )
    if shipped:
        text = resources.files("toolkit.report").joinpath("prometheus", _SHIPPED[shipped]).read_text()
        click.echo(text.replace(_RUNBOOK, f"{_RUNBOOK}{docs.rstrip('/')}/") if docs else text, nl=False)
        return
    _print(installed.load(), textfile, openmetrics, as_json)


def _print(settings: Settings, textfile: Path | None, openmetrics: bool, as_json: bool) -> None:
    from toolkit.durable import write_whole
    from toolkit.report.metrics import MAX_GATE_VALUES, exposition, families
    from toolkit.report.metrics_snapshot import Reader

    profiles: dict[str, Profile] = {}
    with ledger_of(settings) as ledger:
        reader = Reader(
            ledger, lambda name: _designed(name, settings, profiles), now, MAX_GATE_VALUES, _limit_s(settings)
        )
        snapshot = reader.snapshot()
    found = families(snapshot, __version__)
    if as_json:
        samples = [
            {"name": sample.name, "labels": sample.labels, "value": sample.value}
            for family in found
            for sample in family.samples
        ]
        emit({"at": snapshot.at.isoformat(), "samples": samples}, True, lambda: "")
        return
    text = exposition(found, openmetrics=openmetrics)
    if textfile is None:
        click.echo(text.decode(), nl=False)
        return
    try:
        write_whole(textfile, text, _MODE)
    except OSError as exc:
        raise UndecidedError(
            f"metrics could not be written to {textfile}: {exc.strerror}; what it held is there still",
            "check the folder's owner and permissions, and the space there",
        ) from exc


def _designed(name: str, settings: Settings, profiles: dict[str, Profile]) -> Rack | None:
    """The rack file's; None where it is not there or wrong: that must not keep the other racks' metrics away."""
    from toolkit.rack.loading import load_rack

    try:
        return load_rack(name, settings.inventory, profiles)
    except UsageError:
        return None


def _limit_s(settings: Settings) -> float | None:
    from toolkit.pool.recert_file import load_beliefs

    try:
        return load_beliefs(settings).oldest_hours.value * 3600
    except UsageError:
        return None

"""`verify` and `parse`: they need no rack, no ledger and no network."""

from __future__ import annotations

import json
from pathlib import Path

import click

from toolkit.cli.output import emit, json_option


@click.command()
@click.argument("kind")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def parse(kind: str, file: Path, as_json: bool) -> None:
    """Parse FILE as output of KIND: kernel-log, nccl-tests, nvidia-smi, nvlink, ibstat, ..."""
    from rich.pretty import Pretty

    from toolkit.facts.parse import parse_file

    found = parse_file(kind, file)
    emit(found, as_json, lambda: Pretty(json.loads(json.dumps(found, default=str))))

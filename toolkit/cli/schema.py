"""`schema`: what the documents of `--json` look like."""

from __future__ import annotations

from collections.abc import Iterator

import click

from toolkit.cli.documents import DOCUMENTS, identity, names, schema_text
from toolkit.cli.output import emit, json_option


@click.command()
@click.argument("name", metavar="[NAME]", required=False)
@json_option
def schema(name: str | None, as_json: bool) -> None:
    """Print the JSON Schema of document NAME; without NAME, which verbs print which document.

    NAME is the middle of a document's field `schema`: status, of rackproof.dev/status/v1. Within a version fields are
    only added: pass over those you do not know.
    """
    if name is not None:
        click.echo(schema_text(name), nl=False)
        return
    verbs = {one: tuple(verb for verb, document in DOCUMENTS.items() if document == one) for one in names()}
    listed = [{"name": one, "identity": identity(one), "verbs": of} for one, of in verbs.items()]

    def lines() -> Iterator[str]:
        from toolkit.report.lines import aligned

        yield from aligned([(one, identity(one), ", ".join(of)) for one, of in verbs.items()])

    emit({"documents": listed}, as_json, lambda: "\n".join(lines()), lines=lines)

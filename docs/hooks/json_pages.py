"""The page about `--json`: what holds for all of it, and every document's fields, from the schemas that are shipped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.cli.documents import identity, names, schema_text

HEAD = """\
# JSON

With `--json` the result is one document on stdout and nothing else is: progress and errors are on stderr. The exit code
says the same as without it, so look at it first. Every document names its schema in its field `schema`; within a
version fields are only added, so pass over those you do not know. `rackproof schema` lists the documents, and
`rackproof schema NAME` prints one as JSON Schema.

Certificates, records of a burn-in and exports have formats of their own: [Security model](../security-model.md),
[Writing a workload](../writing-a-workload.md), `rackproof export --help`.
"""


def json_page() -> str:
    """As Markdown."""
    lines = [HEAD]
    for name in names():
        lines += _document(name, json.loads(schema_text(name)))
    return "\n".join(lines)


def _document(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    verbs = str(schema.get("title", "")).partition(": ")[2]
    yield from (f"## {name}", "", f"`{identity(name)}`, printed by: {verbs}.", "")
    if words := str(schema.get("description", "")).strip():
        yield from (_text(words), "")
    for one in schema.get("anyOf", (schema,)):
        shape = _resolved(one, schema)
        if shape.get("properties"):
            yield from ("| field | kind |", "| --- | --- |")
            yield from (f"| `{field}` | {_kind(of, schema)} |" for field, of in shape["properties"].items())
            yield ""


def _resolved(one: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(one.get("$ref", ""))
    found: Mapping[str, Any] = schema["$defs"][reference.rpartition("/")[2]] if reference else one
    return found


def _kind(of: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A type in the reader's words."""
    if "const" in of:
        return f"`{of['const']}`"
    if "$ref" in of:
        there = _resolved(of, schema)
        if "enum" in there:
            return "one of " + ", ".join(f"`{value}`" for value in there["enum"])
        return f"object {of['$ref'].rpartition('/')[2]}"
    if "anyOf" in of:
        return " or ".join(dict.fromkeys(_kind(one, schema) for one in of["anyOf"]))
    if "enum" in of:
        return "one of " + ", ".join(f"`{value}`" for value in of["enum"])
    match of.get("type"):
        case "array":
            return f"list of {_kind(of['items'], schema)}" if "items" in of else "list"
        case "object":
            inside = of.get("additionalProperties")
            return f"by name: {_kind(inside, schema)}" if isinstance(inside, dict) else "object"
        case "string":
            return {"date-time": "time", "path": "path", "duration": "duration"}.get(str(of.get("format")), "text")
        case kind:
            return str(kind or "anything")


def _text(words: str) -> str:
    """A description on one line; its own columns become clauses."""
    return "; ".join(" ".join(line.split()) for line in words.splitlines() if line.strip()).replace("|", "\\|")

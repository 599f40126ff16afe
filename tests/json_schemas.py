"""Reads documents of `--json` by their schemas, with an implementation that is none of ours."""

import json

from jsonschema import Draft202012Validator

from toolkit.cli.documents import VERSION, identity, schema_text


def schema(name):
    """As it is shipped."""
    return json.loads(schema_text(name))


def closed(schema):
    """The same, in which a field that is not described is wrong: what a reader must allow, a writer may not."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {k: closed(v) for k, v in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found["properties"] = {k: closed(v) for k, v in schema["properties"].items()}
        found.setdefault("additionalProperties", False)
    return found


def wrong(document, name):
    """What does not fit: (place, words); empty where all of it fits, and nothing is there that is not described."""
    checker = Draft202012Validator(closed(schema(name)), format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert document["schema"] == identity(name)
    return [("/".join(map(str, e.absolute_path)), e.message[:300]) for e in checker.iter_errors(document)]


def surface(schema):
    """Every field of a schema as `place: type`: what a reader may rely on."""
    definitions = schema.get("$defs", {})

    def walk(node, place, seen):
        while "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            if name in seen:
                return
            node, seen = definitions[name], seen | {name}
        for form in node.get("anyOf", ()):
            yield from walk(form, place, seen)
        if "type" in node or "const" in node:
            yield f"{place}: {node.get('type', 'string')}"
        for key, of in node.get("properties", {}).items():
            optional = "" if key in node.get("required", ()) else "?"
            yield from walk(of, f"{place}/{key}{optional}", seen)
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                yield from walk(node[key], f"{place}/*", seen)
        for of in node.get("prefixItems", ()):
            yield from walk(of, f"{place}/*", seen)

    return set(walk(schema, "", frozenset()))


__all__ = ["VERSION", "closed", "schema", "surface", "wrong"]

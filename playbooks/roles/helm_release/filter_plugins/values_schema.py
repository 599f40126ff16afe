"""Filter `values_errors`: where a chart's values do not fit a JSON schema. The subset of the language that ours use.

ansible-core brings no validator, and a controller needs nothing but ansible-core. An unknown keyword is an error: a
schema never promises what is not looked at. Tests hold it against the `jsonschema` package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (Mapping,),
    "array": (list, tuple),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = {"$schema", "title", "description", "type", "properties", "additionalProperties", "items", "enum", "const"}


def values_errors(values: Any, schema: Mapping[str, Any]) -> list[str]:
    """One sentence each: the path, and what is wrong there. Empty: they fit. ValueError for a keyword not known."""
    return list(_errors(values, schema, ""))


def _errors(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    here, unknown = path or "the values", set(schema) - _KEYWORDS
    if unknown:
        raise ValueError(f"the schema of {here} has {', '.join(sorted(unknown))}, which is not looked at")
    wanted = schema.get("type")
    if wanted and not _is(value, wanted):
        yield f"{here} must be {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{here} must be one of {', '.join(map(str, schema['enum']))}"
    if "const" in schema and value != schema["const"]:
        yield f"{here} must be {schema['const']}"
    if isinstance(value, Mapping):
        yield from _of_members(value, schema, path)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _errors(item, schema.get("items", {}), f"{path}[{number}]")


def _of_members(value: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[str]:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for key, member in value.items():
        below = f"{path}.{key}" if path else str(key)
        if key in known:
            yield from _errors(member, known[key], below)
        elif others is False:
            yield f"{below} is no value of the chart"
        elif others is not True:
            yield from _errors(member, others, below)


def _is(value: Any, wanted: str) -> bool:
    """A boolean is no integer in JSON, though it is one in Python."""
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES[wanted])


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Filters by name."""
        return {"values_errors": values_errors}

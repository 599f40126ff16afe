"""Whether labels meet a requirement of a Kubernetes selector or of a node affinity. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def holds(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool | None:
    """`rule`: {key, operator, values}; None for an operator that is not known here."""
    value, values = labels.get(str(rule.get("key"))), [str(v) for v in rule.get("values") or ()]
    match rule.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as which:
            return _compared(which, value, values)
        case _:
            return None


def _compared(which: str, value: str | None, values: Sequence[str]) -> bool:
    try:
        number, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return number > bound if which == "Gt" else number < bound

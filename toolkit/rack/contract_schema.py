"""What the annex of a contract may say: its fields.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from toolkit.rack.contract import MAX_CRITERIA, MAX_CRITERION_TEXT, MAX_MEASURES
from toolkit.rack.fields import Code, Name, Written, one_of, refuse, text_like
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.schema import MetricName, WrittenLimit


def _line(characters: int) -> Any:
    return text_like(
        rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{characters}}}", f"one line of 1 to {characters} characters"
    )


def _at_most(count: int, what: str) -> Any:
    def check(value: object) -> object:
        if isinstance(value, list) and len(value) > count:
            refuse(f"{len(value)} {what}", f"at most {count}")
        return value

    return BeforeValidator(check)


class MeasureFile(Written):
    """A gate of ours, or a metric with the contract's own limit."""

    code: Code | None = None
    metric: MetricName | None = None
    scope: Annotated[Scope, one_of(Scope)] | None = None
    operator: Annotated[Operator, one_of(Operator)] | None = None
    limit: WrittenLimit = None
    unit: Annotated[MetricUnit, one_of(MetricUnit)] | None = None


class CriterionFile(Written):
    """One criterion."""

    id: Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,11}", "up to 12 letters, digits, . _ / -")]
    clause: Annotated[str, _line(24)]
    text: Annotated[str, _line(MAX_CRITERION_TEXT)]
    gates: Annotated[tuple[MeasureFile, ...], _at_most(MAX_MEASURES, "gates of one criterion"), Field(min_length=1)]


class AnnexFile(Written):
    """ANNEX.yml."""

    annex: Name
    contract: Annotated[str, _line(120)]
    criteria: Annotated[
        tuple[CriterionFile, ...],
        _at_most(MAX_CRITERIA, "criteria: more do not fit on the page that is signed"),
        Field(min_length=1),
    ]

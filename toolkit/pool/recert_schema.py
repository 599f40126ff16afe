"""What inventory/recert.yml may say: its fields.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.judge.recert.hazard import Cause
from toolkit.rack.fields import Day, Line, Written, number_from, one_of
from toolkit.rack.model import Suite


class _Sourced(Written):
    source: Line
    date: Day


class ShareFile(_Sourced):
    """A share or a chance."""

    value: Annotated[float, number_from(float, 0, 1)]


class NumberFile(_Sourced):
    """A number over nothing."""

    value: Annotated[float, number_from(float, 0.001, 100_000)]


class PowerFile(ShareFile):
    """What a suite finds of a cause."""

    suite: Annotated[Suite, one_of(Suite)]
    cause: Annotated[Cause, one_of(Cause)]


class RecertFile(Written):
    """recert.yml."""

    gray: ShareFile
    gray_hours: NumberFile
    shape: NumberFile
    lost_minutes: NumberFile
    oldest_hours: NumberFile
    at_once: ShareFile
    margin_hours: NumberFile
    cells_hours: NumberFile
    powers: Annotated[tuple[PowerFile, ...], Field(min_length=1)]

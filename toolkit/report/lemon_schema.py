"""What lemons.yml may say: its fields.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from typing import Annotated

from toolkit.rack.fields import Day, Line, Written, number_from


class ThresholdFile(Written):
    """So many removals within so many days."""

    removals: Annotated[int, number_from(int, 2, 100)]
    within_days: Annotated[int, number_from(int, 1, 3650)]
    source: Line
    date: Day


class LemonFile(Written):
    """lemons.yml: a threshold for each kind of part."""

    gpu: ThresholdFile
    node: ThresholdFile
    hca: ThresholdFile

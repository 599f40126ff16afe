"""What rma.yml may say: its fields.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from toolkit.rack.fields import Line, Written, number_from, one_of
from toolkit.rma.form import Source, Treatment


class LimitsFile(Written):
    """How large an archive may get."""

    artifact_kib: Annotated[int, number_from(int, 16, 65536)]
    total_mib: Annotated[int, number_from(int, 1, 1024)]
    neighbours: Annotated[int, number_from(int, 0, 64)]


class RedactionFile(Written):
    """What leaves the site."""

    hosts: Annotated[Treatment, one_of(Treatment)]
    addresses: Annotated[Treatment, one_of(Treatment)]
    macs: Annotated[Treatment, one_of(Treatment)]
    users: Annotated[Treatment, one_of(Treatment)]


class QuestionFile(Written):
    """One question."""

    ask: Line
    answered_by: Annotated[Source, one_of(Source)]
    how: Line | None = None
    source: Line


class FormFile(Written):
    """rma.yml."""

    limits: LimitsFile
    redaction: RedactionFile
    questions: Annotated[tuple[QuestionFile, ...], Field(min_length=1)]

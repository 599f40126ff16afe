"""What a verdict is based on: measurements, each with subject, unit, time and origin."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.rack.gate import Scope

Value = float | int | str


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """What was measured: a node, one of its GPUs, a GPU's NVLink, an HCA; or the rack (all None)."""

    scope: Scope
    node: str = ""
    gpu: int = -1
    link: int = -1
    hca: str = ""

    def __str__(self) -> str:
        parts = [self.node or "rack"]
        if self.gpu >= 0:
            parts.append(f"gpu{self.gpu}")
        if self.link >= 0:
            parts.append(f"nvlink{self.link}")
        if self.hca:
            parts.append(self.hca)
        return "/".join(parts)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number or word with its unit, taken of a subject at a time by a run.

    `origin` is the sha256 of the artifact it was read from.
    """

    metric: str
    unit: str
    value: Value
    subject: Subject
    at: datetime
    run: str
    origin: str

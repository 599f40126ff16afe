"""`nvidia-smi nvlink -s` and `-e`: the NVLinks of every GPU. Text in, `NvlinkReport` out.

    GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...)
             Link 0: 26.562 GB/s
             Link 1: <inactive>
             Link 0: Replay Errors: 0

A GPU without any active link prints one line: `Unable to retrieve NVLink information as all links are inactive`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_GPUS = 256
MAX_LINKS = 64
_GPU = re.compile(r"\s{0,8}GPU (\d{1,4}): (.{0,128}?) \(UUID: ([\w\-]{1,64})\)")
_RATE = re.compile(
    r"\s{0,64}Link (\d{1,3}): {0,4}(?:(\d{1,6}(?:\.\d{1,6})?) GB/s|(<inactive>|inactive))", re.IGNORECASE
)
_ERRORS = re.compile(r"\s{0,64}Link (\d{1,3}): (Replay|Recovery|CRC) Errors: {0,4}(\d{1,19})")
_ALL_INACTIVE = "all links are inactive"


@dataclass(frozen=True, slots=True)
class GpuLinks:
    """The links of one GPU. `rates` in GB/s one way by link, None where inactive; `errors` by link and kind."""

    gpu: int
    name: str
    uuid: str
    rates: tuple[tuple[int, float | None], ...]
    errors: tuple[tuple[int, tuple[tuple[str, int], ...]], ...]
    all_inactive: bool

    def as_json(self) -> dict[str, Any]:
        """Links by number: a rate (null: inactive), or the error counters where `-e` was asked."""
        links: dict[str, Any] = {str(link): rate for link, rate in self.rates}
        links |= {str(link): dict(kinds) for link, kinds in self.errors}
        return {
            "gpu": self.gpu,
            "name": self.name,
            "uuid": self.uuid,
            "links": links,
            "all_inactive": self.all_inactive,
        }


@dataclass(frozen=True, slots=True)
class NvlinkReport:
    """What one call says. A GPU without NVLink is not listed by the tool."""

    gpus: tuple[GpuLinks, ...]

    def as_json(self) -> dict[str, Any]:
        """The GPUs in the order printed."""
        return {"gpus": [g.as_json() for g in self.gpus]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the numbers."""
        return tuple(
            f"GPU {g.gpu}: no link was printed" for g in self.gpus if not (g.rates or g.errors or g.all_inactive)
        )


class _Open:
    def __init__(self, gpu: int, name: str, uuid: str) -> None:
        self.gpu, self.name, self.uuid = gpu, name, uuid
        self.rates: dict[int, float | None] = {}
        self.errors: dict[int, dict[str, int]] = {}
        self.all_inactive = False

    def read(self, line: str) -> None:
        self.all_inactive |= _ALL_INACTIVE in line
        if (rate := _RATE.match(line)) and int(rate[1]) < MAX_LINKS:
            self.rates[int(rate[1])] = float(rate[2]) if rate[2] else None
        if (errors := _ERRORS.match(line)) and int(errors[1]) < MAX_LINKS:
            self.errors.setdefault(int(errors[1]), {})[errors[2].lower()] = int(errors[3])

    def close(self) -> GpuLinks:
        errors = tuple((link, tuple(kinds.items())) for link, kinds in self.errors.items())
        return GpuLinks(self.gpu, self.name, self.uuid, tuple(self.rates.items()), errors, self.all_inactive)


def parse(text: str) -> NvlinkReport:
    """Reads both reports. Never raises: text that says nothing of a GPU gives a report without GPUs."""
    gpus: list[_Open] = []
    for line in text[:MAX_CHARACTERS].split("\n"):
        header = _GPU.match(line)
        if header and len(gpus) < MAX_GPUS:
            gpus.append(_Open(int(header[1]), header[2], header[3]))
        elif gpus:
            gpus[-1].read(line)
    return NvlinkReport(tuple(g.close() for g in gpus))

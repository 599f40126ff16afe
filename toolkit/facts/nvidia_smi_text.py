"""What people paste of nvidia-smi: `-q` as text, whole or an excerpt, and `--query-gpu` as CSV.

The XML (`-q -x`, nvidia_smi) is what the nodes are asked for; these forms come in tickets. In the text form, a section
is deeper than its title by four columns and a value stands after ` : `. What was not printed is left out of the answer.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from toolkit.facts import nvidia_smi, nvlink
from toolkit.facts.nvidia_smi import GpuReport
from toolkit.facts.nvlink import NvlinkReport
from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_GPUS = 256
MAX_ROWS = 65_536
MAX_COLUMNS = 256
_MAX_DEPTH = 12
_MAX_KEYS = 4096  # of one GPU
_TEXT = 256
_GPU = re.compile(r"GPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\s{0,8}\Z")
_VALUE = re.compile(r"( {0,64})(\S(?:[^:]|:(?! )){0,80}?)\s{0,64} : (.{0,4096}?)\s{0,8}\Z")
_TITLE = re.compile(r"( {1,64})([A-Za-z0-9][^:]{0,80}?)\s{0,8}\Z")
_COUNT = re.compile(r"(\d{1,18})(?: bank\(s\))?\Z")
_PATHS = {"Volatile": "volatile", "Aggregate": "aggregate"}
_CUT = "[...]"
# A column of --query-gpu, with its unit: `memory.used [MiB]`.
_COLUMN = re.compile(r"[a-z][a-z0-9_.]{0,80}(?: \[[\w/%]{1,8}\])?\Z")
_IDENTITY = re.compile(r"(?:[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]|GPU-[0-9a-fA-F-]{8,64})\Z")
_PROBLEM = re.compile(
    r"No devices were found|Failed to initialize NVML|Unable to determine the device handle|NVIDIA-SMI has failed"
    r"|GPU is lost|couldn't communicate with the NVIDIA driver|Driver/library version mismatch"
)


@dataclass(frozen=True, slots=True)
class TextReport:
    """`nvidia-smi -q` as text. A GPU's values are by section path (`ECC Errors/Volatile/SRAM Correctable`).

    gpus   (PCI address as printed or None for an excerpt without one, values by path)
    cut    the text has places where somebody left lines out
    """

    driver: str | None
    cuda: str | None
    attached: int | None
    gpus: tuple[tuple[str | None, Mapping[str, str]], ...]
    cut: bool

    def as_json(self) -> dict[str, Any]:
        """Identity, ECC counts, remapped rows as far as printed; a report of retired pages alone, by GPU address."""
        if self.gpus and all(_only_retired_pages(said) for _, said in self.gpus):
            return {"driver": self.driver, "gpus": {pci or "": _retired(said) for pci, said in self.gpus}}
        out: dict[str, Any] = {"driver": self.driver, "cuda": self.cuda, "attached": self.attached}
        return out | {"gpus": [_gpu(pci, said) for pci, said in self.gpus]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the numbers."""
        found = ["lines were left out where it says [...]"] if self.cut else []
        if self.attached is not None and self.attached != len(self.gpus):
            found.append(f"{self.attached} GPUs attached, {len(self.gpus)} described")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Rows:
    """`--query-gpu` as CSV. `columns` is None where the header was not asked for."""

    columns: tuple[str, ...] | None
    rows: tuple[tuple[str, ...], ...]
    left_out: int

    def as_json(self) -> dict[str, Any]:
        """Cells as printed, with their units."""
        return {"columns": list(self.columns) if self.columns else None, "rows": [list(row) for row in self.rows]}

    @property
    def doubts(self) -> tuple[str, ...]:
        """Lines that are no row of this table."""
        return (f"{self.left_out} lines do not have the table's columns",) if self.left_out else ()


@dataclass(frozen=True, slots=True)
class Refused:
    """nvidia-smi described no GPU and said why."""

    error: str

    def as_json(self) -> dict[str, Any]:
        """The tool's own words."""
        return {"error": self.error, "gpus": []}

    @property
    def doubts(self) -> tuple[str, ...]:
        """That there is no answer is not an answer."""
        return ("nvidia-smi described no GPU",)


Report = GpuReport | TextReport | Rows | NvlinkReport | Refused


def parse(text: str) -> Report:
    """Reads any output of nvidia-smi known here: XML, text, CSV, NVLink. Raises UnreadableError for other text."""
    if "<nvidia_smi_log" in text:
        return nvidia_smi.parse(text)
    lines = [line.rstrip("\r") for line in text[:MAX_CHARACTERS].split("\n")]
    readers: tuple[Callable[[list[str]], Report | None], ...] = (_table, _sections, _links, _refusal)
    for reader in readers:
        found = reader(lines)
        if found is not None:
            return found
    raise UnreadableError("neither XML, text nor CSV of nvidia-smi: no GPU is described in it")


def _links(lines: list[str]) -> NvlinkReport | None:
    found = nvlink.parse("\n".join(lines))
    return found if found.gpus else None


def _refusal(lines: list[str]) -> Refused | None:
    return next((Refused(line.strip()[:_TEXT]) for line in lines if _PROBLEM.search(line)), None)


def _table(lines: list[str]) -> Rows | None:
    """CSV with its header, or without one where every row names a GPU by address or UUID."""
    rows = [_cells(line) for line in lines[:MAX_ROWS] if line.strip()]
    if not rows or not 1 <= len(rows[0]) <= MAX_COLUMNS:
        return None
    header = all(_COLUMN.match(cell) for cell in rows[0]) and (len(rows[0]) > 1 or rows[0][0] in ("uuid", "name"))
    if not header and not any(_IDENTITY.match(cell) for cell in rows[0]):
        return None
    body = [row for row in rows[header:] if len(row) == len(rows[0])]
    return Rows(rows[0] if header else None, tuple(body), len(rows) - header - len(body))


def _cells(line: str) -> tuple[str, ...]:
    try:
        row = next(csv.reader([line[: _TEXT * 16]], skipinitialspace=True), [])
    except csv.Error:
        return ()
    return tuple(cell.strip()[:_TEXT] for cell in row[: MAX_COLUMNS + 1])


@dataclass(slots=True)
class _Reading:
    head: dict[str, str] = field(default_factory=dict)
    gpus: list[tuple[str | None, dict[str, str]]] = field(default_factory=list)
    titles: list[tuple[int, str]] = field(default_factory=list)
    cut: bool = False


def _sections(lines: list[str]) -> TextReport | None:
    reading = _Reading()
    for line in lines:
        _read(line, reading)
    gpus = [(pci, said) for pci, said in reading.gpus if pci is not None or _known(said)]
    if not gpus:
        return None
    attached = reading.head.get("Attached GPUs", "")
    return TextReport(
        driver=reading.head.get("Driver Version"),
        cuda=reading.head.get("CUDA Version"),
        attached=int(attached) if attached.isdecimal() and attached.isascii() and len(attached) <= 4 else None,
        gpus=tuple((pci, MappingProxyType(said)) for pci, said in gpus),
        cut=reading.cut,
    )


def _read(line: str, reading: _Reading) -> None:
    reading.cut |= line.strip() == _CUT
    if gpu := _GPU.match(line):
        reading.titles.clear()
        if len(reading.gpus) < MAX_GPUS:
            reading.gpus.append((gpu[1], {}))
    elif value := _VALUE.match(line):
        _keep(len(value[1]), value[2], value[3][:_TEXT], reading)
    elif title := _TITLE.match(line):
        _close(len(title[1]), reading)
        if len(reading.titles) < _MAX_DEPTH:
            reading.titles.append((len(title[1]), title[2]))


def _close(indent: int, reading: _Reading) -> None:
    while reading.titles and reading.titles[-1][0] >= indent:
        reading.titles.pop()


def _keep(indent: int, name: str, value: str, reading: _Reading) -> None:
    if indent == 0:
        reading.head.setdefault(name, value)
        return
    _close(indent, reading)
    if not reading.gpus:  # an excerpt begins in the middle of a GPU
        reading.gpus.append((None, {}))
    said = reading.gpus[-1][1]
    if len(said) < _MAX_KEYS:
        said.setdefault("/".join((*(title for _, title in reading.titles), name)), value)


_ERRORS = {
    "SRAM Correctable": "sram_correctable",
    "SRAM Uncorrectable": "sram_uncorrectable",
    "SRAM Uncorrectable Parity": "sram_uncorrectable_parity",
    "SRAM Uncorrectable SEC-DED": "sram_uncorrectable_secded",
    "DRAM Correctable": "dram_correctable",
    "DRAM Uncorrectable": "dram_uncorrectable",
}
_RETIRED = {"sbe": "Single Bit ECC", "dbe": "Double Bit ECC", "pending": "Pending Page Blacklist"}
_REMAPPED = {
    "corr": "Correctable Error", "unc": "Uncorrectable Error", "pending": "Pending",
    "failure": "Remapping Failure Occurred",
}  # fmt: skip
_HISTOGRAM = "Remapped Rows/Bank Remap Availability Histogram"
_IDENTITY_KEYS = {
    "name": "Product Name", "uuid": "GPU UUID", "serial": "Serial Number", "vbios": "VBIOS Version",
    "recovery_action": "GPU Recovery Action",
}  # fmt: skip


def _known(said: Mapping[str, str]) -> bool:
    return any(key.startswith(("ECC Errors/", "Retired Pages/", "Remapped Rows/", "Product Name")) for key in said)


def _only_retired_pages(said: Mapping[str, str]) -> bool:
    return bool(said) and all(key.startswith("Retired Pages/") for key in said)


def _gpu(pci: str | None, said: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {} if pci is None else {"id": pci}
    out |= {key: said[name] for key, name in _IDENTITY_KEYS.items() if name in said}
    for title, key in _PATHS.items():
        counts = {
            short: said[path] for name, short in _ERRORS.items() if (path := f"ECC Errors/{title}/{name}") in said
        }
        if counts:
            out[key] = {short: _count(value) for short, value in counts.items()}
    rows = {
        short: said[f"Remapped Rows/{name}"] for short, name in _REMAPPED.items() if f"Remapped Rows/{name}" in said
    }
    if rows:
        out["remapped"] = {key: _yes_or_count(value) for key, value in rows.items()}
    bins = {
        n: said[f"{_HISTOGRAM}/{n}"] for n in ("Max", "High", "Partial", "Low", "None") if f"{_HISTOGRAM}/{n}" in said
    }
    if bins:
        out["histogram"] = {name.lower(): _count(value) for name, value in bins.items()}
    retired = _retired(said)
    return out | ({"retired": retired} if any(value is not None for value in retired.values()) else {})


def _retired(said: Mapping[str, str]) -> dict[str, Any]:
    return {key: _yes_or_count(said.get(f"Retired Pages/{name}", "")) for key, name in _RETIRED.items()}


def _yes_or_count(text: str) -> bool | int | None:
    return {"yes": True, "no": False}.get(text.lower(), _count(text))


def _count(text: str) -> int | None:
    match = _COUNT.match(text)
    return int(match[1]) if match else None

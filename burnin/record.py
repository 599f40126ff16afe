"""The records a burn-in writes: one JSON object a line, append-only. The only module toolkit imports.

    {"record":"start","run":"...","at":"...Z","suite":"quick","version":"0.1.0","gpus":[{"index":0,"uuid":..,"serial":..,"pci":..}]}
    {"record":"progress","at":..,"workload":"hbm","done":0.25,"text":"step 3 of 12"}
    {"record":"measurement","at":..,"workload":"hbm","metric":"hbm_miscompares","unit":"count","value":0,"gpu":3,"link":null}
    {"record":"workload","at":..,"workload":"nccl_all_reduce","outcome":"completed","seconds":8.1,"detail":"","gpu":null}
    {"record":"artifact","at":..,"workload":..,"name":"all_reduce_perf.txt","sha256":"...","bytes":5146}
    {"record":"end","at":..,"planned":["nvml","hbm","nccl_all_reduce"],"ended":["nvml","hbm","nccl_all_reduce"]}

A file without an `end` record is a run that was cut: what it measured counts, what it did not is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

MAX_LINE_BYTES = 64 * 1024
MAX_RECORDS = 200_000


class Outcome(str, Enum):  # noqa: UP042 - StrEnum is 3.11; nodes may have 3.10
    """How a workload ended. Whether its numbers are good is not decided here."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"  # the node lacks what the workload needs


@dataclass(frozen=True)
class GpuIdentity:
    """Who a GPU says it is."""

    index: int
    uuid: str
    serial: str
    pci: str


@dataclass(frozen=True)
class Start:
    """First line: which run, which suite, which GPUs were found."""

    run: str
    at: str
    suite: str
    version: str
    gpus: tuple[GpuIdentity, ...]
    record: str = "start"


@dataclass(frozen=True)
class Progress:
    """How far a workload is; `done` in 0..1."""

    at: str
    workload: str
    done: float
    text: str = ""
    record: str = "progress"


@dataclass(frozen=True)
class Measured:
    """One number or word with its unit; `gpu` and `link` say of what (None: of the node)."""

    at: str
    workload: str
    metric: str
    unit: str
    value: float | int | str
    gpu: int | None = None
    link: int | None = None
    record: str = "measurement"


@dataclass(frozen=True)
class WorkloadEnded:
    """A workload's end on one GPU (or the node), with the time it took in seconds."""

    at: str
    workload: str
    outcome: Outcome
    seconds: float
    detail: str = ""
    gpu: int | None = None
    record: str = "workload"


@dataclass(frozen=True)
class Artifact:
    """A raw output kept beside the records, to be fetched and stored by its digest."""

    at: str
    workload: str
    name: str
    sha256: str
    bytes: int
    record: str = "artifact"


@dataclass(frozen=True)
class End:
    """Last line: what was planned and what came to an end."""

    at: str
    planned: tuple[str, ...]
    ended: tuple[str, ...]
    record: str = "end"


Record = Start | Progress | Measured | WorkloadEnded | Artifact | End


class RecordError(ValueError):
    """A line that is not a record of this schema. The node may lie: nothing of it is used."""


def dump(record: Record) -> str:
    """The record as one line of JSON, newline included."""
    return json.dumps(asdict(record), separators=(",", ":"), ensure_ascii=True, allow_nan=False) + "\n"


def load(lines: Iterable[str]) -> Iterator[Record]:
    """Records of untrusted text. Raises RecordError at the first line that does not fit the schema."""
    for number, line in enumerate(lines, 1):
        if number > MAX_RECORDS:
            raise RecordError(f"record {number}: more than {MAX_RECORDS} records")
        if len(line) > MAX_LINE_BYTES:
            raise RecordError(f"record {number}: line of {len(line)} characters (limit {MAX_LINE_BYTES})")
        if line.strip():
            yield _parse(line, number)


def _parse(line: str, number: int) -> Record:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"record {number}: not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise RecordError(f"record {number}: not an object")
    maker = _MAKERS.get(raw.get("record", ""))
    if maker is None:
        raise RecordError(f"record {number}: unknown kind {raw.get('record')!r:.40}")
    try:
        return maker(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"record {number}: {type(error).__name__} {error}") from error


def _text(raw: dict[str, Any], key: str, limit: int = 4096) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not text")
    return value[:limit]


def _number(raw: dict[str, Any], key: str) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    return value


def _index(raw: dict[str, Any], key: str) -> int | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1024:
        raise ValueError(f"{key} is not an index")
    return value


def _names(raw: dict[str, Any], key: str) -> tuple[str, ...]:
    value = raw[key]
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise TypeError(f"{key} is not a list of names")
    return tuple(v[:256] for v in value[:1024])


def _gpu(raw: Any) -> GpuIdentity:
    index = _index(raw, "index")
    if index is None:
        raise ValueError("gpu without index")
    return GpuIdentity(index, _text(raw, "uuid", 256), _text(raw, "serial", 256), _text(raw, "pci", 64))


def _start(raw: dict[str, Any]) -> Start:
    gpus = raw["gpus"]
    if not isinstance(gpus, list) or len(gpus) > 256:
        raise TypeError("gpus is not a list of at most 256")
    return Start(
        _text(raw, "run", 128), _text(raw, "at", 64), _text(raw, "suite", 64), _text(raw, "version", 64),
        tuple(_gpu(g) for g in gpus),
    )  # fmt: skip


def _measured(raw: dict[str, Any]) -> Measured:
    value = raw["value"]
    if not isinstance(value, str):
        value = _number(raw, "value")
    return Measured(
        _text(raw, "at", 64), _text(raw, "workload", 128), _text(raw, "metric", 128), _text(raw, "unit", 32),
        value[:256] if isinstance(value, str) else value, _index(raw, "gpu"), _index(raw, "link"),
    )  # fmt: skip


def _ended(raw: dict[str, Any]) -> WorkloadEnded:
    return WorkloadEnded(
        _text(raw, "at", 64), _text(raw, "workload", 128), Outcome(_text(raw, "outcome", 32)),
        _number(raw, "seconds"), _text(raw, "detail"), _index(raw, "gpu"),
    )  # fmt: skip


def _artifact(raw: dict[str, Any]) -> Artifact:
    name, digest = _text(raw, "name", 128), _text(raw, "sha256", 64)
    if "/" in name or name.startswith(".") or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError("artifact name or digest is malformed")
    return Artifact(_text(raw, "at", 64), _text(raw, "workload", 128), name, digest, int(_number(raw, "bytes")))


_MAKERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "start": _start,
    "progress": lambda r: Progress(
        _text(r, "at", 64), _text(r, "workload", 128), float(_number(r, "done")), _text(r, "text", 256)
    ),
    "measurement": _measured,
    "workload": _ended,
    "artifact": _artifact,
    "end": lambda r: End(_text(r, "at", 64), _names(r, "planned"), _names(r, "ended")),
}

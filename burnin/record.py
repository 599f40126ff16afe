"""The records a burn-in writes: one JSON object a line, append-only. The only module toolkit imports.

    {"record":"start","run":"...","at":"...Z","suite":"quick","version":"0.1.0","gpus":[{"index":0,"uuid":..,"serial":..,"pci":..}],"boot":"..."}
    {"record":"progress","at":..,"workload":"hbm","done":0.25,"text":"step 3 of 12","gpu":3}
    {"record":"measurement","at":..,"workload":"hbm","metric":"hbm_miscompares","unit":"count","value":0,"gpu":3,"link":null}
    {"record":"workload","at":..,"workload":"nccl_all_reduce","outcome":"completed","seconds":8.1,"detail":"","gpu":null}
    {"record":"artifact","at":..,"workload":..,"name":"all_reduce_perf.txt","sha256":"...","bytes":5146}
    {"record":"end","at":..,"planned":["nvml","hbm","nccl_all_reduce"],"ended":["nvml","hbm","nccl_all_reduce"]}

A file without an `end` record is a run that was cut: what it measured counts, what it did not is missing.
A run that was cut and started again goes on in the same file with a second `start` (see `attempts`); what it takes over
of the first one it writes again, as it stands there.
`ended` names the workloads that came to an end on every planned GPU, however they ended: the `workload` records
say how. A workload that never started (the suite's deadline had passed) is planned and not ended.

Text holds printable characters only: `clean` makes it so where it is written, `load` refuses anything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, BinaryIO, NoReturn

MAX_LINE_BYTES = 64 * 1024
MAX_RECORDS = 200_000
MAX_TEXT = 4096
MAX_WORD = 256  # of a measurement

_LARGEST = 2.0**64  # no counter of the hardware is wider
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Outcome(str, Enum):  # noqa: UP042 - StrEnum is 3.11; nodes may have 3.10
    """How a workload ended. Whether its numbers are good is not decided here."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"  # the node lacks what the workload needs
    STOPPED = "stopped"  # by the suite, because its GPU must not go on


@dataclass(frozen=True)
class GpuIdentity:
    """Who a GPU says it is. Empty text: it did not say."""

    index: int
    uuid: str
    serial: str
    pci: str


@dataclass(frozen=True)
class Start:
    """First line of an attempt: which run, which suite, which GPUs were found, in which boot of the machine."""

    run: str
    at: str
    suite: str
    version: str
    gpus: tuple[GpuIdentity, ...]
    boot: str = ""
    record: str = "start"


@dataclass(frozen=True)
class Progress:
    """How far a workload is, on one GPU (or the node); `done` in 0..1."""

    at: str
    workload: str
    done: float
    text: str = ""
    gpu: int | None = None
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


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Text of any origin (a library's message, a program's stderr) as a record may hold it: printable, bounded."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 2 * limit])
    return " ".join(printable.split())[:limit]


def dump(record: Record) -> str:
    """The record as one line of JSON, newline included."""
    return json.dumps(asdict(record), separators=(",", ":"), ensure_ascii=True, allow_nan=False) + "\n"


def read(stream: BinaryIO) -> Iterator[Record]:
    """Records of an untrusted file, never holding more than one bounded line.

    A last line without its newline is still being written (or was torn by a crash) and is left out.
    Raises RecordError at the first line that does not fit the schema.
    """
    return load(_lines(stream))


def load(lines: Iterable[str]) -> Iterator[Record]:
    """Records of untrusted text. Raises RecordError at the first line that does not fit the schema."""
    for number, line in enumerate(lines, 1):
        if number > MAX_RECORDS:
            raise RecordError(f"record {number}: more than {MAX_RECORDS} records")
        if len(line) > MAX_LINE_BYTES:
            raise RecordError(f"record {number}: line over {MAX_LINE_BYTES} characters")
        if line.strip():
            yield _parse(line, number)


def attempts(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each attempt at the run, oldest first; an attempt begins with its `start`.

    Every attempt but the last was cut. Records before the first `start` belong to no attempt and are left out.
    """
    found: list[list[Record]] = []
    for item in records:
        if isinstance(item, Start):
            found.append([])
        if found:
            found[-1].append(item)
    return found


def _lines(stream: BinaryIO) -> Iterator[str]:
    while line := stream.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
            return
        yield line.decode("ascii", "replace")


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _parse(line: str, number: int) -> Record:
    try:
        raw = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"record {number}: not JSON: {clean(str(error), 200)}") from error
    if not isinstance(raw, dict):
        raise RecordError(f"record {number}: not an object")
    kind = raw.get("record")
    maker = _MAKERS.get(kind) if isinstance(kind, str) else None
    if maker is None:
        raise RecordError(f"record {number}: unknown kind {clean(repr(kind), 40)}")
    try:
        return maker(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"record {number}: {type(error).__name__} {clean(str(error), 200)}") from error


def _text(raw: dict[str, Any], key: str, limit: int = MAX_TEXT) -> str:
    return _plain(raw[key], key, limit)


def _plain(value: Any, key: str, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not text")
    if len(value) > limit:
        raise ValueError(f"{key} is {len(value)} characters long (limit {limit})")
    if not value.isprintable():
        raise ValueError(f"{key} holds control characters")
    return value


def _number(raw: dict[str, Any], key: str) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key} is {type(value).__name__}, not a number")
    if not -_LARGEST <= value <= _LARGEST:  # an infinity read from 1e999 ends here too
        raise ValueError(f"{key} is out of range")
    return value


def _count(raw: dict[str, Any], key: str) -> int:
    value = _number(raw, key)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{key} is not a count")
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
    if not isinstance(value, list) or len(value) > 1024:
        raise TypeError(f"{key} is not a list of at most 1024 names")
    return tuple(_plain(name, key, 256) for name in value)


def _gpu(raw: Any) -> GpuIdentity:
    if not isinstance(raw, dict):
        raise TypeError("a gpu is not an object")
    index = _index(raw, "index")
    if index is None:
        raise ValueError("gpu without index")
    return GpuIdentity(index, _text(raw, "uuid", 256), _text(raw, "serial", 256), _text(raw, "pci", 64))


def _start(raw: dict[str, Any]) -> Start:
    gpus = raw["gpus"]
    if not isinstance(gpus, list) or len(gpus) > 256:
        raise TypeError("gpus is not a list of at most 256")
    return Start(
        run=_text(raw, "run", 128),
        at=_text(raw, "at", 64),
        suite=_text(raw, "suite", 64),
        version=_text(raw, "version", 64),
        gpus=tuple(_gpu(g) for g in gpus),
        boot=_text(raw, "boot", 64) if "boot" in raw else "",
    )


def _progress(raw: dict[str, Any]) -> Progress:
    done = float(_number(raw, "done"))
    if not 0.0 <= done <= 1.0:
        raise ValueError("done is not in 0..1")
    return Progress(
        at=_text(raw, "at", 64),
        workload=_text(raw, "workload", 128),
        done=done,
        text=_text(raw, "text", 256),
        gpu=_index(raw, "gpu"),
    )


def _measured(raw: dict[str, Any]) -> Measured:
    value = raw["value"]
    return Measured(
        at=_text(raw, "at", 64),
        workload=_text(raw, "workload", 128),
        metric=_text(raw, "metric", 128),
        unit=_text(raw, "unit", 32),
        value=_plain(value, "value", MAX_WORD) if isinstance(value, str) else _number(raw, "value"),
        gpu=_index(raw, "gpu"),
        link=_index(raw, "link"),
    )


def _ended(raw: dict[str, Any]) -> WorkloadEnded:
    return WorkloadEnded(
        at=_text(raw, "at", 64),
        workload=_text(raw, "workload", 128),
        outcome=Outcome(_text(raw, "outcome", 32)),
        seconds=_number(raw, "seconds"),
        detail=_text(raw, "detail"),
        gpu=_index(raw, "gpu"),
    )


def _artifact(raw: dict[str, Any]) -> Artifact:
    name, digest = _text(raw, "name", 128), _text(raw, "sha256", 64)
    if not _FILE_NAME.fullmatch(name) or not _SHA256.fullmatch(digest):
        raise ValueError("artifact name or digest is malformed")
    return Artifact(
        at=_text(raw, "at", 64),
        workload=_text(raw, "workload", 128),
        name=name,
        sha256=digest,
        bytes=_count(raw, "bytes"),
    )


def _end(raw: dict[str, Any]) -> End:
    return End(at=_text(raw, "at", 64), planned=_names(raw, "planned"), ended=_names(raw, "ended"))


_MAKERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    "start": _start,
    "progress": _progress,
    "measurement": _measured,
    "workload": _ended,
    "artifact": _artifact,
    "end": _end,
}

"""What an attempt takes over from one before it that was cut: whole test cells, each a workload on all its GPUs.

A cell is taken over where nothing has changed since: the same boot, the same GPUs in the same places, the same program
and suite, and not long ago. What is counted over the whole run (NVML's counters, the kernel's log) goes on from where
the earlier attempt began, so that nothing that happened meanwhile is missed. Where one of these cannot be shown, the
attempt begins anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from burnin import VERSION, record
from burnin.journal import RECORDS
from burnin.record import Artifact, GpuIdentity, Measured, Outcome, Record, Start, WorkloadEnded
from burnin.workload import Workload

BOOT = Path("/proc/sys/kernel/random/boot_id")
MARK = "kernel_log_mark.json"
BEFORE = "nvml_before.json"
# A workload that the node lacks a program for lacks it still; one that crashed, hung or was stopped is run again.
_WHOLE = (Outcome.COMPLETED, Outcome.UNAVAILABLE)


@dataclass(frozen=True)
class Earlier:
    """An attempt to go on from.

    prefix  of its files' names
    gpus    that it found
    cells   records of each workload that came to its end there, by name
    mark    where the kernel's log stood when it began
    """

    prefix: str
    gpus: tuple[GpuIdentity, ...]
    cells: Mapping[str, tuple[Record, ...]] = field(default_factory=dict)
    mark: Mapping[str, Any] = field(default_factory=dict)


def boot_id() -> str:
    """This boot's id; empty where the kernel does not say."""
    try:
        return record.clean(BOOT.read_text(errors="replace"), 64)
    except OSError:
        return ""


def earlier(folder: Path, suite: str, workloads: Sequence[Workload], gpus: int, max_age_s: float) -> Earlier | None:
    """The newest attempt in the folder with a cell that may be taken over; None where there is none.

    gpus  that the node should have: a cell has an end on each
    """
    path, boot = folder / RECORDS, boot_id()
    if max_age_s <= 0 or not boot or not path.exists():
        return None
    with path.open("rb") as stream:
        found = record.attempts(record.read(stream))
    for number, records in reversed(list(enumerate(found, 1))):
        start = records[0]
        if not isinstance(start, Start) or (start.suite, start.version, start.boot) != (suite, VERSION, boot):
            return None  # what lies behind a reboot or another program is of another machine
        cells = {w.name: c for w in workloads if (c := _cell(w, records, max(gpus, len(start.gpus)), max_age_s))}
        prefix = "" if number == 1 else f"attempt{number}-"
        mark = _mapping(folder / f"{prefix}{MARK}")
        if cells and mark and (folder / f"{prefix}{BEFORE}").exists():
            return Earlier(prefix, start.gpus, cells, mark)
    return None


def same_gpus(before: Iterable[GpuIdentity], now: Iterable[GpuIdentity]) -> bool:
    """Whether they are the same boards in the same places. One that does not say who it is, is never the same."""
    first, second = tuple(before), tuple(now)
    return bool(first) and first == second and all(gpu.uuid or gpu.serial for gpu in first)


def _cell(workload: Workload, records: Sequence[Record], gpus: int, max_age_s: float) -> tuple[Record, ...]:
    """All that the workload wrote, where it came to its end on each GPU, and lately; else nothing."""
    mine = [
        r for r in records if isinstance(r, Measured | Artifact | WorkloadEnded) and r.workload == workload.name
    ]  # fmt: skip
    ends = [r for r in mine if isinstance(r, WorkloadEnded)]
    expected = set(range(gpus)) if workload.per_gpu else {None}
    whole = {r.gpu for r in ends} == expected and all(r.outcome in _WHOLE for r in ends)
    return tuple(mine) if whole and expected and all(_is_young(r.at, max_age_s) for r in ends) else ()


def _is_young(at: str, max_age_s: float) -> bool:
    """A time of the future is not young: the clock has jumped, and nobody knows how old it is."""
    try:
        then = datetime.fromisoformat(at.replace("Z", "+00:00"))  # Python 3.10 does not know the letter
        age = (datetime.now(timezone.utc) - then).total_seconds()  # noqa: UP017 - 3.10
    except (ValueError, TypeError):
        return False
    return 0 <= age <= max_age_s


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

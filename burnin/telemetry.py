"""NVML seen before, during and after the load. Counters are compared over the run; lifetime values never count.

Runs as a process of its own beside the workloads, because a call into a broken driver may never return:

    snapshot -> one sample a second until standard input ends -> wait until counters settle -> snapshot -> differences

What could not be read on both sides has no difference: it is not reported, and the snapshots say why.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from burnin import VERSION, snapshot
from burnin.child import Reporter
from burnin.device.nvml import Nvml, NvmlUnavailableError
from burnin.journal import utc_now
from burnin.record import Outcome, Start
from burnin.snapshot import Snapshot, answered

NAME = "nvml"
_SAMPLE_S = 1.0
_STDIN = 0


@dataclass(frozen=True)
class Metric:
    """A number of a GPU, or (gpu None) of the node."""

    name: str
    unit: str
    value: float
    gpu: int | None = None


# metric, unit, readings whose growth is summed, divisor
_DELTAS = (
    ("hbm_corrected_errors_delta", "count", ("ecc_dram_corrected",), 1),
    ("hbm_uncorrected_errors_delta", "count", ("ecc_dram_uncorrected",), 1),
    ("sram_corrected_errors_delta", "count", ("ecc_sram_corrected",), 1),
    ("sram_uncorrected_errors_delta", "count", ("ecc_sram_uncorrected",), 1),
    ("row_remaps_delta", "count", ("remaps_corrected", "remaps_uncorrected"), 1),
    ("pcie_replays_delta", "count", ("pcie_replays",), 1),
    ("hw_slowdown_ms_delta", "ms", ("hw_thermal_ns", "hw_brake_ns"), 1_000_000),
    ("sw_thermal_ms_delta", "ms", ("sw_thermal_ns",), 1_000_000),
)
# metric, unit, reading as it is after the run
_STATES = (
    ("recovery_action_after", "code", "recovery_action"),
    ("row_remap_pending_after", "code", "remap_pending"),
    ("row_remap_failure_after", "code", "remap_failure"),
    ("nvlinks_active", "count", "nvlinks_active"),
)
# metric, unit, reading of which the highest counts, divisor
_HIGHEST = (
    ("gpu_celsius_max", "celsius", "gpu_celsius", 1),
    ("hbm_celsius_max", "celsius", "hbm_celsius", 1),
    ("gpu_watts_max", "watt", "power_mw", 1000),
)


def watch(run: str, suite: str, folder: Path, prefix: str, settle_s: float) -> int:
    """The process: reports records on standard output until the suite ends its input.

    `prefix` is put before the artifacts' names; `settle_s` is waited between the load and the last snapshot.
    """
    report = Reporter(NAME)
    try:
        nvml = Nvml()
    except NvmlUnavailableError as error:
        report.hello(Start(run, utc_now(), suite, VERSION, ()))
        report.ended(Outcome.UNAVAILABLE, f"NVML: {error}")
        return 0
    before = snapshot.snapshots(nvml)
    report.hello(Start(run, utc_now(), suite, VERSION, tuple(snapshot.identity(i, s) for i, s in before.items())))
    _keep(report, nvml, before, folder / f"{prefix}nvml_before.json")
    report.measured("gpu_count", "count", sum(answered(taken) for taken in before.values()))
    samples = [before]
    while not _input_ended(_SAMPLE_S):
        samples.append({index: snapshot.warmth(nvml, nvml.gpu(index)) for index in before})
    time.sleep(settle_s)
    after = snapshot.snapshots(nvml, at_least=len(before))
    _keep(report, nvml, after, folder / f"{prefix}nvml_after.json")
    for metric in (*differences(before, after), *extremes([*samples, after])):
        report.measured(metric.name, metric.unit, metric.value, gpu=metric.gpu)
    nvml.close()
    report.ended(Outcome.COMPLETED)
    return 0


def differences(before: dict[int, Snapshot], after: dict[int, Snapshot]) -> Iterator[Metric]:
    """What changed over the run, and the state it left. GPUs that do not answer after it are counted as lost."""
    yield Metric("gpus_lost", "count", sum(index not in after or not answered(after[index]) for index in before))
    for index, first in before.items():
        if index in after and answered(after[index]):
            yield from _differences(index, first, after[index])


def extremes(samples: Iterable[dict[int, Snapshot]]) -> Iterator[Metric]:
    """The highest of each sampled reading, by GPU; nothing for a reading that was never had."""
    highest: dict[tuple[int, str], float] = {}
    for sample in samples:
        for index, readings in sample.items():
            for _, _, key, _ in _HIGHEST:
                value = readings.get(key)
                if isinstance(value, int | float):
                    highest[index, key] = max(highest.get((index, key), value), value)
    for (index, key), value in highest.items():
        name, unit, divisor = next((n, u, d) for n, u, k, d in _HIGHEST if k == key)
        yield Metric(name, unit, value / divisor if divisor > 1 else value, index)


def _differences(index: int, before: Snapshot, after: Snapshot) -> Iterator[Metric]:
    for name, unit, keys, divisor in _DELTAS:
        grown = _growth(keys, before, after)
        if grown is not None:
            yield Metric(name, unit, grown / divisor if divisor > 1 else grown, index)
    links = [key for key in before if key.startswith("nvlink_errors.")]
    errors = _growth(links, before, after)
    if links and errors is not None:
        yield Metric("nvlink_errors_delta", "count", errors, index)
    for name, unit, key in _STATES:
        value = after[key]
        if isinstance(value, int | float):
            yield Metric(name, unit, value, index)


def _growth(keys: Iterable[str], before: Snapshot, after: Snapshot) -> float | None:
    """Sum of what the readings grew by. None when one of them is unknown or went backwards (a reset in between)."""
    total: float = 0
    for key in keys:
        first, last = before.get(key), after.get(key)
        if not isinstance(first, int | float) or not isinstance(last, int | float) or last < first:
            return None
        total += last - first
    return total


def _keep(report: Reporter, nvml: Nvml, taken: dict[int, Snapshot], path: Path) -> None:
    path.write_text(json.dumps(snapshot.document(nvml, taken), indent=1))
    report.artifact(path)


def _input_ended(seconds: float) -> bool:
    """Wait so long for the suite to end our input."""
    readable, _, _ = select.select([_STDIN], [], [], seconds)
    return bool(readable) and not os.read(_STDIN, 4096)

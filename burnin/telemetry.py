"""NVML seen before, during and after the load. Counters are compared over the run; lifetime values never count.

Runs as a process of its own beside the workloads, because a call into a broken driver may never return:

    snapshot -> one sample a second until standard input ends -> wait until counters settle -> snapshot -> differences

What could not be read on both sides has no difference: it is not reported, and the snapshots say why. A GPU that
stays at its own temperature limit is reported at once (`safety_stop`): the suite takes the load off it.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from burnin import VERSION, snapshot
from burnin.child import Reporter
from burnin.device.nvml import Nvml, NvmlUnavailableError
from burnin.journal import utc_now
from burnin.record import Outcome, Start
from burnin.safety import SAFETY_STOP, Heat
from burnin.samples import Metric, Samples
from burnin.snapshot import Snapshot, answered

NAME = "nvml"
_SAMPLE_S = 1.0
_LINKS_EVERY = 10  # samples: reading the links of a GPU takes dozens of calls
_STDIN = 0
_RANGES = "nvml_ranges.json"  # what was sampled so far, for an attempt that goes on from this one

# metric, unit, readings whose growth is summed, divisor
_DELTAS = (
    ("hbm_corrected_errors_delta", "count", ("ecc_dram_corrected",), 1),
    ("hbm_uncorrected_errors_delta", "count", ("ecc_dram_uncorrected",), 1),
    ("sram_corrected_errors_delta", "count", ("ecc_sram_corrected",), 1),
    ("sram_uncorrected_errors_delta", "count", ("ecc_sram_uncorrected",), 1),
    ("row_remaps_delta", "count", ("remaps_corrected", "remaps_uncorrected"), 1),
    ("pcie_replays_delta", "count", ("pcie_replays",), 1),
    ("hw_slowdown_ms_delta", "ms", ("hw_thermal_ns", "hw_brake_ns"), 1_000_000),
    ("power_brake_ms_delta", "ms", ("hw_brake_ns",), 1_000_000),
    ("sw_thermal_ms_delta", "ms", ("sw_thermal_ns",), 1_000_000),
    ("power_cap_ms_delta", "ms", ("power_cap_ns",), 1_000_000),  # grows under every full load: not a fault
    ("c2c_errors_delta", "count", ("c2c_errors",), 1),
)
# metric, prefix of the links' readings
_LINK_DELTAS = (("nvlink_errors_delta", "nvlink_errors."), ("nvlink_recoveries_delta", "nvlink_recoveries."))
# metric, unit, reading as it is before the run: a board that has worked elsewhere shows here
_HISTORY = (
    ("hbm_uncorrected_errors_lifetime", "count", "aggregate_ecc_dram_uncorrected"),
    ("sram_uncorrected_errors_lifetime", "count", "aggregate_ecc_sram_uncorrected"),
)
# metric, unit, reading as it is after the run
_STATES = (
    ("recovery_action_after", "code", "recovery_action"),
    ("row_remap_pending_after", "code", "remap_pending"),
    ("row_remap_failure_after", "code", "remap_failure"),
    ("remap_banks_exhausted", "count", "remap_banks_none"),
    ("sram_threshold_exceeded", "flag", "sram_threshold_exceeded"),
    ("channel_repair_pending", "flag", "channel_repair_pending"),
    ("tpc_repair_pending", "flag", "tpc_repair_pending"),
    ("inforom_valid", "flag", "inforom_valid"),
    ("nvlinks_active", "count", "nvlinks_active"),
)


def watch(run: str, suite: str, folder: Path, prefix: str, settle_s: float, earlier: str | None = None) -> int:
    """The process: reports records on standard output until the suite ends its input.

    `prefix` is put before the artifacts' names; `settle_s` is waited between the load and the last snapshot; `earlier`
    is the prefix of an attempt that this one goes on from: counters are compared with what they were before that one,
    unless the GPUs are others now.
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
    begun = _begun(before, folder, earlier) if earlier is not None else None
    first = before if begun is None else begun[0]
    _keep(report, nvml, first, folder / f"{prefix}nvml_before.json")
    report.measured("gpu_count", "count", sum(answered(taken) for taken in before.values()))
    watched = _Watch(report, nvml, before, folder / f"{prefix}{_RANGES}")
    if begun is not None:
        watched.samples.go_on(begun[1])
    while not _input_ended(watched.pause_s()):
        watched.sample()
    time.sleep(settle_s)
    after = snapshot.snapshots(nvml, at_least=len(before))
    _keep(report, nvml, after, folder / f"{prefix}nvml_after.json")
    watched.samples.add(utc_now(), after)
    _keep_text(report, watched.samples.csv(), folder / f"{prefix}nvml_samples.csv")
    for metric in (*differences(first, after), *watched.samples.metrics()):
        report.measured(metric.name, metric.unit, metric.value, gpu=metric.gpu)
    report.measured("telemetry_busy", "fraction", watched.busy())
    nvml.close()
    report.ended(Outcome.COMPLETED)
    return 0


def _begun(now: dict[int, Snapshot], folder: Path, prefix: str) -> tuple[dict[int, Snapshot], dict[str, Any]] | None:
    """Snapshot and samples of the attempt that this one goes on from; None where they are not of these GPUs."""
    try:
        before = snapshot.from_document(json.loads((folder / f"{prefix}nvml_before.json").read_text()))
        ranges = json.loads((folder / f"{prefix}{_RANGES}").read_text())
        Samples().go_on(ranges)
        identities = [[snapshot.identity(i, taken) for i, taken in one.items()] for one in (before, now)]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (before, ranges) if identities[0] == identities[1] else None


def differences(before: dict[int, Snapshot], after: dict[int, Snapshot]) -> Iterator[Metric]:
    """What changed over the run, and the state it left. GPUs that do not answer after it are counted as lost."""
    yield Metric("gpus_lost", "count", sum(index not in after or not answered(after[index]) for index in before))
    for index, first in before.items():
        if index in after and answered(after[index]):
            yield from _differences(index, first, after[index])


class _Watch:
    """Samples the GPUs that were found, and measures what that costs."""

    def __init__(self, report: Reporter, nvml: Nvml, before: dict[int, Snapshot], ranges: Path) -> None:
        self.samples = Samples()
        self._ranges = ranges
        self.samples.add(utc_now(), before)
        self._report, self._nvml = report, nvml
        self._links = {gpu: sum(key.startswith("nvlink_active.") for key in taken) for gpu, taken in before.items()}
        self._heat = Heat(before)
        self._begun = self._last = time.monotonic()
        self._busy_s = 0.0
        self._taken = 0

    def pause_s(self) -> float:
        """Seconds until the next sample is due; none when it is overdue."""
        return max(0.0, self._last + _SAMPLE_S - time.monotonic())

    def sample(self) -> None:
        """Read every GPU once; report the one that must be stopped."""
        self._last = time.monotonic()
        with_links = self._taken % _LINKS_EVERY == 0
        taken = {index: self._of_gpu(index, links if with_links else 0) for index, links in self._links.items()}
        self.samples.add(utc_now(), taken)
        for index, readings in taken.items():
            why = self._heat.look(index, readings)
            self._report.measured(SAFETY_STOP, "word", why or None, gpu=index)
        aside = self._ranges.with_suffix(".part")
        aside.write_text(json.dumps(self.samples.state()))
        aside.replace(self._ranges)
        self._taken += 1
        self._busy_s += time.monotonic() - self._last

    def busy(self) -> float | None:
        """Share of the time that sampling took, 0..1; None when nothing was sampled."""
        return self._busy_s / (time.monotonic() - self._begun) if self._taken else None

    def _of_gpu(self, index: int, links: int) -> Snapshot:
        gpu = self._nvml.gpu(index)
        readings = snapshot.load(self._nvml, gpu)
        return {**readings, "nvlink_errors": snapshot.nvlink_errors(gpu, links)} if links else readings


def _differences(index: int, before: Snapshot, after: Snapshot) -> Iterator[Metric]:
    for name, unit, keys, divisor in _DELTAS:
        grown = _growth(keys, before, after)
        if grown is not None:
            yield Metric(name, unit, grown / divisor if divisor > 1 else grown, index)
    for name, prefix in _LINK_DELTAS:
        links = [key for key in before if key.startswith(prefix)]
        grown = _growth(links, before, after)
        if links and grown is not None:
            yield Metric(name, "count", grown, index)
    for taken, states in ((before, _HISTORY), (after, _STATES)):
        for name, unit, key in states:
            value = taken.get(key)
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
    _keep_text(report, json.dumps(snapshot.document(nvml, taken), indent=1), path)


def _keep_text(report: Reporter, text: str, path: Path) -> None:
    path.write_text(text)
    report.artifact(path)


def _input_ended(seconds: float) -> bool:
    """Wait so long for the suite to end our input."""
    readable, _, _ = select.select([_STDIN], [], [], seconds)
    return bool(readable) and not os.read(_STDIN, 4096)

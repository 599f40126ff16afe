"""Samples under load: extremes over all of them, means of those under load, a trace that stays small."""

from __future__ import annotations

import csv
import io
import itertools

from burnin.device.nvml import GPU_IS_LOST, Missing
from burnin.samples import Samples
from burnin.snapshot import Snapshot

LOST, UNSUPPORTED = Missing(GPU_IS_LOST), Missing(3)


def found(*samples: dict[int, Snapshot]) -> dict[tuple[str, int | None], float | str]:
    taken = Samples()
    for sample in samples:
        taken.add("2026-01-01T00:00:00.000Z", sample)
    return {(m.name, m.gpu): m.value for m in taken.metrics()}


def test_the_highest_sample_counts() -> None:
    """Of each GPU, whenever it was; a board without the sensor has no such metric."""
    values = found(
        {0: {"gpu_celsius": 40, "hbm_celsius": UNSUPPORTED, "power_mw": 70_000}, 1: {"gpu_celsius": LOST}},
        {0: {"gpu_celsius": 71, "hbm_celsius": UNSUPPORTED, "power_mw": 699_500}, 1: {"gpu_celsius": 50}},
        {0: {"gpu_celsius": 55, "hbm_celsius": UNSUPPORTED, "power_mw": LOST}, 1: {"gpu_celsius": LOST}},
    )
    assert values == {("gpu_celsius_max", 0): 71, ("gpu_watts_max", 0): 699.5, ("gpu_celsius_max", 1): 50}


def test_clocks_and_power_are_of_a_gpu_under_load_alone() -> None:
    """An idle GPU's clock is no slow clock; a GPU that was never busy has no such metric."""
    values = found(
        {0: {"gpu_percent": 0, "sm_mhz": 345, "power_mw": 70_000}, 1: {"gpu_percent": UNSUPPORTED, "sm_mhz": 345}},
        {0: {"gpu_percent": 100, "sm_mhz": 1980, "power_mw": 690_000}},
        {0: {"gpu_percent": 98, "sm_mhz": 1500, "power_mw": 700_000}},
    )
    assert values["sm_mhz_min_loaded", 0] == 1500 and values["sm_mhz_mean_loaded", 0] == 1740
    assert values["gpu_watts_mean_loaded", 0] == 695 and values["gpu_watts_max", 0] == 700
    assert not any(gpu == 1 for _, gpu in values)


def test_reasons_are_named_however_they_combine() -> None:
    """Bits add up over the run; none is a word, and unknown is nothing."""
    values = found({0: {"throttle_reasons": 0x4}, 1: {"throttle_reasons": 0x1}, 2: {"throttle_reasons": UNSUPPORTED}},
                   {0: {"throttle_reasons": 0x48}, 1: {"throttle_reasons": 0}})  # fmt: skip
    assert values == {("throttle_reasons", 0): "sw_power_cap hw_slowdown hw_thermal", ("throttle_reasons", 1): "none"}


def test_the_trace_is_bounded_and_evenly_spread() -> None:
    """A hundred thousand samples are kept as some thousand of the whole run; extremes are of all."""
    taken = Samples(most_kept=1000)
    for second in range(100_000):
        taken.add(str(second), {0: {"power_mw": 700_001 if second == 77_777 else 1, "gpu_celsius": LOST}})
    rows = list(csv.DictReader(io.StringIO(taken.csv())))
    times = [int(row["at"]) for row in rows]
    assert 500 <= len(rows) <= 1001 and times[0] == 0 and times[-1] > 99_000
    assert len({b - a for a, b in itertools.pairwise(times)}) == 1
    assert next(m.value for m in taken.metrics()) == 700.001
    assert rows[0]["power_mw"] == "1" and rows[0]["gpu_celsius"] == "", "what is unknown is empty, not 0"

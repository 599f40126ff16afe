"""Differences and extremes of NVML readings: what is unknown on one side is never reported as 0."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burnin.device.nvml import GPU_IS_LOST, Missing
from burnin.snapshot import Snapshot
from burnin.telemetry import Metric, differences, extremes

LOST, UNSUPPORTED = Missing(GPU_IS_LOST), Missing(3)
READINGS = (
    "ecc_dram_corrected", "ecc_dram_uncorrected", "ecc_sram_corrected", "ecc_sram_uncorrected", "remaps_corrected",
    "remaps_uncorrected", "pcie_replays", "hw_thermal_ns", "hw_brake_ns", "sw_thermal_ns", "recovery_action",
    "remap_pending", "remap_failure", "nvlinks_active", "nvlink_errors.0", "nvlink_errors.1",
)  # fmt: skip


def gpu(**changed: object) -> Snapshot:
    return {"uuid": "GPU-1", **dict.fromkeys(READINGS, 5), **changed}  # type: ignore[dict-item]


def deltas(before: Snapshot, after: Snapshot) -> dict[str, float]:
    return {m.name: m.value for m in differences({0: before}, {0: after})}


def test_lifetime_values_do_not_count() -> None:
    """A used board with old errors has a difference of 0."""
    found = deltas(gpu(ecc_dram_corrected=177), gpu(ecc_dram_corrected=177))
    assert found["hbm_corrected_errors_delta"] == 0 and found["nvlink_errors_delta"] == 0


def test_growth_is_summed_in_the_metrics_unit() -> None:
    """Remaps of both kinds, both hardware slowdowns in milliseconds, all links."""
    found = deltas(gpu(), gpu(remaps_corrected=6, remaps_uncorrected=7, hw_thermal_ns=5 + 3_000_000,
                              hw_brake_ns=5 + 1_500_000, **{"nvlink_errors.1": 9}))  # fmt: skip
    assert found["row_remaps_delta"] == 3
    assert found["hw_slowdown_ms_delta"] == 4.5
    assert found["nvlink_errors_delta"] == 4


@given(st.sampled_from(READINGS), st.booleans(), st.sampled_from([LOST, UNSUPPORTED]))
def test_a_reading_that_is_missing_on_a_side_makes_no_number(key: str, first: bool, why: Missing) -> None:
    """Whatever is missing takes its metric away, and no other."""
    whole = deltas(gpu(), gpu())
    found = deltas(gpu(**{key: why}), gpu()) if first else deltas(gpu(), gpu(**{key: why}))
    assert len(whole) - len(found) == (0 if first and key in ("recovery_action", "remap_pending", "remap_failure",
                                                              "nvlinks_active") else 1)  # fmt: skip
    assert all(whole[name] == value for name, value in found.items())


def test_a_counter_that_went_back_makes_no_number() -> None:
    """A reset in the middle: what was lost with it is unknown."""
    assert "hbm_corrected_errors_delta" not in deltas(gpu(ecc_dram_corrected=9), gpu(ecc_dram_corrected=0))


def test_gpus_that_stop_answering_are_lost_and_have_no_differences() -> None:
    """By error, or by not being listed any more."""
    silent = {**dict.fromkeys(gpu(), LOST)}
    found = list(differences({0: gpu(), 1: gpu(), 2: gpu()}, {0: gpu(), 1: silent}))
    assert found[0] == Metric("gpus_lost", "count", 2)
    assert {m.gpu for m in found[1:]} == {0}


def test_the_highest_sample_counts() -> None:
    """Of each GPU, whenever it was; a board without the sensor has no such metric."""
    samples: list[dict[int, Snapshot]] = [
        {0: {"gpu_celsius": 40, "hbm_celsius": UNSUPPORTED, "power_mw": 70_000}, 1: {"gpu_celsius": LOST}},
        {0: {"gpu_celsius": 71, "hbm_celsius": UNSUPPORTED, "power_mw": 699_500}, 1: {"gpu_celsius": 50}},
        {0: {"gpu_celsius": 55, "hbm_celsius": UNSUPPORTED, "power_mw": LOST}, 1: {"gpu_celsius": LOST}},
    ]
    found = {(m.name, m.gpu): m.value for m in extremes(samples)}
    assert found == {("gpu_celsius_max", 0): 71, ("gpu_watts_max", 0): 699.5, ("gpu_celsius_max", 1): 50}

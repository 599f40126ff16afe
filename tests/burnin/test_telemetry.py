"""Differences and extremes of NVML readings: what is unknown on one side is never reported as 0."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from burnin.device.nvml import GPU_IS_LOST, Missing
from burnin.samples import Metric
from burnin.snapshot import Snapshot
from burnin.telemetry import differences

LOST, UNSUPPORTED = Missing(GPU_IS_LOST), Missing(3)
READINGS = (
    "ecc_dram_corrected", "ecc_dram_uncorrected", "ecc_sram_corrected", "ecc_sram_uncorrected", "remaps_corrected",
    "remaps_uncorrected", "pcie_replays", "hw_thermal_ns", "hw_brake_ns", "sw_thermal_ns", "recovery_action",
    "remap_pending", "remap_failure", "nvlinks_active", "nvlink_errors.0", "nvlink_errors.1", "nvlink_recoveries.0",
    "nvlink_recoveries.1", "aggregate_ecc_dram_uncorrected", "remap_banks_none", "sram_threshold_exceeded",
    "channel_repair_pending", "tpc_repair_pending", "inforom_valid", "c2c_errors", "power_cap_ns",
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
    """What a reading moves, it takes away when it is missing on that side, and nothing else."""
    whole = deltas(gpu(), gpu())

    def changed(value: object) -> dict[str, float]:
        return deltas(gpu(**{key: value}), gpu()) if first else deltas(gpu(), gpu(**{key: value}))

    moved = {name for name, value in changed(1 if first else 9_000_000).items() if value != whole[name]}
    found = changed(why)
    assert set(whole) - set(found) == moved
    assert all(whole[name] == value for name, value in found.items())


def test_a_boards_history_and_its_state_after_the_run_are_told() -> None:
    """What it had before it came here, what it will never repair again, what waits for a reset."""
    found = deltas(
        gpu(aggregate_ecc_dram_uncorrected=3, remap_banks_none=0),
        gpu(aggregate_ecc_dram_uncorrected=4, remap_banks_none=1, sram_threshold_exceeded=1, channel_repair_pending=1,
            tpc_repair_pending=0, inforom_valid=0, c2c_errors=7, **{"nvlink_recoveries.1": 6}),
    )  # fmt: skip
    assert found["hbm_uncorrected_errors_lifetime"] == 3
    assert (found["remap_banks_exhausted"], found["sram_threshold_exceeded"]) == (1, 1)
    assert (found["channel_repair_pending"], found["tpc_repair_pending"], found["inforom_valid"]) == (1, 0, 0)
    assert (found["c2c_errors_delta"], found["nvlink_recoveries_delta"]) == (2, 1)


def test_a_counter_that_went_back_makes_no_number() -> None:
    """A reset in the middle: what was lost with it is unknown."""
    assert "hbm_corrected_errors_delta" not in deltas(gpu(ecc_dram_corrected=9), gpu(ecc_dram_corrected=0))


def test_gpus_that_stop_answering_are_lost_and_have_no_differences() -> None:
    """By error, or by not being listed any more."""
    silent = {**dict.fromkeys(gpu(), LOST)}
    found = list(differences({0: gpu(), 1: gpu(), 2: gpu()}, {0: gpu(), 1: silent}))
    assert found[0] == Metric("gpus_lost", "count", 2)
    assert {m.gpu for m in found[1:]} == {0}

"""Every metric a gate may read: its unit, what it is taken of, what it means. Profiles are checked against it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.gate import Scope


class Unit(StrEnum):
    """What a metric's value is in. Nothing is ever converted."""

    COUNT = "count"
    FLAG = "flag"  # 0 or 1; written false and true in a profile
    CODE = "code"  # a vendor's number, e.g. NVML's GPU recovery action; 0 means none
    WORD = "word"  # the vendor's own spelling, e.g. Completed, Active
    VERSION = "version"
    FRACTION = "fraction"  # 0..1
    BYTES = "bytes"
    LANES = "lanes"
    GB_PER_S = "GB/s"  # 10^9 bytes a second, one way
    TFLOP_PER_S = "TFLOP/s"  # 10^12 operations a second; integer ones where the unit has no floating point
    CELSIUS = "celsius"
    WATT = "watt"
    MS = "ms"
    SECOND = "s"
    MHZ = "MHz"

    @property
    def is_text(self) -> bool:
        """Whether values are words rather than numbers: no floor and no ceiling then."""
        return self in (Unit.WORD, Unit.VERSION)

    @property
    def is_whole(self) -> bool:
        """Whether values are whole numbers."""
        return self in (Unit.COUNT, Unit.FLAG, Unit.CODE, Unit.BYTES, Unit.LANES)


@dataclass(frozen=True, slots=True)
class Metric:
    """A named measurement."""

    name: str
    unit: Unit
    scope: Scope
    meaning: str


_GPU, _LINK, _HCA, _NODE = Scope.GPU, Scope.LINK, Scope.HCA, Scope.NODE

# Of a node's burn-in, in its order; the first and most quoted one has the short names.
COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv")


RAIL_METRIC = "rail_busbw_gb_per_s"  # of each HCA, between two nodes


def collective_metric(collective: str, what: str) -> str:
    """A metric's name: `nccl_path` of all_reduce, `nccl_alltoall_path` of alltoall."""
    return f"nccl_{what}" if collective == COLLECTIVES[0] else f"nccl_{collective}_{what}"


def _collective(name: str) -> tuple[Metric, ...]:
    """What is measured of a collective over all GPUs of a node."""
    told = (
        ("busbw_gb_per_s", Unit.GB_PER_S, "lowest bus bandwidth of rows >= 1 GiB, both ways of placing"),
        ("busbw_p50_gb_per_s", Unit.GB_PER_S, "median bus bandwidth of these rows"),
        ("largest_bytes", Unit.BYTES, "size of the largest row"),
        ("wrong_values", Unit.COUNT, "values nccl-tests found wrong, all rows"),
        ("ranks", Unit.COUNT, "ranks in the one communicator"),
        ("transport", Unit.WORD, "transport NCCL took by its log: NVLS, P2P, SHM, Socket, ..."),
        ("path", Unit.WORD, "NVLink carried it, by log and byte counters: proven, wrong or unproven"),
        ("path_bytes_fraction", Unit.FRACTION, "of the GPU that counted least: bytes counted over the least it moves"),
    )
    return tuple(
        Metric(collective_metric(name, what), unit, _NODE, f"{name}: {meaning}") for what, unit, meaning in told
    )


# Of collectives among many nodes, by what they are of. The prefix is the metric's.
WIDE_PREFIXES = {Scope.LEAF: "leaf", Scope.DOMAIN: "domain", Scope.RACK: "rack"}


def wide_metric(scope: Scope, collective: str, what: str) -> str:
    """A metric's name: `rack_nccl_all_reduce_path`."""
    return f"{WIDE_PREFIXES[scope]}_nccl_{collective}_{what}"


def _wide(scope: Scope, collective: str) -> tuple[Metric, ...]:
    """What is measured of a collective among many nodes; of a leaf with several rails, its worst."""
    told = (
        ("outcome", Unit.WORD, "how it ended: completed, incomplete, crashed, data_error, ..."),
        ("hung", Unit.FLAG, "all ranks were there and it did not end by its deadline"),
        ("busbw_gb_per_s", Unit.GB_PER_S, "lowest bus bandwidth of rows >= 1 GiB, both ways of placing"),
        ("busbw_p50_gb_per_s", Unit.GB_PER_S, "median bus bandwidth of these rows"),
        ("largest_bytes", Unit.BYTES, "size of the largest row"),
        ("wrong_values", Unit.COUNT, "values nccl-tests found wrong, all rows"),
        ("ranks", Unit.COUNT, "ranks in the one communicator"),
        ("path", Unit.WORD, "the fabric that was meant carried it, by log and byte counters: proven, wrong, unproven"),
        ("path_bytes_fraction", Unit.FRACTION, "bytes counted over the least it moves"),
    )
    return tuple(
        Metric(wide_metric(scope, collective, what), unit, scope, f"{collective} among many nodes: {meaning}")
        for what, unit, meaning in told
    )


_ALL = (
    # Facts: read from a node at rest.
    Metric("gpu_count", Unit.COUNT, _NODE, "GPUs the driver enumerates"),
    Metric("driver_version", Unit.VERSION, _NODE, "NVIDIA kernel driver that is loaded"),
    Metric("ecc_enabled", Unit.FLAG, _GPU, "ECC mode, current"),
    Metric("hbm_corrected_errors", Unit.COUNT, _GPU, "DRAM corrected ECC errors since driver load"),
    Metric("hbm_uncorrected_errors", Unit.COUNT, _GPU, "DRAM uncorrected ECC errors since driver load"),
    Metric("row_remap_pending", Unit.FLAG, _GPU, "a row remap waits for a GPU reset"),
    Metric("row_remap_failure", Unit.FLAG, _GPU, "a row remap has failed: no spare row"),
    Metric("recovery_action", Unit.CODE, _GPU, "NVML field 230: 0 none, else what the GPU asks for"),
    Metric("pcie_width", Unit.LANES, _GPU, "PCIe lanes trained, current"),
    Metric("fabric_state", Unit.WORD, _GPU, "NVLink fabric state as nvidia-smi words it"),
    Metric("fabric_status", Unit.WORD, _GPU, "NVLink fabric status as nvidia-smi words it"),
    Metric("fabric_domain", Unit.WORD, _GPU, "NVLink domain and partition: cluster UUID, a dot, clique"),
    Metric("fabric_bandwidth", Unit.WORD, _GPU, "bandwidth of the fabric's health block: Full or Degraded"),
    Metric("fabric_health", Unit.WORD, _GPU, "summary of the fabric's health block"),
    Metric("nvlink_active", Unit.FLAG, _LINK, "NVLink is up"),
    Metric("nvlink_gb_per_s", Unit.GB_PER_S, _LINK, "NVLink's trained rate, one way"),
    Metric("fabric_manager_version", Unit.VERSION, _NODE, "fabric manager that is installed"),
    Metric("fabric_manager_active", Unit.FLAG, _NODE, "nvidia-fabricmanager.service is active"),
    Metric("persistence_active", Unit.FLAG, _NODE, "persistence mode is on, on every GPU"),
    Metric("persistenced_active", Unit.FLAG, _NODE, "nvidia-persistenced.service is active"),
    Metric("imex_active", Unit.FLAG, _NODE, "nvidia-imex.service is active"),
    Metric("imex_masked", Unit.FLAG, _NODE, "nvidia-imex.service is masked, or not installed"),
    Metric("fabric_manager_masked", Unit.FLAG, _NODE, "nvidia-fabricmanager.service is masked, or not installed"),
    Metric("imex_domain", Unit.WORD, _NODE, "state of the IMEX domain as the node sees it: UP, DEGRADED, DOWN"),
    Metric("imex_nodes_ready", Unit.COUNT, _NODE, "nodes of the IMEX domain that the node sees READY"),
    Metric("imex_nodes_sha256", Unit.WORD, _NODE, "sha256 of nodes_config.cfg"),
    Metric("containerd_active", Unit.FLAG, _NODE, "containerd.service is active"),
    Metric("kubelet_active", Unit.FLAG, _NODE, "kubelet.service is active"),
    Metric("hca_state", Unit.WORD, _HCA, "port state as ibstat words it"),
    Metric("hca_rate_gb_per_s", Unit.GB_PER_S, _HCA, "port's trained rate, one way"),
    Metric("hca_guid", Unit.WORD, _HCA, "port's GUID by ibstat"),
    Metric("hca_link_fault", Unit.WORD, _HCA, "what stands against the cable: plan, width, rate, errors; none"),
    Metric("rail_busbw_gb_per_s", Unit.GB_PER_S, _HCA, "best of the all_reduces over this port's rail, its worst row"),
    Metric("kubelet_taint", Unit.WORD, _NODE, "taint the kubelet registers its node with, key:effect"),
    Metric("machine_serial", Unit.WORD, _NODE, "serial by the machine's DMI"),
    Metric("product", Unit.WORD, _NODE, "product name by the machine's DMI"),
    Metric("image", Unit.WORD, _NODE, "operating system image that runs"),
    # Burn-in: deltas over the run, or results of its workloads.
    Metric("hbm_corrected_errors_delta", Unit.COUNT, _GPU, "DRAM corrected ECC errors during the run"),
    Metric("hbm_uncorrected_errors_delta", Unit.COUNT, _GPU, "DRAM uncorrected ECC errors during the run"),
    Metric("sram_corrected_errors_delta", Unit.COUNT, _GPU, "SRAM corrected ECC errors during the run"),
    Metric("sram_uncorrected_errors_delta", Unit.COUNT, _GPU, "SRAM uncorrected ECC errors during the run"),
    Metric("row_remaps_delta", Unit.COUNT, _GPU, "rows remapped during the run"),
    Metric("row_remap_pending_after", Unit.CODE, _GPU, "a row remap waits for a GPU reset, after the run"),
    Metric("row_remap_failure_after", Unit.CODE, _GPU, "a row remap has failed, after the run"),
    Metric("row_remaps_after_reset", Unit.COUNT, _GPU, "rows remapped once more after the reset for an earlier one"),
    Metric("channel_repair_pending", Unit.FLAG, _GPU, "a memory channel repair waits for a reset or a reboot"),
    Metric("tpc_repair_pending", Unit.FLAG, _GPU, "a TPC repair waits for a GPU reset"),
    Metric("remap_banks_exhausted", Unit.COUNT, _GPU, "memory banks without a spare row left, after the run"),
    Metric("sram_threshold_exceeded", Unit.FLAG, _GPU, "SRAM errors over the vendor's replacement threshold"),
    Metric("inforom_valid", Unit.FLAG, _GPU, "the InfoROM's checksums are right"),
    Metric("hbm_coverage", Unit.FRACTION, _GPU, "share of the GPU's free memory written and verified"),
    Metric("hbm_coverage_of_total", Unit.FRACTION, _GPU, "share of all the GPU's memory written and verified"),
    Metric("hbm_bytes_written", Unit.BYTES, _GPU, "bytes of patterns written"),
    Metric("hbm_bytes_verified", Unit.BYTES, _GPU, "bytes read back and compared"),
    Metric("hbm_steps", Unit.COUNT, _GPU, "sweeps over the memory under test"),
    Metric("hbm_miscompares", Unit.COUNT, _GPU, "words that read back wrong"),
    Metric("hbm_miscompares_transient", Unit.COUNT, _GPU, "wrong words that a second read gave right"),
    Metric("hbm_first_miscompare", Unit.WORD, _GPU, "where the first wrong word is, and by which bits"),
    Metric("hbm_sweep_gb_per_s_min", Unit.GB_PER_S, _GPU, "slowest sweep, reads and writes"),
    Metric("hbm_sweep_gb_per_s_median", Unit.GB_PER_S, _GPU, "median sweep, reads and writes"),
    Metric("hbm_verify_gb_per_s_median", Unit.GB_PER_S, _GPU, "median read-only verify"),
    Metric("hbm_copy_gb_per_s", Unit.GB_PER_S, _GPU, "memory traffic of the block moves, reads and writes"),
    Metric("hbm_peak_gb_per_s", Unit.GB_PER_S, _GPU, "2 x memory clock x bus width / 8, computed on the node"),
    Metric("hbm_sweep_fraction_of_peak", Unit.FRACTION, _GPU, "median sweep over the computed peak"),
    Metric("gemm_wrong_tiles", Unit.COUNT, _GPU, "tiles of exact products that are not the one right answer"),
    Metric("gemm_runs", Unit.COUNT, _GPU, "tiles computed and checked"),
    Metric("gemm_units", Unit.WORD, _GPU, "compute units exercised, sorted"),
    Metric("gemm_units_not_exercised", Unit.WORD, _GPU, "compute units of the chip that nothing ran on, with reason"),
    Metric("gemm_sms_covered", Unit.FRACTION, _GPU, "share of the SMs that computed and were checked"),
    Metric("gemm_sms_suspect", Unit.WORD, _GPU, "SMs that the wrong tiles have in common; none"),
    Metric("gemm_digest", Unit.WORD, _GPU, "order-free digest of all products; equal on all GPUs of one kind"),
    *(
        Metric(f"gemm_{unit}_tflop_per_s", Unit.TFLOP_PER_S, _GPU, f"rate of the {unit.upper()} products")
        for unit in ("fp64", "tf32", "bf16", "fp16", "int8", "fp8")
    ),
    Metric("together_seconds", Unit.SECOND, _GPU, "time under memory and compute load at once"),
    Metric("together_miscompares", Unit.COUNT, _GPU, "words that read back wrong while the compute units worked"),
    Metric("together_wrong_tiles", Unit.COUNT, _GPU, "wrong tiles while the memory worked"),
    Metric("h2d_gb_per_s", Unit.GB_PER_S, _GPU, "host to device copy, pinned memory"),
    Metric("d2h_gb_per_s", Unit.GB_PER_S, _GPU, "device to host copy, pinned memory"),
    Metric("pcie_miscompares", Unit.COUNT, _GPU, "words that went over PCIe and back and came back wrong"),
    Metric("pcie_width_loaded", Unit.LANES, _GPU, "PCIe lanes trained, under load"),
    Metric("pcie_generation_loaded", Unit.COUNT, _GPU, "PCIe generation, under load: an idle GPU falls to 1"),
    Metric("cuda_hung", Unit.FLAG, _GPU, "work did not end by its deadline"),
    Metric("cuda_ecc_uncorrectable", Unit.FLAG, _GPU, "CUDA 214: a kernel met an uncorrectable error"),
    Metric("cuda_fabric_not_ready", Unit.FLAG, _GPU, "CUDA 802: the NVLink fabric is not set up"),
    Metric("cuda_gpu_lost", Unit.FLAG, _GPU, "CUDA no longer reaches the GPU"),
    Metric("cuda_failed", Unit.FLAG, _GPU, "CUDA failed in any other way; the records say how"),
    Metric("safety_stop", Unit.WORD, _NODE, "why the load was taken off before its time; none"),
    Metric("gpu_overheated", Unit.FLAG, _GPU, "its load was taken off because it stayed at its temperature limit"),
    Metric("xid_events", Unit.COUNT, _NODE, "Xid lines in the kernel log during the run"),
    Metric("xid_memory_events", Unit.COUNT, _GPU, "memory errors the driver reported, each joined from its Xids"),
    Metric("xid_lost_events", Unit.COUNT, _GPU, "the GPU fell off the bus, or did not initialise"),
    Metric("xid_link_events", Unit.COUNT, _GPU, "NVLink and C2C errors the driver reported"),
    Metric("xid_hardware_events", Unit.COUNT, _GPU, "other hardware errors the driver reported"),
    Metric("xid_driver_events", Unit.COUNT, _GPU, "errors of driver or firmware"),
    Metric("xid_application_events", Unit.COUNT, _GPU, "errors that a program causes itself"),
    Metric("xid_unplaced_events", Unit.COUNT, _NODE, "driver errors of no GPU of the run, or of a class nobody knows"),
    Metric("sxid_events", Unit.COUNT, _NODE, "NVSwitch SXid lines in the kernel log during the run"),
    Metric("gpus_lost", Unit.COUNT, _NODE, "GPUs present before the run and not after"),
    Metric("pcie_replays_delta", Unit.COUNT, _GPU, "PCIe replays during the run"),
    Metric("nvlink_errors_delta", Unit.COUNT, _GPU, "NVLink errors, all links, during the run"),
    Metric("nvlink_recoveries_delta", Unit.COUNT, _GPU, "NVLink recoveries, all links, during the run"),
    Metric("c2c_errors_delta", Unit.COUNT, _GPU, "C2C link errors during the run"),
    Metric("nvlinks_active", Unit.COUNT, _GPU, "NVLinks up after the run"),
    Metric("gpu_celsius_max", Unit.CELSIUS, _GPU, "hottest GPU core reading"),
    Metric("hbm_celsius_max", Unit.CELSIUS, _GPU, "hottest memory reading"),
    Metric("gpu_watts_max", Unit.WATT, _GPU, "highest power reading"),
    Metric("margin_celsius_min", Unit.CELSIUS, _GPU, "least degrees left to the maximum operating temperature"),
    Metric("gpu_watts_mean_loaded", Unit.WATT, _GPU, "mean power under load"),
    Metric("sm_mhz_min_loaded", Unit.MHZ, _GPU, "lowest SM clock under load"),
    Metric("sm_mhz_mean_loaded", Unit.MHZ, _GPU, "mean SM clock under load"),
    Metric("hbm_mhz_min_loaded", Unit.MHZ, _GPU, "lowest memory clock under load"),
    Metric("throttle_reasons", Unit.WORD, _GPU, "all reasons for lower clocks that were seen; none"),
    Metric("power_brake_ms_delta", Unit.MS, _GPU, "time in power-brake slowdown"),
    Metric("power_cap_ms_delta", Unit.MS, _GPU, "time at the power cap; grows under every full load"),
    Metric("hbm_uncorrected_errors_lifetime", Unit.COUNT, _GPU, "DRAM uncorrected ECC errors of the board's life"),
    Metric("sram_uncorrected_errors_lifetime", Unit.COUNT, _GPU, "SRAM uncorrected ECC errors of the board's life"),
    Metric("telemetry_busy", Unit.FRACTION, _NODE, "share of the time that sampling took"),
    Metric("hw_slowdown_ms_delta", Unit.MS, _GPU, "time in hardware thermal or power-brake slowdown"),
    Metric("sw_thermal_ms_delta", Unit.MS, _GPU, "time in software thermal slowdown"),
    *(metric for collective in COLLECTIVES for metric in _collective(collective)),
    Metric("levels_left_out", Unit.WORD, _NODE, "levels that the nodes at hand could not have, each with why; none"),
    *(metric for scope in WIDE_PREFIXES for collective in COLLECTIVES for metric in _wide(scope, collective)),
    Metric("recovery_action_after", Unit.CODE, _GPU, "NVML field 230 after the run"),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _ALL}

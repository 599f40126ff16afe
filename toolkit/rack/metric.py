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
    CELSIUS = "celsius"
    WATT = "watt"
    MS = "ms"

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
    Metric("nvlink_active", Unit.FLAG, _LINK, "NVLink is up"),
    Metric("nvlink_gb_per_s", Unit.GB_PER_S, _LINK, "NVLink's trained rate, one way"),
    Metric("fabric_manager_version", Unit.VERSION, _NODE, "fabric manager that is installed"),
    Metric("fabric_manager_active", Unit.FLAG, _NODE, "nvidia-fabricmanager.service is active"),
    Metric("persistence_active", Unit.FLAG, _NODE, "persistence mode is on, on every GPU"),
    Metric("persistenced_active", Unit.FLAG, _NODE, "nvidia-persistenced.service is active"),
    Metric("imex_active", Unit.FLAG, _NODE, "nvidia-imex.service is active"),
    Metric("containerd_active", Unit.FLAG, _NODE, "containerd.service is active"),
    Metric("kubelet_active", Unit.FLAG, _NODE, "kubelet.service is active"),
    Metric("hca_state", Unit.WORD, _HCA, "port state as ibstat words it"),
    Metric("hca_rate_gb_per_s", Unit.GB_PER_S, _HCA, "port's trained rate, one way"),
    Metric("hca_guid", Unit.WORD, _HCA, "port's GUID by ibstat"),
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
    Metric("hbm_coverage", Unit.FRACTION, _GPU, "share of the GPU's free memory written and verified"),
    Metric("hbm_coverage_of_total", Unit.FRACTION, _GPU, "share of all the GPU's memory written and verified"),
    Metric("hbm_bytes_written", Unit.BYTES, _GPU, "bytes of patterns written"),
    Metric("hbm_bytes_verified", Unit.BYTES, _GPU, "bytes read back and compared"),
    Metric("hbm_miscompares", Unit.COUNT, _GPU, "words that read back wrong"),
    Metric("hbm_copy_gb_per_s", Unit.GB_PER_S, _GPU, "memory traffic of the block moves, reads and writes"),
    Metric("h2d_gb_per_s", Unit.GB_PER_S, _GPU, "host to device copy"),
    Metric("d2h_gb_per_s", Unit.GB_PER_S, _GPU, "device to host copy"),
    Metric("xid_events", Unit.COUNT, _NODE, "Xid lines in the kernel log during the run"),
    Metric("sxid_events", Unit.COUNT, _NODE, "NVSwitch SXid lines in the kernel log during the run"),
    Metric("gpus_lost", Unit.COUNT, _NODE, "GPUs present before the run and not after"),
    Metric("pcie_replays_delta", Unit.COUNT, _GPU, "PCIe replays during the run"),
    Metric("nvlink_errors_delta", Unit.COUNT, _GPU, "NVLink errors, all links, during the run"),
    Metric("nvlinks_active", Unit.COUNT, _GPU, "NVLinks up after the run"),
    Metric("gpu_celsius_max", Unit.CELSIUS, _GPU, "hottest GPU core reading"),
    Metric("hbm_celsius_max", Unit.CELSIUS, _GPU, "hottest memory reading"),
    Metric("gpu_watts_max", Unit.WATT, _GPU, "highest power reading"),
    Metric("hw_slowdown_ms_delta", Unit.MS, _GPU, "time in hardware thermal or power-brake slowdown"),
    Metric("sw_thermal_ms_delta", Unit.MS, _GPU, "time in software thermal slowdown"),
    Metric("nccl_busbw_gb_per_s", Unit.GB_PER_S, _NODE, "lowest bus bandwidth of rows >= 1 GiB, both ways of placing"),
    Metric("nccl_largest_bytes", Unit.BYTES, _NODE, "size of the largest row"),
    Metric("nccl_wrong_values", Unit.COUNT, _NODE, "values nccl-tests found wrong, all rows"),
    Metric("nccl_ranks", Unit.COUNT, _NODE, "ranks in the one communicator"),
    Metric("nccl_transport", Unit.WORD, _NODE, "transport NCCL took: NVLS, P2P, SHM, Socket, ..."),
    Metric("recovery_action_after", Unit.CODE, _GPU, "NVML field 230 after the run"),
)  # fmt: skip

METRICS = {metric.name: metric for metric in _ALL}

"""What the burn-in of a node of files would say: a healthy one's numbers, and what each fault makes of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from burnin.record import (
    Artifact,
    End,
    GpuIdentity,
    Measured,
    Outcome,
    Progress,
    Record,
    Start,
    WorkloadEnded,
)
from toolkit.rack.metric import COLLECTIVES, METRICS, collective_metric
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.model import Profile, Unit
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import healthy_state
from toolkit.virtual.in_process_nccl import Collectives

LOG_NAME = "kernel_log.txt"
_NCCL = tuple(f"nccl_{name}" for name in COLLECTIVES)
WORKLOADS = ("nvml", "hbm", "gemm", "together", "pcie", *_NCCL, "kernel_log")
Values = dict[str, float | int | str]

_ZEROS = (
    "hbm_miscompares", "hbm_miscompares_transient", "hbm_corrected_errors_delta", "hbm_uncorrected_errors_delta",
    "sram_corrected_errors_delta", "sram_uncorrected_errors_delta", "row_remaps_delta", "row_remap_pending_after",
    "row_remap_failure_after", "recovery_action_after", "channel_repair_pending", "tpc_repair_pending",
    "remap_banks_exhausted", "sram_threshold_exceeded", "gemm_wrong_tiles", "together_miscompares",
    "together_wrong_tiles", "pcie_miscompares", "cuda_hung", "cuda_ecc_uncorrectable", "cuda_fabric_not_ready",
    "cuda_gpu_lost", "cuda_failed", "pcie_replays_delta", "nvlink_errors_delta", "nvlink_recoveries_delta",
    "hw_slowdown_ms_delta", "sw_thermal_ms_delta",
)  # fmt: skip
_HEALTHY: Values = {
    **dict.fromkeys(_ZEROS, 0),

    "inforom_valid": 1, "hbm_coverage": 0.985, "hbm_coverage_of_total": 0.97, "hbm_steps": 40,
    "hbm_bytes_written": 3_320_000_000_000, "hbm_bytes_verified": 3_320_000_000_000,
    "hbm_sweep_gb_per_s_min": 2850.0, "hbm_sweep_gb_per_s_median": 2900.0, "hbm_verify_gb_per_s_median": 3180.0,
    "hbm_peak_gb_per_s": 3352.3, "hbm_sweep_fraction_of_peak": 0.865,
    "gemm_runs": 100_000, "gemm_units": "bf16 fp16 fp64 int8 tf32", "gemm_units_not_exercised": "fp8",
    "gemm_sms_covered": 1.0, "gemm_sms_suspect": "none", "gemm_digest": "0123456789abcdef",
    "gemm_fp64_tflop_per_s": 58.1, "gemm_tf32_tflop_per_s": 301.0, "gemm_bf16_tflop_per_s": 610.0,
    "gemm_fp16_tflop_per_s": 605.0, "gemm_int8_tflop_per_s": 1190.0,
    "together_seconds": 15.0, "h2d_gb_per_s": 54.8, "d2h_gb_per_s": 52.0,
    "pcie_width_loaded": 16, "pcie_generation_loaded": 5,
    "gpu_celsius_max": 64, "hbm_celsius_max": 78, "gpu_watts_max": 699.0,
}  # fmt: skip
_NOTHING_OF_A_LOST_GPU = ("hbm_", "gemm_", "together_", "h2d", "d2h", "pcie_", "row_", "sram_", "recovery", "inforom",
                          "channel_", "tpc_", "remap_", "nvlink_", "hw_", "sw_")  # fmt: skip
_ROW_WAITS: Values = {"row_remaps_delta": 1, "row_remap_pending_after": 1, "recovery_action_after": 1}
_FAULTY: Mapping[FaultKind, Values] = {
    FaultKind.HBM_STICKY_BIT: {"hbm_miscompares": 4},
    FaultKind.HBM_ADDRESS_LINE: {"hbm_miscompares": 524_288},
    FaultKind.HBM_FLIP: {"hbm_miscompares": 2, "hbm_miscompares_transient": 2},
    FaultKind.HBM_COUPLING: {"hbm_miscompares": 1},
    FaultKind.HBM_LOST_WRITE: {"hbm_miscompares": 16},
    FaultKind.HBM_RETENTION: {"hbm_miscompares": 1},
    FaultKind.HBM_ROW_DISTURB: {"hbm_miscompares": 1},
    FaultKind.ECC_DRIP: {"hbm_corrected_errors_delta": 12},
    FaultKind.HBM_DOUBLE_BIT: {
        "hbm_uncorrected_errors_delta": 1, "cuda_ecc_uncorrectable": 1, "hbm_coverage": 0.4, **_ROW_WAITS,
    },
    FaultKind.ROW_REMAP: {"hbm_corrected_errors_delta": 3, **_ROW_WAITS},
    FaultKind.GEMM_WRONG_FMA: {"gemm_wrong_tiles": 7, "gemm_digest": "f" * 16, "gemm_sms_suspect": "2"},
    FaultKind.GEMM_NAN: {"gemm_wrong_tiles": 7, "gemm_digest": "e" * 16},
    FaultKind.GEMM_ROUNDING: {"gemm_digest": "d" * 16},
    FaultKind.KERNEL_HANG: {"cuda_hung": 1},
    FaultKind.CUDA_ERROR: {"cuda_failed": 1},
    FaultKind.HOT_GPU: {"gpu_celsius_max": 93, "hw_slowdown_ms_delta": 800.0},
    FaultKind.PCIE_NARROW: {"pcie_width_loaded": 8},
    FaultKind.XID_79: {"cuda_gpu_lost": 1},
}  # fmt: skip
_XIDS = {
    FaultKind.XID_79: ("79, pid=1234, name=python3, GPU has fallen off the bus.",),
    FaultKind.ROW_REMAP: (
        "63, pid='<unknown>', name=<unknown>, Row Remapper: New row (0x00000000a1b2c000) marked for remapping, reset "
        "gpu to activate.",
    ),
    FaultKind.HBM_DOUBLE_BIT: (
        "48, pid=1234, name=python3, An uncorrectable double bit error (DBE) has been detected on GPU in the "
        "framebuffer at physAddr 0xa1b2c000 partition 6, subpartition 0.",
        "63, pid=1234, name=python3, Row Remapper: New row (0x00000000a1b2c000) marked for remapping, reset gpu to "
        "activate.",
    ),
}


_RATES = tuple(m for m in _HEALTHY if METRICS[m].unit in (MetricUnit.GB_PER_S, MetricUnit.TFLOP_PER_S))
_ARITHMETIC = "hbm_peak_gb_per_s"
# Of a suite of one workload, what its metrics' names begin with.
_AGAIN = {"again_hbm": ("hbm_",), "again_gemm": ("gemm_",), "again_pcie": ("h2d_", "d2h_", "pcie_")}


@dataclass(frozen=True, slots=True)
class Noise:
    """How far healthy readings are apart, drawn from the seed, the run and the part: the same run reads the same.

    spread  standard deviation of one part's readings, a quarter of it among parts; 0: all alike. 0.016 is that of
            published repeats, as in `fault_model`
    """

    spread: float = 0.0
    seed: int = 1

    def factor(self, run: str, part: str, metric: str) -> float:
        """What a reading is multiplied by."""
        if not self.spread:
            return 1.0
        own = random.Random(f"{self.seed}/{part}/{metric}").gauss(0.0, self.spread / 4)  # noqa: S311 - no secret
        return (1.0 + own) * (1.0 + random.Random(f"{self.seed}/{run}/{part}/{metric}").gauss(0.0, self.spread))  # noqa: S311


@dataclass(frozen=True, slots=True)
class BurnIn:
    """A burn-in of one node with these faults of its own. `replaced`: how often faulty rows of its GPUs
    were replaced before it began.

    identity  the run's
    suite     the suite's name: one that begins with `again_` is of one workload
    swapped   serial of another board in the seat of GPU 0; empty: the one that was planned
    """

    node: Unit
    profile: Profile
    faults: tuple[Fault, ...]
    identity: str
    suite: str
    noise: Noise = Noise()
    swapped: str = ""

    def remapped(self, replaced: int) -> tuple[int, ...]:
        """GPUs in which this burn-in finds a row to replace."""
        kinds = (FaultKind.ROW_REMAP, FaultKind.HBM_DOUBLE_BIT)
        return tuple(f.gpu or 0 for f in self.faults if f.kind in kinds and replaced < (f.times or 1))

    def kernel_log(self, replaced: int) -> bytes:
        """What the driver would have said during the run, as /dev/kmsg gives it."""
        gpus = healthy_state(self.node, self.profile).gpus
        lines = [
            f"4,{1000 + n},{5_000_000 + n},-;NVRM: Xid (PCI:{gpus[f.gpu or 0].pci.lower()[4:-2]}): {text}"
            for f in self._now(replaced)
            for n, text in enumerate(_XIDS.get(f.kind, ()))
        ]
        return "".join(f"{line}\n" for line in lines).encode()

    def artifacts(self, replaced: int) -> Iterator[tuple[str, str, bytes]]:
        """(workload, name, content) of what the node keeps beside its records."""
        yield "kernel_log", LOG_NAME, self.kernel_log(replaced)
        yield from (file for file in self._collectives.files() if file[0] in self.workloads)

    @property
    def workloads(self) -> tuple[str, ...]:
        """What the suite plans."""
        one = self.suite.removeprefix("again_")
        return WORKLOADS if one == self.suite else ("nvml", one, "kernel_log")

    def records(self, replaced: int) -> Iterator[Record]:
        """All records of the run, its end included."""
        now = datetime.now(UTC).isoformat()
        gpus = healthy_state(self.node, self.profile).gpus
        serials = [g.serial if g.index or not self.swapped else self.swapped for g in gpus]
        found = tuple(GpuIdentity(g.index, "", serial, g.pci) for g, serial in zip(gpus, serials, strict=True))
        yield Start(self.identity, now, self.suite, "in-process", found)
        for gpu in range(len(gpus)):
            yield Progress(now, "hbm", 1.0, "sweep 40 of 40", gpu)
            for metric, value in self._of_gpu(gpu, replaced).items():
                yield Measured(now, "in-process", metric, METRICS[metric].unit, value, gpu)
        for metric, value in self._of_node(replaced).items():
            yield Measured(now, "in-process", metric, METRICS[metric].unit, value)
        for workload, name, content in self.artifacts(replaced):
            yield Artifact(now, workload, name, hashlib.sha256(content).hexdigest(), len(content))
        for name in self.workloads:
            hung = name in _NCCL and self._has(FaultKind.NCCL_HANG)
            yield WorkloadEnded(now, name, Outcome.TIMED_OUT if hung else Outcome.COMPLETED, 1.0)
        yield End(now, self.workloads, self.workloads)

    @property
    def _collectives(self) -> Collectives:
        return Collectives(
            self.profile.gpus_per_node,
            sockets=self._has(FaultKind.WRONG_TRANSPORT),
            slow=any(f.kind is FaultKind.SLOW_GPU and f.value is None for f in self.faults),
            hung=self._has(FaultKind.NCCL_HANG),
            paces={name: self._clocks * self._drawn("node", f"nccl_{name}") for name in COLLECTIVES},
        )

    @property
    def _clocks(self) -> float:
        """The share of its clocks that the slowest GPU reaches, where a fault says which: it sets the pace."""
        return min((f.value for f in self.faults if f.kind is FaultKind.SLOW_GPU and f.value), default=1.0)

    def _drawn(self, part: str, metric: str) -> float:
        return self.noise.factor(self.identity, f"{self.node.name}/{part}", metric)

    def _now(self, replaced: int) -> tuple[Fault, ...]:
        """Faults that show in this run: a row that was replaced is a fault no more."""
        remaps = (FaultKind.ROW_REMAP, FaultKind.HBM_DOUBLE_BIT)
        return tuple(f for f in self.faults if f.kind not in remaps or replaced < (f.times or 1))

    def _has(self, kind: FaultKind) -> bool:
        return any(f.kind is kind for f in self.faults)

    def _of_gpu(self, gpu: int, replaced: int) -> Values:
        values = dict(_HEALTHY)
        for metric in _RATES:
            if metric != _ARITHMETIC:
                values[metric] = round(float(values[metric]) * self._drawn(f"gpu{gpu}", metric), 3)
        values["hbm_sweep_fraction_of_peak"] = round(
            float(values["hbm_sweep_gb_per_s_median"]) / float(values[_ARITHMETIC]), 4
        )
        for fault in self._now(replaced):
            if (fault.gpu or 0) == gpu and fault.kind is FaultKind.SLOW_GPU and fault.value:
                products = [m for m in values if m.endswith("_tflop_per_s")]
                values |= {m: round(float(values[m]) * fault.value, 3) for m in products}
            if (fault.gpu or 0) == gpu and fault.kind in _FAULTY:
                values |= _FAULTY[fault.kind]
                if fault.kind is FaultKind.XID_79:
                    return {m: v for m, v in values.items() if not m.startswith(_NOTHING_OF_A_LOST_GPU)}
        if self.workloads == WORKLOADS:
            return values
        return {m: v for m, v in values.items() if m.startswith(_AGAIN.get(self.suite, ()))}

    def _of_node(self, replaced: int) -> Values:
        hot = [f.gpu or 0 for f in self.faults if f.kind is FaultKind.HOT_GPU]
        stop = "; ".join(f"gpu {g}: GPU at 93 celsius, its limit is 92 in 3 samples" for g in hot) or "none"
        lost = int(self._has(FaultKind.XID_79))
        xids = sum(len(_XIDS.get(f.kind, ())) for f in self._now(replaced))
        values: Values = {"xid_events": xids, "sxid_events": 0, "gpus_lost": lost, "safety_stop": stop}
        names = {metric: name for name in COLLECTIVES for metric in _metrics_of(name)}
        told = {m: v for m, v in self._collectives.measured() if f"nccl_{names[m]}" in self.workloads}
        return values | told


def _metrics_of(collective: str) -> tuple[str, ...]:
    """What `Collectives.measured` says of it."""
    whats = ("busbw_gb_per_s", "busbw_p50_gb_per_s", "largest_bytes", "wrong_values", "ranks", "transport")
    return tuple(collective_metric(collective, what) for what in whats)

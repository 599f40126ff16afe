"""The suites, as data: which workloads, in which order, for how long.

The times are of load on a real GPU, where a sweep over all memory takes a tenth of a second: they are spent on
repetition and on heat, not on patterns. Deadlines are for a GPU that is slow, not for one that hangs: that is noticed
by its silence. Every workload runs on all GPUs of the node at the same time. The programs of others come last, and
only where the node has them: what is not installed is recorded as that, and leaves no suite incomplete.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from burnin import kernel_log, telemetry
from burnin.nccl.collective import GIB, Kind, collectives
from burnin.workload import OwnProcess, Workload
from burnin.wrapped.dcgm_diag import dcgm_diag
from burnin.wrapped.nvbandwidth import nvbandwidth

HBM, GEMM, TOGETHER, PCIE = "hbm", "gemm", "together", "pcie"
# The switches reduce in the one; the other loads every pair of GPUs at once, and no switch can do its work for it.
QUICK_COLLECTIVES = (Kind.ALL_REDUCE, Kind.ALLTOALL)

# What a workload may take beyond its load: to start, to allocate and to come to an end, on a node with slow disks.
_SET_UP_S = 60.0


@dataclass(frozen=True)
class Suite:
    """Workloads in order. `settle_s` is waited between the load and the last snapshot."""

    name: str
    workloads: tuple[Workload, ...]
    deadline_s: float
    settle_s: float
    watch: OwnProcess = field(default_factory=lambda: OwnProcess(telemetry.NAME, False, 0, listens=True, silence_s=0.0))

    @property
    def planned(self) -> tuple[str, ...]:
        """Names of all that is to be recorded."""
        return (self.watch.name, *(w.name for w in self.workloads), kernel_log.NAME)


def _on_each_gpu(name: str, seconds: float, *options: str, deadline_s: float | None = None) -> OwnProcess:
    limit = 2 * seconds + _SET_UP_S if deadline_s is None else deadline_s
    return OwnProcess(name, per_gpu=True, deadline_s=limit, arguments=("--seconds", str(seconds), *options))


SUITES = (
    # Every workload once, nothing twice, no soak: a virtual GPU is a share of a processor, so deadlines are long.
    Suite(
        name="rehearsal",
        workloads=(
            _on_each_gpu(HBM, 0, "--rounds", "1", "--retention", "1", "--thorough", deadline_s=300),
            _on_each_gpu(GEMM, 0, deadline_s=300),
            _on_each_gpu(TOGETHER, 0, "--retention", "1", deadline_s=300),
            _on_each_gpu(PCIE, 0, deadline_s=120),
            *collectives(deadline_s=60),
            nvbandwidth(deadline_s=120),
            dcgm_diag(level=1),
        ),
        deadline_s=1200,
        settle_s=2,
    ),
    # A minute of load: is this GPU fit to be given work?
    Suite(
        name="quick",
        workloads=(
            _on_each_gpu(HBM, 25, "--rounds", "1", "--retention", "3"),
            _on_each_gpu(GEMM, 10),
            _on_each_gpu(TOGETHER, 15, "--retention", "3"),
            _on_each_gpu(PCIE, 3),
            *collectives(deadline_s=90, kinds=QUICK_COLLECTIVES),
        ),
        deadline_s=540,
        settle_s=5,
    ),
    # Ten minutes: thousands of sweeps, retention at temperature.
    Suite(
        name="standard",
        workloads=(
            _on_each_gpu(HBM, 240, "--rounds", "8", "--retention", "30"),
            _on_each_gpu(GEMM, 90),
            _on_each_gpu(TOGETHER, 210, "--retention", "20"),
            _on_each_gpu(PCIE, 15),
            *collectives(deadline_s=180, largest=16 * GIB, iterations=50),
            nvbandwidth(),
            dcgm_diag(level=2),
        ),
        deadline_s=3150,
        settle_s=5,
    ),
    # Two hours: the slow patterns, and cold start - load - cool-down - load, for solder and through-silicon vias.
    Suite(
        name="long",
        workloads=(
            _on_each_gpu(HBM, 2700, "--rounds", "40", "--retention", "120", "--thorough"),
            _on_each_gpu(GEMM, 900),
            _on_each_gpu(TOGETHER, 2700, "--cycles", "3", "--rest", "240", "--retention", "60", deadline_s=4200),
            _on_each_gpu(PCIE, 60),
            *collectives(deadline_s=300, largest=16 * GIB, iterations=200),
            nvbandwidth(),
            dcgm_diag(level=3),
        ),
        deadline_s=3.75 * 3600,
        settle_s=5,
    ),
)


def _again(workload: Workload) -> Suite:
    """One workload by itself, for a suspect and its siblings: many short readings tell more than a long one."""
    return Suite(f"again_{workload.name}", (workload,), deadline_s=workload.deadline_s + _SET_UP_S, settle_s=1)


# What the controller asks for to read a part once more. They prove nothing else of it: no certificate rests on them.
AGAIN = (
    _again(_on_each_gpu(HBM, 10, "--rounds", "1")),
    _again(_on_each_gpu(GEMM, 10)),
    _again(_on_each_gpu(PCIE, 3)),
    *(_again(workload) for workload in collectives(deadline_s=90)),
)
BY_NAME = {suite.name: suite for suite in (*SUITES, *AGAIN)}

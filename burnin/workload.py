"""What a suite is made of: workloads, and the bench they run on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import burnin
from burnin import record
from burnin.child import RecordSink, artifact_of, workload_end
from burnin.journal import Journal
from burnin.record import GpuIdentity, Measured, WorkloadEnded
from burnin.supervise import Ended, Job, Sink

# What a workload inherits of our environment; everything else is set on purpose.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG")


@dataclass(frozen=True)
class Bench:
    """Where a suite runs: the run's journal, the GPUs it found, what the operator added to the environment."""

    run: str
    suite: str
    journal: Journal
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[GpuIdentity, ...] = ()
    tell: Callable[[Measured], None] | None = None  # takes what processes say to the suite alone
    unproven: bool = False  # also run kernels that no GPU of their kind has confirmed yet

    def environment(self) -> dict[str, str]:
        """The whole environment of a workload's process."""
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {**inherited, **self.extra_environment}

    def burnin(self, *arguments: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """Command line and environment that start this very program again, from its archive or its folder."""
        here = Path(burnin.__file__).parent.parent
        if here.is_file():  # the archive is named, not looked for: `-m` would take a folder `burnin` that we stand in
            return (sys.executable, "-S", str(here), *arguments), self.environment()
        path = {"PYTHONPATH": str(here), "PYTHONSAFEPATH": "1"}
        return (sys.executable, "-S", "-m", "burnin", *arguments), {**self.environment(), **path}

    def keep(self, item: record.Record) -> None:
        """Write a record."""
        self.journal.append(item)

    def artifact(self, workload: str, path: Path) -> None:
        """Write the record of a file, which is on disk from then on."""
        self.journal.append(artifact_of(workload, path), durable=True)


class UnavailableError(Exception):
    """The node lacks what a workload needs; the text says what."""


class Workload(Protocol):
    """Something measured: once on every GPU at the same time (`per_gpu`), or once for the node."""

    @property
    def name(self) -> str:
        """Name in the records."""

    @property
    def per_gpu(self) -> bool:
        """One process for each GPU, or one for the node."""

    @property
    def deadline_s(self) -> float:
        """Longest time the process may take."""

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        """The process to start and where its output goes. Raises UnavailableError."""

    def conclude(self, bench: Bench, job: Job, sink: Sink, ended: Ended) -> WorkloadEnded:
        """Write what the output says to the bench; return how it ended."""


@dataclass(frozen=True)
class OwnProcess:
    """A workload of ours: `python3 -m burnin workload NAME ...`, which speaks records on its standard output.

    One that says nothing for `silence_s` is taken for hung: it sits in a call to the driver.
    """

    name: str
    per_gpu: bool
    deadline_s: float
    arguments: tuple[str, ...] = ()
    listens: bool = False  # it goes on until its input is ended
    silence_s: float = 60.0  # a driver that loads for the first time takes tens of seconds; 0: as long as it likes

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        """See Workload."""
        if gpu is not None and not gpu.pci:
            raise UnavailableError("NVML does not answer for this GPU: it has no PCI address to be found by")
        about = ["--gpu", str(gpu.index), "--pci", gpu.pci] if gpu else []
        about += ["--unproven"] if bench.unproven else []
        argv, env = bench.burnin(
            "workload", self.name, "--run", bench.run, "--suite", bench.suite,
            "--out", str(bench.journal.folder), "--prefix", bench.journal.prefix, *about, *self.arguments,
        )  # fmt: skip
        index = gpu.index if gpu else None
        job = Job(self.name, argv, env, self.deadline_s, index, self.listens, self.silence_s)
        return job, RecordSink(self.name, index, bench.keep, tell=bench.tell)

    def conclude(self, bench: Bench, job: Job, sink: Sink, ended: Ended) -> WorkloadEnded:
        """See Workload. What was measured is in the journal already, record by record."""
        said = sink.said if isinstance(sink, RecordSink) else None
        return workload_end(self.name, job.gpu, ended, said)

"""Runs a suite: telemetry beside it, workloads one after another, every end recorded, whatever becomes of them.

This process loads no vendor library and holds no thread: what can hang or crash does so in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from burnin import VERSION, kernel_log, telemetry
from burnin.child import RecordSink, workload_end
from burnin.hbm import fill_verify
from burnin.journal import Journal, JournalError, utc_now
from burnin.kernel_log import KernelLog
from burnin.nccl.all_reduce import MIB, AllReduce
from burnin.record import End, GpuIdentity, Measured, Outcome, Start, WorkloadEnded, clean
from burnin.supervise import Running, Supervisor
from burnin.workload import Bench, OwnProcess, UnavailableError, Workload

_IDENTITY_S = 60.0  # a driver that loads for the first time takes tens of seconds
_LAST_SNAPSHOT_S = 60.0


@dataclass(frozen=True)
class Suite:
    """Workloads in order. `settle_s` is waited between the load and the last snapshot."""

    name: str
    workloads: tuple[Workload, ...]
    deadline_s: float
    settle_s: float
    watch: OwnProcess = field(default_factory=lambda: OwnProcess(telemetry.NAME, False, 0, listens=True))

    @property
    def planned(self) -> tuple[str, ...]:
        """Names of all that is to be recorded."""
        return (self.watch.name, *(w.name for w in self.workloads), kernel_log.NAME)


def _hbm(deadline_s: float, seconds: float, rounds: int) -> OwnProcess:
    arguments = ("--seconds", str(seconds), "--rounds", str(rounds))
    return OwnProcess(fill_verify.NAME, per_gpu=True, deadline_s=deadline_s, arguments=arguments)


SUITES = (
    Suite(
        name="quick",
        workloads=(_hbm(deadline_s=75, seconds=60, rounds=1), AllReduce(deadline_s=90)),
        deadline_s=240,
        settle_s=2,
    ),
    Suite(
        name="standard",
        workloads=(
            _hbm(deadline_s=330, seconds=300, rounds=8),
            AllReduce(deadline_s=180, largest=16384 * MIB, iterations=50),
        ),
        deadline_s=720,
        settle_s=5,
    ),
)


def run(
    suite: Suite,
    journal: Journal,
    run_id: str,
    *,
    expected_gpus: int = 0,
    log: Path = Path("/dev/kmsg"),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Execute the suite and write its records, `end` included. Raises JournalError when they cannot be kept.

    `expected_gpus` are planned even if the driver lists fewer: the missing ones are recorded as unavailable.
    """
    _Execution(suite, journal, Bench(run_id, suite.name, journal, environment or {}), expected_gpus, log).run()


class _Execution:
    def __init__(self, suite: Suite, journal: Journal, bench: Bench, expected_gpus: int, log: Path) -> None:
        self._suite = suite
        self._journal = journal
        self._bench = bench
        self._expected_gpus = expected_gpus
        self._log = KernelLog(log)
        self._limit = time.monotonic() + suite.deadline_s
        self._started = False
        self._ended: list[str] = []
        self._supervisor = Supervisor(self._log.drain)

    def run(self) -> None:
        try:
            watch = self._start_watch()
            for workload in self._suite.workloads:
                if self._left() > 0:
                    self._run(workload)
            watch.close_stdin()
            watch.allow(self._suite.settle_s + _LAST_SNAPSHOT_S)
            self._supervisor.wait([watch])
            self._conclude(self._suite.watch, [watch])
            self._conclude_log()
            self._journal.append(End(utc_now(), self._suite.planned, tuple(self._ended)), durable=True)
        finally:
            self._supervisor.close()
            self._log.close()

    def _left(self) -> float:
        return self._limit - time.monotonic()

    def _start_watch(self) -> Running:
        """Start telemetry and learn from it which GPUs there are: none, if it does not say in time."""
        longest = self._suite.deadline_s + _IDENTITY_S + _LAST_SNAPSHOT_S
        watch = replace(
            self._suite.watch, arguments=(*self._suite.watch.arguments, "--settle", str(self._suite.settle_s))
        )
        job, _ = watch.prepare(self._bench, None)
        running = self._supervisor.start(
            replace(job, deadline_s=longest), RecordSink(watch.name, None, self._bench.keep, greet=self._greet)
        )
        self._supervisor.wait_until(lambda: self._started or running.ended is not None, _IDENTITY_S)
        self._greet(Start(self._bench.run, utc_now(), self._suite.name, VERSION, ()))
        return running

    def _greet(self, found: Start) -> None:
        """Begin the attempt's records, once: with the GPUs that were found first."""
        if not self._started:
            self._started = True
            self._bench = replace(self._bench, gpus=found.gpus)
            start = Start(self._bench.run, utc_now(), self._suite.name, VERSION, found.gpus)
            self._journal.append(start, durable=True)

    def _run(self, workload: Workload) -> None:
        """One workload on all its GPUs at the same time, or once for the node."""
        started: list[Running] = []
        for gpu in self._subjects(workload):
            index = gpu.index if gpu else None
            try:
                job, sink = workload.prepare(self._bench, gpu)
            except UnavailableError as error:
                self._end(workload.name, index, Outcome.UNAVAILABLE, str(error))
                continue
            job = replace(job, deadline_s=min(job.deadline_s, self._left()))
            started.append(self._supervisor.start(job, sink))
        self._supervisor.wait(started)
        self._conclude(workload, started)

    def _subjects(self, workload: Workload) -> tuple[GpuIdentity | None, ...]:
        """What the workload runs on. A GPU that is planned and not there is recorded as that."""
        if not workload.per_gpu:
            return (None,)
        found = self._bench.gpus
        for index in range(len(found), self._expected_gpus):
            self._end(workload.name, index, Outcome.UNAVAILABLE, "the driver does not list this GPU")
        if not found and not self._expected_gpus:
            self._end(workload.name, None, Outcome.UNAVAILABLE, "no GPU was found")
        return found

    def _conclude(self, workload: Workload, started: Sequence[Running]) -> None:
        for running in started:
            assert running.ended is not None  # noqa: S101 - we waited for it
            try:
                end = workload.conclude(self._bench, running.job, running.sink, running.ended)
            except JournalError:
                raise
            except Exception as error:  # noqa: BLE001 - the one place: a workload's failure becomes its record
                end = workload_end(workload.name, running.job.gpu, running.ended, None)
                said = f"its output could not be read: {type(error).__name__}: {error}"
                end = replace(end, outcome=Outcome.CRASHED, detail=clean(f"{said}; {end.detail}"))
            self._journal.append(end, durable=True)
        self._ended.append(workload.name)

    def _conclude_log(self) -> None:
        self._log.drain()
        name = kernel_log.NAME
        path = self._journal.artifact_path("kernel_log.txt")
        path.write_bytes(self._log.text())
        self._bench.artifact(name, path)
        counts = self._log.counts()
        if counts is not None:
            self._journal.append(Measured(utc_now(), name, "xid_events", "count", counts.xids))
            self._journal.append(Measured(utc_now(), name, "sxid_events", "count", counts.sxids))
        outcome = Outcome.COMPLETED if counts is not None else Outcome.UNAVAILABLE
        self._end(name, None, outcome, self._log.unreadable)
        self._ended.append(name)

    def _end(self, workload: str, gpu: int | None, outcome: Outcome, detail: str) -> None:
        self._journal.append(WorkloadEnded(utc_now(), workload, outcome, 0.0, clean(detail), gpu), durable=True)

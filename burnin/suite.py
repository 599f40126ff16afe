"""Runs a suite: telemetry beside it, workloads one after another, every end recorded, whatever becomes of them.

This process loads no vendor library and holds no thread: what can hang or crash does so in a process of its own.
A GPU that must not go on (too hot, an Xid that says so, work that hung on it) gets no more work: what runs on it is
stopped, what would follow is recorded as stopped, and the other GPUs go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from burnin import VERSION, ends, kernel_log, safety, takeover
from burnin.child import RecordSink, workload_end
from burnin.journal import Journal, JournalError, utc_now
from burnin.kernel_log import KernelLog
from burnin.record import End, GpuIdentity, Measured, Outcome, Progress, Start, WorkloadEnded, clean
from burnin.suites import Suite
from burnin.supervise import How, Running, Supervisor
from burnin.workload import Bench, OwnProcess, UnavailableError, Workload

NAME = "suite"  # of what is recorded of the run as a whole
_IDENTITY_S = 60.0  # a driver that loads for the first time takes tens of seconds
_LAST_SNAPSHOT_S = 60.0
_GRACE_S = 2.0  # for the process to learn of an Xid from CUDA, or to report that its work hung
_STEP_S = 1.0  # between two words on what is being waited for


@dataclass(frozen=True)
class Timing:
    """When the load begins, so that the power of many GPUs rises in steps, or all at once.

    `begin_at` is in seconds since the epoch (0, or past: at once); the GPUs of a node begin `gpu_stagger_s` apart.
    """

    begin_at: float = 0.0
    gpu_stagger_s: float = 0.0


@dataclass(frozen=True)
class _Ban:
    """Why a GPU gets no more work; what runs on it is stopped from `since` on (time.monotonic)."""

    why: str
    since: float
    is_safety_stop: bool


def run(
    suite: Suite,
    journal: Journal,
    run_id: str,
    *,
    expected_gpus: int = 0,
    log: Path = Path("/dev/kmsg"),
    environment: Mapping[str, str] | None = None,
    timing: Timing | None = None,
    unproven: bool = False,
    take_over_s: float = 0.0,
) -> None:
    """Execute the suite and write its records, `end` included. Raises JournalError when they cannot be kept.

    `expected_gpus` are planned even if the driver lists fewer: the missing ones are recorded as unavailable.
    `take_over_s`: how old workloads of an attempt that was cut may be that are not run again; 0: all are run again.
    """
    bench = Bench(run_id, suite.name, journal, environment or {}, unproven=unproven)
    earlier = takeover.earlier(journal.folder, suite.name, suite.workloads, expected_gpus, take_over_s)
    _Execution(suite, journal, bench, expected_gpus, log, timing or Timing(), earlier).run()


def _has_completed(running: Running) -> bool:
    said = running.sink.said if isinstance(running.sink, RecordSink) else None
    whole = running.ended is not None and running.ended.how is How.EXITED and running.ended.status == 0
    return whole and said is not None and said.outcome is Outcome.COMPLETED


class _Execution:
    def __init__(
        self, suite: Suite, journal: Journal, bench: Bench, expected_gpus: int, log: Path, timing: Timing,
        earlier: takeover.Earlier | None = None,
    ) -> None:  # fmt: skip
        self._suite = suite
        self._journal = journal
        self._timing = timing
        self._bench = replace(bench, tell=self._hear)
        self._expected_gpus = expected_gpus
        self._log = KernelLog(log, earlier.mark) if earlier is not None else KernelLog(log)
        if earlier is not None and self._log.unreadable:  # what was logged since is lost: everything anew
            self._log.close()
            self._log, earlier = KernelLog(log), None
        self._earlier = earlier
        self._limit = time.monotonic() + suite.deadline_s
        self._started = False
        self._ended: list[str] = []
        self._words: dict[int, list[str]] = {}  # of CUDA, by GPU
        self._bans: dict[int, _Ban] = {}  # by GPU
        self._load: list[Running] = []
        self._supervisor = Supervisor(self._tick)

    def run(self) -> None:
        try:
            self._note_mark()
            watch = self._start_watch()
            taken = self._take_over()
            self._pause(self._timing.begin_at - time.time(), watch, "load begins")
            for workload in self._suite.workloads:
                if self._left() > 0 and workload.name not in taken:
                    self._run(workload, watch)
            watch.close_stdin()
            watch.allow(self._suite.settle_s + _LAST_SNAPSHOT_S)
            self._supervisor.wait([watch])
            self._conclude(self._suite.watch, [watch])
            self._conclude_gpus(watch)
            self._conclude_log()
            self._journal.append(End(utc_now(), self._suite.planned, tuple(self._ended)), durable=True)
        finally:
            self._supervisor.close()
            self._log.close()

    def _note_mark(self) -> None:
        """For an attempt that goes on from this one: where the kernel's log stood when the load began."""
        self._journal.artifact_path(takeover.MARK).write_text(json.dumps(self._log.mark))

    def _take_over(self) -> frozenset[str]:
        """Write what the earlier attempt's whole cells said, as they said it; their names. Not for other GPUs."""
        if self._earlier is None or not takeover.same_gpus(self._earlier.gpus, self._bench.gpus):
            return frozenset()
        for workload in self._suite.workloads:
            cell = self._earlier.cells.get(workload.name, ())
            for item in cell:
                self._journal.append(item, durable=isinstance(item, WorkloadEnded))
                if isinstance(item, WorkloadEnded) and item.gpu is not None and item.outcome is Outcome.COMPLETED:
                    self._words.setdefault(item.gpu, []).append(ends.OK)
            if cell:
                self._ended.append(workload.name)
        return frozenset(self._earlier.cells)

    def _left(self) -> float:
        return self._limit - time.monotonic()

    def _start_watch(self) -> Running:
        """Start telemetry and learn from it which GPUs there are: none, if it does not say in time."""
        since = () if self._earlier is None else ("--earlier", self._earlier.prefix)
        longest = self._suite.deadline_s + _IDENTITY_S + _LAST_SNAPSHOT_S
        watch = replace(
            self._suite.watch, arguments=(*self._suite.watch.arguments, "--settle", str(self._suite.settle_s), *since)
        )
        job, _ = watch.prepare(self._bench, None)
        running = self._supervisor.start(
            replace(job, deadline_s=longest),
            RecordSink(watch.name, None, self._bench.keep, greet=self._greet, tell=self._hear),
        )
        self._supervisor.wait_until(lambda: self._started or running.ended is not None, _IDENTITY_S)
        self._greet(Start(self._bench.run, utc_now(), self._suite.name, VERSION, ()))
        return running

    def _greet(self, found: Start) -> None:
        """Begin the attempt's records, once: with the GPUs that were found first."""
        if not self._started:
            self._started = True
            self._bench = replace(self._bench, gpus=found.gpus)
            start = Start(self._bench.run, utc_now(), self._suite.name, VERSION, found.gpus, takeover.boot_id())
            self._journal.append(start, durable=True)

    def _pause(self, seconds: float, watch: Running, what: str) -> None:
        """Wait, saying so, in time that counts in nobody's deadline."""
        begun = time.monotonic()
        name = self._suite.workloads[0].name if self._suite.workloads else NAME
        while (left := seconds - (time.monotonic() - begun)) > 0:
            self._journal.append(Progress(utc_now(), name, 0.0, f"{what} in {left:.0f} s"))
            self._supervisor.wait_until(lambda: False, min(left, _STEP_S))
        waited = time.monotonic() - begun
        self._limit += waited
        watch.deadline += waited

    def _tick(self) -> None:
        """Look for what forbids a GPU to go on, and stop what runs on it."""
        self._log.drain()
        for xid in self._log.fresh_xids():
            why = safety.why_stop(xid)
            for gpu in self._bench.gpus if why else ():
                if safety.pci_place(gpu.pci) == xid.pci:
                    self._forbid(gpu.index, why, _GRACE_S)
        now = time.monotonic()
        for gpu_index, ban in self._bans.items():
            if now >= ban.since:
                for running in self._load:
                    if running.job.gpu in (None, gpu_index):
                        self._supervisor.stop(running, f"GPU {gpu_index} must not go on: {ban.why}")

    def _hear(self, said: Measured) -> None:
        """Take what a process says to the suite."""
        if said.gpu is None or not isinstance(said.value, str):
            return
        if said.metric == safety.SAFETY_STOP:
            self._forbid(said.gpu, said.value)
        elif said.metric == ends.CUDA_RESULT:
            self._words.setdefault(said.gpu, []).append(said.value)
            if said.value == ends.HUNG:
                self._forbid(said.gpu, "work on it hung", _GRACE_S, is_safety_stop=False)

    def _forbid(self, gpu: int, why: str, grace_s: float = 0.0, *, is_safety_stop: bool = True) -> None:
        """Give the GPU no more work; the first safety reason stands."""
        if gpu not in self._bans or (is_safety_stop and not self._bans[gpu].is_safety_stop):
            self._bans[gpu] = _Ban(why, time.monotonic() + grace_s, is_safety_stop)

    def _run(self, workload: Workload, watch: Running) -> None:
        """One workload on all its GPUs, or once for the node."""
        self._load = []
        for position, gpu in enumerate(self._subjects(workload)):
            if position:
                self._pause(self._timing.gpu_stagger_s, watch, f"{workload.name}: gpu {gpu.index if gpu else 0} begins")
            index = gpu.index if gpu else None
            banned = self._banned(index)
            if banned:
                self._end(workload.name, index, Outcome.STOPPED, banned)
                continue
            try:
                job, sink = workload.prepare(self._bench, gpu)
            except UnavailableError as error:
                self._end(workload.name, index, Outcome.UNAVAILABLE, str(error))
                continue
            job = replace(job, deadline_s=min(job.deadline_s, self._left()))
            self._load.append(self._supervisor.start(job, sink))
        self._supervisor.wait(self._load)
        started, self._load = self._load, []
        self._conclude(workload, started)

    def _banned(self, gpu: int | None) -> str:
        """Why this GPU, or (None) a node with all its GPUs, gets no more work; empty when it does."""
        return "; ".join(f"GPU {i} must not go on: {ban.why}" for i, ban in self._bans.items() if gpu in (None, i))

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
            word = ends.word_of(running.ended) if isinstance(workload, OwnProcess) else None
            if running.job.gpu is not None and word is not None:
                self._hear(Measured(utc_now(), NAME, ends.CUDA_RESULT, "word", word, running.job.gpu))
        self._ended.append(workload.name)

    def _conclude_gpus(self, watch: Running) -> None:
        """Write what the suite alone can say of each GPU: how CUDA fared on it, whether it was stopped."""
        for gpu, words in self._words.items():
            for flag, value in ends.flags(words).items():
                self._journal.append(Measured(utc_now(), NAME, flag, "flag", value, gpu))
        stopped = {gpu: ban.why for gpu, ban in self._bans.items() if ban.is_safety_stop}
        if stopped or _has_completed(watch):  # that nothing was stopped says nothing when nobody looked
            self._journal.append(Measured(utc_now(), NAME, safety.SAFETY_STOP, "word", safety.word(stopped)))

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

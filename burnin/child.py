"""Both ends of the pipe between the suite and a workload's own process: records, one a line.

The process says what it measured; how it ended is decided by the suite, because a process that crashed cannot.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from burnin import record
from burnin.journal import utc_now
from burnin.record import Artifact, Measured, Outcome, Progress, Start, WorkloadEnded
from burnin.supervise import Ended, How

# What a process says to the suite, not to the reader of the records: see ends.py and safety.py.
TO_SUITE = frozenset({"cuda_result", "safety_stop"})

# Of one process: many times what a workload has to say, and all of a node's still fit record.MAX_RECORDS.
_MOST_BYTES = 4 << 20
_MOST_RECORDS = 10_000
_STDOUT = 1
_PROGRESS_S = 0.5  # between two progress records: two hours of them are well under _MOST_RECORDS


@dataclass
class Reporter:
    """The workload's end: says what was measured, on standard output."""

    workload: str
    gpu: int | None = None
    _last_progress: float = field(default=-_PROGRESS_S, init=False, repr=False)

    def measured(
        self, metric: str, unit: str, value: float | str | None, *, gpu: int | None = None, link: int | None = None
    ) -> None:
        """Report a measurement; None is unknown, and what is unknown is not reported."""
        if value is not None:
            self._say(Measured(utc_now(), self.workload, metric, unit, value, self.gpu if gpu is None else gpu, link))

    def progress(self, done: float, text: str) -> None:
        """Report how far we are; `done` in 0..1. To be called often: what comes too close to the last is left out."""
        now = time.monotonic()
        if now - self._last_progress < _PROGRESS_S and done < 1.0:
            return
        self._last_progress = now
        self._say(Progress(utc_now(), self.workload, min(1.0, max(0.0, done)), record.clean(text, 256), self.gpu))

    def artifact(self, path: Path) -> None:
        """Report a file that was written beside the records."""
        self._say(artifact_of(self.workload, path))

    def ended(self, outcome: Outcome, detail: str = "") -> None:
        """Report the end, as far as the workload knows it. The suite fills in the time."""
        self._say(WorkloadEnded(utc_now(), self.workload, outcome, 0.0, record.clean(detail), self.gpu))

    def hello(self, start: Start) -> None:
        """Report the GPUs that were found: the run's first record."""
        self._say(start)

    def _say(self, item: record.Record) -> None:
        data = record.dump(item).encode()
        while data:
            data = data[os.write(_STDOUT, data) :]


def artifact_of(workload: str, path: Path) -> Artifact:
    """The record of a file: name, digest, size. The file is on disk from then on."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
            size += len(block)
        os.fsync(stream.fileno())
    return Artifact(utc_now(), workload, path.name, digest.hexdigest(), size)


@dataclass
class RecordSink:
    """The suite's end: passes on what fits the schema and belongs to the job, and refuses the rest."""

    workload: str
    gpu: int | None
    keep: Callable[[record.Record], None]
    greet: Callable[[Start], None] | None = None  # takes the GPUs that were found; None: it is not asked for them
    tell: Callable[[Measured], None] | None = None  # takes what is TO_SUITE; None: it is kept like the rest
    said: WorkloadEnded | None = None
    _line: bytes = b""
    _bytes: int = 0
    _records: int = 0

    def write(self, data: bytes) -> str:
        """Take output of the process. Returns why it must be stopped, or the empty string."""
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            return f"wrote more than {_MOST_BYTES >> 20} MiB of records"
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > record.MAX_LINE_BYTES:
            return f"wrote a line of more than {record.MAX_LINE_BYTES} bytes"
        try:
            for item in record.load(line.decode("ascii", "replace") for line in lines):
                self._records += 1
                if self._records > _MOST_RECORDS:
                    return f"wrote more than {_MOST_RECORDS} records"
                self._take(item)
        except record.RecordError as error:
            return f"wrote what is not a record: {error}"
        return ""

    def _take(self, item: record.Record) -> None:
        if isinstance(item, Start) and self.greet is not None:
            self.greet(item)
            return
        if isinstance(item, Start | record.End) or item.workload != self.workload:
            raise record.RecordError(f"a record of {self.workload} was expected")
        if self.gpu is not None and not isinstance(item, Artifact) and item.gpu != self.gpu:
            raise record.RecordError(f"a record of gpu {self.gpu} was expected")
        if isinstance(item, WorkloadEnded):
            self.said = item
        elif isinstance(item, Measured) and item.metric in TO_SUITE and self.tell is not None:
            self.tell(item)
        else:
            self.keep(item)


def workload_end(workload: str, gpu: int | None, ended: Ended, said: WorkloadEnded | None) -> WorkloadEnded:
    """The record of a workload's end, from how its process ended and what it said last."""
    outcome, detail = _outcome(ended, said)
    if ended.stuck:
        detail = f"{detail}; processes {list(ended.stuck)} did not die of SIGKILL"
    return WorkloadEnded(utc_now(), workload, outcome, round(ended.seconds, 3), record.clean(detail), gpu)


def _outcome(ended: Ended, said: WorkloadEnded | None) -> tuple[Outcome, str]:
    last_words = f": {ended.stderr.strip()[-600:]}" if ended.stderr.strip() else ""
    if ended.how is How.NOT_STARTED:
        return Outcome.UNAVAILABLE, f"cannot be started: {ended.reason}"
    if ended.how in (How.DEADLINE, How.SILENT):
        return Outcome.TIMED_OUT, ended.reason
    if ended.how is How.STOPPED:
        return Outcome.STOPPED, ended.reason
    if ended.how is How.REFUSED:
        return Outcome.CRASHED, f"stopped: {ended.reason}"
    if ended.how is How.SIGNALLED:
        return Outcome.CRASHED, f"{ended.reason or 'killed by ' + signal_name(ended.status)}{last_words}"
    if said is not None and (ended.status == 0 or said.outcome is not Outcome.COMPLETED):
        return said.outcome, said.detail
    if ended.status == 0:
        return Outcome.CRASHED, "ended without saying how"
    return Outcome.CRASHED, f"exit status {ended.status}{last_words}"


def signal_name(number: int) -> str:
    """SIGSEGV for 11; the number for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""all_reduce_perf of nccl-tests over all GPUs of one node, with data checking: bandwidth, correctness, transport.

Started in a clean, recorded environment. nccl-tests' exit status lies in both directions (an unknown option exits
with 0), so nothing is read from it but that the program ended; numbers come from a complete table alone.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from burnin.child import workload_end
from burnin.journal import utc_now
from burnin.nccl import parse
from burnin.record import GpuIdentity, Measured, Outcome, WorkloadEnded, clean
from burnin.supervise import Ended, How, Job, Sink
from burnin.workload import Bench, UnavailableError

_PROGRAM = "all_reduce_perf"
# Where packages and the usual builds put it, after PATH.
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/libexec/nccl-tests", "/opt/nccl-tests/build", "/opt/nccl_tests/build")
_KEPT_OUTPUT = 4 << 20
_KEPT_DEBUG = 8 << 20
MIB = 1 << 20


@dataclass
class OutputSink:
    """Keeps a foreign program's output, bounded."""

    data: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> str:
        """Take output. Returns why the program must be stopped, or the empty string."""
        self.data += data[: _KEPT_OUTPUT - len(self.data)]
        return f"wrote more than {_KEPT_OUTPUT >> 20} MiB" if len(self.data) >= _KEPT_OUTPUT else ""


@dataclass(frozen=True)
class AllReduce:
    """The collective, from `smallest` to `largest` bytes, doubling."""

    deadline_s: float
    smallest: int = 8 * MIB
    largest: int = 8192 * MIB
    iterations: int = 20
    name: str = "nccl_all_reduce"
    per_gpu: bool = False

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        """See Workload."""
        if not bench.gpus:
            raise UnavailableError("no GPU was found")
        program = _find(bench.environment().get("PATH", ""))
        argv = (
            program, "-b", str(self.smallest), "-e", str(self.largest), "-f", "2",
            "-g", str(len(bench.gpus)), "-n", str(self.iterations), "-c", "1",
        )  # fmt: skip
        env = {
            **bench.environment(),
            "NCCL_DEBUG": "INFO",
            "NCCL_DEBUG_SUBSYS": "INIT,ENV,P2P,SHM,NET,NVLS",
            "NCCL_DEBUG_FILE": str(self._debug(bench)),
        }
        return Job(self.name, argv, env, self.deadline_s), OutputSink()

    def conclude(self, bench: Bench, job: Job, sink: Sink, ended: Ended) -> WorkloadEnded:
        """See Workload."""
        output = bytes(sink.data) if isinstance(sink, OutputSink) else b""
        self._keep(bench, "txt", output)
        self._keep(bench, "stderr.txt", ended.stderr.encode())
        self._keep(bench, "command.json", json.dumps({"argv": job.argv, "env": dict(job.env)}, indent=1).encode())
        self._read_debug(bench)
        text = output.decode("utf-8", "replace")
        table = parse.table(text)
        complete = table.complete(self.smallest, self.largest)
        self._read_table(bench, table, complete)
        end = workload_end(self.name, None, ended, None)
        if ended.how is not How.EXITED:
            return end
        # wrong values make it exit with 7 (6 or 1 in older versions): a test that came to its end all the same
        if complete and (ended.status == 0 or table.wrong_values()):
            return replace(end, outcome=Outcome.COMPLETED, detail="")
        last = (
            f"exit status {ended.status}, table {'complete' if complete else 'incomplete'}: {_last_line(text, ended)}"
        )
        return replace(end, outcome=Outcome.CRASHED, detail=clean(last))

    def _keep(self, bench: Bench, suffix: str, content: bytes) -> None:
        if content:
            path = bench.journal.artifact_path(f"{_PROGRAM}.{suffix}")
            path.write_bytes(content)
            bench.artifact(self.name, path)

    def _read_debug(self, bench: Bench) -> None:
        debug = self._debug(bench)
        if not debug.exists():
            return
        if debug.stat().st_size > _KEPT_DEBUG:
            os.truncate(debug, _KEPT_DEBUG)
        bench.artifact(self.name, debug)
        with debug.open(errors="replace") as lines:
            self._measure(bench, "nccl_transport", "word", parse.transport(lines))

    def _read_table(self, bench: Bench, table: parse.Table, complete: bool) -> None:
        self._measure(bench, "nccl_ranks", "count", table.ranks)
        if table.rows:
            self._measure(bench, "nccl_largest_bytes", "bytes", max(row.size for row in table.rows))
        if complete:
            self._measure(bench, "nccl_busbw_gb_per_s", "GB/s", table.least_busbw())
        # wrong data is wrong however the program went on; that there was none needs the whole table
        wrong = table.wrong_values()
        if complete or wrong:
            self._measure(bench, "nccl_wrong_values", "count", wrong)

    def _debug(self, bench: Bench) -> Path:
        return bench.journal.artifact_path("nccl_debug.txt")

    def _measure(self, bench: Bench, metric: str, unit: str, value: float | str | None) -> None:
        if value is not None:
            bench.keep(Measured(utc_now(), self.name, metric, unit, value))


def _find(path: str) -> str:
    found = shutil.which(_PROGRAM, path=":".join((path, *_FOLDERS)))
    if found is None:
        raise UnavailableError(f"{_PROGRAM} of nccl-tests is neither on PATH nor in {', '.join(_FOLDERS)}")
    return found


def _last_line(text: str, ended: Ended) -> str:
    lines = [line for line in (*text.splitlines(), *ended.stderr.splitlines()) if line.strip()]
    return lines[-1].strip() if lines else "no output"

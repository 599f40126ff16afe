"""A collective of nccl-tests over all GPUs of one node, with data checking: bandwidth, correctness, and the way taken.

Started in a clean, recorded environment. nccl-tests' exit status lies in both directions (an unknown option exits
with 0), so nothing is read from it but that the program ended; numbers come from a complete table alone. What its
bytes were carried by is left for the controller to prove: NCCL's own log, and the byte counters of before and after.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from burnin.child import workload_end
from burnin.journal import utc_now
from burnin.nccl import counted, parse
from burnin.record import GpuIdentity, Measured, Outcome, WorkloadEnded, clean
from burnin.supervise import Ended, How, Job, Sink
from burnin.workload import Bench, UnavailableError

# Where packages and the usual builds put it, after PATH.
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/libexec/nccl-tests", "/opt/nccl-tests/build", "/opt/nccl_tests/build")
_KEPT_OUTPUT = 4 << 20
_KEPT_DEBUG = 8 << 20
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
# INIT: channels and NVLS; GRAPH: rings and trees; NET: the HCAs; ENV: what NCCL took from its environment and files
DEBUG_SUBSYSTEMS = "INIT,GRAPH,NET,NVLS,ENV"


class Kind(Enum):
    """What is run. The value is the program's name without `_perf`."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALLTOALL = "alltoall"
    SENDRECV = "sendrecv"

    @property
    def program(self) -> str:
        """The program's name."""
        return f"{self.value}_perf"

    @property
    def checks_in_place(self) -> bool:
        """Whether the half that runs in place can be checked (alltoall.cu, sendrecv.cu: it cannot, and prints N/A)."""
        return self not in (Kind.ALLTOALL, Kind.SENDRECV)

    @property
    def metric(self) -> str:
        """What its metrics' names begin with; the first and most quoted collective has the short one."""
        return "nccl" if self is Kind.ALL_REDUCE else f"nccl_{self.value}"


@dataclass
class OutputSink:
    """Keeps a foreign program's output, bounded."""

    data: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> str:
        """Take output. Returns why the program must be stopped, or the empty string."""
        self.data += data[: _KEPT_OUTPUT - len(self.data)]
        return f"wrote more than {_KEPT_OUTPUT >> 20} MiB" if len(self.data) >= _KEPT_OUTPUT else ""


@dataclass(frozen=True)
class Collective:
    """The collective, from `smallest` to `largest` bytes, doubling.

    `deadline_s` is of all of it: nccl-tests' own limit (-T) knows nothing of a hang while the ranks find one another.
    """

    kind: Kind
    deadline_s: float
    smallest: int = MIB
    largest: int = 8 * GIB
    iterations: int = 20
    per_gpu: bool = False

    @property
    def name(self) -> str:
        """See Workload."""
        return f"nccl_{self.kind.value}"

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        """See Workload."""
        if not bench.gpus:
            raise UnavailableError("no GPU was found")
        env = {
            **bench.environment(),
            "NCCL_DEBUG": "INFO",
            "NCCL_DEBUG_SUBSYS": DEBUG_SUBSYSTEMS,
            "NCCL_DEBUG_FILE": str(self._debug(bench)),
        }
        argv = counted.command(self._counters(bench), self._program(bench))
        return Job(self.name, argv, env, self.deadline_s), OutputSink()

    def conclude(self, bench: Bench, job: Job, sink: Sink, ended: Ended) -> WorkloadEnded:
        """See Workload."""
        output = bytes(sink.data) if isinstance(sink, OutputSink) else b""
        told = {"argv": counted.program_of(job.argv), "env": dict(job.env), "gpus": len(bench.gpus)}
        self._keep(bench, "txt", output)
        self._keep(bench, "stderr.txt", ended.stderr.encode())
        self._keep(bench, "command.json", json.dumps(told, indent=1).encode())
        if self._counters(bench).exists():
            bench.artifact(self.name, self._counters(bench))
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

    def _program(self, bench: Bench) -> tuple[str, ...]:
        return (
            _find(self.kind.program, bench.environment().get("PATH", "")),
            "-b", str(self.smallest), "-e", str(self.largest), "-f", "2",
            "-g", str(len(bench.gpus)), "-n", str(self.iterations), "-c", "1",
        )  # fmt: skip

    def _keep(self, bench: Bench, suffix: str, content: bytes) -> None:
        if content:
            path = bench.journal.artifact_path(f"{self.kind.program}.{suffix}")
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
            self._measure(bench, "transport", "word", parse.transport(lines))

    def _read_table(self, bench: Bench, table: parse.Table, complete: bool) -> None:
        self._measure(bench, "ranks", "count", table.ranks)
        if table.rows:
            self._measure(bench, "largest_bytes", "bytes", max(row.size for row in table.rows))
        busbw = table.busbw() if complete else None
        if busbw is not None:
            self._measure(bench, "busbw_gb_per_s", "GB/s", busbw[0])
            self._measure(bench, "busbw_p50_gb_per_s", "GB/s", busbw[1])
        # wrong data is wrong however the program went on; that there was none needs the whole table
        wrong = table.wrong_values(self.kind.checks_in_place)
        if complete or wrong:
            self._measure(bench, "wrong_values", "count", wrong)

    def _debug(self, bench: Bench) -> Path:
        return bench.journal.artifact_path(f"{self.kind.program}.nccl.txt")

    def _counters(self, bench: Bench) -> Path:
        return bench.journal.artifact_path(f"{self.kind.program}.counters.json")

    def _measure(self, bench: Bench, what: str, unit: str, value: float | str | None) -> None:
        if value is not None:
            bench.keep(Measured(utc_now(), self.name, f"{self.kind.metric}_{what}", unit, value))


def collectives(
    deadline_s: float, *, kinds: tuple[Kind, ...] = tuple(Kind), largest: int = 8 * GIB, iterations: int = 20
) -> tuple[Collective, ...]:
    """One workload for each kind, from sizes that latency rules (where protocols LL and LL128 are) to the plateau.

    all_reduce begins at 8 bytes; the others, whose data is cut into one share for each rank, where a share is 1 KiB.
    """
    return tuple(
        Collective(kind, deadline_s, 8 if kind is Kind.ALL_REDUCE else 128 * KIB, largest, iterations) for kind in kinds
    )


def _find(program: str, path: str) -> str:
    found = shutil.which(program, path=":".join((path, *_FOLDERS)))
    if found is None:
        raise UnavailableError(f"{program} of nccl-tests is neither on PATH nor in {', '.join(_FOLDERS)}")
    return found


def _last_line(text: str, ended: Ended) -> str:
    lines = [line for line in (*text.splitlines(), *ended.stderr.splitlines()) if line.strip()]
    return lines[-1].strip() if lines else "no output"

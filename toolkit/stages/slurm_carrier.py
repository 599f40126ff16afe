"""Burn-in on a live Slurm cluster, without SSH: a job for each node. Implements `runners.carrier.Carrier`.

What we know of a run is its job's name and its folder on shared storage: a controller that was killed finds both.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.pool.slurm import SlurmPool
from toolkit.pool.slurm_text import SlurmJob, shown
from toolkit.rack.model import Unit
from toolkit.runners.carrier import RECORDS, Task
from toolkit.runners.job_output import ForgedError, Output
from toolkit.stages import sbatch_command
from toolkit.stages.sbatch_command import CLAIM, PROGRAM, carrier_of, folder_of, job_name

SHIPPING_SECONDS = 60.0
START_SECONDS = 900.0  # how long a job may wait for its turn
OUTAGE_SECONDS = 300.0  # how long slurmctld may be away, as when it is upgraded
END_SECONDS = 60.0  # from the job's end to its last line: NFS clients see a file's growth late (acregmax, nfs(5))
_CHUNK_BYTES = 4 << 20
_MAX_LOG_BYTES = 256 << 20
_SHORT = 64


@dataclass(slots=True)
class _Run:
    """A run as far as it was followed. One thread at a time uses it."""

    node: Unit
    identity: str
    began: float
    heard: float
    taken_back: bool = False
    job: str = ""
    position: int = 0
    output: Output | None = None
    met: bool = False
    refused: ForgedError | None = None


class SbatchCarrier:
    """Slurm jobs of one rack, in its maintenance reservation."""

    name = "Slurm"
    poll_s = 2.0
    shipping_s = SHIPPING_SECONDS

    def __init__(
        self,
        pool: SlurmPool,
        rack: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        start_s: float = START_SECONDS,
    ) -> None:
        if not pool.site.shared:
            raise UsageError(
                "burn-ins as Slurm jobs need shared storage", "give `shared` under `slurm`: a folder on it"
            )
        self._pool = pool
        self._rack = rack
        self._shared = Path(pool.site.shared)
        self._clock = clock
        self._sleep = sleep
        self._start_s = start_s
        self._lock = threading.Lock()
        self._digest = ""
        self._runs: dict[str, _Run] = {}

    def ship(self, node: Unit, archive: Path, digest: str) -> None:
        """The program onto shared storage, once for all nodes; each job checks its sha256 before it runs it."""
        with self._lock:
            target = sbatch_command.program_path(self._shared, digest)
            try:
                if not target.exists():
                    write_whole(target, archive.read_bytes(), 0o644)
            except OSError as exc:
                raise self._away(target, exc) from exc
            self._digest = digest

    def start(self, node: Unit, task: Task) -> None:
        """Submits the job, unless there is one of this run already; the node is lent to it."""
        if not self._digest:
            raise RackproofError(f"burn-in of {node.name} was started before its program was shipped")
        if self._job(node, task.identity) is not None or self._note(task.identity, CLAIM):
            return
        folder = folder_of(self._shared, task.identity)
        try:
            write_whole(folder / PROGRAM, self._digest.encode())
        except OSError as exc:
            raise self._away(folder, exc) from exc
        reservation = self._pool.lend(self._rack, node.name)
        argv = sbatch_command.sbatch(self._pool.site, node.name, task, reservation)
        script = sbatch_command.script(self._pool.site, node.name, task, self._digest)
        try:
            self._pool.commands.ask("sbatch", *argv, stdin=script)
        except UndecidedError:
            if self._job(node, task.identity) is None:
                self._pool.take_back(node.name)
            raise

    def is_active(self, node: Unit, identity: str) -> bool:
        """Whether the job waits or runs. The node is lent while it waits, and drained again once it runs."""
        run = self._run(node, identity)
        try:
            job = self._job(node, identity)
            if job is None:
                return False
            if job.state == "PENDING":
                self._await_turn(run, job)
            elif not run.taken_back:
                self._pool.take_back(node.name)
                run.taken_back = True
        except UnreachableError:
            if self._clock() - run.heard > OUTAGE_SECONDS:
                raise
            return True
        run.heard = self._clock()
        return True

    def waits_for(self, node: Unit, identity: str) -> str:
        """Its turn, while the job is pending."""
        try:
            job = self._job(node, identity)
        except UnreachableError:
            return ""  # `is_active` says how long that may go on
        return f"pending: {job}" if job is not None and job.state == "PENDING" else ""

    def others(self, node: Unit, identity: str) -> tuple[str, ...]:
        """Other burn-ins' jobs of that node."""
        jobs = self._pool.commands.jobs()
        mine = job_name(node.name, identity)
        return tuple(
            f"Slurm job {j.identity}" for j in jobs if sbatch_command.is_of(j.name, node.name) and j.name != mine
        )

    def read(self, node: Unit, identity: str, name: str, offset: int, max_bytes: int) -> bytes:
        """Out of the job's output, as far as it has come."""
        run = self._run(node, identity)
        if name == RECORDS:
            if run.output is None or offset >= len(run.output.records):
                self._follow(run)
            return bytes(run.output.records[offset : offset + max_bytes]) if run.output is not None else b""
        self._await_end(run)
        content = run.output.artifacts.get(name) if run.output is not None else None
        if content is None:
            left = run.output.end["left_out"] if run.output is not None and run.output.end is not None else {}
            raise FileNotFoundError(f"{name}: {left.get(name, 'not in the output')}")
        return bytes(content[offset : offset + max_bytes])

    def stop(self, node: Unit, identity: str) -> None:
        """Cancels the job until Slurm has it no more, and takes the node back."""
        left = self._pool.cancel(job_name(node.name, identity))
        self._pool.give_back(self._rack, node.name)
        if left:
            raise UndecidedError(f"burn-in {identity} on {node.name} was cancelled: {left}", f"look at {node.name}")

    def doubt(self, node: Unit, identity: str) -> str:
        """Missing lines, a missing end, a program that failed; what it said on its own."""
        run = self._run(node, identity)
        self._await_end(run)
        said = run.output.doubt() if run.output is not None else "its job never began to write"
        words = run.output.words[-1] if run.output is not None and run.output.words else ""
        return f"{said}; it said: {shown(words)}" if said and words else said

    def forget(self, node: Unit, identity: str) -> None:
        """Removes the run's folder, and gives the node back, drained. What could not be done waits for the next run."""
        shutil.rmtree(folder_of(self._shared, identity), ignore_errors=True)
        with self._lock:
            self._runs.pop(identity, None)
        try:
            self._pool.give_back(self._rack, node.name)
        except UndecidedError:
            return

    def where(self, node: Unit, identity: str) -> str:
        """The job's output."""
        return f"{folder_of(self._shared, identity)} (Slurm job {job_name(node.name, identity)})"

    def _run(self, node: Unit, identity: str) -> _Run:
        with self._lock:
            if identity not in self._runs:
                now = self._clock()
                self._runs[identity] = _Run(node, identity, now, now)
            return self._runs[identity]

    def _job(self, node: Unit, identity: str) -> SlurmJob | None:
        """The run's job, while Slurm has it waiting or running."""
        return next(iter(self._pool.commands.jobs(f"--name={job_name(node.name, identity)}")), None)

    def _await_turn(self, run: _Run, job: SlurmJob) -> None:
        """Sees that the job can begin; UndecidedError once it has waited for too long."""
        waited = self._clock() - run.began
        if waited < self._start_s:
            self._pool.lend(self._rack, run.node.name)
            return
        busy = self._pool.commands.jobs(f"--nodelist={run.node.name}")
        why = "; ".join(str(other) for other in busy[:4]) or f"Slurm keeps {job} waiting"
        self.stop(run.node, run.identity)
        raise UndecidedError(
            f"burn-in of {run.node.name} did not begin within {waited:.0f} s: {why}",
            "when that is over: the same command again",
        )

    # --- what it wrote -------------------------------------------------------------------------------------------

    def _note(self, identity: str, name: str) -> str:
        """A word in the run's folder, such as the number of the job that has the run; empty while it is not there."""
        try:
            with (folder_of(self._shared, identity) / name).open("rb") as note:
                word = note.read(_SHORT).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise self._away(folder_of(self._shared, identity), exc) from exc
        return word if word.isalnum() else ""

    def _follow(self, run: _Run) -> None:
        """Takes what the output has more. ForgedError, now and for ever, for one that cannot be trusted."""
        if run.refused is not None:
            raise run.refused
        if run.output is None:
            run.job = self._note(run.identity, CLAIM)
            if not run.job:
                return
            run.output = Output(run.identity, carrier_of(run.job), self._note(run.identity, PROGRAM))
        try:
            while self._feed(run, run.output):
                pass
            self._meet(run, run.output)
        except ForgedError as forged:
            run.refused = forged
            raise

    def _feed(self, run: _Run, output: Output) -> bool:
        """One piece of the output, whole lines only; whether there may be more."""
        path = folder_of(self._shared, run.identity) / f"{run.job}.log"
        try:
            with path.open("rb") as log:
                log.seek(run.position)
                piece = log.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self._away(path, exc) from exc
        whole = piece[: piece.rfind(b"\n") + 1]
        if run.position + len(whole) > _MAX_LOG_BYTES or (not whole and len(piece) == _CHUNK_BYTES):
            raise ForgedError(f"{path} is no output of a burn-in: it is too long, or has no lines", "look at it")
        output.feed(whole)
        run.position += len(whole)
        return len(piece) == _CHUNK_BYTES

    def _meet(self, run: _Run, output: Output) -> None:
        """Holds the first line against the rack file: which machine was this?"""
        if run.met or output.hello is None:
            return
        told = ((output.hello["node"], run.node.name, "node"), (output.hello["serial"], run.node.serial, "serial"))
        for said, wanted, what in told:
            if said and wanted and said != wanted:
                raise ForgedError(
                    f"burn-in {run.identity}: its job ran on a machine of {what} {shown(said)}; {run.node.name} has "
                    f"{wanted}",
                    "what it measured is another machine's, and is not used",
                )
        run.met = True

    def _await_end(self, run: _Run) -> None:
        """Reads until the last line has come, or none will."""
        gone: float | None = None
        while True:
            active = self.is_active(run.node, run.identity)  # before the file: what it wrote until then is there
            self._follow(run)
            if run.output is not None and run.output.end is not None:
                return
            if not active:
                gone = self._clock() if gone is None else gone
                if self._clock() - gone >= (END_SECONDS if run.output is not None else 0.0):
                    return
            self._sleep(self.poll_s)

    def _away(self, path: Path, exc: OSError) -> UnreachableError:
        return UnreachableError(f"{path}: {exc.strerror}", "see that the shared storage is mounted, and has room")

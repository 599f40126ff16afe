"""Tests all free memory of one GPU: steps of patterns, chained so that each pass checks one and writes the next.

The first round of steps is done whatever the time; rounds go on while there is some. Coverage is what each required
step really verified. A GPU that stops working is found by its deadline: it is reported as `hung`, with all that was
measured before.
"""

from __future__ import annotations

import os
import time
from ctypes import c_uint32, c_uint64, c_void_p
from pathlib import Path

from burnin.child import Reporter
from burnin.device.cuda import Cuda, CudaError, CudaHungError, CudaUnavailableError
from burnin.device.kernels import Kernels
from burnin.hbm import patterns, tally
from burnin.hbm.memory import take_memory
from burnin.hbm.patterns import TILE_BYTES, Step, Then
from burnin.hbm.sweeper import Sweep, Sweeper
from burnin.hbm.tally import Row, Tally
from burnin.record import Outcome

NAME = "hbm"
_ENOUGH_MISCOMPARES = 1_000_000  # more tell nothing new
_PROGRESS_S = 0.9
_LOADING_S = 60.0  # the driver loads a kernel when it is first started
_WINDOW_S = 0.15


class NoMemoryError(Exception):
    """Nothing could be allocated."""


class Sweeps:
    """One GPU's rounds. After `run`, however it ended, `tally` and `sweeper.findings` say what was done and found."""

    def __init__(self, cuda: Cuda, kernels: Kernels, report: Reporter, *, seed: str, retention_s: float = 0.0) -> None:
        """Takes the memory. Raises NoMemoryError, CudaError."""
        free, total = cuda.memory()
        self.chunks = take_memory(cuda, free)
        if not self.chunks:
            raise NoMemoryError(f"no memory could be taken: {free} of {total} bytes are free")
        self.sweeper = Sweeper(cuda, kernels, self.chunks, serve=self._serve)
        self.tally = Tally(free, total, self.sweeper.peak)
        self._report = report
        self._seed = seed
        self._retention_s = retention_s
        self._down = True  # each sweep goes the other way than the last; the first goes up
        self._held: int | None = None  # the step whose pattern is in memory
        self._said, self._done, self._doing = 0.0, 0.0, ""

    def run(self, seconds: float, rounds: int = 1, *, thorough: bool = False) -> str:
        """Do the first round, then others while `seconds` are left: `rounds` are planned, more are welcome.

        Returns what was left out of the plan, or the empty string. Raises CudaError, CudaHungError.
        """
        begun, number = time.monotonic(), 0
        limit = begun + seconds
        while number == 0 or time.monotonic() < limit:
            steps = tuple(patterns.steps(self._seed, number, rest=self._retention_s > 0, thorough=thorough))
            if number == 0:
                self.tally.planned = len(steps)
            if not self._round(steps, number, begun, limit):
                break
            number += 1
            if self.sweeper.findings.words >= _ENOUGH_MISCOMPARES:
                return f"stopped after {number} of {rounds} rounds and {self.sweeper.findings.words} miscompares"
        return f"{rounds - number} of {rounds} rounds left out: {seconds:.0f} s were given" if number < rounds else ""

    def _round(self, steps: tuple[Step, ...], number: int, begun: float, limit: float) -> bool:
        """One round; True when all of it was done. What was written last is verified in any case."""
        longest, whole = 0.0, True
        for position, step in enumerate(steps):
            now, extra = time.monotonic(), self._extra_s(step)
            if number and now + longest + extra > limit:
                whole = False
                break
            in_round, in_time = position / len(steps), (now - begun) / max(limit - begun, 1e-3)
            self._done = min(in_round, in_time) if number == 0 else in_time
            self._doing = f"round {number + 1}: {step}"
            self._step(step, required=number == 0)
            longest = max(longest, time.monotonic() - now - extra)
        self._verify()
        return whole

    def _extra_s(self, step: Step) -> float:
        """How long a step takes beyond its sweep."""
        if step.then is Then.REST:
            return self._retention_s
        return _WINDOW_S * self.sweeper.windows() if step.then is Then.ACTIVATE else 0.0

    def _step(self, step: Step, *, required: bool) -> None:
        number = self.tally.plan(step, required)
        action = "write" if self._held is None else "sweep"
        held, self._down = self._held, not self._down
        self._note(action, held, number, self.sweeper.write(step.pattern, number, down=self._down))
        self._held = number
        if step.then is Then.MOVE:
            self._note("move", None, None, self.sweeper.move(down=self._down))
        elif step.then is Then.REST:
            self._note("rest", None, None, self.sweeper.rest(self._retention_s))
        elif step.then is Then.ACTIVATE:
            self._note("activate", None, None, self.sweeper.activate())

    def _verify(self) -> None:
        self._down = not self._down
        self._note("verify", self._held, None, self.sweeper.verify(down=self._down))

    def _note(self, action: str, checked: int | None, written: int | None, sweep: Sweep) -> None:
        """Note a pass that is done."""
        self.tally.add(Row(action, checked, written, self._down, sweep, self.sweeper.findings.words))

    def _serve(self) -> None:
        """Say where we are, about once a second."""
        now = time.monotonic()
        if now - self._said >= _PROGRESS_S:
            self._said = now
            self._report.progress(self._done, self._doing)


def run(
    report: Reporter,
    pci: str,
    *,
    seed: str,
    seconds: float,
    rounds: int,
    retention_s: float,
    thorough: bool,
    folder: Path,
    prefix: str,
) -> int:
    """The process of one GPU: records on standard output, files in `folder`. Does not return when the GPU hangs."""
    try:
        cuda = Cuda()
        with cuda.gpu(pci):
            kernels = Kernels(cuda)
            _load(cuda, kernels)
            sweeps = Sweeps(cuda, kernels, report, seed=seed, retention_s=retention_s)
            return _run(sweeps, report, seconds, rounds, thorough, folder / f"{prefix}hbm")
    except (CudaUnavailableError, NoMemoryError) as error:
        report.ended(Outcome.UNAVAILABLE, str(error))
    except CudaError as error:
        report.measured("cuda_result", "word", error.word)
        report.ended(Outcome.UNAVAILABLE if error.unavailable else Outcome.CRASHED, str(error))
    except CudaHungError as error:
        _leave(report, error)
    return 0


def _load(cuda: Cuda, kernels: Kernels) -> None:
    """Start a kernel once on a little memory: what the driver takes for itself is taken before we ask what is free."""
    address, done = cuda.allocate(2 * TILE_BYTES), cuda.event()
    other = c_void_p(address + TILE_BYTES)
    kernels.launch("hbm_move", 1, c_void_p(address), other, c_uint64(1), c_uint32(0))
    cuda.record(done)
    cuda.await_event(done, _LOADING_S)
    cuda.free(address)


def _run(sweeps: Sweeps, report: Reporter, seconds: float, rounds: int, thorough: bool, path: Path) -> int:
    failure: CudaError | CudaHungError | None = None
    left_out = ""
    try:
        left_out = sweeps.run(seconds, rounds, thorough=thorough)
    except (CudaError, CudaHungError) as error:
        failure = error
    _say(sweeps, report, path)
    if isinstance(failure, CudaHungError):
        _leave(report, failure)
    report.measured("cuda_result", "word", failure.word if failure else "ok")
    report.ended(Outcome.CRASHED if failure else Outcome.COMPLETED, str(failure) if failure else left_out)
    return 0


def _say(sweeps: Sweeps, report: Reporter, path: Path) -> None:
    done, found = sweeps.tally, sweeps.sweeper.findings
    tally.say(report, done)
    tally.say_miscompares(
        report, done, found.words, found.transient, found.miscompares(),
        path.with_name(f"{path.name}_miscompares_gpu{report.gpu}.json"),
    )  # fmt: skip
    tally.write_steps(report, done, path.with_name(f"{path.name}_steps_gpu{report.gpu}.json"))


def _leave(report: Reporter, error: CudaHungError) -> None:
    """Say that the GPU hangs, and be gone: leaving in order would wait for it."""
    report.measured("cuda_result", "word", error.word)
    report.ended(Outcome.TIMED_OUT, str(error))
    os._exit(1)

"""Memory and tensor cores of one GPU in turn, a fifth of a second each: steps in power that neither alone makes.

    memory burst: sweeps over all free memory, each checks what the last one wrote and writes new random data
    product burst: exact products on the hottest unit, every tile checked
    ... until the time is up; then hot retention: products go on while nobody touches the memory, then all is checked,
    for data and for its complement

With several cycles the GPU cools down in between and takes up its load cold: that is what moves solder joints. One
context, one process; what is wrong in the memory and in the products is counted apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

from burnin.child import Reporter
from burnin.device.cuda import Cuda, CudaError, CudaHungError, CudaUnavailableError
from burnin.device.kernels import Kernels
from burnin.gemm.products import Gemm
from burnin.gemm.units import Unit
from burnin.hbm.memory import take_memory
from burnin.hbm.patterns import Kind, Pattern
from burnin.hbm.sweeper import Sweep, Sweeper
from burnin.record import Outcome

NAME = "together"
_BURST_S = 0.2
_MOST_GROWTH = 4.0  # from one burst to the next
_ENOUGH_MISCOMPARES = 1_000_000  # more tell nothing new
_STEP_S = 0.5  # of waiting, between two words


@dataclass
class Tally:
    """What was done: seconds under load (cool-downs apart), bytes verified, bursts of each kind with their length."""

    unit: str = ""
    load_s: float = 0.0
    cycles: int = 0
    bytes_verified: int = 0
    miscompares: int = 0
    tiles: int = 0
    wrong_tiles: int = 0
    wrong_tiles_by_sm: dict[int, int] = field(default_factory=dict)
    sweeps: int = 0
    memory_ms: list[float] = field(default_factory=list)
    product_ms: list[float] = field(default_factory=list)


class Together:
    """The load on one GPU. `tally` says what was done, however it ended. All may raise CudaError and CudaHungError."""

    def __init__(self, cuda: Cuda, report: Reporter, seed: str) -> None:
        """Take a little memory for the products, and nearly all that is left for the sweeps."""
        self.tally = Tally()
        self._report = report
        self._seed = seed
        self._iterations = 1  # of a burst of products
        self._done, self._doing = 0.0, "starting"
        kernels = Kernels(cuda)
        self._gemm = Gemm(cuda, kernels, seed, self._serve)
        free, _ = cuda.memory()
        self.sweeper = Sweeper(cuda, kernels, take_memory(cuda, free), serve=self._serve)
        self._unit: Unit | None = self._gemm.units[0] if self._gemm.units else None

    def run(self, seconds: float, *, retention_s: float, cycles: int, rest_s: float) -> str:
        """`seconds` of load in `cycles` parts with `rest_s` of cool-down between. Returns why it ended early, if so."""
        if self._unit is None or not self.sweeper.bytes:
            return "nothing to load: no unit of this GPU has a kernel, or no memory is free"
        self.tally.unit = self._unit.name
        self._doing = "making products"
        self._gemm.prepare(self._unit)
        self._iterations = max(1, round(_BURST_S / self._gemm.iteration_s))
        for cycle in range(cycles):
            if cycle:
                self._rest(rest_s)
            self._cycle(self._unit, cycle, cycles, seconds / cycles, retention_s)
            if self.sweeper.findings.words >= _ENOUGH_MISCOMPARES:
                return f"stopped after {self.sweeper.findings.words} miscompares"
        return ""

    def _cycle(self, unit: Unit, cycle: int, cycles: int, seconds: float, retention_s: float) -> None:
        begun = time.monotonic()
        limit = begun + seconds - 2 * retention_s
        self._memory_burst()
        while True:
            self._done = (cycle + min(1.0, (time.monotonic() - begun) / max(seconds, 1.0))) / cycles
            self._doing = f"cycle {cycle + 1} of {cycles}: bursts of memory and {unit.name}"
            self._product_burst(unit)
            self._memory_burst()
            if time.monotonic() >= limit or self.sweeper.findings.words >= _ENOUGH_MISCOMPARES:
                break
        self._doing = f"cycle {cycle + 1} of {cycles}: hot retention"
        self._stay_hot(unit, retention_s)
        held = self._pattern(self.tally.sweeps - 1)
        # a weak cell falls to one side: each bit rests as 0 and as 1
        complement = replace(held, inverted=not held.inverted)
        self._count(self.sweeper.write(complement, self.tally.sweeps, down=bool(self.tally.sweeps % 2)))
        self.tally.sweeps += 1
        self._stay_hot(unit, retention_s)
        self._count(self.sweeper.verify(down=bool(self.tally.sweeps % 2)))
        self.tally.cycles += 1
        self.tally.load_s += time.monotonic() - begun

    def _stay_hot(self, unit: Unit, seconds: float) -> None:
        hot_until = time.monotonic() + seconds
        while time.monotonic() < hot_until:
            self._product_burst(unit)

    def _memory_burst(self) -> None:
        """Sweeps for as long as a burst lasts, one at least."""
        ms = 0.0
        while ms < _BURST_S * 1000:
            number = self.tally.sweeps
            self.tally.sweeps += 1
            ms += max(0.001, self._count(self.sweeper.write(self._pattern(number), number, down=bool(number % 2))).ms)
        self.tally.memory_ms.append(round(ms, 3))

    def _product_burst(self, unit: Unit) -> None:
        """Products for as long as a burst lasts, by the last one's rate: a GPU at its power cap is slower than cold."""
        seconds = self._gemm.timed(unit, self._iterations)
        self._count_tiles()  # now: after a failure nothing can be read from the GPU any more, after a hang one waits
        self.tally.product_ms.append(round(1000 * seconds, 3))
        if seconds > 0:
            self._iterations = max(1, round(self._iterations * min(_MOST_GROWTH, _BURST_S / seconds)))

    def _count(self, sweep: Sweep) -> Sweep:
        self.tally.bytes_verified += sweep.verified
        return sweep

    def _count_tiles(self) -> None:
        counted = self._gemm.counted()
        self.tally.tiles = counted.tiles
        self.tally.wrong_tiles = counted.wrong + len(self._gemm.reference.wrong)
        self.tally.wrong_tiles_by_sm = dict(counted.wrong_by_sm)

    def _pattern(self, number: int) -> Pattern:
        """Random data and its complement in turn, new data for each pair: most bits change, and no sweep repeats."""
        digest = hashlib.sha256(f"{self._seed}/{number // 2}".encode()).digest()
        return Pattern(Kind.RANDOM, int.from_bytes(digest[:8], "little"), inverted=bool(number % 2))

    def _rest(self, seconds: float) -> None:
        self._doing = "cooling down"
        limit = time.monotonic() + seconds
        while (left := limit - time.monotonic()) > 0:
            self._serve()
            time.sleep(min(left, _STEP_S))

    def _serve(self) -> None:
        self._report.progress(self._done, self._doing)


def run(
    report: Reporter,
    pci: str,
    *,
    seed: str,
    seconds: float,
    folder: Path,
    prefix: str,
    retention_s: float = 0.0,
    cycles: int = 1,
    rest_s: float = 0.0,
) -> int:
    """The process of one GPU: records on standard output, `{prefix}together_gpuN.json` in `folder`.

    `seconds` are of load, `rest_s` of cool-down between two of `cycles`. Does not return when the GPU hangs.
    """
    load: Together | None = None
    path = folder / f"{prefix}together_gpu{report.gpu}.json"
    try:
        cuda = Cuda()
        with cuda.gpu(pci):
            load = Together(cuda, report, seed)
            why = load.run(seconds, retention_s=retention_s, cycles=max(1, cycles), rest_s=rest_s)
            _say(report, load, path, "ok")
        report.ended(Outcome.COMPLETED if load.tally.cycles else Outcome.UNAVAILABLE, why)
    except CudaUnavailableError as error:
        report.ended(Outcome.UNAVAILABLE, str(error))
    except CudaHungError as error:
        _say(report, load, path, error.word)
        report.ended(Outcome.TIMED_OUT, str(error))
        os._exit(1)  # leaving in order would wait for the GPU
    except CudaError as error:
        _say(report, load, path, error.word)
        report.ended(Outcome.UNAVAILABLE if error.unavailable else Outcome.CRASHED, str(error))
    return 0


def _say(report: Reporter, load: Together | None, path: Path, word: str) -> None:
    """What was measured, as far as it went: none wrong in what was not looked at is not a measurement."""
    report.measured("cuda_result", "word", word)
    if load is None:
        return
    done = load.tally
    done.miscompares = load.sweeper.findings.words
    if done.cycles:
        report.measured("together_seconds", "s", round(done.load_s, 3))
    if done.bytes_verified or done.miscompares:
        report.measured("together_miscompares", "count", done.miscompares)
    if done.tiles or done.wrong_tiles:
        report.measured("together_wrong_tiles", "count", done.wrong_tiles)
    bursts = {
        name: {"count": len(ms), "median_ms": round(median(ms), 3)}
        for name, ms in (("memory", done.memory_ms), ("products", done.product_ms))
        if ms
    }
    found = [
        {"pattern_step": m.step, "transient": m.transient, **asdict(m)} for m in load.sweeper.findings.miscompares()
    ]
    counts = {k: v for k, v in asdict(done).items() if not k.endswith("_ms")}
    path.write_text(json.dumps({**counts, "bursts": bursts, "first_miscompares": found}, indent=1))
    report.artifact(path)

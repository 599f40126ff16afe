"""Runs the tools on a virtual GPU with a fault, each in a process of its own, and says whether they saw it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import forked
import published_tools
from fault_classes import TIME_SCALE, FaultClass, Keys, Where
from forked import Ran
from published_tools import VirtualGpu
from virtual_gpu import IMAGE, State

from burnin.child import Reporter
from burnin.device.cuda import Cuda
from burnin.gemm import run as gemm
from burnin.hbm import sweeps
from burnin.record import Outcome, WorkloadEnded

QUICK, LONG, BURN, DCGM, MEMTEST = "ours (quick)", "ours (long)", "gpu-burn", "DCGM memory", "cuda_memtest"
TOOLS = (QUICK, LONG, BURN, DCGM, MEMTEST)

MEMORY_BYTES = 40 << 15  # ours takes memory by 32 KiB: at this size, 97.5 % of it
SMS, MEMORY_SMS = 16, 4
QUICK_ROUNDS = 13  # of 26 sweeps of 70 ms, in the 25 s that the quick suite gives to an H100's memory
DECIDED = 20  # of cuda_memtest's 1,000 iterations, where a fault depends on nothing that repeating could change
_LIMIT_S = 300.0

# How long a word of an H100 lies between being written and being read, real seconds.
_BURN_ROUND_S = 6.3  # 286 products of 8192^3 at 50 TFLOP/s
_DCGM_SWEEP_S = 0.2  # byte by byte, 32,768 threads
_MEMTEST_SWEEP_S = 11.0  # 83 GB at the 7.3 GB/s that 128 threads reach (pytorch#52019)
_REST_S = 120.0  # burnin/suites.py, long


@dataclass(frozen=True, slots=True)
class Seen:
    """Whether a tool saw something wrong, and by what: a pattern, a test, a digest; or why it did not get through."""

    caught: bool
    by: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """What one healthy run of a tool does, in bytes: how much it has under test, moves, and compares."""

    under_test: int
    moved: int
    verified: int


class Bench:
    """One virtual GPU. `seed` is of everything our own suite and the tools draw."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._state = State()
        self._folder = folder
        self._seed = seed
        self._digests: dict[int, object] = {}

    def try_all(self, of: FaultClass, keys: Keys, number: int) -> dict[str, Seen]:
        """Every tool that has anything to do with the class, on one instance: the one of this number."""
        seed = f"{self._seed}/{of.name}/{number}"
        return self._try_memory(of, keys, seed) if of.where is Where.MEMORY else self._try_compute(of, keys, seed)

    def _try_memory(self, of: FaultClass, keys: Keys, seed: str) -> dict[str, Seen]:
        self.break_by(keys, sms=MEMORY_SMS)
        seen = {QUICK: self._quick(seed, repeat=not of.long_only and not of.waits)}
        seen |= {tool: self._published(tool, of, seed) for tool in (BURN, DCGM, MEMTEST)}
        seen[LONG] = seen[QUICK] if seen[QUICK].caught else self._long(of, seed)
        return seen

    def _long(self, of: FaultClass, seed: str) -> Seen:
        """One round with what the long suite adds: the rest where time matters, else all but the rest."""
        return _hbm_seen(self.hbm(seed, rest_s=_REST_S / TIME_SCALE if of.waits else 0.0, thorough=not of.waits))

    def _quick(self, seed: str, *, repeat: bool) -> Seen:
        """One round; where that saw nothing, as many as an H100 has the time for. The first is the same."""
        begun = time.monotonic()
        first = _hbm_seen(self.hbm(seed))
        if first.caught or first.failure or not repeat:
            return first
        return _hbm_seen(self.hbm(seed, seconds=QUICK_ROUNDS * (time.monotonic() - begun)))

    def _try_compute(self, of: FaultClass, keys: Keys, seed: str) -> dict[str, Seen]:
        sms = 1 if of.every_sm else SMS
        if sms not in self._digests:
            self.break_by({}, sms=sms)
            self._digests[sms] = self.gemm().value("gemm_digest")
        self.break_by(keys, sms=sms)
        ours = _gemm_seen(self.gemm(), self._digests[sms])
        return {QUICK: ours, LONG: ours, BURN: self._burn_products(seed)}

    def break_by(self, keys: Keys, *, memory: int = MEMORY_BYTES, sms: int) -> None:
        """Make the GPU as small as it is to be, with a fault or (no keys) without."""
        self._state.set({"memory_bytes": memory, "memory_reserved_bytes": 0, "sm_count": sms, **keys})

    def hbm(self, seed: str, *, seconds: float = 0.0, rest_s: float = 0.0, thorough: bool = False) -> Ran:
        """Our sweeps: one round, and more while there are `seconds`."""

        def work() -> object:
            return sweeps.run(
                Reporter(sweeps.NAME, 0), self._state.pci, seed=seed, seconds=seconds, rounds=1, retention_s=rest_s,
                thorough=thorough, folder=self._folder, prefix="",
            )  # fmt: skip

        return forked.run(work, _LIMIT_S)

    def gemm(self) -> Ran:
        """Our products: every unit, one rotation."""

        def work() -> object:
            return gemm.run(Reporter(gemm.NAME, 0), self._state.pci, seed="coverage", seconds=0.0, folder=self._folder)

        return forked.run(work, _LIMIT_S)

    def effort(self, tool: str) -> Effort:
        """A healthy run of a tool."""
        self.break_by({}, sms=MEMORY_SMS)
        before = self._state.moved()
        if tool == QUICK:
            ran = self.hbm("effort")
            verified = ran.number("hbm_bytes_verified")
            under_test = MEMORY_BYTES * (ran.number("hbm_coverage") or 0.0)
        else:
            ran = forked.run(lambda: self._all_passes(tool), _LIMIT_S)
            under_test, verified = ran.answer or (0, None)
        if ran.failure or not verified:
            raise RuntimeError(f"{tool} did not get through a healthy GPU: {ran.failure or 'it verified nothing'}")
        return Effort(round(under_test), self._state.moved() - before, int(verified))

    def clean(self, run: int) -> Seen:
        """Our sweeps on a healthy GPU of a size that is drawn, with a seed of its own."""
        chance = random.Random(f"{self._seed}/clean/{run}")
        self.break_by({}, memory=chance.randint(34, 44) << 15, sms=chance.randint(1, 40))
        return _hbm_seen(self.hbm(f"{self._seed}/clean/{run}"))

    @contextmanager
    def _gpu(self) -> Iterator[Cuda]:
        cuda = Cuda()
        with cuda.gpu(self._state.pci):
            yield cuda

    def _published(self, tool: str, of: FaultClass, seed: str) -> Seen:
        return _tool_seen(forked.run(lambda: self._until_caught(tool, of, seed), _LIMIT_S))

    def _until_caught(self, tool: str, of: FaultClass, seed: str) -> str:
        with self._gpu() as cuda:
            for gpu, what in _passes(tool, cuda, seed, of):
                if gpu.errors:
                    return what
        return ""

    def _all_passes(self, tool: str) -> tuple[int, int]:
        with self._gpu() as cuda:
            *_, (gpu, _) = _passes(tool, cuda, "effort")
            return gpu.bytes, gpu.verified

    def _burn_products(self, seed: str) -> Seen:
        def work() -> str:
            with self._gpu() as cuda:
                return "compare with C[0]" if any(published_tools.gpu_burn_products(cuda, IMAGE, seed)) else ""

        return _tool_seen(forked.run(work, _LIMIT_S))


def _passes(tool: str, cuda: Cuda, seed: str, of: FaultClass | None = None) -> Iterator[tuple[VirtualGpu, str]]:
    """Nobody waits where time does not matter, and nobody repeats where the first repetition decides."""
    scale = TIME_SCALE if of and of.waits else float("inf")
    if tool == BURN:
        return published_tools.gpu_burn(cuda, IMAGE, _BURN_ROUND_S / scale)
    if tool == DCGM:
        return published_tools.dcgm_memory(cuda, IMAGE, _DCGM_SWEEP_S / scale)
    decided = of is not None and (of.waits or of.long_only)
    iterations = DECIDED if decided else published_tools.ITERATIONS
    return published_tools.cuda_memtest(cuda, IMAGE, _MEMTEST_SWEEP_S / scale, seed, iterations)


def _tool_seen(ran: Ran) -> Seen:
    """A fork that answers with what it was caught by, or nothing."""
    return Seen(bool(ran.answer), ran.answer or "", ran.failure)


def _hbm_seen(ran: Ran) -> Seen:
    wrong = ran.number("hbm_miscompares")
    failure = _failure(ran) or ("" if wrong is not None else "it counted nothing")
    return Seen(bool(wrong), str(ran.value("hbm_first_miscompare") or ""), failure)


def _gemm_seen(ran: Ran, healthy: object) -> Seen:
    """Wrong tiles accuse a GPU by itself; a digest does in a rack, where the others have another one."""
    wrong, digest = ran.number("gemm_wrong_tiles"), ran.value("gemm_digest")
    failure = _failure(ran) or ("" if wrong is not None and digest and healthy else "it counted nothing")
    by = "wrong tiles" if wrong else "digest" if digest != healthy else ""
    return Seen(bool(by) and not failure, by, failure)


def _failure(ran: Ran) -> str:
    """Why a workload of ours did not get through; a fault of data never stops one."""
    ends = [r for r in ran.records if isinstance(r, WorkloadEnded)]
    if ran.failure or not ends:
        return ran.failure or "it did not say how it ended"
    return "" if ends[-1].outcome is Outcome.COMPLETED else f"{ends[-1].outcome.value}: {ends[-1].detail}"

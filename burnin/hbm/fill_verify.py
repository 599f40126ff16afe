"""Writes all free memory of one GPU, reads it all back, compares every byte. Through the driver's copies alone.

The host makes and checks the data, so the GPU under test is not asked to judge itself; the price is the host link's
rate (about 50 GB/s on PCIe 5) instead of the memory's. Sweeps by kernels, at the memory's own rate, join as further
workloads. Coverage is what was really verified, never what was meant to be.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from burnin.child import Reporter
from burnin.device.cuda import Cuda, CudaError, CudaUnavailableError
from burnin.hbm import patterns
from burnin.hbm.memory import Block, Chunk, HostMemory, block_bytes, blocks, take_memory
from burnin.hbm.patterns import WORD_BYTES, Pattern, Step
from burnin.record import Outcome

NAME = "hbm"
_PAGE = 4096
_KEPT_MISCOMPARES = 64
_ENOUGH_MISCOMPARES = 1_000_000  # more tell nothing new, and finding each takes the host's time
_PROGRESS_S = 1.0


@dataclass(frozen=True)
class Miscompare:
    """A 64-bit word that came back different; `again` is what a second read of it gave."""

    step: str
    chunk: int
    word: int
    expected: str
    got: str
    xor: str
    again: str


@dataclass
class Tally:
    """What was done. Bytes, seconds of copying, words that differed."""

    written: int = 0
    verified: int = 0
    miscompares: int = 0
    steps: int = 0
    covered: list[int] = field(default_factory=list)  # bytes verified by each required step
    first: list[Miscompare] = field(default_factory=list)
    write_s: float = 0.0
    written_by_copy: int = 0
    read_s: float = 0.0
    move_s: float = 0.0
    moved: int = 0


class _OutOfTimeError(Exception):
    """The budget is spent in the middle of a step."""


class Sweeps:
    """One GPU's steps over its chunks, until all rounds are done or the time is spent."""

    def __init__(self, cuda: Cuda, report: Reporter, chunks: tuple[Chunk, ...], seed: str, seconds: float) -> None:
        self.tally = Tally()
        self._cuda = cuda
        self._report = report
        self._chunks = chunks
        self._seed = seed
        self._started = time.monotonic()
        self._seconds = seconds
        self._said = 0.0
        self._position, self._planned = 0, 1
        size = block_bytes(chunks)
        self._blocks = list(blocks(chunks, size))
        self._source = HostMemory(cuda, patterns.source_bytes(len(self._blocks), size))
        self._source_bytes = patterns.source_bytes(len(self._blocks), size)
        self._back = HostMemory(cuda, size)
        self._word = HostMemory(cuda, WORD_BYTES)

    def run(self, rounds: int) -> str:
        """Do the rounds; returns what was left out for want of time, or the empty string."""
        planned = [(number, step) for number in range(rounds) for step in (*patterns.REQUIRED, *patterns.FURTHER)]
        longest = 0.0
        for position, (number, step) in enumerate(planned):
            required = number == 0 and step in patterns.REQUIRED
            begun = time.monotonic()
            if not required and self._left() < longest:
                return f"{len(planned) - position} of {len(planned)} steps left out: {self._seconds:.0f} s were given"
            try:
                self._position, self._planned = position, len(planned)
                self._step(number, step, required)
            except _OutOfTimeError:
                return f"stopped in step {position + 1} of {len(planned)}: {self._seconds:.0f} s were given"
            longest = max(longest, time.monotonic() - begun)
            if self.tally.miscompares >= _ENOUGH_MISCOMPARES:
                return f"stopped after {self.tally.miscompares} miscompares"
        return ""

    def _step(self, number: int, step: Step, required: bool) -> None:
        if required:
            self.tally.covered.append(0)
        self._source.put(patterns.source(step.pattern, self._source_bytes, f"{self._seed}/{number}"))
        label = f"round {number + 1}: {step.pattern.value}"
        pairs = self._move(label) if step.pattern is Pattern.MOVED else self._fill(step, label)
        for position, (block, expected) in enumerate(reversed(pairs) if step.descending else pairs):
            self._verify(block, expected, step.pattern.value)
            if required:
                self.tally.covered[-1] += block.size
            self._spent(f"{label}, verify", 0.5 + 0.5 * position / len(pairs))
            if self.tally.miscompares >= _ENOUGH_MISCOMPARES:
                return
        self.tally.steps += 1

    def _fill(self, step: Step, label: str) -> list[tuple[Block, int]]:
        """Write the pattern everywhere. Returns each block with where its data begins in the source."""
        order = list(reversed(self._blocks)) if step.descending else self._blocks
        if step.pattern in (Pattern.ZEROS, Pattern.ONES):
            for chunk in self._chunks:
                self._cuda.fill(chunk.address, 0 if step.pattern is Pattern.ZEROS else 0xFFFFFFFF, chunk.size)
            self._cuda.wait()
            self.tally.written += sum(c.size for c in self._chunks)
        else:
            for position, block in enumerate(order):
                self._write(block)
                self._spent(f"{label}, write", 0.5 * position / len(order))
        return [(block, patterns.window(block.number)) for block in self._blocks]

    def _move(self, label: str) -> list[tuple[Block, int]]:
        """Write one chunk of each pair, let the GPU copy it to the other. Returns the copies with their data."""
        copies: list[tuple[Block, int]] = []
        for source, target in _pairs(self._chunks):
            originals = [b for b in self._blocks if b.chunk is source]
            for block in originals:
                self._write(block)
                self._spent(f"{label}, write", 0.5 * block.number / len(self._blocks))
            begun = time.monotonic()
            self._cuda.copy(target.address, source.address, source.size)
            self._cuda.wait()
            self.tally.move_s += time.monotonic() - begun
            self.tally.moved += source.size
            images = (b for b in self._blocks if b.chunk is target)
            copies += [(image, patterns.window(o.number)) for o, image in zip(originals, images, strict=True)]
        return copies

    def _write(self, block: Block) -> None:
        begun = time.monotonic()
        self._cuda.write(block.address, self._source.address + patterns.window(block.number), block.size)
        self.tally.write_s += time.monotonic() - begun
        self.tally.written += block.size
        self.tally.written_by_copy += block.size

    def _verify(self, block: Block, expected: int, step: str) -> None:
        begun = time.monotonic()
        self._cuda.read(self._back.address, block.address, block.size)
        self.tally.read_s += time.monotonic() - begun
        if not self._source.equals(expected, self._back, block.size):
            self._examine(block, expected, step)
        self.tally.verified += block.size

    def _examine(self, block: Block, expected: int, step: str) -> None:
        """Find the words that differ. Pages that are equal are passed over at memcmp's speed."""
        for page in range(0, block.size, _PAGE):
            size = min(_PAGE, block.size - page)
            want, got = self._source.get(expected + page, size), self._back.get(page, size)
            if want == got:
                continue
            for position, (w, g) in enumerate(zip(_words(want), _words(got), strict=True)):
                if w != g:
                    self.tally.miscompares += 1
                    if len(self.tally.first) < _KEPT_MISCOMPARES:
                        self.tally.first.append(self._miscompare(block, page // WORD_BYTES + position, w, g, step))
            if self.tally.miscompares >= _ENOUGH_MISCOMPARES:
                return

    def _miscompare(self, block: Block, word: int, want: int, got: int, step: str) -> Miscompare:
        self._cuda.read(self._word.address, block.address + word * WORD_BYTES, WORD_BYTES)
        (again,) = _words(self._word.get(0, WORD_BYTES))
        return Miscompare(
            step=step,
            chunk=block.chunk.number,
            word=block.offset // WORD_BYTES + word,
            expected=f"{want:016x}",
            got=f"{got:016x}",
            xor=f"{want ^ got:016x}",
            again=f"{again:016x}",
        )

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def _spent(self, text: str, part: float) -> None:
        """Say where we are, once a second; `part` is of this step. Raises _OutOfTimeError when the budget is spent."""
        now = time.monotonic()
        if now - self._started > self._seconds:
            raise _OutOfTimeError
        if now - self._said >= _PROGRESS_S:
            self._said = now
            self._report.progress((self._position + part) / self._planned, text)


def run(report: Reporter, pci: str, seed: str, seconds: float, rounds: int, evidence: Path) -> int:
    """The process of one GPU: reports records on standard output; `evidence` gets the miscompares, if there are any."""
    try:
        cuda = Cuda()
        with cuda.gpu(pci):
            free, total = cuda.memory()
            chunks = take_memory(cuda, free)
            if not chunks:
                report.ended(Outcome.UNAVAILABLE, f"no memory could be taken: {free} of {total} bytes are free")
                return 0
            return _run(report, Sweeps(cuda, report, chunks, seed, seconds), rounds, free, total, evidence)
    except CudaUnavailableError as error:
        report.ended(Outcome.UNAVAILABLE, f"libcuda: {error}")
    except CudaError as error:
        report.measured("cuda_result", "word", error.word)
        report.ended(Outcome.UNAVAILABLE if error.unavailable else Outcome.CRASHED, str(error))
    return 0


def _run(report: Reporter, sweeps: Sweeps, rounds: int, free: int, total: int, evidence: Path) -> int:
    failure: CudaError | None = None
    left_out = ""
    try:
        left_out = sweeps.run(rounds)
    except CudaError as error:
        failure = error
    _say(report, sweeps.tally, free, total, evidence)
    report.measured("cuda_result", "word", failure.word if failure else "ok")
    if failure:
        report.ended(Outcome.CRASHED, str(failure))
    else:
        report.ended(Outcome.COMPLETED, left_out)
    return 0


def _say(report: Reporter, tally: Tally, free: int, total: int, evidence: Path) -> None:
    covered = min(tally.covered) if len(tally.covered) == len(patterns.REQUIRED) else 0
    report.measured("hbm_bytes_written", "bytes", tally.written)
    report.measured("hbm_bytes_verified", "bytes", tally.verified)
    report.measured("hbm_steps", "count", tally.steps)
    report.measured("hbm_coverage", "fraction", round(covered / free, 6) if free else 0.0)
    report.measured("hbm_coverage_of_total", "fraction", round(covered / total, 6) if total else 0.0)
    # none found in memory that was not looked at is not a measurement
    if covered or tally.miscompares:
        report.measured("hbm_miscompares", "count", tally.miscompares)
    if tally.first:
        evidence.write_text(json.dumps([asdict(m) for m in tally.first], indent=1))
        report.artifact(evidence)
        one = tally.first[0]
        report.measured("hbm_first_miscompare", "word", f"chunk {one.chunk} word {one.word} xor {one.xor}")
    report.measured("h2d_gb_per_s", "GB/s", _rate(tally.written_by_copy, tally.write_s))
    report.measured("d2h_gb_per_s", "GB/s", _rate(tally.verified, tally.read_s))
    report.measured("hbm_copy_gb_per_s", "GB/s", _rate(2 * tally.moved, tally.move_s))  # each byte is read and written


def _rate(moved: int, seconds: float) -> float | None:
    return round(moved / seconds / 1e9, 3) if moved and seconds > 0 else None


def _pairs(chunks: tuple[Chunk, ...]) -> Iterator[tuple[Chunk, Chunk]]:
    """Chunks of equal size, two by two."""
    waiting: dict[int, Chunk] = {}
    for chunk in chunks:
        partner = waiting.pop(chunk.size, None)
        if partner is None:
            waiting[chunk.size] = chunk
        else:
            yield partner, chunk


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // WORD_BYTES}Q", data)

"""Copies between page-locked host memory and one GPU: rate of each direction, of both at once, and the data.

Rates are the GPU's own clock around a train of copies, the median of at least five trains: a best would hide a link
that retrains now and then. The host makes the data and checks what comes back, in turn the data and its complement, so
what was left over from the round before never passes for what was sent.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from burnin.child import Reporter
from burnin.device.cuda import Cuda, CudaError, CudaHungError, CudaUnavailableError
from burnin.pcie.host import Copies, Pinned
from burnin.pcie.link import LinkWatch
from burnin.record import Outcome

NAME = "pcie"
_MIB = 1 << 20
_LARGEST = 64 * _MIB  # of one copy: over a millisecond on the fastest link, a thousand times what starting it takes
_SMALLEST = 64 << 10
_SHARE = 8  # of free memory that one buffer may take, for a GPU with little
_TRAIN = 8  # copies between two events
_LEAST_ROUNDS = 5
_MOST_ROUNDS = 10_000
_HUNG_S = 20.0  # a train takes tens of milliseconds
_PROGRESS_S = 0.5
_FOR_READING_S = 2.0  # longer than asked, so that the link is read at least once under load
_KEPT_MISCOMPARES = 64
_ENOUGH_MISCOMPARES = 1_000_000
_INVERT = bytes(255 - b for b in range(256))


@dataclass(frozen=True)
class Miscompare:
    """A 64-bit word that came back different."""

    round: int
    word: int
    expected: str
    got: str
    xor: str


@dataclass
class Tally:
    """Rates in GB/s (10^9 bytes a second), one of each train; words that differed of those that were verified."""

    bytes_per_copy: int = 0
    copies_per_train: int = _TRAIN
    h2d: list[float] = field(default_factory=list)
    d2h: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)  # sum of the two directions
    bytes_verified: int = 0
    miscompares: int = 0
    first: list[Miscompare] = field(default_factory=list)


class Exchange:
    """The buffers of one GPU and the rounds over them. Raises CudaError where they cannot be had.

    `loaded` is set while copies run, from the second round on: by then the link has trained up.
    """

    def __init__(self, cuda: Cuda, copies: Copies, seed: str, free: int) -> None:
        size = max(_SMALLEST, min(_LARGEST, free // _SHARE) & -_SMALLEST)
        self.tally = Tally(bytes_per_copy=size)
        self._cuda = cuda
        self._copies = copies
        self._size = size
        data = random.Random(seed).randbytes(size)  # noqa: S311 - test data, not a secret
        self._sent = (Pinned(cuda, size), Pinned(cuda, size))
        self._sent[0].put(data)
        self._sent[1].put(data.translate(_INVERT))
        self._back = Pinned(cuda, size)
        self._here = cuda.allocate(size)
        self._there = (cuda.allocate(size), cuda.allocate(size))
        self._streams = (cuda.stream(), cuda.stream())
        self._events = tuple(cuda.event() for _ in range(3))
        self.loaded = threading.Event()
        cuda.write(self._there[1], self._sent[1].address, size)

    def round(self, number: int) -> None:
        """One train each way, one of both ways at once, and the data looked at after each way back."""
        odd, (up, down) = number % 2, self._streams
        sent, other = self._sent[odd], self._sent[1 - odd]
        with self._under_load(number > 0):
            self.tally.h2d.append(self._train(up, lambda: self._send(self._here, sent)))
            self.tally.d2h.append(self._train(down, lambda: self._fetch(self._here)))
        self._verify(number, sent)
        # what goes up now comes down in the next round, so that what comes down is never what was there before
        with self._under_load(number > 0):
            self.tally.both.append(self._both_ways(self._there[odd], sent, self._there[1 - odd]))
        self._verify(number, other)

    @contextmanager
    def _under_load(self, trained: bool) -> Iterator[None]:
        if trained:
            self.loaded.set()
        try:
            yield
        finally:
            self.loaded.clear()

    def _send(self, device: int, data: Pinned) -> None:
        self._copies.to_device(device, data.address, self._size, self._streams[0])

    def _fetch(self, device: int) -> None:
        self._copies.to_host(self._back.address, device, self._size, self._streams[1])

    def _train(self, stream: int, copy: Callable[[], None]) -> float:
        first, last, _ = self._events
        self._cuda.record(first, stream)
        for _ in range(_TRAIN):
            copy()
        self._cuda.record(last, stream)
        self._cuda.await_event(last, _HUNG_S)
        return self._rate(_TRAIN, self._cuda.elapsed_ms(first, last))

    def _both_ways(self, target: int, sent: Pinned, source: int) -> float:
        up, down = self._streams
        first, up_last, down_last = self._events
        self._cuda.record(first, up)
        for _ in range(_TRAIN):
            self._send(target, sent)
            self._fetch(source)
        self._cuda.record(up_last, up)
        self._cuda.record(down_last, down)
        for event in (up_last, down_last):
            self._cuda.await_event(event, _HUNG_S)
        longest_ms = max(self._cuda.elapsed_ms(first, event) for event in (up_last, down_last))
        return self._rate(2 * _TRAIN, longest_ms)

    def _rate(self, copies: int, ms: float) -> float:
        return round(copies * self._size / ms / 1e6, 3) if ms > 0 else 0.0

    def _verify(self, number: int, sent: Pinned) -> None:
        self.tally.bytes_verified += self._size
        if sent.equals(self._back):
            return
        for word, want, got in sent.differences(self._back):
            self.tally.miscompares += 1
            if len(self.tally.first) < _KEPT_MISCOMPARES:
                texts = (f"{value:016x}" for value in (want, got, want ^ got))
                self.tally.first.append(Miscompare(number, word, *texts))
            if self.tally.miscompares >= _ENOUGH_MISCOMPARES:
                return


def run(report: Reporter, pci: str, *, seed: str, seconds: float, folder: Path, prefix: str) -> int:
    """The process of one GPU: records on standard output, every train's rate in `{prefix}pcie_gpuN.json`."""
    evidence = folder / f"{prefix}pcie_gpu{report.gpu}.json"
    try:
        cuda = Cuda()
        with cuda.gpu(pci):
            free, _ = cuda.memory()
            exchange = Exchange(cuda, Copies(), seed, free)
            with LinkWatch(pci, exchange.loaded) as watch:
                _exchange(report, exchange, watch, seconds, evidence)
    except CudaUnavailableError as error:
        report.ended(Outcome.UNAVAILABLE, f"libcuda: {error}")
    except CudaError as error:
        report.measured("cuda_result", "word", error.word)
        report.ended(Outcome.UNAVAILABLE if error.unavailable else Outcome.CRASHED, str(error))
    return 0


def _exchange(report: Reporter, exchange: Exchange, watch: LinkWatch, seconds: float, evidence: Path) -> None:
    failure: CudaError | CudaHungError | None = None
    try:
        _rounds(report, exchange, watch, seconds)
    except (CudaError, CudaHungError) as error:
        failure = error
    _say(report, exchange.tally, watch, evidence)
    report.measured("cuda_result", "word", failure.word if failure else "ok")
    report.ended(Outcome.CRASHED if failure else Outcome.COMPLETED, str(failure) if failure else watch.problem)
    if isinstance(failure, CudaHungError):
        os._exit(0)  # nothing of CUDA can be released any more: it would wait for what hangs


def _rounds(report: Reporter, exchange: Exchange, watch: LinkWatch, seconds: float) -> None:
    started = said = time.monotonic()
    for number in range(_MOST_ROUNDS):
        now = time.monotonic()
        unread = not watch.readings and not watch.problem
        if number >= _LEAST_ROUNDS and now - started >= seconds + (_FOR_READING_S if unread else 0.0):
            return
        if number == 0 or now - said >= _PROGRESS_S:
            said = now
            report.progress((now - started) / seconds if seconds > 0 else 0.0, f"copies, round {number + 1}")
        exchange.round(number)
        if exchange.tally.miscompares >= _ENOUGH_MISCOMPARES:
            return


def _say(report: Reporter, tally: Tally, watch: LinkWatch, evidence: Path) -> None:
    lowest = watch.lowest
    evidence.write_text(
        json.dumps(
            {**asdict(tally), "link": [asdict(reading) for reading in watch.readings], "nvml": watch.problem}, indent=1
        )
    )
    report.artifact(evidence)
    report.measured("h2d_gb_per_s", "GB/s", _median(tally.h2d))
    report.measured("d2h_gb_per_s", "GB/s", _median(tally.d2h))
    if tally.bytes_verified:
        report.measured("pcie_miscompares", "count", tally.miscompares)
    report.measured("pcie_width_loaded", "lanes", lowest.width)
    report.measured("pcie_generation_loaded", "count", lowest.generation)


def _median(rates: list[float]) -> float | None:
    """The median of five and more trains that took any time at all; None: there were too few to say."""
    timed = [rate for rate in rates if rate > 0]
    return statistics.median(timed) if len(timed) >= _LEAST_ROUNDS else None

"""One GPU's memory and the sweeps over it. Each waits for its end against a deadline and says what it moved."""

from __future__ import annotations

import time
from collections.abc import Callable
from ctypes import c_uint32 as u32
from ctypes import c_uint64 as u64
from ctypes import c_void_p
from dataclasses import dataclass

from burnin.device.cuda import L2_BYTES, MEMORY_BUS_BITS, MEMORY_CLOCK_KHZ, Cuda
from burnin.device.kernels import Kernels
from burnin.hbm.findings import Findings
from burnin.hbm.memory import Chunk
from burnin.hbm.patterns import TILE_BYTES, TILE_VECTORS, VECTOR_BYTES, Pattern

# So many blocks that SMs which end early find more to do; a multiple of what fits on one at a time.
_BLOCKS_OF_AN_SM = 32
_SLOWEST = 20  # times the expected time
_LEAST_DEADLINE_S = 10.0
_WARM_MS = 50.0
_MOST_TURNS = 1 << 20
_ROW_BYTES = 1024
_ROW_STRIDE = 2 * _ROW_BYTES  # the rows between are the ones that may suffer
_ROW_TURNS = 1024  # of each row in one launch
_WINDOW_S = 0.1


@dataclass(frozen=True)
class Sweep:
    """What one did: bytes it compared and wrote, bytes that crossed the memory's pins, and how long it took."""

    verified: int
    written: int
    traffic: int
    ms: float

    @property
    def gb_per_s(self) -> float | None:
        """Traffic by time; None where nothing was moved or the clock did not move."""
        return self.traffic / self.ms / 1e6 if self.traffic and self.ms > 0 else None


@dataclass(frozen=True)
class _Region:
    """Tiles of one allocation; `held_first` numbers the data in it, which may have come from elsewhere."""

    address: int
    tiles: int
    first: int
    held_first: int


def peak_gb_per_s(cuda: Cuda) -> float | None:
    """Two transfers a clock over the bus's width; None where the driver does not say."""
    clock, bits = cuda.attribute(MEMORY_CLOCK_KHZ), cuda.attribute(MEMORY_BUS_BITS)
    return 2 * clock * 1e3 * bits / 8 / 1e9 if clock > 0 and bits > 0 else None


class Sweeper:
    """Writes, checks and moves all of `chunks`. All raise CudaError and CudaHungError.

    `serve` is called while the GPU works: for progress, or to give other work to another stream.
    """

    def __init__(
        self,
        cuda: Cuda,
        kernels: Kernels,
        chunks: tuple[Chunk, ...],
        *,
        serve: Callable[[], None] | None = None,
        stream: int = 0,
    ) -> None:
        self.peak = peak_gb_per_s(cuda)
        self.findings = Findings(cuda)
        self.bytes = sum(c.size for c in chunks)
        self._cuda = cuda
        self._kernels = kernels
        self._serve = serve
        self._stream = stream
        self._begin, self._end = cuda.event(), cuda.event()
        self._l2 = cuda.attribute(L2_BYTES)
        self._chunks = chunks
        self._held: Pattern | None = None
        self._held_step = 0
        self._regions = self._unmoved()

    def write(self, pattern: Pattern, step: int, *, down: bool) -> Sweep:
        """Check what is held and write `pattern` in one pass; the first time, write only. `step` is its number."""
        held, regions = self._held, self._regions
        self._start()
        for region in regions:
            place = (c_void_p(region.address), u64(region.tiles), u32(down), u64(region.first))
            new = (u32(pattern.kind), u64(pattern.seed), u64(pattern.flip))
            if held is None:
                self._launch("hbm_write", region.tiles, *place, *new)
            else:
                old = self._expected(held, region)
                self._launch("hbm_verify_write", region.tiles, *place, *old, *new, *self._judge())
        done = self._finish(verified=self.bytes if held else 0, written=self.bytes)
        self._held, self._held_step, self._regions = pattern, step, self._unmoved()
        return done

    def verify(self, *, down: bool) -> Sweep:
        """Check what is held, and leave it."""
        assert self._held is not None  # noqa: S101 - something was written first
        self._start()
        for region in self._regions:
            place = (c_void_p(region.address), u64(region.tiles), u32(down), u64(region.first))
            self._launch("hbm_verify", region.tiles, *place, *self._expected(self._held, region), *self._judge())
        return self._finish(verified=self.bytes, written=0)

    def move(self, *, down: bool) -> Sweep:
        """Let the GPU exchange the halves of each chunk: everything moves. What is held is checked where it is then."""
        self._start()
        for chunk in self._chunks:
            half = chunk.tiles // 2
            other = chunk.address + half * TILE_BYTES
            self._launch("hbm_move", half, c_void_p(chunk.address), c_void_p(other), u64(half), u32(down))
        done = self._finish(verified=0, written=self.bytes, traffic=2 * self.bytes)
        moved = any(r.held_first != r.first for r in self._regions)
        self._regions = self._unmoved() if moved else tuple(r for c in self._chunks for r in _exchanged(c))
        return done

    def rest(self, seconds: float) -> Sweep:
        """Leave the memory alone while multiply-adds keep the die hot."""
        begun, turns = time.monotonic(), 1024
        while (left := seconds - (time.monotonic() - begun)) > 0:
            self._start()
            self._launch("hbm_warm", self._most_blocks, u32(turns), c_void_p(self.findings.address))
            took = self._finish().ms
            wanted = min(_WARM_MS, left * 1e3)
            turns = max(1, min(_MOST_TURNS, int(turns * min(8.0, wanted / took)) if took > 0 else 8 * turns))
        return Sweep(0, 0, 0, (time.monotonic() - begun) * 1e3)

    def activate(self) -> Sweep:
        """Open rows of one window after another, each row thousands of times. Reads only."""
        ms, read = 0.0, 0
        for chunk in self._chunks:
            for address, rows in self._windows(chunk):
                begun = ms
                while ms - begun < _WINDOW_S * 1e3:
                    self._start()
                    accesses = rows * _ROW_TURNS
                    self._launch(
                        "hbm_activate", self._most_blocks, c_void_p(address), u64(rows),
                        u64(_ROW_STRIDE // VECTOR_BYTES), u64(accesses), c_void_p(self.findings.address),
                    )  # fmt: skip
                    took = self._finish().ms
                    ms, read = ms + max(took, 0.001), read + accesses * VECTOR_BYTES
        return Sweep(0, 0, read, ms)

    def windows(self) -> int:
        """How many windows `activate` takes in turn; each takes a tenth of a second or a little more."""
        return sum(1 for chunk in self._chunks for _ in self._windows(chunk))

    def _windows(self, chunk: Chunk) -> list[tuple[int, int]]:
        """(address, rows): every second row of a range that L2 cannot hold; then the rows between them."""
        most = min(chunk.size, 4 * max(self._l2, 1 << 20)) // _ROW_STRIDE
        rows = 1 << most.bit_length() - 1
        span = rows * _ROW_STRIDE
        starts = [*range(0, chunk.size - span, span), chunk.size - span]
        return [(chunk.address + start + odd * _ROW_BYTES, rows) for start in starts for odd in (0, 1)]

    @property
    def _most_blocks(self) -> int:
        return self._kernels.sms * _BLOCKS_OF_AN_SM

    def _unmoved(self) -> tuple[_Region, ...]:
        return tuple(_Region(c.address, c.tiles, c.first, c.first) for c in self._chunks)

    def _expected(self, held: Pattern, region: _Region) -> tuple[u64, u32, u64, u64]:
        return u64(region.held_first), u32(held.kind), u64(held.seed), u64(held.flip)

    def _judge(self) -> tuple[c_void_p, u32]:
        return c_void_p(self.findings.address), u32(self._held_step)

    def _launch(self, name: str, tiles: int, *arguments: u32 | u64 | c_void_p) -> None:
        self._kernels.launch(name, min(tiles, self._most_blocks), *arguments, stream=self._stream)

    def _start(self) -> None:
        if self._serve is not None:
            self._serve()
        self._cuda.record(self._begin, self._stream)

    def _finish(self, *, verified: int = 0, written: int = 0, traffic: int | None = None) -> Sweep:
        moved = verified + written if traffic is None else traffic
        self._cuda.record(self._end, self._stream)
        expected_s = moved / (self.peak * 1e9) if self.peak else 0.0
        self._cuda.await_event(self._end, max(_LEAST_DEADLINE_S, _SLOWEST * expected_s), self._serve)
        return Sweep(verified, written, moved, self._cuda.elapsed_ms(self._begin, self._end))


def _exchanged(chunk: Chunk) -> tuple[_Region, _Region]:
    half = chunk.tiles // 2
    low, high = chunk.first, chunk.first + half * TILE_VECTORS
    return (
        _Region(chunk.address, half, low, high),
        _Region(chunk.address + half * TILE_BYTES, half, high, low),
    )

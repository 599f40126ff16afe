"""Matrix products of one GPU: work for its tensor cores whose every tile is checked."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from ctypes import addressof, c_uint32, c_uint64
from enum import Enum

from burnin.device.cuda import MAJOR, MINOR, Cuda
from burnin.device.kernels import Kernels
from burnin.gemm.agreement import Reference, Vote, settle
from burnin.gemm.counters import AnswerMemory, Tally, TallyMemory, tally
from burnin.gemm.shape import Shape, shape_of
from burnin.gemm.units import UNITS, Unit

_NULL = c_uint64(0)
_THREADS = 256
_FREIVALDS_VECTORS = 2  # VECTORS of gemm.cu
_ATTEMPTS = 3  # how often each tile is computed, on different SMs, before its reference is believed
_LAUNCH_S = 0.2  # one kernel runs about so long: a hang is noticed soon, and a stream can be given other work
PATIENCE_S = 10.0  # for work whose length is not known yet; a thousand times what it takes
_TIMES_EXPECTED = 20


class Values(Enum):
    """What operands are: whole numbers, whose product has one right value; or any bits, equal everywhere."""

    WHOLE = 0
    ANY = 1


class Gemm:
    """The products of one GPU. Takes about 1 % of its memory: make it before the rest is taken.

        gemm = Gemm(cuda, kernels, seed)
        gemm.prepare(unit)                      # of gemm.units: operands, reference answers and their proof
        seconds = gemm.timed(unit, iterations)  # as often as wanted
        gemm.counted().wrong                    # tiles that were not the reference; gemm.reference has those of prepare

    Everything may raise CudaError, and CudaHungError where it waits. `serve` is called while it waits.
    """

    def __init__(
        self,
        cuda: Cuda,
        kernels: Kernels,
        seed: str,
        serve: Callable[[], None] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Take the memory for any of `units`: what this GPU has proven code for, the hottest first."""
        self._patience_s = patience_s
        self._cuda = cuda
        self._kernels = kernels
        self._serve = serve
        self._seed = c_uint64(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little"))
        self._capability = 10 * cuda.attribute(MAJOR) + cuda.attribute(MINOR)
        self._events = cuda.event(), cuda.event()
        self._shapes = self._learn_shapes()
        self._memory = _Memory(cuda, list(self._shapes.items()))
        self.units = tuple(u for u in self._shapes if self._kernel(u) and self.proven(u))
        self._unit: Unit | None = None
        self._reference = Reference((), (), ())
        self._next = 0
        self._iteration_s = 0.0

    def proven(self, unit: Unit) -> bool:
        """Whether the code for this GPU ran on such a chip before."""
        kernel = unit.kernel(self._capability)
        return kernel is not None and kernel.proven

    def possible(self, unit: Unit) -> bool:
        """Whether there is code for this GPU at all."""
        return unit in self._shapes

    def shape(self, unit: Unit) -> Shape:
        """How large the products of a unit are here."""
        return self._shapes[unit]

    @property
    def reference(self) -> Reference:
        """What `prepare` found: the answers, and the blocks that gave other ones."""
        return self._reference

    @property
    def iteration_s(self) -> float:
        """Seconds of one iteration of the prepared unit, every block one tile, as `prepare` measured it."""
        return self._iteration_s

    def prepare(self, unit: Unit, values: Values = Values.WHOLE) -> None:
        """Make `unit` the one that bursts run on: operands, reference answers and their proof. Waits for the GPU."""
        shape, memory = self._shapes[unit], self._memory
        self._unit, self._next = unit, 0
        self._fill(unit, values)
        if values is Values.WHOLE:
            self._launch("gemm_project", memory.projected, c_uint32(shape.side), c_uint32(shape.depth),
                         c_uint32(unit.number), self._seed)  # fmt: skip
        self._clear(memory.tally, ctypes.sizeof(TallyMemory))
        votes: list[Vote] = []
        for attempt in range(_ATTEMPTS):
            votes += self._attempt(unit, values, attempt * shape.tiles // _ATTEMPTS)
        self._reference = settle(votes, shape.tiles)
        digests = (c_uint64 * shape.tiles)(*self._reference.digests)
        self._cuda.write(memory.reference.value, addressof(digests), ctypes.sizeof(digests))

    @property
    def iterations_per_launch(self) -> int:
        """Of the prepared unit: as many as take about 0.2 s."""
        return max(1, round(_LAUNCH_S / self._iteration_s))

    def counted(self) -> Tally:
        """All counters since `prepare`."""
        if self._unit is None:
            raise ValueError("no unit is prepared: call prepare first")
        memory = TallyMemory()
        self._cuda.read(addressof(memory), self._memory.tally.value, ctypes.sizeof(memory))
        return tally(memory, self._unit.name)

    def timed(self, unit: Unit, iterations: int) -> float:
        """Do so many iterations and wait for them: their seconds by the GPU's clock. `tiles` are one full rotation.

        Raises ValueError when `unit` is not the prepared one.
        """
        if unit is not self._unit:
            raise ValueError(f"{unit.name} is not prepared: call prepare first")
        first, last = self._events
        self._cuda.record(first)
        for begun in range(0, iterations, self.iterations_per_launch):
            part = min(iterations - begun, self.iterations_per_launch)
            self._multiply(unit, self._next, part)
            self._next += part
        self._cuda.record(last)
        expected_s = iterations * self._iteration_s
        self._cuda.await_event(last, max(self._patience_s, _TIMES_EXPECTED * expected_s), self._serve)
        return self._cuda.elapsed_ms(first, last) / 1000

    def _kernel(self, unit: Unit) -> str:
        kernel = unit.kernel(self._capability)
        return kernel.name if kernel else ""

    def _learn_shapes(self) -> dict[Unit, Shape]:
        """The kernels say how large a tile is: a processor that stands in for a GPU has smaller ones."""
        words = (c_uint64 * 3)()
        size = ctypes.sizeof(words)
        address = self._cuda.allocate(size)
        shapes = {}
        _, total = self._cuda.memory()
        for unit in (u for u in UNITS if self._kernel(u)):
            self._launch("gemm_shape", c_uint64(address), c_uint32(unit.number), blocks=1)
            self._finish()
            self._cuda.read(addressof(words), address, size)
            tile, blocks_per_sm, row_bytes = words
            shapes[unit] = shape_of(unit, tile, blocks_per_sm, row_bytes, self._kernels.sms, total)
        self._cuda.free(address)
        return shapes

    def _fill(self, unit: Unit, values: Values) -> None:
        shape = self._shapes[unit]
        for number, operand in enumerate((self._memory.a, self._memory.b)):
            self._launch("gemm_fill", operand, c_uint32(number), c_uint32(shape.rows), c_uint32(shape.depth),
                         c_uint32(unit.number), c_uint32(values.value), self._seed)  # fmt: skip

    def _attempt(self, unit: Unit, values: Values, first: int) -> list[Vote]:
        """Every tile once, on SMs that `first` shifts; proven, where there is a right answer."""
        shape, memory = self._shapes[unit], self._memory
        self._clear(memory.wrong_rows, 8 * shape.tiles)
        begun, done = self._events
        self._cuda.record(begun)
        self._multiply(unit, first, 1, learning=True)
        self._cuda.record(done)
        if values is Values.WHOLE:
            self._launch("gemm_prove", memory.results, memory.projected, memory.wrong_rows, c_uint32(shape.side),
                         c_uint32(shape.depth), c_uint32(unit.number), self._seed)  # fmt: skip
        self._cuda.await_event(done, self._patience_s, self._serve)
        self._iteration_s = max(1e-6, self._cuda.elapsed_ms(begun, done) / 1000)
        self._finish()
        answers = (AnswerMemory * shape.slots)()
        self._cuda.read(addressof(answers), memory.answers.value, ctypes.sizeof(answers))
        wrong_rows = (c_uint64 * shape.tiles)()
        self._cuda.read(addressof(wrong_rows), memory.wrong_rows.value, ctypes.sizeof(wrong_rows))
        return [
            _vote((slot + first) % shape.tiles, slot, answer, wrong_rows if values is Values.WHOLE else None)
            for slot, answer in enumerate(answers)
        ]

    def _multiply(self, unit: Unit, first: int, iterations: int, *, learning: bool = False) -> None:
        """Queue iterations. `learning`: keep results and answers, compare with nothing."""
        shape, memory = self._shapes[unit], self._memory
        self._kernels.launch(
            self._kernel(unit), shape.slots, memory.a, memory.b,
            memory.results if learning else _NULL,
            _NULL if learning else memory.reference,
            memory.answers if learning else _NULL,
            memory.tally, c_uint32(shape.side), c_uint32(shape.depth), c_uint64(first), c_uint32(iterations),
        )  # fmt: skip

    def _finish(self) -> None:
        """Wait for what takes no time worth mentioning."""
        _, last = self._events
        self._cuda.record(last)
        self._cuda.await_event(last, self._patience_s, self._serve)

    def _clear(self, address: c_uint64, size: int) -> None:
        self._cuda.fill(address.value, 0, size)

    def _launch(self, name: str, *arguments: ctypes._SimpleCData[int], blocks: int = 0) -> None:
        self._kernels.launch(name, blocks or 8 * self._kernels.sms, *arguments, threads=_THREADS)


class _Memory:
    """Device addresses of what any of the units needs, in one allocation."""

    def __init__(self, cuda: Cuda, plans: list[tuple[Unit, Shape]]) -> None:
        sizes = {
            "a": max(s.rows * s.depth * u.bytes_per_element for u, s in plans),
            "b": max(s.rows * s.depth * u.bytes_per_element for u, s in plans),
            "results": max(s.rows * s.rows * (8 if u.bytes_per_element == 8 else 4) for u, s in plans),
            "projected": max(8 * _FREIVALDS_VECTORS * s.side * s.depth for _, s in plans),
            "wrong_rows": max(8 * s.tiles for _, s in plans),
            "reference": max(8 * s.tiles for _, s in plans),
            "answers": max(ctypes.sizeof(AnswerMemory) * s.slots for _, s in plans),
            "tally": ctypes.sizeof(TallyMemory),
        }
        aligned = {name: -(-size // 256) * 256 for name, size in sizes.items()}
        at = cuda.allocate(sum(aligned.values()))
        places = {}
        for name, size in aligned.items():
            places[name] = c_uint64(at)
            at += size
        self.a, self.b, self.results = places["a"], places["b"], places["results"]
        self.projected, self.wrong_rows = places["projected"], places["wrong_rows"]
        self.reference, self.answers, self.tally = places["reference"], places["answers"], places["tally"]


def _vote(tile: int, slot: int, answer: AnswerMemory, wrong_rows: ctypes.Array[c_uint64] | None) -> Vote:
    """Blocks beyond the first `tiles` repeat a tile that another one keeps: theirs is not examined."""
    examined = wrong_rows is not None and slot < len(wrong_rows)
    return Vote(tile, int(answer.sm), int(answer.digest), wrong_rows[tile] == 0 if examined and wrong_rows else None)

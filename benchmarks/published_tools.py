"""gpu-burn, DCGM's memory plugin and cuda_memtest as lists of passes over a virtual GPU's memory.

Written anew from the sources named below; the passes are kernels of published_tools.cu. Every tool gets its published
defaults, and the benefit of the doubt: nothing is deducted for exit codes, set-up failures that count as a pass, sizes
that overflow an `int`, or rates.

gpu-burn        wilicc/gpu-burn@0831a45 gpu_burn-drv.cpp, compare.cu: 90 % of free memory, cut into equal matrices; two
                are the operands, the others hold the product of the two, each compared with the first of them. 10 s by
                default: two rounds of some 286 products of 8192^3, at the 50 TFLOP/s that an H100 has for FP32.
DCGM memory     NVIDIA/DCGM@0d22068 nvvs/plugin_src/memory/memory.cpp: 00 AA 55 FF 00, each written and read once.
cuda_memtest    ComputationalRadiationPhysics/cuda_memtest@025bc92 tests.cpp: tests 0 to 8 and 10 (9, bit fade, is off
                by default), 1,000 iterations of 0 and 10. It goes on for ever; one pass is counted. Its random number
                is seeded with the second of the day at every call: the "random sequence" of test 7 is one number.
"""

from __future__ import annotations

import array
import ctypes
import random
import time
from collections.abc import Iterator
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass, replace

from burnin.device.cuda import Cuda
from burnin.device.kernels import Kernels

VECTOR_BYTES = 16
_ALL = 0xFFFFFFFF
_MODULO_20 = 3  # Kind of published_tools.cu
ITERATIONS = 1000  # cuda_memtest.cpp, num_iterations
_PIECES = 4  # cuda_memtest cuts memory into BLOCKSIZE = 1 MiB: into so many, at our size

# gpu_burn-drv.cpp: SIZE, USEMEM, and the inputs (rand() % 1000000) / 100000
_BURN_DEPTH = 8192
_BURN_SHARE = 0.9
_BURN_MATRICES = 288  # of 256 MiB, in 90 % of an H100
_BURN_ROUNDS = 2
_BURN_MEAN, _BURN_VARIANCE = 25.0, (100 / 3) ** 2 - 25.0**2  # of a product of two of its inputs
_BURN_EPSILON = 0.001  # compare.cu
# Its product at our size: less deep, with one operand larger by so much, so that results have the same magnitude.
_ROWS, _DEPTH = 32, 64

Passes = Iterator[str]  # does a pass, says what it was


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of published_tools.cu; `flip` is for its complement."""

    kind: int
    a: int = 0
    b: int = 0
    flip: int = 0

    def inverted(self) -> Pattern:
        """Its complement."""
        return replace(self, flip=self.flip ^ _ALL)


def constant(word: int) -> Pattern:
    """One 32-bit word everywhere."""
    return Pattern(0, word)


OWN_ADDRESS = Pattern(1)
PAIRS = Pattern(4)


def shifted_bit(start: int) -> Pattern:
    """One bit a word, the next one in the next word."""
    return Pattern(2, start)


def modulo_20(chosen: int, word: int) -> Pattern:
    """`word` in one of 20, its complement in the others."""
    return Pattern(_MODULO_20, chosen, word)


class VirtualGpu:
    """A share of a virtual GPU's free memory, and the passes over it. `errors` counts what they found."""

    def __init__(self, cuda: Cuda, image: bytes, share: float = 1.0) -> None:
        self.kernels = Kernels(cuda, {"published": image})
        self.bytes = int(cuda.memory()[0] * share) // 4096 * 4096
        self.vectors = self.bytes // VECTOR_BYTES
        self.address = cuda.allocate(self.bytes)
        self._count = cuda.allocate_host(8)
        ctypes.memset(self._count, 0, 8)

        self.verified = 0  # bytes that were compared

    @property
    def errors(self) -> int:
        """How many words, or vectors, were found wrong."""
        return int(c_uint64.from_address(self._count).value)

    def write(self, pattern: Pattern, first: int = 0) -> None:
        """A pattern everywhere, or from piece number `first` on."""
        self._launch("published_write", *self._over(pattern, first))

    def check(self, pattern: Pattern, first: int = 0) -> None:
        """Compare with a pattern."""
        self._launch("published_check", *self._over(pattern, first), c_uint64(self._count))
        self._verified(pattern, first)

    def invert(self, pattern: Pattern, first: int = 0) -> None:
        """Compare with a pattern, and write its complement right behind."""
        self._launch("published_invert", *self._over(pattern, first), c_uint64(self._count))
        self._verified(pattern, first)

    def walk_addresses(self, piece: int) -> None:
        """A walking bit at words 0, 1, 2, 4, 8, ... of each piece of so many vectors."""
        sizes = c_uint64(self.vectors), c_uint64(piece)
        self._launch("published_walk_address", c_uint64(self.address), *sizes, c_uint64(self._count))

    def move_pairs(self) -> None:
        """Move the halves of each piece, then compare the words of each pair."""
        self._launch("published_move", c_uint64(self.address), c_uint64(self.vectors), c_uint64(self.piece))
        self._launch("published_check_pairs", c_uint64(self.address), c_uint64(self.vectors), c_uint64(self._count))
        self.verified += self.bytes

    def store_result(self, at: int, result: array.array[float]) -> None:
        """A product's result at a byte of memory."""
        where, vectors = c_uint64(self.address + at), len(result) * result.itemsize // VECTOR_BYTES
        self._launch("published_burn_store", where, c_uint64(vectors), c_uint64(result.buffer_info()[0]))

    def compare_results(self, size: int, count: int) -> None:
        """So many results of so many bytes, with the first."""
        sizes = c_uint64(size // VECTOR_BYTES), c_uint64(count)
        self._launch("published_burn_compare", c_uint64(self.address), *sizes, c_uint64(self._count))
        self.verified += size * count

    @property
    def piece(self) -> int:
        """Vectors of a piece."""
        return self.vectors // _PIECES

    def _over(self, pattern: Pattern, first: int) -> tuple[c_uint64 | c_uint32, ...]:
        start = first * self.piece
        return (
            c_uint64(self.address + start * VECTOR_BYTES), c_uint64(self.vectors - start), c_uint64(self.piece),
            c_uint32(pattern.kind), c_uint64(pattern.a), c_uint64(pattern.b), c_uint32(pattern.flip),
        )  # fmt: skip

    def _verified(self, pattern: Pattern, first: int) -> None:
        size = self.bytes - first * self.piece * VECTOR_BYTES
        self.verified += size // 20 if pattern.kind == _MODULO_20 else size

    def _launch(self, name: str, *arguments: c_uint64 | c_uint32) -> None:
        self.kernels.launch(name, self.kernels.sms, *arguments)


def dcgm_memory(cuda: Cuda, image: bytes, wait_s: float) -> Iterator[tuple[VirtualGpu, str]]:
    """Five fills of 99 % of what is free, each read back once. `wait_s`: between writing and reading a word."""
    gpu = VirtualGpu(cuda, image, 0.99)
    for byte in (0x00, 0xAA, 0x55, 0xFF, 0x00):
        gpu.write(constant(byte * 0x01010101))
        time.sleep(wait_s)
        gpu.check(constant(byte * 0x01010101))
        yield gpu, f"{byte:02X}"


def gpu_burn(cuda: Cuda, image: bytes, wait_s: float) -> Iterator[tuple[VirtualGpu, str]]:
    """Results of one product, again and again. `wait_s`: what a round's products take."""
    gpu = VirtualGpu(cuda, image, _BURN_SHARE)
    size = 1 << (gpu.bytes // _BURN_MATRICES).bit_length() - 1  # a power of two, as 8192^2 floats are
    result = burn_result(size // 4)
    for _ in range(_BURN_ROUNDS):
        count = gpu.bytes // size - 2
        for number in range(count):
            gpu.store_result(number * size, result)
        time.sleep(wait_s)
        gpu.compare_results(size, count)
        yield gpu, "compare with C[0]"


def burn_result(elements: int) -> array.array[float]:
    """Elements of a product of 8192^3 of random numbers in 0..10: about 8192 * 25, so that FP32's steps are 1/64."""
    draw = random.Random(10)
    mean, deviation = _BURN_DEPTH * _BURN_MEAN, (_BURN_DEPTH * _BURN_VARIANCE) ** 0.5
    return array.array("f", (draw.gauss(mean, deviation) for _ in range(elements)))


def gpu_burn_products(cuda: Cuda, image: bytes, seed: str) -> Iterator[int]:
    """The same in compute alone: how many elements of a round's results differ from the first one's.

    Which SM computes which rows changes from product to product, drawn from `seed`, as it does on a GPU.
    """
    kernels, draw = Kernels(cuda, {"published": image}), random.Random(10)
    a, b = (
        array.array("f", (scale * draw.randrange(1_000_000) / 100_000 for _ in range(_ROWS * _DEPTH)))
        for scale in (_BURN_DEPTH // _DEPTH, 1)
    )
    turns = random.Random(seed)
    sizes = c_uint32(_ROWS), c_uint32(_ROWS), c_uint32(_DEPTH)
    for _ in range(_BURN_ROUNDS):
        wrong, first = 0, None
        for _ in range(_BURN_MATRICES - 2):
            c = array.array("f", bytes(4 * _ROWS * _ROWS))
            places = (c_uint64(matrix.buffer_info()[0]) for matrix in (a, b, c))
            kernels.launch("published_burn_product", kernels.sms, *places, *sizes, c_uint32(turns.getrandbits(31)))
            first = first or c
            wrong += sum(abs(x - y) > _BURN_EPSILON for x, y in zip(first, c, strict=True))  # False for NaN
        yield wrong


def cuda_memtest(
    cuda: Cuda, image: bytes, wait_s: float, seed: str, iterations: int
) -> Iterator[tuple[VirtualGpu, str]]:
    """One pass of the default tests. `wait_s`: what one sweep takes; waited for in test 2 alone, which decides."""
    gpu = VirtualGpu(cuda, image)
    number = random.Random(seed).getrandbits(31)
    gpu.walk_addresses(gpu.vectors)
    for _ in range(iterations):
        gpu.walk_addresses(gpu.piece)
    yield gpu, "0 walking bit"
    gpu.write(OWN_ADDRESS)
    gpu.check(OWN_ADDRESS)
    yield gpu, "1 own address"
    for pattern in (constant(0), constant(_ALL)):
        _move_inversions(gpu, pattern, wait_s)
    yield gpu, "2 ones and zeros"
    for pattern in (constant(0x80808080), constant(0x7F7F7F7F)):
        _move_inversions(gpu, pattern)
    yield gpu, "3 8-bit pattern"
    _move_inversions(gpu, constant(number))
    yield gpu, "4 random pattern"
    gpu.write(PAIRS)
    gpu.move_pairs()
    yield gpu, "5 block move"
    for start in range(32):
        _move_inversions(gpu, shifted_bit(start))
        _move_inversions(gpu, shifted_bit(start).inverted())
    yield gpu, "6 32-bit pattern"
    gpu.write(constant(number))  # piece 0 is the source, and is not checked
    gpu.invert(constant(number), first=1)
    gpu.check(constant(number).inverted(), first=1)
    yield gpu, "7 random sequence"
    for chosen in range(20):
        gpu.write(modulo_20(chosen, number))
        gpu.check(modulo_20(chosen, number))
    yield gpu, "8 modulo 20"
    pattern = constant(number)
    gpu.write(pattern)
    for _ in range(iterations):
        gpu.invert(pattern)
        pattern = pattern.inverted()
    yield gpu, "10 stress"


def _move_inversions(gpu: VirtualGpu, pattern: Pattern, wait_s: float = 0.0) -> None:
    gpu.write(pattern)
    time.sleep(wait_s)
    gpu.invert(pattern)
    time.sleep(wait_s)
    gpu.check(pattern.inverted())

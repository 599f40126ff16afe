"""A vendor library's matrix product as the baseline of ours: cublasGemmEx by ctypes, where a libcublas can be found.

Looked for: the path that was given, the wheels on sys.path (nvidia/cu13/lib, nvidia/cublas/lib), the loader's own
places, /usr/local/cuda*. Its operands are random small integers, as ours are: a product of zeros would draw less power
and run faster.
"""

from __future__ import annotations

import array
import ctypes
import random
import struct
import sys
from collections.abc import Callable, Iterator
from ctypes import byref, c_float, c_int, c_int32, c_void_p
from dataclasses import dataclass
from pathlib import Path

from burnin.device.cuda import Cuda

SONAMES = ("libcublas.so.13", "libcublas.so.12")
_PLACES = ("nvidia/cu13/lib", "nvidia/cublas/lib")
_DEADLINE_S = 60.0
_TILE_BYTES = 1 << 20
_NO_TRANSPOSE, _TRANSPOSE = 0, 1
_DEFAULT_ALGORITHM = -1


@dataclass(frozen=True, slots=True)
class Kind:
    """How cuBLAS calls a unit: library_types.h cudaDataType, cublas_api.h cublasComputeType_t; bytes of an element."""

    data: int
    result: int
    compute: int
    operand_bytes: int
    result_bytes: int
    scale: type[ctypes.c_float] | type[ctypes.c_double] | type[ctypes.c_int32]
    encode: Callable[[list[int]], bytes]


def _bf16(values: list[int]) -> bytes:
    return b"".join(struct.pack("<f", v)[2:] for v in values)


KINDS = {
    "fp64": Kind(1, 1, 70, 8, 8, ctypes.c_double, lambda v: array.array("d", v).tobytes()),
    "tf32": Kind(0, 0, 77, 4, 4, c_float, lambda v: array.array("f", v).tobytes()),
    "bf16": Kind(14, 0, 68, 2, 4, c_float, _bf16),
    "fp16": Kind(2, 0, 68, 2, 4, c_float, lambda v: struct.pack(f"<{len(v)}e", *v)),
    "int8": Kind(3, 10, 72, 1, 4, c_int32, lambda v: array.array("b", v).tobytes()),
}


class NoLibraryError(Exception):
    """There is no libcublas to compare with, or it refused; the text says which."""


def candidates(given: str | None) -> Iterator[str]:
    """Paths and names to try, in order."""
    if given:
        yield given
        return
    for entry in map(Path, sys.path):
        for place in _PLACES:
            yield from (str(entry / place / name) for name in SONAMES if (entry / place / name).exists())
    yield from SONAMES
    for root in sorted(Path("/usr/local").glob("cuda*"), reverse=True):
        yield from (str(root / "lib64" / name) for name in SONAMES if (root / "lib64" / name).exists())


class LibraryProduct:
    """A cuBLAS handle on the current context. Raises NoLibraryError."""

    def __init__(self, cuda: Cuda, given: str | None = None) -> None:
        self._cuda = cuda
        self.path, self._library = _load(given)
        self._handle = c_void_p()
        self._asked("cublasCreate_v2", byref(self._handle))
        self._stream = cuda.stream()
        self._asked("cublasSetStream_v2", self._handle, c_void_p(self._stream))
        version = c_int()
        self._asked("cublasGetVersion_v2", self._handle, byref(version))
        self.version = version.value

    def tflop_per_s(self, unit: str, size: int, seconds: float) -> float:
        """Rate of `size` cubed products in TFLOP/s (TOP/s for integers), 2 operations a multiply-add, over `seconds`.

        Raises NoLibraryError where this GPU has no such product, CudaError.
        """
        kind = KINDS[unit]
        a, b = (_filled(self._cuda, kind, size * size, seed) for seed in (1, 2))
        c = self._cuda.allocate(size * size * kind.result_bytes)
        try:
            self._products(kind, size, (a, b, c), 3)
            once = max(self._products(kind, size, (a, b, c), 3) / 3, 1e-6)
            count = max(3, int(seconds / once))
            return 2 * size**3 * count / self._products(kind, size, (a, b, c), count) / 1e12
        finally:
            for address in (a, b, c):
                self._cuda.free(address)

    def _products(self, kind: Kind, size: int, at: tuple[int, int, int], count: int) -> float:
        """Seconds that `count` products took."""
        one, zero, n = kind.scale(1), kind.scale(0), c_int(size)
        a, b, c = (c_void_p(address) for address in at)
        # A transposed: the one layout that every unit has, integers included
        arguments = (
            self._handle, c_int(_TRANSPOSE), c_int(_NO_TRANSPOSE), n, n, n, byref(one),
            a, c_int(kind.data), n, b, c_int(kind.data), n, byref(zero),
            c, c_int(kind.result), n, c_int(kind.compute), c_int(_DEFAULT_ALGORITHM),
        )  # fmt: skip
        first, last = self._cuda.event(), self._cuda.event()
        self._cuda.record(first, self._stream)
        for _ in range(count):
            self._asked("cublasGemmEx", *arguments)
        self._cuda.record(last, self._stream)
        self._cuda.await_event(last, _DEADLINE_S)
        return self._cuda.elapsed_ms(first, last) / 1e3

    def _asked(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise NoLibraryError(f"{name} of {self.path} gave status {status}")


def _load(given: str | None) -> tuple[str, ctypes.CDLL]:
    refused = {}
    for path in candidates(given):
        try:
            return path, ctypes.CDLL(path)
        except OSError as error:
            refused[path] = str(error)
    there = [why for path, why in refused.items() if Path(path).exists()]  # it is, and does not load
    raise NoLibraryError("; ".join(there) or f"no {' or '.join(refused)} here")


def _filled(cuda: Cuda, kind: Kind, elements: int, seed: int) -> int:
    """Device memory of random small integers: a tile is made here, the GPU copies it on."""
    draw = random.Random(seed)
    size = elements * kind.operand_bytes
    tile = kind.encode([draw.randint(-15, 15) for _ in range(min(_TILE_BYTES, size) // kind.operand_bytes)])
    address = cuda.allocate(size)
    host = ctypes.create_string_buffer(tile, len(tile))
    cuda.write(address, ctypes.addressof(host), len(tile))
    have = len(tile)
    while have < size:
        more = min(have, size - have)
        cuda.copy(address + have, address, more)
        have += more
    done = cuda.event()
    cuda.record(done)
    cuda.await_event(done, _DEADLINE_S)
    return address


def library_bytes(unit: str, size: int) -> int:
    """Device memory a product takes, bytes."""
    kind = KINDS[unit]
    return size * size * (2 * kind.operand_bytes + kind.result_bytes)

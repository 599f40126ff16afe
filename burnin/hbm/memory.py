"""A GPU's memory as the test sees it: chunks taken from the driver, cut into blocks; and the copies' host side."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

from burnin.device.cuda import OUT_OF_MEMORY, Cuda, CudaError

_GIB, _MIB, _KIB = 1 << 30, 1 << 20, 1 << 10
_LARGEST_CHUNK = 2 * _GIB
_LARGEST_BLOCK = 16 * _MIB
_SMALLEST_CHUNK = 64 * _KIB
# Left to the driver, which loads its own fill and copy kernels late; 97 % of free memory must be ours.
_RESERVE = 0.01

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_libc.memcmp.restype = ctypes.c_int


@dataclass(frozen=True)
class Chunk:
    """One allocation: number, device address, bytes."""

    number: int
    address: int
    size: int


@dataclass(frozen=True)
class Block:
    """What one copy moves. `number` counts over all chunks; `offset` is in the chunk; sizes in bytes."""

    number: int
    chunk: Chunk
    offset: int
    size: int

    @property
    def address(self) -> int:
        """Device address."""
        return self.chunk.address + self.offset


def take_memory(cuda: Cuda, free: int) -> tuple[Chunk, ...]:
    """Allocate nearly all of `free` bytes, in large chunks first. Raises CudaError for anything but "no such piece"."""
    left = free - int(free * _RESERVE)
    size = min(_LARGEST_CHUNK, 1 << max(16, (left // 8).bit_length() - 1))
    smallest = max(_SMALLEST_CHUNK, size >> 10)
    chunks: list[Chunk] = []
    while size >= smallest:
        if size > left:
            size //= 2
            continue
        try:
            chunks.append(Chunk(len(chunks), cuda.allocate(size), size))
            left -= size
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            size //= 2
    return tuple(chunks)


def block_bytes(chunks: tuple[Chunk, ...]) -> int:
    """How much one copy moves: enough for the link's full rate, little enough for a small memory to have many."""
    return min(_LARGEST_BLOCK, max(_SMALLEST_CHUNK, max(c.size for c in chunks) // 4))


def blocks(chunks: tuple[Chunk, ...], size: int) -> Iterator[Block]:
    """All memory under test, in ascending order of chunk and offset."""
    number = 0
    for chunk in chunks:
        for offset in range(0, chunk.size, size):
            yield Block(number, chunk, offset, min(size, chunk.size - offset))
            number += 1


class HostMemory:
    """Page-locked host memory, `size` bytes at `address`."""

    def __init__(self, cuda: Cuda, size: int) -> None:
        self.address = cuda.allocate_host(size)
        self._view = memoryview((ctypes.c_ubyte * size).from_address(self.address)).cast("B")

    def put(self, data: bytes) -> None:
        """Fill from the start."""
        self._view[: len(data)] = data

    def get(self, offset: int, size: int) -> bytes:
        """A copy of some bytes."""
        return bytes(self._view[offset : offset + size])

    def equals(self, offset: int, other: HostMemory, size: int) -> bool:
        """Compare `size` bytes from `offset` with the start of `other`, at memcmp's speed."""
        return bool(_libc.memcmp(self.address + offset, other.address, size) == 0)

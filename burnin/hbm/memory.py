"""A GPU's memory as the test sees it: a few allocations, as large as the driver gives them, that hold nearly all."""

from __future__ import annotations

from dataclasses import dataclass

from burnin.device.cuda import OUT_OF_MEMORY, Cuda, CudaError
from burnin.hbm.patterns import TILE_BYTES, VECTOR_BYTES

_MIB, _KIB = 1 << 20, 1 << 10
# Left to the driver, which may need a little while kernels run.
_RESERVE = 0.01
_LARGEST_RESERVE = 256 * _MIB
# A chunk has two halves of whole tiles.
_GRAIN = 2 * TILE_BYTES
_SMALLEST_CHUNK = 64 * _KIB


@dataclass(frozen=True)
class Chunk:
    """One allocation: device address, bytes, and the number of its first vector over all chunks."""

    address: int
    size: int
    first: int

    @property
    def tiles(self) -> int:
        """Its size in tiles: an even number."""
        return self.size // TILE_BYTES


def take_memory(cuda: Cuda, free: int, share: float = 1.0) -> tuple[Chunk, ...]:
    """Allocate nearly all of `free` bytes, or that share of them, largest pieces first.

    Raises CudaError for anything but "there is no such piece".
    """
    left = int((free - min(free * _RESERVE, _LARGEST_RESERVE)) * share)
    smallest = max(_SMALLEST_CHUNK, free >> 10)
    chunks: list[Chunk] = []
    first, size = 0, left
    while size >= smallest:
        size -= size % _GRAIN
        try:
            chunks.append(Chunk(cuda.allocate(size), size, first))
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            size -= max(size // 16, _GRAIN)
            continue
        first += size // VECTOR_BYTES
        left -= size
        size = min(size, left)
    return tuple(chunks)

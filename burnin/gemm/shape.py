"""How large the products on a GPU are: from its SMs and its memory alone, so that GPUs of a kind do the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

from burnin.gemm.units import Unit

_DEEPEST = 4096  # elements of a row; the spans of units.py are for it
_OPERAND_SHARE = 256  # of a GPU's memory, one part in so many holds operands


@dataclass(frozen=True)
class Shape:
    """C is `side` x `side` tiles of `tile` x `tile` elements, operand rows are `depth` elements long.

    `slots` blocks are on the GPU at once, each with one tile at a time. There are at least as many as tiles.
    """

    tile: int
    side: int
    depth: int
    slots: int

    @property
    def tiles(self) -> int:
        """Tiles of C, and iterations after which every block has done each of them."""
        return self.side * self.side

    @property
    def rows(self) -> int:
        """Rows of A, and of B."""
        return self.side * self.tile

    @property
    def operations(self) -> int:
        """Multiplications and additions of one iteration, all blocks together."""
        return 2 * self.tile * self.tile * self.depth * self.slots

    def text(self) -> str:
        """For digests, which are to be compared between equal shapes only."""
        return f"{self.tile}x{self.side} deep {self.depth} slots {self.slots}"


def shape_of(unit: Unit, tile: int, blocks_per_sm: int, row_bytes: int, sms: int, memory: int) -> Shape:
    """The shape on a GPU of `sms` SMs and `memory` bytes; a row is a multiple of `row_bytes`.

    The depth is a power of two, so that boards whose memory differs by a little do the same.
    """
    slots = sms * blocks_per_sm
    side = math.isqrt(slots)
    affordable = memory // _OPERAND_SHARE // (2 * side * tile * unit.bytes_per_element)
    shortest = row_bytes // unit.bytes_per_element
    depth = max(shortest, 1 << max(0, min(_DEEPEST, affordable).bit_length() - 1))
    return Shape(tile, side, depth, slots)

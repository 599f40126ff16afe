"""What is written to memory, and what must come back.

`unique`: 64-bit random words, a window of them for each block, each window shifted against every other. So every word
depends on its address: data that was stored at, or fetched from, a wrong row, bank or channel differs, and a wrong
address line cannot hide behind equal data. `inverted` is its complement: every bit is seen as 0 and as 1 at the same
address. `zeros` and `ones` switch all lines at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum

WORD_BYTES = 8
# Blocks' windows are shifted by this. An odd multiple of 64: copies stay aligned, and no two blocks whose numbers
# differ by a power of two see the same word at the same offset.
SHIFT_BYTES = 61 * 64

_INVERT = bytes(255 - b for b in range(256))


class Pattern(Enum):
    """The data of a step."""

    UNIQUE = "unique"
    INVERTED = "inverted"
    ZEROS = "zeros"
    ONES = "ones"
    MOVED = "moved"  # the second half of memory holds a copy, made by the GPU, of the first half's UNIQUE data


@dataclass(frozen=True)
class Step:
    """Write a pattern everywhere, then read it all back, in this order of addresses."""

    pattern: Pattern
    descending: bool


# The first two prove coverage: each word was written and verified with address-dependent data in both polarities.
REQUIRED = (Step(Pattern.UNIQUE, descending=False), Step(Pattern.INVERTED, descending=True))
FURTHER = (
    Step(Pattern.MOVED, descending=False),
    Step(Pattern.ZEROS, descending=True),
    Step(Pattern.ONES, descending=False),
)


def source_bytes(blocks: int, block_bytes: int) -> int:
    """Length of the data all blocks' windows are taken from."""
    return block_bytes + blocks * SHIFT_BYTES


def window(block: int) -> int:
    """Where in the source data a block's window begins."""
    return block * SHIFT_BYTES


def source(pattern: Pattern, size: int, seed: str) -> bytes:
    """The source data of a pattern, `size` bytes; the same seed gives the same data."""
    if pattern is Pattern.ZEROS:
        return bytes(size)
    if pattern is Pattern.ONES:
        return b"\xff" * size
    data = random.Random(seed).randbytes(size)  # noqa: S311 - test data, not a secret
    return data.translate(_INVERT) if pattern is Pattern.INVERTED else data

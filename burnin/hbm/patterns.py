"""What is written to memory and must come back, and in which order: data for the kernels of kernels/hbm.cu.

Memory is a sequence of 16-byte vectors, numbered over all of it; a vector's value follows from its pattern and its
number alone (`Pattern.value` is the same formula in Python). No two vectors of ADDRESS or RANDOM are equal: what was
stored at, or fetched from, a wrong row, bank or channel differs, and a wrong address line cannot hide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum

VECTOR_BYTES = 16
TILE_VECTORS = 1024  # what a block of a kernel takes at once
TILE_BYTES = TILE_VECTORS * VECTOR_BYTES

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_WALKING_SAMPLES = 8  # of 64 positions; every vector also has two neighbouring ones
_MODULO = 20
_SMALLEST_ROW = 6  # 2^6 vectors: 1 KiB, a DRAM row's share of a pseudo channel (JEDEC JESD238: 1 KiB pages)
_ROW_SIZES = 5  # 1 to 16 KiB: how rows lie in the address space is not public
# Waiting and hammering take longer than all sweeps together: not in every round.
_SLOW_EVERY = 32


class Kind(IntEnum):
    """The kernels' numbers. What the seed means is said for each."""

    ADDRESS = 0  # each 64-bit word holds its own number; no seed
    RANDOM = 1  # one hash of seed and number
    CHECKERBOARD = 2  # 1010.. and 0101.., changing every 2^seed vectors
    WALKING = 3  # one bit, in each word the next one; the seed moves it
    SOLID = 4  # zeros; no seed
    MODULO_20 = 5  # data in one word of 20, the seed's low 5 bits say in which; its complement in the others


@dataclass(frozen=True)
class Pattern:
    """The data of a step; `inverted` is its complement."""

    kind: Kind
    seed: int = 0
    inverted: bool = False

    def __str__(self) -> str:
        """As the records name it: `random`, `~random`, `walking 8`."""
        detail = {Kind.WALKING: f" {self.seed}", Kind.MODULO_20: f" {self.seed & 31}"}.get(self.kind, "")
        return f"{'~' if self.inverted else ''}{self.kind.name.lower()}{detail}"

    @property
    def flip(self) -> int:
        """What every word is combined with by exclusive or."""
        return _WORD if self.inverted else 0

    def value(self, number: int) -> tuple[int, int]:
        """The two 64-bit words of a vector, by its number."""
        x, y = _value(self.kind, self.seed, number)
        return x ^ self.flip, y ^ self.flip


def _value(kind: Kind, seed: int, number: int) -> tuple[int, int]:
    if kind is Kind.ADDRESS:
        return 2 * number, 2 * number + 1
    if kind is Kind.RANDOM:
        x = (number * _GOLDEN + seed) & _WORD
        x = (x ^ x >> 32) * 0xD6E8FEB86659FD93 & _WORD
        x ^= x >> 32
        return x, _rotated(x, 23) ^ _WORD
    if kind is Kind.CHECKERBOARD:
        x = 0x5555555555555555 if number >> seed & 1 else 0xAAAAAAAAAAAAAAAA
        return x, x
    if kind is Kind.WALKING:
        x = 1 << (2 * number + seed) % 64
        return x, _rotated(x, 1)
    if kind is Kind.MODULO_20:
        data, word = (seed >> 5) * _GOLDEN & _WORD, number % 10 * 2
        return (data if word == seed & 31 else data ^ _WORD), (data if word + 1 == seed & 31 else data ^ _WORD)
    return 0, 0


def _rotated(x: int, by: int) -> int:
    return (x << by | x >> 64 - by) & _WORD


class Then(Enum):
    """What is done to memory that holds a pattern, before it is checked."""

    NOTHING = "sweep"
    MOVE = "move"  # by the GPU, all of it
    REST = "rest"  # no access while the die is kept hot
    ACTIVATE = "activate"  # rows are opened over and over


@dataclass(frozen=True)
class Step:
    """Write a pattern everywhere, do something to it; the next step's sweep reads and compares all of it."""

    pattern: Pattern
    then: Then = Then.NOTHING

    def __str__(self) -> str:
        return str(self.pattern) if self.then is Then.NOTHING else f"{self.pattern}, {self.then.value}"


def steps(seed: str, number: int, *, rest: bool, thorough: bool) -> Iterator[Step]:
    """One round of steps, `number` from 0; every round has data of its own. Their directions alternate.

    rest      wait without accesses, in every 32nd round from the first: a weak cell may fall to 0 or rise to 1, so the
              data and its complement wait
    thorough  also modulo-20, and row activation (every 32nd round)
    """
    row = _SMALLEST_ROW + number % _ROW_SIZES
    pairs = [Pattern(Kind.ADDRESS), Pattern(Kind.RANDOM, _random(seed, number, "random"))]
    pairs += [Pattern(Kind.CHECKERBOARD, row), Pattern(Kind.SOLID)]
    pairs += [Pattern(Kind.WALKING, (8 * sample + number) % 64) for sample in range(_WALKING_SAMPLES)]
    for pattern in pairs:
        yield Step(pattern)
        yield Step(Pattern(pattern.kind, pattern.seed, inverted=True))
    yield Step(Pattern(Kind.RANDOM, _random(seed, number, "move")), Then.MOVE)
    if thorough:
        data = _random(seed, number, "modulo") & ~31
        yield from (Step(Pattern(Kind.MODULO_20, data | chosen)) for chosen in range(_MODULO))
    if number % _SLOW_EVERY == 0:
        slow = [Then.ACTIVATE] * thorough + [Then.REST] * rest
        for then in slow:
            yield from (Step(Pattern(Kind.RANDOM, _random(seed, number, then.value), i), then) for i in (False, True))


def _random(seed: str, number: int, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()[:8], "little")

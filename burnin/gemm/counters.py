"""What a kernel counts on the GPU (struct Tally of burnin/kernels/tiles.h), as it lies in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_SMS = 1024
_MAX_WRONG = 256
_WORD = ctypes.c_uint64


class _Wrong(ctypes.Structure):
    _fields_ = tuple((name, _WORD) for name in ("iteration", "tile", "sm", "got", "expected"))


class TallyMemory(ctypes.Structure):
    """The bytes themselves."""

    _fields_ = (
        ("tiles", _WORD),
        ("wrong", _WORD),
        ("sum", _WORD),
        ("tiles_by_sm", _WORD * _MAX_SMS),
        ("wrong_by_sm", _WORD * _MAX_SMS),
        ("first", _Wrong * _MAX_WRONG),
    )


class AnswerMemory(ctypes.Structure):
    """struct Answer: what a block got, and on which SM."""

    _fields_ = (("digest", _WORD), ("sm", _WORD))


@dataclass(frozen=True)
class WrongTile:
    """A tile that did not come out as its reference: in which iteration of which unit, on which SM."""

    unit: str
    iteration: int
    tile: int
    sm: int
    got: str
    expected: str


@dataclass(frozen=True)
class Tally:
    """What was counted since the counters were cleared; SMs by their number, those with a count only."""

    tiles: int
    wrong: int
    digest_sum: int
    tiles_by_sm: dict[int, int]
    wrong_by_sm: dict[int, int]
    first: tuple[WrongTile, ...]


def tally(memory: TallyMemory, unit: str) -> Tally:
    """The counters of `unit`'s kernel as a value."""
    return Tally(
        tiles=memory.tiles,
        wrong=memory.wrong,
        digest_sum=memory.sum,
        tiles_by_sm={sm: count for sm, count in enumerate(memory.tiles_by_sm) if count},
        wrong_by_sm={sm: count for sm, count in enumerate(memory.wrong_by_sm) if count},
        first=tuple(_first(memory, unit)),
    )


def _first(memory: TallyMemory, unit: str) -> Iterator[WrongTile]:
    for one in memory.first[: min(memory.wrong, _MAX_WRONG)]:
        yield WrongTile(unit, one.iteration, one.tile, one.sm, f"{one.got:016x}", f"{one.expected:016x}")

"""Classes of faults a virtual GPU can have, and random instances of them: keys of the state its stand-ins read.

An instance is drawn over all free memory and all bits; its period, its time, its neighbourhood are drawn too. None of
these values is used anywhere else in the project: the suite was not tuned on them. The model is ours all the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from published_tools import VECTOR_BYTES

LINE_VECTORS, ROW_VECTORS = 8, 64  # toolkit/virtual/devices/memory_model.h
VECTOR_BITS = 8 * VECTOR_BYTES

Keys = Mapping[str, int]
Draw = Callable[[random.Random, int], Keys]  # chance, number of vectors or of SMs


class Where(StrEnum):
    """What a class is a fault of."""

    MEMORY = "memory"
    COMPUTE = "compute"


@dataclass(frozen=True, slots=True)
class FaultClass:
    """A class: what it does, how an instance is drawn, the workload of ours that is for it.

    `long_only`: only the long suite looks for it. `waits`: it shows with time alone. `every_sm`: all SMs have it.
    """

    name: str
    what: str
    where: Where
    draw: Draw
    long_only: bool = False
    waits: bool = False
    every_sm: bool = False


def cell(chance: random.Random, vectors: int, name: str, at: int | None = None) -> dict[str, int]:
    """Some bit of memory, or of one vector."""
    vector = chance.randrange(vectors) if at is None else at
    return {f"memory.{name}_vector": vector, f"memory.{name}_bit": chance.randrange(VECTOR_BITS)}


def stuck(chance: random.Random, vectors: int) -> Keys:
    """A bit that reads as 1."""
    return cell(chance, vectors, "stuck")


def address_line(chance: random.Random, vectors: int) -> Keys:
    """A bit of the address that is 0, on all of memory or on a quarter of it."""
    bit = chance.randrange((vectors - 1).bit_length() - 2)  # in a quarter, a higher one would change nothing
    quarter = chance.choice((None, 0, 1, 2, 3))
    first = 0 if quarter is None else quarter * vectors // 4
    last = vectors if quarter is None else (quarter + 1) * vectors // 4
    return {"memory.address_line_bit": bit, "memory.address_line_from": first, "memory.address_line_to": last}


def flip(least: int, most: int) -> Draw:
    """A bit that is wrong in every so-manieth read of its vector, drawn between two limits on a logarithmic scale."""

    def draw(chance: random.Random, vectors: int) -> Keys:
        return {**cell(chance, vectors, "flip"), "memory.flip_every": _logarithmic(chance, least, most)}

    return draw


def coupling(chance: random.Random, vectors: int) -> Keys:
    """A bit that inverts another when it rises: in the same vector, the same row, the next row, or anywhere."""
    reach = chance.choice((0, ROW_VECTORS, 2 * ROW_VECTORS, vectors))
    aggressor = cell(chance, vectors, "aggressor")
    at = aggressor["memory.aggressor_vector"]
    victim = chance.randint(max(0, at - reach), min(vectors - 1, at + reach))
    found = {**aggressor, **cell(chance, vectors, "victim", victim)}
    if victim == at and found["memory.victim_bit"] == found["memory.aggressor_bit"]:  # a bit is no neighbour of itself
        found["memory.victim_bit"] ^= 1
    return found


def lost_write(chance: random.Random, vectors: int) -> Keys:
    """Every so-manieth write to a line of 128 bytes does not arrive."""
    return {
        "memory.lost_line": chance.randrange(vectors // LINE_VECTORS),
        "memory.lost_every": _logarithmic(chance, 1, 400),
    }


def retention(chance: random.Random, vectors: int) -> Keys:
    """A bit that falls to 0 when it is not written for so long; the time is the virtual one, see TIME_SCALE."""
    return {
        **cell(chance, vectors, "retention"),
        "memory.retention_ms": _logarithmic(chance, 1, int(MOST_RETENTION_S * 1000 / TIME_SCALE)),
    }


def disturb(chance: random.Random, vectors: int) -> Keys:
    """A bit that is inverted when the rows beside it were opened so often since it was written."""
    return {**cell(chance, vectors, "disturb"), "memory.disturb_after": _logarithmic(chance, 200, 20_000)}


def compute(fault: str) -> Draw:
    """A fault of one SM's arithmetic."""

    def draw(chance: random.Random, sms: int) -> Keys:
        return {f"compute.{fault}_sm": chance.randrange(sms)}

    return draw


TIME_SCALE = 100  # a virtual second stands for so many real ones, where time is what a fault needs
MOST_RETENTION_S = 100.0  # real seconds

CLASSES = (
    FaultClass("stuck data bit", "reads as 1", Where.MEMORY, stuck),
    FaultClass("stuck address line", "two places are one", Where.MEMORY, address_line),
    FaultClass("intermittent read", "wrong in 1 of 2 to 20 reads", Where.MEMORY, flip(2, 20)),
    FaultClass("transient wrong read", "wrong in 1 of 20 to 2,000 reads", Where.MEMORY, flip(20, 2000)),
    FaultClass("coupling", "a rising bit inverts another", Where.MEMORY, coupling),
    FaultClass("lost write", "1 of 1 to 400 writes to a line", Where.MEMORY, lost_write),
    FaultClass("retention", "falls to 0 within 0.1 to 100 s", Where.MEMORY, retention, waits=True),
    FaultClass("row disturb", "200 to 20,000 openings beside it", Where.MEMORY, disturb, long_only=True),
    FaultClass("wrong multiply-add, 1 SM", "a bit of 1 in 1,000 results", Where.COMPUTE, compute("wrong_fma")),
    FaultClass("rounding, 1 SM", "the last bit is lost", Where.COMPUTE, compute("rounding")),
    FaultClass("NaN, 1 SM", "1 in 1,000 results", Where.COMPUTE, compute("nan")),
    FaultClass(
        "rounding, every SM", "the same wrong bits everywhere", Where.COMPUTE, compute("rounding"), every_sm=True
    ),
)


def _logarithmic(chance: random.Random, least: int, most: int) -> int:
    return round(float(least * (most / least) ** chance.random()))

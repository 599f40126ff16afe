"""What the kernels found wrong: a structure of kernels/hbm.cu in page-locked host memory.

It lies on the host so that it does not share the fate of the memory under test, and can be read when the GPU is lost.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_uint32, c_uint64
from dataclasses import dataclass

from burnin.device.cuda import Cuda

CAPACITY = 256


class _Miscompare(ctypes.Structure):
    _fields_ = (
        ("number", c_uint64),
        ("padding", c_uint64),  # vectors are aligned to their size
        ("expected", c_uint64 * 2),
        ("got", c_uint64 * 2),
        ("again", c_uint64 * 2),
        ("sm", c_uint32),
        ("step", c_uint32),
        ("end", c_uint64),
    )


class _Findings(ctypes.Structure):
    _fields_ = (
        ("words", c_uint64),
        ("transient", c_uint64),
        ("listed", c_uint64),
        ("capacity", c_uint64),
        ("list", _Miscompare * CAPACITY),
    )


@dataclass(frozen=True)
class Miscompare:
    """A 16-byte vector that came back wrong: its number, its two 64-bit words in hexadecimal, what a second read gave.

    `sm` is the SM that saw it, `step` the number of the step that wrote it. No bit in `xor`: the comparison of this
    vector or one of the next three failed, and was right when it was calculated again. It is the SM that is at fault.
    """

    index: int
    expected: str
    got: str
    xor: str
    again: str
    sm: int
    step: int

    @property
    def transient(self) -> bool:
        """The second read was right: it was wrong on its way, not in memory."""
        return self.again == self.expected


class Findings:
    """The structure at `address`; it counts up as long as it lives."""

    def __init__(self, cuda: Cuda) -> None:
        self.address = cuda.allocate_host(ctypes.sizeof(_Findings))
        ctypes.memset(self.address, 0, ctypes.sizeof(_Findings))
        self._found = _Findings.from_address(self.address)
        self._found.capacity = CAPACITY

    @property
    def words(self) -> int:
        """64-bit words that came back wrong."""
        return int(self._found.words)

    @property
    def transient(self) -> int:
        """Of these, how many a second read gave right."""
        return int(self._found.transient)

    def miscompares(self) -> tuple[Miscompare, ...]:
        """The first ones of all, in the order they were found."""
        return tuple(_read(m) for m in self._found.list[: min(int(self._found.listed), CAPACITY)])


def _read(raw: _Miscompare) -> Miscompare:
    return Miscompare(
        index=raw.number,
        expected=_hex(raw.expected),
        got=_hex(raw.got),
        xor=_hex([want ^ got for want, got in zip(raw.expected, raw.got, strict=True)]),
        again=_hex(raw.again),
        sm=raw.sm,
        step=raw.step,
    )


def _hex(words: Sequence[int]) -> str:
    return " ".join(f"{word:016x}" for word in words)

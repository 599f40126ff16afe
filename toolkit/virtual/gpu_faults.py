"""What a fault of one GPU is in the state that its stand-ins read (keys: toolkit/virtual/hardware.py).

Every fault of memory has a place of its own, in the middle half: programs keep their results at the ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from toolkit.errors import UsageError
from toolkit.virtual.faults import Fault, FaultKind

MIB = 1 << 20
_VECTOR_BYTES = 16
_LINE_VECTORS = 8
_ROW_VECTORS = 64

_AFTER_MIB = 64.0
_FALLS_OFF_AFTER_MIB = 256.0
_FAULTY_SM = 2


@dataclass(frozen=True, slots=True)
class Board:
    """What a fault must know of the GPU: bytes of memory, SMs, lanes of its PCIe link."""

    memory_bytes: int
    sms: int
    lanes: int

    @property
    def vectors(self) -> int:
        """Memory in vectors of 16 bytes."""
        return self.memory_bytes // _VECTOR_BYTES

    def at(self, share: float) -> int:
        """The vector at a share 0..1 of the memory."""
        return min(int(self.vectors * min(max(share, 0.0), 1.0)), self.vectors - 1)


Keys = Mapping[str, object]


def keys_of(fault: Fault, board: Board) -> Mapping[str, str]:
    """State keys (without `gpuN.`) that the fault sets. Raises UsageError for a value that this board cannot have.

    A kind that is not of one GPU sets none.
    """
    make = _KEYS.get(fault.kind)
    return {key: str(value) for key, value in make(fault, board).items()} if make else {}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _whole(fault: Fault, default: int, low: int, high: int, what: str) -> int:
    """The value as a whole number within limits."""
    number = int(_or(fault.value, default))
    if not low <= number <= high:
        raise UsageError(f"fault {fault.kind} on {fault.node}: {what} {number}", f"it takes {low} to {high}")
    return number


def _sticky_bit(fault: Fault, board: Board) -> Keys:
    byte = board.at(_or(fault.value, 0.4)) * _VECTOR_BYTES
    return {"memory.stuck_vector": byte // _VECTOR_BYTES, "memory.stuck_bit": 36}


def _address_line(fault: Fault, board: Board) -> Keys:
    """In the middle half, so that a program's small results, at the ends, still come back."""
    quarter = board.vectors // 4
    bit = _whole(fault, 14, 0, quarter.bit_length() - 2, "address line")
    return {
        "memory.address_line_bit": bit, "memory.address_line_from": quarter, "memory.address_line_to": 3 * quarter,
    }  # fmt: skip


def _flip(fault: Fault, board: Board) -> Keys:
    every = _whole(fault, 3, 1, MIB, "every n-th read, n")
    return {"memory.flip_vector": board.at(0.45), "memory.flip_bit": 77, "memory.flip_every": every}


def _coupling(_: Fault, board: Board) -> Keys:
    aggressor = board.at(0.5)
    return {
        "memory.aggressor_vector": aggressor, "memory.aggressor_bit": 19,
        "memory.victim_vector": aggressor + _ROW_VECTORS, "memory.victim_bit": 102,
    }  # fmt: skip


def _lost_write(fault: Fault, board: Board) -> Keys:
    every = _whole(fault, 5, 1, MIB, "every n-th write, n")
    return {"memory.lost_line": board.at(0.55) // _LINE_VECTORS, "memory.lost_every": every}


def _retention(fault: Fault, board: Board) -> Keys:
    milliseconds = max(1, int(1000 * _or(fault.value, 0.5)))
    return {
        "memory.retention_vector": board.at(0.6), "memory.retention_bit": 50, "memory.retention_ms": milliseconds,
    }  # fmt: skip


def _row_disturb(fault: Fault, board: Board) -> Keys:
    after = _whole(fault, 1000, 1, 1 << 30, "activations")
    return {"memory.disturb_vector": board.at(0.65), "memory.disturb_bit": 8, "memory.disturb_after": after}


def _ends_after(name: str) -> Callable[[Fault, Board], Keys]:
    """A fault that strikes after so many MiB, so many times."""

    def make(fault: Fault, _: Board) -> Keys:
        times = 1 if fault.times is None else fault.times
        return {f"{name}_after_bytes": int(_or(fault.value, _AFTER_MIB) * MIB), f"{name}_times": times}

    return make


def _bytes(key: str, mib: float) -> Callable[[Fault, Board], Keys]:
    return lambda fault, _: {key: int(_or(fault.value, mib) * MIB)}


def _sm(key: str) -> Callable[[Fault, Board], Keys]:
    return lambda fault, board: {key: _whole(fault, _FAULTY_SM, 0, board.sms - 1, "SM")}


def _real(key: str, default: float) -> Callable[[Fault, Board], Keys]:
    return lambda fault, _: {key: f"{_or(fault.value, default):g}"}


def _cuda_error(fault: Fault, _: Board) -> Keys:
    return {} if fault.gpu is None else {"cuda_context_error": cuda_error(fault)}


def cuda_error(fault: Fault) -> int:
    """The CUresult of a fault `cuda_error`. Raises UsageError where it is none."""
    return _whole(fault, 999, 1, 999, "CUDA error")


_KEYS: Mapping[FaultKind, Callable[[Fault, Board], Keys]] = MappingProxyType(
    {
        FaultKind.HBM_STICKY_BIT: _sticky_bit,
        FaultKind.HBM_ADDRESS_LINE: _address_line,
        FaultKind.HBM_FLIP: _flip,
        FaultKind.HBM_COUPLING: _coupling,
        FaultKind.HBM_LOST_WRITE: _lost_write,
        FaultKind.HBM_RETENTION: _retention,
        FaultKind.HBM_ROW_DISTURB: _row_disturb,
        FaultKind.HBM_DOUBLE_BIT: _ends_after("double_bit"),
        FaultKind.ROW_REMAP: _ends_after("row_remap"),
        FaultKind.ECC_DRIP: _real("ecc_corrected_per_gib", 64),
        FaultKind.GEMM_WRONG_FMA: _sm("compute.wrong_fma_sm"),
        FaultKind.GEMM_ROUNDING: _sm("compute.rounding_sm"),
        FaultKind.GEMM_NAN: _sm("compute.nan_sm"),
        FaultKind.KERNEL_HANG: _bytes("hangs_after_bytes", _AFTER_MIB),
        FaultKind.CUDA_ERROR: _cuda_error,
        FaultKind.XID_79: _bytes("falls_off_after_bytes", _FALLS_OFF_AFTER_MIB),
        FaultKind.SLOW_GPU: _real("clock_fraction", 0.6),
        FaultKind.HOT_GPU: _real("full_load_celsius", 105),
        FaultKind.GPU_XID_CONDITION: lambda fault, _: {"health_xid": _whole(fault, 79, 1, 999, "Xid")},
        FaultKind.PCIE_NARROW: lambda fault, board: {"pcie_width_loaded": _whole(fault, 8, 1, board.lanes, "lanes")},
    }
)

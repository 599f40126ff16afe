"""The arithmetic units that are tested, as data. burnin/kernels/tiles.h has the same numbers and formats."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """The code of one unit for GPUs of compute capability `first` to `last` (90 is 9.0).

    `proven` is False for code that has compiled and was never run on such a chip: it is left out unless asked for.
    """

    name: str
    first: int
    last: int
    proven: bool = True


@dataclass(frozen=True)
class Unit:
    """One kind of tensor core arithmetic: operands of `bytes_per_element`; whole numbers up to `span` sum exactly."""

    name: str
    number: int
    bytes_per_element: int
    span: int
    kernels: tuple[Kernel, ...]
    note: str  # what the rate of mma.sync is to be compared with

    def kernel(self, capability: int) -> Kernel | None:
        """The code for a GPU of this compute capability, if there is any."""
        return next((k for k in self.kernels if k.first <= capability <= k.last), None)


_EVERY = 999

# The hottest first. FP8 is last: its kernels may stop a GPU's context, and the others have spoken by then.
UNITS = (
    Unit("bf16", 2, 2, 15, (Kernel("gemm_bf16", 80, _EVERY),),
         "Hopper: about 0.6 of the dense rate by mma.sync, all of it by wgmma alone"),
    Unit("fp16", 3, 2, 15, (Kernel("gemm_fp16", 80, _EVERY),), "as bf16"),
    Unit("tf32", 1, 4, 40, (Kernel("gemm_tf32", 80, _EVERY),), "half of bf16"),
    Unit("int8", 4, 1, 127, (Kernel("gemm_int8", 80, _EVERY),), "twice bf16 up to Hopper; B200 has few of these units"),
    Unit("fp64", 0, 8, 1_000_000, (Kernel("gemm_fp64", 80, _EVERY),), "B300 and workstation boards have few of these"),
    Unit("fp8", 5, 1, 1, (
        Kernel("gemm_fp8_wgmma", 90, 90, proven=False),
        Kernel("gemm_fp8_tcgen05", 100, 103, proven=False),
        Kernel("gemm_fp8_mma", 120, 129, proven=False),
    ), "mma.sync of FP8 is made of FP16 instructions before 12.0: other kernels there"),
)  # fmt: skip

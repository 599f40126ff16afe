"""The named faults a virtual rack can have, set and cleared while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class FaultKind(StrEnum):
    """What is broken. `MEANINGS` says how each shows, and what its value means."""

    HBM_STICKY_BIT = "hbm_sticky_bit"
    HBM_ADDRESS_LINE = "hbm_address_line"
    HBM_FLIP = "hbm_flip"
    HBM_COUPLING = "hbm_coupling"
    HBM_LOST_WRITE = "hbm_lost_write"
    HBM_RETENTION = "hbm_retention"
    HBM_ROW_DISTURB = "hbm_row_disturb"
    HBM_DOUBLE_BIT = "hbm_double_bit"
    ROW_REMAP = "row_remap"
    ECC_DRIP = "ecc_drip"
    GEMM_WRONG_FMA = "gemm_wrong_fma"
    GEMM_ROUNDING = "gemm_rounding"
    GEMM_NAN = "gemm_nan"
    KERNEL_HANG = "kernel_hang"
    CUDA_ERROR = "cuda_error"
    XID_79 = "xid_79"
    SLOW_GPU = "slow_gpu"
    HOT_GPU = "hot_gpu"
    PCIE_NARROW = "pcie_narrow"
    NVLINK_LANE_DOWN = "nvlink_lane_down"
    NCCL_HANG = "nccl_hang"
    WRONG_TRANSPORT = "wrong_transport"
    FABRIC_MANAGER_SKEW = "fabric_manager_skew"
    HALF_RATE_RAIL = "half_rate_rail"
    SLOW_RAIL = "slow_rail"
    BMC_DEAD = "bmc_dead"
    BAD_IMAGE = "bad_image"
    BOOT_HANG = "boot_hang"


MEANINGS: Mapping[FaultKind, str] = MappingProxyType(
    {
        FaultKind.HBM_STICKY_BIT: "one bit of memory reads as 1; value: where, as a share 0 to 1 of the memory",
        FaultKind.HBM_ADDRESS_LINE: "an address bit is always 0 in half of the memory, so that places coincide; "
        "value: which bit of the number of a 16-byte vector (14)",
        FaultKind.HBM_FLIP: "a vector is sometimes read wrong, and stays right in memory; value: every n-th read (3)",
        FaultKind.HBM_COUPLING: "writing a 1 over a 0 in one bit inverts a bit of another row",
        FaultKind.HBM_LOST_WRITE: "some writes to a line of 128 bytes never arrive; value: every n-th (5)",
        FaultKind.HBM_RETENTION: "a bit falls to 0 when it is not written for long; value: for how many seconds (0.5)",
        FaultKind.HBM_ROW_DISTURB: "a bit flips when its neighbour rows are opened often; value: how often (1000)",
        FaultKind.HBM_DOUBLE_BIT: "an uncorrectable error ends the work (CUDA 214) and its row waits for a reset; "
        "value: after how many MiB moved since the last reset (64); times: how often, a reset between (1)",
        FaultKind.ROW_REMAP: "corrected errors make a row wait for a reset; value and times as of hbm_double_bit",
        FaultKind.ECC_DRIP: "corrected errors grow with what the GPU moves; value: errors a GiB (64)",
        FaultKind.GEMM_WRONG_FMA: "one in 1000 results of an SM has a wrong bit; value: number of the SM (2)",
        FaultKind.GEMM_ROUNDING: "an SM cuts the last bit of what it rounds; value: number of the SM (2)",
        FaultKind.GEMM_NAN: "one in 1000 results of an SM is not a number; value: number of the SM (2)",
        FaultKind.KERNEL_HANG: "a kernel never ends; value: one started after so many MiB moved (64)",
        FaultKind.CUDA_ERROR: "CUDA cannot be used: cuInit fails, or with --gpu that GPU's context; "
        "value: the CUDA error (999)",
        FaultKind.XID_79: "the GPU falls off the bus; value: after how many MiB moved (256)",
        FaultKind.SLOW_GPU: "the GPU is slow under load; value: the share 0 to 1 of its clocks it reaches (0.6)",
        FaultKind.HOT_GPU: "the GPU gets too hot under load; value: degrees C it would reach (105)",
        FaultKind.PCIE_NARROW: "the GPU's PCIe link is narrow under load; value: its lanes (8)",
        FaultKind.NVLINK_LANE_DOWN: "one NVLink (--link) of a GPU is inactive",
        FaultKind.NCCL_HANG: "a collective never returns",
        FaultKind.WRONG_TRANSPORT: "NCCL takes sockets where NVLink was meant; value: GB/s of the sockets (3)",
        FaultKind.FABRIC_MANAGER_SKEW: "the fabric manager is of another version than the driver",
        FaultKind.HALF_RATE_RAIL: "an HCA (--hca) trains below its rate; value: the share of it (0.5)",
        FaultKind.SLOW_RAIL: "an HCA (--hca) trains at its rate and carries less; value: the share of it (0.5)",
        FaultKind.BMC_DEAD: "the BMC's address does not answer",
        FaultKind.BAD_IMAGE: "the image server flips a byte; value: in the next so many downloads by this node (1)",
        FaultKind.BOOT_HANG: "the operating system never comes up",
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on a node. `gpu`, `link`, `hca` where the kind needs one; `value` and `times` as the kind reads them."""

    kind: FaultKind
    node: str
    gpu: int | None = None
    link: int | None = None
    hca: str | None = None
    value: float | None = None
    times: int | None = None

    def __str__(self) -> str:
        said = {"gpu": self.gpu, "link": self.link, "hca": self.hca, "value": self.value, "times": self.times}
        return " ".join(
            (
                self.kind,
                *(
                    f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                    for name, value in said.items()
                    if value is not None
                ),
            )
        )

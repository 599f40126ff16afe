"""The named faults a virtual rack can have, set and cleared while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """What is broken. The comment says how it shows."""

    ECC_DRIP = "ecc_drip"  # HBM corrected errors grow with the bytes the GPU moves
    HBM_STICKY_BIT = "hbm_sticky_bit"  # one bit of a GPU's memory reads as 1
    NVLINK_LANE_DOWN = "nvlink_lane_down"  # one NVLink of one GPU is inactive
    XID_79 = "xid_79"  # a GPU falls off the bus under load
    SLOW_GPU = "slow_gpu"  # a GPU runs at a fraction of its clock: collectives slow down
    NCCL_HANG = "nccl_hang"  # a collective never returns
    WRONG_TRANSPORT = "wrong_transport"  # NCCL takes sockets where NVLink was meant
    FABRIC_MANAGER_SKEW = "fabric_manager_skew"  # fabric manager of another version than the driver
    HALF_RATE_RAIL = "half_rate_rail"  # an HCA trains at half its rate
    BMC_DEAD = "bmc_dead"  # the BMC's address does not answer
    BAD_IMAGE = "bad_image"  # the image server flips a byte, for the next `count` downloads by this node
    BOOT_HANG = "boot_hang"  # the operating system never comes up


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on a node. `gpu`, `link`, `hca` where the kind needs one; `value` as the kind reads it."""

    kind: FaultKind
    node: str
    gpu: int | None = None
    link: int | None = None
    hca: str | None = None
    value: float | None = None

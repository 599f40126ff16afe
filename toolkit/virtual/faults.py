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
    NCCL_ABSENT = "nccl_absent"
    WRONG_TRANSPORT = "wrong_transport"
    FABRIC_MANAGER_SKEW = "fabric_manager_skew"
    HALF_RATE_RAIL = "half_rate_rail"
    SLOW_RAIL = "slow_rail"
    CROWDED_RAIL = "crowded_rail"
    CABLE_PULLED = "cable_pulled"
    SWAPPED_CABLES = "swapped_cables"
    ROTATED_CABLES = "rotated_cables"
    NARROW_LINK = "narrow_link"
    SYMBOL_ERRORS = "symbol_errors"
    LINK_DOWNED = "link_downed"
    SWITCH_DOWN = "switch_down"
    WRONG_GUID = "wrong_guid"
    DUPLICATE_GUID = "duplicate_guid"
    DUPLICATE_LID = "duplicate_lid"
    MAD_LOSS = "mad_loss"
    PKEY_LIMITED = "pkey_limited"
    NO_SUBNET_MANAGER = "no_subnet_manager"
    SECOND_SUBNET_MANAGER = "second_subnet_manager"
    NVUE_DENIED = "nvue_denied"
    NVUE_BROKEN = "nvue_broken"
    NVUE_WEB_PAGE = "nvue_web_page"
    NVUE_SLOW = "nvue_slow"
    NVUE_APPLIED = "nvue_applied"
    NVLINK_PORT = "nvlink_port"
    NMX_APP_FAILED = "nmx_app_failed"
    SECOND_CLUSTER = "second_cluster"
    SHORT_PARTITION = "short_partition"
    KUBELET_DEAD = "kubelet_dead"
    NODE_NOT_READY = "node_not_ready"
    GPU_DEVICE_PLUGIN_GONE = "gpu_device_plugin_gone"
    GPU_XID_CONDITION = "gpu_xid_condition"
    PODS_FAIL = "pods_fail"
    NODE_RENAMES_ITSELF = "node_renames_itself"
    BMC_DEAD = "bmc_dead"
    BMC_IGNORES_OVERRIDE = "bmc_ignores_override"
    BMC_OVERRIDE_STAYS = "bmc_override_stays"
    BMC_LIES_ABOUT_POWER = "bmc_lies_about_power"
    BMC_UNAUTHORISED = "bmc_unauthorised"
    BMC_SESSIONS_FULL = "bmc_sessions_full"
    UPDATE_FAILS = "update_fails"
    UPDATE_LIES = "update_lies"
    TASK_LOST = "task_lost"
    INLET_HOT = "inlet_hot"
    COOLANT_LEAK = "coolant_leak"
    LEAK_DETECTOR_GONE = "leak_detector_gone"
    DEFAULT_PASSWORD = "default_password"  # noqa: S105 - a fault's name
    BIOS_NOT_STICKY = "bios_not_sticky"
    BAD_IMAGE = "bad_image"
    BOOT_HANG = "boot_hang"
    ROGUE_DHCP = "rogue_dhcp"


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
        FaultKind.NCCL_ABSENT: "ranks of the node start, and never come to NCCL's bootstrap: the others wait for them",
        FaultKind.WRONG_TRANSPORT: "NCCL takes sockets where NVLink was meant; value: GB/s of the sockets (3)",
        FaultKind.FABRIC_MANAGER_SKEW: "the fabric manager is of another version than the driver",
        FaultKind.HALF_RATE_RAIL: "an HCA (--hca) trains below its rate; value: the share of it (0.5)",
        FaultKind.SLOW_RAIL: "an HCA (--hca) trains at its rate and carries less; value: the share of it (0.5)",
        FaultKind.CROWDED_RAIL: "an HCA (--hca) carries its rate between two nodes and less among more; value: the "
        "share of it (0.5)",
        FaultKind.CABLE_PULLED: "no cable is plugged into an HCA (--hca)",
        FaultKind.SWAPPED_CABLES: "the cables of an HCA (--hca) and another (--other) are in each other's switch port",
        FaultKind.ROTATED_CABLES: "the cables of an HCA (--hca) and of --other, two or more with commas, are each in "
        "the next one's switch port",
        FaultKind.NARROW_LINK: "the link of an HCA (--hca) trains on fewer lanes; value: how many (1)",
        FaultKind.SYMBOL_ERRORS: "the switch counts symbol errors on the link of an HCA (--hca); value: a second (70)",
        FaultKind.LINK_DOWNED: "the link of an HCA (--hca) drops and trains again; value: every so many seconds (10)",
        FaultKind.SWITCH_DOWN: "a switch (instead of the node) has no power",
        FaultKind.WRONG_GUID: "another board is in an HCA's place (--hca)",
        FaultKind.DUPLICATE_GUID: "an HCA (--hca) has the GUID of another (--other)",
        FaultKind.DUPLICATE_LID: "an HCA (--hca) has the LID of another (--other), until a subnet manager sweeps",
        FaultKind.MAD_LOSS: "an HCA (--hca) loses management datagrams; value: percent (100)",
        FaultKind.PKEY_LIMITED: "an HCA (--hca) is a limited member of its partitions",
        FaultKind.NO_SUBNET_MANAGER: "the fabric's own subnet manager does not run",
        FaultKind.SECOND_SUBNET_MANAGER: "a second subnet manager, with another key, is a master too; on a switch "
        "(instead of the node) or an HCA (--hca)",
        FaultKind.NVUE_DENIED: "an NVLink switch tray (instead of the node) refuses every password",
        FaultKind.NVUE_BROKEN: "NVUE of a switch tray answers HTTP 500",
        FaultKind.NVUE_WEB_PAGE: "NVUE of a switch tray answers a web page",
        FaultKind.NVUE_SLOW: "NVUE of a switch tray is slow; value: seconds an answer takes (20)",
        FaultKind.NVUE_APPLIED: "NVUE of a switch tray shows what is configured instead of what is",
        FaultKind.NVLINK_PORT: "link diagnostics of a switch tray's port (--hca acp1) show a code; value: which (2)",
        FaultKind.NMX_APP_FAILED: "nmx-controller of a switch tray is not ok",
        FaultKind.SECOND_CLUSTER: "the cluster is enabled on this switch tray, whichever other has it",
        FaultKind.SHORT_PARTITION: "the NVLink partition lacks GPUs; value: how many (1)",
        FaultKind.KUBELET_DEAD: "the kubelet ends whenever it is started; pods that run go on",
        FaultKind.NODE_NOT_READY: "the kubelet says that the node is not ready",
        FaultKind.GPU_DEVICE_PLUGIN_GONE: "Kubernetes can allocate no GPU of the node",
        FaultKind.GPU_XID_CONDITION: "a health daemon's condition GpuXidError says that a GPU had an Xid; value: "
        "which (79)",
        FaultKind.PODS_FAIL: "the container runtime starts no container",
        FaultKind.NODE_RENAMES_ITSELF: "the machine calls itself NAME-renamed; its kubelet takes that name, and has "
        "no certificate for it",
        FaultKind.BMC_DEAD: "the BMC's address does not answer",
        FaultKind.BMC_IGNORES_OVERRIDE: "the BMC takes a boot override and forgets it",
        FaultKind.BMC_OVERRIDE_STAYS: "the BMC makes Continuous of a boot override that was asked for Once",
        FaultKind.BMC_LIES_ABOUT_POWER: "the BMC shows the power that it was asked for, and does not press the button",
        FaultKind.BMC_UNAUTHORISED: "the BMC refuses a login that is right; value: every n-th request (5)",
        FaultKind.BMC_SESSIONS_FULL: "the BMC opens no session: others hold all it has",
        FaultKind.UPDATE_FAILS: "an update of firmware fails; value: at how many percent (60)",
        FaultKind.UPDATE_LIES: "an update of firmware is said to have ended well, and nothing has changed",
        FaultKind.TASK_LOST: "the BMC restarts during an update and knows its task no more, while the flash goes on; "
        "value: at how many percent (60)",
        FaultKind.INLET_HOT: "the machine's inlet sensor is over its critical threshold",
        FaultKind.COOLANT_LEAK: "a leak detector is wet; value: its number (1)",
        FaultKind.LEAK_DETECTOR_GONE: "a leak detector is not listed; value: its number (1)",
        FaultKind.DEFAULT_PASSWORD: "the factory's login opens the BMC too",
        FaultKind.BIOS_NOT_STICKY: "BIOS attributes that were staged are forgotten at the next start",
        FaultKind.BAD_IMAGE: "the image server flips a byte; value: in the next so many downloads by this node (1)",
        FaultKind.BOOT_HANG: "the operating system never comes up",
        FaultKind.ROGUE_DHCP: "another DHCP server on the in-band network answers this node before ours does, and "
        "names a boot file of its own",
    }
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on a node, or on a switch where the kind says so. `gpu`, `link`, `hca` where the kind needs one.

    `value` and `times` as the kind reads them; `other` is the other HCA of a fault between two, or several with commas.
    """

    kind: FaultKind
    node: str
    gpu: int | None = None
    link: int | None = None
    hca: str | None = None
    value: float | None = None
    times: int | None = None
    other: str | None = None

    def __str__(self) -> str:
        said = {
            "gpu": self.gpu, "link": self.link, "hca": self.hca, "other": self.other, "value": self.value,
            "times": self.times,
        }  # fmt: skip
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

"""Error strings of the platform and what stands behind them: for `why` and `explain`. Pure data and one search.

A string here is what a tool prints, so it matches anywhere in a message. What matches is a known cause, not a verdict.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT = 64 * 1024  # of a message that a node wrote: more of it is not searched


@dataclass(frozen=True, slots=True)
class KnownError:
    """One entry. `code` is stable; `pattern` finds it in a message, in any case of letters."""

    code: str
    says: str
    pattern: str
    cause: str
    next: str
    source: str


_DRIVER_API = "CUDA Driver API, CUresult"
_FM = "NVIDIA Fabric Manager user guide"
_IMEX = "NVIDIA IMEX service guide"
_IBTA = "InfiniBand Architecture Specification 1, PortInfo"
KNOWN = (
    KnownError(
        "CUDA_SYSTEM_NOT_READY", "error 802, system not yet initialized",
        r"\berror(?: code)?[ :=(]{0,4}802\b|system not yet initialized|SYSTEM_?NOT_?READY",
        "the NVLink fabric is not ready: fabric manager (B200 and before) or the switch trays (NVL72) did not finish",
        "look at the fabric state of every GPU (nvidia-smi -q, Fabric: Completed, Success), then at "
        "nvidia-fabricmanager or the NVLink switch trays; a reset of the GPUs does not help",
        f"{_DRIVER_API}: 802",
    ),
    KnownError(
        "FM_PRE_NVL5", "Detected Pre-NVL5 system", r"Detected Pre-NVL5 system",
        "on B200 and B300: ib_umad or mlx5_ib is not loaded, or no ConnectX port is marked SW_MNG, so fabric manager "
        "does not find the NVSwitches", "load ib_umad and mlx5_ib, then restart nvidia-fabricmanager", _FM,
    ),
    KnownError(
        "DRIVER_VERSION_SKEW", "don't match with driver version", r"do(?:es)?n.?t match with (?:the )?driver version",
        "fabric manager or IMEX is of another version than the driver",
        "pin both to the driver's version in the profile's version lock and run the stage again", _FM,
    ),
    KnownError(
        "FM_NOTHING_TO_DO", "NV_WARN_NOTHING_TO_DO", r"NV_WARN_NOTHING_TO_DO",
        "fabric manager was started on a platform without NVSwitches of its own (GB200, GB300)",
        "mask nvidia-fabricmanager: the switch trays manage the fabric", _FM,
    ),
    KnownError(
        "IMEX_IN_USE", "NV_ERR_IN_USE", r"NV_ERR_IN_USE",
        "the host's own nvidia-imex runs while a ComputeDomain wants to",
        "mode mnnvl_dra: disable and mask nvidia-imex on every tray", "NVIDIA DRA driver for GPUs, ComputeDomain",
    ),
    KnownError(
        "FABRIC_INSUFFICIENT_RESOURCES", "Insufficient Resources", r"Insufficient Resources",
        "the NVLink partition is wrong or too small, or the switch trays' configuration is in part only: the fabric "
        "says Completed all the same", "compare the partition (nv show sdn partition) with the plan", _FM,
    ),
    KnownError(
        "IMEX_DEGRADED", "Domain State: DEGRADED",
        r"Domain State:? {0,4}DEGRADED|IMEX[^\n]{0,80}(?:DEGRADED|UNAVAILABLE)",
        "trays of the IMEX domain do not reach each other; a peer UNAVAILABLE without a version means that TCP port "
        "50005 is blocked while 50000 is open", "open both ports between all trays, then nvidia-imex-ctl -N", _IMEX,
    ),
    KnownError(
        "CHASSIS_UNMAPPED", "Chassis mapping is missing", r"Chassis mapping is missing",
        "the switch trays do not know their rack's chassis id",
        "set it on one tray: nv action update cluster chassis-id", "NVIDIA NVOS user manual, cluster",
    ),
    KnownError(
        "IB_POLLING", "Physical state: Polling", r"Physical[ _]state[ :=\"']{0,6}(?:\d: ?)?Polling|Down ?/ ?Polling",
        "the port sees no light: no cable, a dead cable or transceiver, the far port off or disabled",
        "reseat the cable, compare with the plan: rackproof fabric RACK names both ends", _IBTA,
    ),
    KnownError(
        "IB_INITIALIZING", "State: Initializing", r"\bState[ :=\"']{0,6}(?:\d: ?)?Init(?:ializ(?:e|ing))?\b",
        "the link is trained and no subnet manager has configured it",
        "start opensm or UFM; one must be master (sminfo)",
        _IBTA,
    ),
    KnownError(
        "IB_RAIL_MISMATCH", "Node rail connectivity mismatch", r"Node rail connectivity mismatch",
        "cables of one node are on each other's leaves", "rackproof fabric RACK says which two to swap",
        "NVIDIA ibdiagnet user manual, rail validation",
    ),
    KnownError(
        "IB_LIMITED_MEMBER", "only 0x7fff among the P_Keys",
        r"\A(?![\s\S]{0,65536}0x[89a-f][0-9a-f]{3}\b)[\s\S]{0,65536}\b0x7fff\b",
        "the port is a limited member of its partition: limited members do not reach one another",
        "make it a full member in UFM or partitions.conf", "InfiniBand Architecture Specification 1, partitioning",
    ),
    KnownError(
        "NSCQ_UNHELD", "apt offers a newer libnvidia-nscq", r"libnvidia-nscq[^\n]{0,160}?(?:upgrad|newer|unmet)",
        "the package is not held, and its repository is ahead of the driver",
        "hold and pin it at the driver's version, as the role gpu_driver does", "NVIDIA HGX software guide, NSCQ",
    ),
    KnownError(
        "NO_GPU_FOUND", "No devices were found", r"No devices were found",
        "the driver sees no GPU: on arm64, and on Blackwell anywhere, the proprietary kernel modules were installed "
        "instead of the open ones; else the GPUs are off the bus",
        "install the -open modules, reboot; then lspci and the kernel log",
        "NVIDIA driver installation guide, kernel modules",
    ),
)  # fmt: skip
_COMPILED = tuple((re.compile(known.pattern, re.IGNORECASE), known) for known in KNOWN)


def known_errors(text: str) -> tuple[KnownError, ...]:
    """All entries whose string is in the text, in the order of the table."""
    return tuple(known for pattern, known in _COMPILED if pattern.search(text[:MAX_TEXT]))


def known_error(code: str) -> KnownError | None:
    """The entry of that code."""
    return next((known for known in KNOWN if known.code == code), None)

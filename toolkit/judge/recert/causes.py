"""Which published cause a finding on record counts towards. Pure."""

from __future__ import annotations

import re

from toolkit.judge.recert.hazard import Cause

_KIND = re.compile(r"[a-z]+")

# By what codes begin with, the first that fits; then by the part. A code tells more than the part: HBM_MISCOMPARE and
# XID_LOST both end with a GPU being pulled.
_BY_CODE: tuple[tuple[tuple[str, ...], Cause], ...] = (
    (("HBM_HOT", "GPU_HOT", "GPU_TOO_HOT", "THERMAL_"), Cause.THERMAL),
    (("HBM_", "ROW_REMAP", "REMAP_BANKS", "XID_MEMORY", "CUDA_ECC"), Cause.HBM),
    (("SRAM_",), Cause.SRAM),
    (("GEMM_WRONG", "GEMM_DIGEST", "TOGETHER_", "PCIE_MISCOMPARE"), Cause.DATA_CORRUPTION),
    (("RAIL_", "HCA_", "LEAF_", "UNIT_"), Cause.NETWORK),
    (("PCIE_",), Cause.HOST),
    (
        ("XID_HARDWARE", "XID_LOST", "XID_LINK", "NVLINK_", "GPU_", "CUDA_", "INFOROM_", "REPAIR_", "RECOVERY_"),
        Cause.GPU,
    ),
)
_BY_PART = {
    "gpu": Cause.GPU,
    "cartridge": Cause.GPU,  # the published table counts NVLink with the GPU
    "cable": Cause.NETWORK,
    "hca": Cause.NETWORK,
    "leaf": Cause.NETWORK,
    "cooling": Cause.THERMAL,
    "slot": Cause.HOST,
    "disk": Cause.HOST,
    "cpu": Cause.HOST,
    "dimm": Cause.HOST,
}


def cause_of(code: str, part: str) -> Cause | None:
    """None for what is of no known cause: software, symptoms, a tray as a whole. `part`: as a run names it."""
    found = next((cause for prefixes, cause in _BY_CODE if code.startswith(prefixes)), None)
    kind = _KIND.match(part.lower())
    return found or (_BY_PART.get(kind[0]) if kind else None)

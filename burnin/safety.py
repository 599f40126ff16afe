"""When a GPU must not go on under load: by its own temperature limit, or by what its driver says of it. Pure.

A GPU protects itself from destruction; a burn-in that drives it on at its limit, or after it has failed, measures
nothing more and may spoil its neighbours' results.
"""

from __future__ import annotations

from collections.abc import Mapping

from burnin.kernel_log import Xid
from burnin.record import MAX_WORD
from burnin.snapshot import Snapshot

SAFETY_STOP = "safety_stop"  # metric: "none", or why GPUs were stopped
NO_STOP = "none"
HOT_SAMPLES = 3  # in a row: one reading can be wrong

# NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors, "immediate action"): what calls for a reset, a restart of
# the machine or service of the GPU. 63 (a row was remapped) is not among them: the error that led to it is.
_STOPPING = {
    46: "GPU stopped processing",
    48: "double-bit ECC error",
    62: "PMU halt",
    64: "row remapping failed",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "storm of corrected ECC errors",
    94: "contained memory error",
    95: "uncontained memory error",
    109: "context switch timeout",
    110: "security fault",
    119: "GSP RPC timeout",
    120: "GSP error",
    136: "NVLink training failed",
    140: "unrecovered ECC error",
    143: "GPU initialization error",
    155: "NVLink software-defined error",
    158: "GPU fatal timeout",
    167: "PCIe fatal timeout",
    169: "SEC2 halt",
    171: "uncorrectable DRAM error",
    172: "uncorrectable SRAM error",
    173: "C2C fatal link failure",
}
# NVLink 5 events (144 SAW ... 150 MSE) come in all severities under one number; the line says which.
_STOPPING_IF_FATAL = {number: "fatal NVLink error" for number in range(144, 151)}

# reading, the limit it must stay under: NVML_TEMPERATURE_THRESHOLD_SLOWDOWN and _MEM_MAX, absent since Ada and Hopper
_LIMITS = (("gpu_celsius", "slowdown_celsius", "GPU"), ("hbm_celsius", "hbm_max_celsius", "memory"))


def why_stop(xid: Xid) -> str:
    """Why the GPU must not go on after this Xid; empty when it may."""
    meaning = _STOPPING.get(xid.number) or (_STOPPING_IF_FATAL.get(xid.number) if xid.fatal else None)
    return f"Xid {xid.number}: {meaning}" if meaning else ""


def pci_place(address: str) -> tuple[int, int, int] | None:
    """(domain, bus, device) of an address as NVML writes it, 00000000:1B:00.0; None when it is none."""
    parts = address.partition(".")[0].split(":")
    try:
        domain, bus, device = (int(part, 16) for part in parts)
    except ValueError:
        return None
    return domain, bus, device


def word(reasons: Mapping[int, str]) -> str:
    """SAFETY_STOP's value: why each GPU was stopped, `gpu 3: ...; gpu 5: ...`; cut evenly where that is too long."""
    if not reasons:
        return NO_STOP
    whole = "; ".join(f"gpu {gpu}: {why}" for gpu, why in sorted(reasons.items()))
    if len(whole) <= MAX_WORD:
        return whole
    return "; ".join(f"gpu {gpu}: {why[:12].strip()}" for gpu, why in sorted(reasons.items()))[:MAX_WORD]


class Heat:
    """Watches samples of each GPU for one that stays at or over its own limit."""

    def __init__(self, limits: dict[int, Snapshot]) -> None:
        """`limits`: by GPU, a snapshot with `slowdown_celsius` and `hbm_max_celsius`, where the board has them."""
        self._limits = limits
        self._hot: dict[int, int] = {}

    def look(self, gpu: int, sample: Snapshot) -> str:
        """Take a sample. Returns why the GPU must be stopped, once, or the empty string."""
        why = _over_limit(sample, self._limits.get(gpu, {}))
        self._hot[gpu] = self._hot.get(gpu, 0) + 1 if why else 0
        return why if self._hot[gpu] == HOT_SAMPLES else ""


def _over_limit(sample: Snapshot, limits: Snapshot) -> str:
    """What is at or over its limit; empty when nothing is, or nothing is known."""
    for key, limit_key, part in _LIMITS:
        value, limit = sample.get(key), limits.get(limit_key)
        if isinstance(value, int | float) and isinstance(limit, int | float) and 0 < limit <= value:
            return f"{part} at {value:.0f} celsius, limit {limit:.0f}"
    margin = sample.get("margin_celsius")
    if isinstance(margin, int | float) and margin <= 0:  # T.Limit: degrees left to the maximum operating temperature
        return f"GPU at thermal margin {margin:.0f} celsius"
    return ""

"""Marks that others keep on a node, and what they mean at the door. We never write or remove one of them. Pure.

Names: NVSentinel's from its docs (label `dgxc.nvidia.com/nvsentinel-state`, annotations `quarantineHealthEvent*`, its
conditions are named after their checks), the GPU operator's from its driver upgrade controller, node-problem-detector's
from the problem daemons it ships.
"""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.pool.node_object import Condition, NodeObject, shown

NVSENTINEL_STATE = "dgxc.nvidia.com/nvsentinel-state"
NVSENTINEL_CORDON = "quarantineHealthEventIsCordoned"
NVSENTINEL_EVENT = "quarantineHealthEvent"
UPGRADE_STATE = "nvidia.com/gpu-driver-upgrade-state"
_UPGRADE_OVER = frozenset({"", "upgrade-done"})
_DEPLOY = "nvidia.com/gpu.deploy."
_PAUSED = "paused-for-"  # paused-for-driver-upgrade, paused-for-mig-change
_FAULT_TAINTS = frozenset({"nvsentinel.nvidia.com/validation-pending", "nvidia.com/gpu-fault"})

_KUBELETS = frozenset({"MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"})
_NPDS = frozenset(
    {
        "KernelDeadlock",
        "ReadonlyFilesystem",
        "XfsShutdown",
        "CperHardwareErrorFatal",
        "FrequentKubeletRestart",
        "FrequentContainerdRestart",
        "FrequentUnregisterNetDevice",
    }
)
_NVSENTINELS = frozenset(
    {
        "GpuXidError",
        "GpuMemWatch",
        "GpuThermalWatch",
        "GpuPowerWatch",
        "GpuNvLinkWatch",
        "GpuPcieWatch",
        "GpuInforomWatch",
        "GpuNvswitchFatalWatch",
        "GpuThermalMarginWatch",
        "InfiniBandCharDeviceCheck",
    }
)
_SOPERATORS = frozenset({"HardwareIssueSuspected"})
BAD_WHEN_TRUE = _KUBELETS | _NPDS | _NVSENTINELS | _SOPERATORS
_UNHEALTHY = "IsNotHealthy"  # NVSentinel: <check>IsNotHealthy, for checks that we do not know by name too


def holds(node: NodeObject) -> tuple[str, ...]:
    """Who else has the node in hand now, in words; empty if nobody. A node that is held is not admitted."""
    return tuple(_holds(node))


def _holds(node: NodeObject) -> Iterator[str]:
    state = node.label(NVSENTINEL_STATE)
    if state:
        yield f"NVSentinel holds it ({shown(state, 40)})"
    elif node.annotation(NVSENTINEL_EVENT) or node.annotation(NVSENTINEL_CORDON).lower() == "true":
        yield f"NVSentinel keeps a quarantine event on it (annotation {NVSENTINEL_EVENT}*)"
    upgrade = node.label(UPGRADE_STATE)
    if upgrade not in _UPGRADE_OVER:
        yield f"the GPU operator is at its driver ({shown(upgrade, 40)})"
    paused = sorted(k for k, v in (node.labels or {}).items() if k.startswith(_DEPLOY) and v.startswith(_PAUSED))
    if paused:
        yield f"the GPU operator has paused {shown(paused[0].removeprefix(_DEPLOY), 60)}"
    for taint in node.taints:
        if taint.key in _FAULT_TAINTS:
            yield f"it has the taint {taint.key}"


def bad_conditions(node: NodeObject) -> tuple[Condition, ...]:
    """Conditions that say something is wrong. Of a type that nobody told us of, only NVSentinel's wording counts."""
    return tuple(
        c for c in node.conditions if c.status == "True" and (c.type in BAD_WHEN_TRUE or c.reason.endswith(_UNHEALTHY))
    )

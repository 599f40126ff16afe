"""What a fault of the node agent is in the state that it reads, as keys `kubelet.KEY`.

runs            0: the kubelet ends, and does not come up again                 (kubelet_dead)
ready           0: its Ready condition is False                                 (node_not_ready)
device_plugin   `gone`: no GPU can be allocated                                 (gpu_device_plugin_gone)
containers      `fail`: the container runtime starts none                       (pods_fail)
name            what the machine calls itself now                               (node_renames_itself)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toolkit.virtual.faults import Fault, FaultKind

_FIXED: Mapping[FaultKind, tuple[str, str]] = MappingProxyType(
    {
        FaultKind.KUBELET_DEAD: ("runs", "0"),
        FaultKind.NODE_NOT_READY: ("ready", "0"),
        FaultKind.GPU_DEVICE_PLUGIN_GONE: ("device_plugin", "gone"),
        FaultKind.PODS_FAIL: ("containers", "fail"),
    }
)
KINDS = frozenset((*_FIXED, FaultKind.NODE_RENAMES_ITSELF))


def keys_of(fault: Fault) -> Mapping[str, str]:
    """State keys without `kubelet.`; none for a fault that is not of the node agent."""
    if fault.kind is FaultKind.NODE_RENAMES_ITSELF:
        return {"name": f"{fault.node}-renamed"}
    found = _FIXED.get(fault.kind)
    return dict((found,)) if found else {}

"""What is bad about members, as their cluster shows it: conditions, GPUs that are gone, failed pods, events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from toolkit.kubernetes.client import Object
from toolkit.pool.budgets import pod_name
from toolkit.pool.door import is_cordoned_by_others, is_tainted
from toolkit.pool.marks import bad_conditions, holds
from toolkit.pool.model import NODE_GONE, NODE_SHUT, Sign
from toolkit.pool.node_object import READY, NodeObject, moment, shown

# Ended by the cluster's own hand: says nothing of the node.
_NOT_THE_NODES = frozenset({"Preempting", "Preempted", "Evicted", "Terminated", "NodeShutdown"})
_MOVED_ON = "DisruptionTarget"  # the condition that newer servers set on pods they take away
_TELLING_EVENTS = ("Xid", "GpuXid", "NVCRECertFailed", "Rebooted", "OOMKilling", "TaskHung", "KernelOops")


def node_signs(name: str, node: NodeObject | None) -> Iterator[Sign]:
    """Of one member; None: it is not there any more."""
    if node is None:
        yield Sign(name, NODE_GONE, "no Node of that name is there any more: deleted, or renamed", "nodes")
        return
    if not node.ready:
        said = node.condition(READY)
        why = shown(f"{said.reason} {said.message}") if said else "its kubelet has never reported"
        yield Sign(name, "NODE_NOT_READY", why, f"condition {READY}", moment(said.since) if said else None)
    for bad in bad_conditions(node):
        yield Sign(name, f"CONDITION_{_code(bad.type)}", shown(f"{bad.reason} {bad.message}"),
                   f"condition {shown(bad.type, 80)}", moment(bad.since))  # fmt: skip
    for held in holds(node):
        yield Sign(name, "NODE_HELD", held, "labels")
    if is_cordoned_by_others(node):
        yield Sign(name, "NODE_CORDONED", "somebody else cordoned it", "unschedulable")
    if is_tainted(node):
        yield Sign(name, NODE_SHUT, "our taint is back on it", "taints")
    capacity, allocatable = node.gpus
    if allocatable < capacity:
        yield Sign(name, "GPUS_LOST", f"the device plugin gives out {allocatable} of {capacity} GPUs", "nvidia.com/gpu")


def pod_signs(pods: Iterable[Object], names: frozenset[str], since: datetime) -> Iterator[Sign]:
    """Pods that failed on these nodes since then. What a preemption or an eviction ended is no failure."""
    for pod in pods:
        node = str((pod.get("spec") or {}).get("nodeName") or "")
        status = pod.get("status") or {}
        if node not in names or status.get("phase") != "Failed" or _taken_away(status):
            continue
        ended = _ended(status)
        if ended is None or ended >= since:
            name = shown(pod_name(pod), 130)
            yield Sign(node, "PODS_FAIL", f"{name} failed: {_exit(status)}", f"pod {name}", ended)


def event_signs(events: Iterable[Object], names: frozenset[str], since: datetime) -> Iterator[Sign]:
    """Events on these nodes since then that tell of their hardware or kernel."""
    for event in events:
        about = event.get("involvedObject") or {}
        reason = str(event.get("reason") or "")
        at = _at(event)
        if about.get("name") in names and reason.startswith(_TELLING_EVENTS) and (at is None or at >= since):
            detail = shown(str(event.get("message") or ""))
            yield Sign(str(about["name"]), f"EVENT_{_code(reason)}", detail, f"event {shown(reason, 80)}", at)


def _taken_away(status: Mapping[str, Any]) -> bool:
    conditions = status.get("conditions") or ()
    gone = any(c.get("type") == _MOVED_ON and c.get("status") == "True" for c in conditions)
    return gone or status.get("reason") in _NOT_THE_NODES


def _terminated(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    states = [(c.get("state") or {}).get("terminated") for c in status.get("containerStatuses") or ()]
    return [s for s in states if s]


def _ended(status: Mapping[str, Any]) -> datetime | None:
    """When its last container ended; None where nobody says: then it counts."""
    times = [moment(str(s.get("finishedAt") or "")) for s in _terminated(status)]
    return max((t for t in times if t), default=None)


def _exit(status: Mapping[str, Any]) -> str:
    for state in _terminated(status):
        if state.get("exitCode"):
            return shown(f"exit {state['exitCode']} {state.get('reason') or ''}".strip(), 80)
    return shown(f"{status.get('reason') or ''} {status.get('message') or ''}".strip()) or "no reason given"


def _at(event: Object) -> datetime | None:
    for key in ("lastTimestamp", "eventTime", "firstTimestamp"):
        at = moment(str(event.get(key) or ""))
        if at is not None:
            return at
    return None


def _code(words: str) -> str:
    """`GpuXidError` -> `GPU_XID_ERROR`: stable, upper case, bounded."""
    out = ""
    for i, c in enumerate(words[:60]):
        if c.isascii() and c.isalnum():
            after_small = i > 0 and words[i - 1].islower()
            out += f"_{c}" if c.isupper() and after_small else c.upper()
        elif not out.endswith("_"):
            out += "_"
    return out.strip("_").upper()

"""Who has a use for a node of a cluster now: a pod that is there, or one that waits and would fit. Pure.

Read for a node whose door is shut as for one that is open: what our own taint and cordon keep out, wants it too. What
cannot be told from a pod's own words (spreading, pod affinity, volumes) is taken as met: giving way once too often
costs a test, and the other way a job waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toolkit.kubernetes.client import Object
from toolkit.pool.budgets import is_leaving, pod_name, stays
from toolkit.pool.door import CERTIFIED, TAINT
from toolkit.pool.node_object import GPUS, NodeObject, Taint, shown
from toolkit.pool.selection import holds

# On pods of ours: burn-ins give way to every pod, and a smoke collective runs on nodes just let in.
OURS = ("rackproof.dev/burnin", "rackproof.dev/smoke")
_CORDON = "node.kubernetes.io/unschedulable"
_KEEPING_OUT = ("NoSchedule", "NoExecute")


def in_use(pods: Iterable[Object]) -> str:
    """The first pod of these, all bound to one node, that a drain would have to move, in words; empty: none."""
    for pod in pods:
        if not stays(pod) and not _is_ours(pod):
            return f"pod {shown(pod_name(pod), 130)} {'is leaving' if is_leaving(pod) else 'is there'}"
    return ""


def waited_for(node: NodeObject, pods: Iterable[Object]) -> str:
    """The first pod of these that no node takes now and that this one would, in words; empty: none."""
    for pod in pods:
        if not _is_ours(pod) and _is_refused(pod) and fits(pod, node):
            return f"pod {shown(pod_name(pod), 130)} waits for {gpus_of(pod)} GPUs, and would fit"
    return ""


def fits(pod: Object, node: NodeObject) -> bool:
    """Whether the node would take the pod if its door were open and nothing ran there."""
    spec = pod.get("spec") or {}
    asked = gpus_of(pod)
    claims = bool(spec.get("resourceClaims"))
    if not (0 < asked <= node.gpus[1] or (claims and not asked)):
        return False
    labels = {**(node.labels or {}), CERTIFIED: "true"}
    chosen = all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
    return chosen and _affine(spec, labels, node.name) and _tolerates(spec.get("tolerations") or (), node.taints)


def gpus_of(pod: Object) -> int:
    """GPUs that it asks for by number; by claim it asks for none."""
    containers = (pod.get("spec") or {}).get("containers") or ()
    return sum(_count((c.get("resources") or {}).get("limits") or {}) for c in containers)


def _count(limits: Mapping[str, Any]) -> int:
    text = str(limits.get(GPUS, "0"))
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0


def _is_ours(pod: Object) -> bool:
    labels = (pod.get("metadata") or {}).get("labels") or {}
    return any(name in labels for name in OURS)


def _is_refused(pod: Object) -> bool:
    """Whether the scheduler has tried it, and found no node. One with a gate is not tried yet."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if spec.get("nodeName") or spec.get("schedulingGates") or is_leaving(pod):
        return False
    told = (c for c in status.get("conditions") or () if c.get("type") == "PodScheduled")
    return any(c.get("status") == "False" and c.get("reason") == "Unschedulable" for c in told)


def _affine(spec: Mapping[str, Any], labels: Mapping[str, str], name: str) -> bool:
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if not required:
        return True
    terms = required.get("nodeSelectorTerms") or ()
    return any(
        all(holds(rule, labels) is not False for rule in term.get("matchExpressions") or ())
        and all(holds(rule, {"metadata.name": name}) is not False for rule in term.get("matchFields") or ())
        for term in terms
    )


def _tolerates(tolerations: Sequence[Mapping[str, Any]], taints: Sequence[Taint]) -> bool:
    """Of every taint but ours and the cordon's, which go when the door is opened."""
    others = (t for t in taints if t.effect in _KEEPING_OUT and t.key not in (TAINT.key, _CORDON))
    return all(any(_covers(rule, taint) for rule in tolerations) for taint in others)


def _covers(rule: Mapping[str, Any], taint: Taint) -> bool:
    return rule.get("key") in (None, "", taint.key) and rule.get("effect") in (None, "", taint.effect)

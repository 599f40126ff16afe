"""The door as it stands on a Node: what makes it open, and what is written to open and to shut it. Pure.

A node's taints are one atomic field for server-side apply: whoever applies one owns them all, and would wipe the taints
of NVSentinel or of the node lifecycle controller. Our taint and the cordon are therefore changed by JSON patches, each
bound to the version of the node that was read. Everything else is applied, with the status, in one document.

Opening: the document first; the taint last, and in the same write the label that jobs may trust. Shutting: taint and
cordon first, the document last. Where a webhook holds the door (manifests/webhook.yaml.j2), writes to nodes whose label
is or becomes "false" wait for it: so opening has to pass it, and shutting an open node never does.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from toolkit.errors import RackproofError
from toolkit.kubernetes.client import Object
from toolkit.pool.model import PoolNode
from toolkit.pool.node_object import Condition, NodeObject, Taint, moment, shown
from toolkit.rack.topology import PREFIX, UNCERTIFIED

TAINT = Taint(UNCERTIFIED, "NoSchedule")
CONDITION = "RackCertified"
# Kubelets may not write labels under node-restriction.kubernetes.io (NodeRestriction); under our own prefix they may.
_GUARDED = "rackproof.node-restriction.kubernetes.io/"
CERTIFIED = f"{_GUARDED}certified"  # "true" | "false" on members; the label that jobs may trust
EXEMPT = f"{_GUARDED}exempt"  # "true": a GPU node that is none of our business
RACK = f"{PREFIX}rack"
CERTIFICATE = f"{PREFIX}certificate"
EXPIRES = f"{PREFIX}expires"
REASON = f"{PREFIX}reason"
MACHINE = f"{PREFIX}machine"  # the system UUID of the machine that was admitted under this name
CORDONED = f"{PREFIX}cordoned"  # "true": it was we who cordoned, so we may uncordon
MAX_REASON = 1000

_OPEN, _SHUT = "CertificateInForce", "NotCertified"
_DIGEST_LENGTH = 64


def is_tainted(node: NodeObject) -> bool:
    """Whether our taint is on it, with the effect that keeps jobs off."""
    return TAINT in node.taints


def is_member(node: NodeObject) -> bool:
    """Whether the node is of our pool: it bears any mark of ours."""
    marked = {CERTIFIED, RACK} & (node.labels or {}).keys() or CERTIFICATE in (node.annotations or {})
    return bool(marked) or any(t.key == TAINT.key for t in node.taints) or node.condition(CONDITION) is not None


def is_cordoned_by_others(node: NodeObject) -> bool:
    """Whether it is unschedulable, and not by us."""
    return node.unschedulable and node.annotation(CORDONED) != "true"


def pool_node(node: NodeObject) -> PoolNode:
    """Admitted only if taint, label, annotations and condition say so alike; else not, with the first that does not."""
    labels = {key: value for key, value in (node.labels or {}).items() if key.startswith(PREFIX)}
    shut = shut_because(node)
    if shut:
        return PoolNode(False, reason=shut, labels=labels)
    return PoolNode(
        True,
        node.annotation(CERTIFICATE),
        moment(node.annotation(EXPIRES)),
        shown(node.annotation(REASON), MAX_REASON),
        labels,
    )


def shut_because(node: NodeObject) -> str:
    """Why the node takes no jobs, or has no right to; empty if it is open by every mark."""
    if any(t.key == TAINT.key for t in node.taints):
        return shown(node.annotation(REASON), MAX_REASON) or f"it has the taint {TAINT.key}; nobody wrote why"
    doubt = _unmarked(node)
    if doubt:
        return f"the taint {TAINT.key} is gone, but {doubt}"
    if is_cordoned_by_others(node):
        return "cordoned, not by rackproof: whoever did uncordons it"
    return ""


def _unmarked(node: NodeObject) -> str:
    said = node.condition(CONDITION)
    certificate = node.annotation(CERTIFICATE)
    if node.label(CERTIFIED) != "true":
        return f"the label {CERTIFIED} is {shown(node.label(CERTIFIED), 40) or 'missing'}"
    if len(certificate) != _DIGEST_LENGTH or not certificate.isalnum():
        return f"the annotation {CERTIFICATE} is {shown(certificate, 80) or 'missing'}"
    if moment(node.annotation(EXPIRES)) is None:
        return f"the annotation {EXPIRES} is {shown(node.annotation(EXPIRES), 40) or 'missing'}"
    if said is None or said.status != "True":
        return f"the condition {CONDITION} is {shown(said.status, 40) if said else 'missing'}"
    return ""


# What is written


def open_document(
    node: NodeObject, certificate: str, expires: datetime, labels: Mapping[str, str], now: datetime
) -> Object:
    """To apply to the node's status before the taint goes: places, annotations and condition of a certified node."""
    until = rfc3339(expires)
    reason = f"certificate {certificate[:12]} in force until {until}"
    annotations = {CERTIFICATE: certificate, EXPIRES: until, REASON: reason, MACHINE: node.machine}
    word = "true" if node.label(CERTIFIED) == "true" and not is_tainted(node) else "false"
    said = Condition(CONDITION, "True", _OPEN, reason)
    return _document(node, {**labels, CERTIFIED: word}, annotations, said, now)


def shut_document(node: NodeObject, reason: str, now: datetime, labels: Mapping[str, str] | None = None) -> Object:
    """To apply to the node's status once the taint is on. Without `labels` the node keeps those it has of ours."""
    kept = {key: value for key, value in (node.labels or {}).items() if key.startswith(PREFIX)}
    why = shown(reason, MAX_REASON)
    said = Condition(CONDITION, "False", _SHUT, why)
    return _document(node, {**(kept if labels is None else labels), CERTIFIED: "false"}, {REASON: why}, said, now)


def _document(
    node: NodeObject, labels: Mapping[str, str], annotations: Mapping[str, str], said: Condition, now: datetime
) -> Object:
    """Everything that we own by apply, whole: what is left out is taken off. The uid keeps it off a namesake."""
    strange = [key for key in labels if not key.startswith(PREFIX) and key != CERTIFIED]
    if strange:
        raise RackproofError(f"labels of others were to be written on {node.name}: {', '.join(strange[:8])}")
    before = node.condition(CONDITION)
    since = before.since if before and before.status == said.status and before.since else rfc3339(now)
    condition = {
        "type": said.type,
        "status": said.status,
        "reason": said.reason,
        "message": said.message,
        "lastTransitionTime": since,
        "lastHeartbeatTime": rfc3339(now),
    }
    meta = {"name": node.name, "uid": node.uid, "labels": dict(labels), "annotations": dict(annotations)}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"conditions": [condition]}}


def lift_patch(node: NodeObject) -> list[Object]:
    """Takes our taint off, sets the label and undoes our cordon, if the node is still as it was read.

    Writing the version that was read makes the server answer 409 where the node has changed since.
    """
    indices = [i for i, taint in enumerate(node.taints) if taint.key == TAINT.key]
    changes = [_op("remove", f"/spec/taints/{i}") for i in reversed(indices)]
    if node.label(CERTIFIED) != "true":
        changes.append(_op("add", f"/metadata/labels/{_escaped(CERTIFIED)}", "true"))
    if node.annotation(CORDONED) == "true":
        changes.append(_op("remove", f"/metadata/annotations/{_escaped(CORDONED)}"))
        if node.unschedulable:
            changes.append(_op("replace", "/spec/unschedulable", False))
    return _bound(node, changes)


def shut_patch(node: NodeObject, *, cordon: bool, bound: bool = True) -> list[Object]:
    """Puts our taint on, and cordons if asked; empty where both are there. A cordon of others is not claimed.

    bound  False: whatever the node's version is by now, as far as others' taints cannot be lost by it. For a node that
           others write all the time: it is shut before they come to an end.
    """
    changes: list[Object] = []
    if not is_tainted(node):
        value = {"key": TAINT.key, "effect": TAINT.effect}
        changes.append(_op("add", "/spec/taints/-", value) if node.taints else _op("add", "/spec/taints", [value]))
    if cordon and not node.unschedulable:
        changes.append(_op("add", "/spec/unschedulable", True))
        if node.annotations:
            changes.append(_op("add", f"/metadata/annotations/{_escaped(CORDONED)}", "true"))
        else:
            changes.append(_op("add", "/metadata/annotations", {CORDONED: "true"}))
    return changes if not bound and node.taints and node.annotations else _bound(node, changes)


def rfc3339(at: datetime) -> str:
    """UTC, to the second, as API servers write times."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _bound(node: NodeObject, changes: list[Object]) -> list[Object]:
    return [_op("replace", "/metadata/resourceVersion", node.version), *changes] if changes else []


def _op(op: str, path: str, value: Any = None) -> Object:
    return {"op": op, "path": path} if op == "remove" else {"op": op, "path": path, "value": value}


def _escaped(key: str) -> str:
    """A key as a JSON pointer has it (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")

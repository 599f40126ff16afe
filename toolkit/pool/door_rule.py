"""Who may change what of a Node at the door: one rule for the webhook, the same as the shipped policy's CEL. Pure.

Nothing here can be asked of RBAC: it grants nodes as a whole, and every cluster has many who may patch nodes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from toolkit.errors import UsageError
from toolkit.pool.door import (
    CERTIFICATE,
    CERTIFIED,
    CONDITION,
    CORDONED,
    EXPIRES,
    MACHINE,
    REASON,
    TAINT,
    is_tainted,
)
from toolkit.pool.node_object import NodeObject
from toolkit.rack.topology import PREFIX

ACCOUNT = "rackproof-door"
ANNOTATIONS = (CERTIFICATE, EXPIRES, REASON, MACHINE, CORDONED)
# Under it jobs are kept off as under ours. kubeadm makes kubelets of control planes register with it.
CONTROL_PLANE_TAINT = "node-role.kubernetes.io/control-plane"

LIFTED = f"the taint {TAINT.key} is lifted by rackproof alone, for a node with a certificate: rackproof admit RACK"
UNTAINTED = (
    f"a node joins with the taint {TAINT.key}:{TAINT.effect}: give its kubelet --register-with-taints, or name the "
    "node as exempt: rackproof door install --exempt"
)
LABELLED = f"the label {CERTIFIED} is rackproof's"
ANNOTATED = "the annotations rackproof.dev/* of the certificate are rackproof's"
SAID = f"the condition {CONDITION} is rackproof's"
BEYOND = "rackproof's account changes no taint, label, annotation or condition of others, and makes no node"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to create or update a Node, or its status. `before` is None for a creation."""

    user: str
    after: NodeObject
    before: NodeObject | None = None


@dataclass(frozen=True, slots=True)
class Doormen:
    """own     the door's own account: everything that is ours, and nothing that is others'
    users   who may do everything here, by full user name: those that the site's policy names
    exempt  names of nodes that may join without the taint
    """

    own: str
    users: frozenset[str] = frozenset()
    exempt: frozenset[str] = frozenset()


def doormen(namespace: str, taint_by: Collection[str] = (), exempt: Collection[str] = ()) -> Doormen:
    """Our account, and the service accounts that the policy names (`namespace/name`). UsageError for other names."""
    users = set()
    for name in taint_by:
        theirs, _, account = name.partition("/")
        if not (_plain(theirs) and _plain(account)):
            raise UsageError(f"taint_by: {name!a} is no service account", "write it as namespace/name")
        users.add(f"system:serviceaccount:{theirs}:{account}")
    for name in exempt:
        if not _plain(name):
            raise UsageError(f"{name!a} is no node name", "lower-case letters, digits, '-' and '.'")
    return Doormen(f"system:serviceaccount:{namespace}:{ACCOUNT}", frozenset(users), frozenset(exempt))


def refusals(asked: Asked, allowed: Doormen) -> tuple[str, ...]:
    """Why the request is refused, for who made it; empty: it may pass."""
    if asked.user == allowed.own:
        return () if asked.before is not None and _others(asked.before) == _others(asked.after) else (BEYOND,)
    return () if asked.user in allowed.users else tuple(_refusals(asked, allowed))


def _refusals(asked: Asked, allowed: Doormen) -> Iterator[str]:
    before, after = asked.before, asked.after
    if before is not None and is_tainted(before) and not is_tainted(after):
        yield LIFTED
    if before is None and not is_tainted(after) and after.name not in allowed.exempt and not _controls(after):
        yield UNTAINTED
    if _label(before) != _label(after):
        yield LABELLED
    if any(_annotation(before, key) != _annotation(after, key) for key in ANNOTATIONS):
        yield ANNOTATED
    if _said(before) != _said(after):
        yield SAID


def _controls(node: NodeObject) -> bool:
    return any(t.key == CONTROL_PLANE_TAINT and t.effect == TAINT.effect for t in node.taints)


def _label(node: NodeObject | None) -> str:
    return node.label(CERTIFIED) if node else ""


def _annotation(node: NodeObject | None, key: str) -> str:
    return node.annotation(key) if node else ""


def _said(node: NodeObject | None) -> list[tuple[str, str, str]]:
    conditions = node.conditions if node else ()
    return [(c.status, c.reason, c.message) for c in conditions if c.type == CONDITION]


def _others(node: NodeObject) -> tuple[object, ...]:
    """All that a stolen login of ours could want to change of a node, and must not."""
    return (
        [t for t in node.taints if t.key != TAINT.key],
        {k: v for k, v in (node.labels or {}).items() if not k.startswith(PREFIX) and k != CERTIFIED},
        {k: v for k, v in (node.annotations or {}).items() if not k.startswith(PREFIX)},
        [(c.type, c.status, c.reason, c.message) for c in node.conditions if c.type != CONDITION],
    )


def _plain(name: str) -> bool:
    """Letters of a DNS name: nothing that could end a string in the policy's text."""
    return 0 < len(name) <= 253 and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-." for c in name)


def expressions(allowed: Doormen) -> Mapping[str, object]:
    """What the shipped policy's template is filled with: the same names as above, so that neither can drift."""
    return {
        "own": allowed.own,
        "users": sorted(allowed.users),
        "prefix": PREFIX,
        "exempt": sorted(allowed.exempt),
        "taint": TAINT,
        "control_plane": CONTROL_PLANE_TAINT,
        "certified": CERTIFIED,
        "annotations": ANNOTATIONS,
        "condition": CONDITION,
        "messages": {
            "lifted": LIFTED,
            "untainted": UNTAINTED,
            "labelled": LABELLED,
            "annotated": ANNOTATED,
            "said": SAID,
            "beyond": BEYOND,
        },
    }

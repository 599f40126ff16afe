"""Which pods a drain moves, and which disruption budget holds one. Pure: over objects as an API server gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from toolkit.kubernetes.client import Object
from toolkit.pool.node_object import shown
from toolkit.pool.selection import holds

_MIRROR = "kubernetes.io/config.mirror"
_ENDED = frozenset({"Succeeded", "Failed"})


def pod_name(pod: Object) -> str:
    """`namespace/name`, as an operator types it."""
    meta = pod.get("metadata") or {}
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


def controller_of(pod: Object) -> str:
    """Kind of what starts the pod again elsewhere; empty where nobody does."""
    owners = (pod.get("metadata") or {}).get("ownerReferences") or ()
    return next((str(o.get("kind", "")) for o in owners if o.get("controller")), "")


def stays(pod: Object) -> bool:
    """Pods that a drain leaves: static ones, a DaemonSet's (it would start it again at once), those that have ended."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    ended = (pod.get("status") or {}).get("phase") in _ENDED
    return _MIRROR in annotations or controller_of(pod) == "DaemonSet" or ended


def is_leaving(pod: Object) -> bool:
    """Whether its end has been asked for; its grace period runs."""
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def holding(pod: Object, budgets: Iterable[Object]) -> tuple[str, ...]:
    """The budgets that cover the pod, in words, each with how many disruptions it allows now."""
    meta = pod.get("metadata") or {}
    labels = meta.get("labels") or {}
    covers = (
        b
        for b in budgets
        if (b.get("metadata") or {}).get("namespace") == meta.get("namespace") and _matches(b, labels)
    )
    return tuple(_told(b) for b in covers)


def _told(budget: Object) -> str:
    status = budget.get("status") or {}
    allowed, healthy, wanted = (
        status.get(key, 0) for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy")
    )
    return f"budget {shown(pod_name(budget), 130)} allows {allowed} more ({healthy} healthy, {wanted} must be)"


def _matches(budget: Object, labels: Mapping[str, str]) -> bool:
    """A budget with an empty selector covers all pods of its namespace in policy/v1, and none in v1beta1."""
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    exact, rules = selector.get("matchLabels") or {}, selector.get("matchExpressions") or ()
    if not exact and not rules:
        return budget.get("apiVersion") == "policy/v1"
    return all(labels.get(key) == value for key, value in exact.items()) and all(holds(r, labels) for r in rules)

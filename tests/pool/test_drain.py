"""A drain against a real API server: budgets are honoured, what is not to be moved is left, who holds out is named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import DIGEST, EXPIRES, Nodes, nodes, until
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.budgets import holding
from toolkit.pool.drain import Drain
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.model import DrainEnd
from toolkit.pool.policy import KubernetesSite

__all__ = ["api", "control_plane", "nodes"]


@pytest.fixture
def namespace(api: ApiServer, nodes: Nodes) -> Iterator[str]:
    """A namespace of this test's own: a budget holds pods of its namespace."""
    name = f"drain-{abs(hash(nodes)) % 10**9}"
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    until(lambda: api.get("v1", "ServiceAccount", "default", name))
    yield name
    api.delete("v1", "Namespace", name)


def budget(api: ApiServer, namespace: str, name: str, allowed: int) -> None:
    """A budget over the pods labelled app=train, whose controller says that so many may be disrupted."""
    version = next(v for v in ("policy/v1", "policy/v1beta1") if api.serves(v, "PodDisruptionBudget"))
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "train"}}}
    meta = {"name": name, "namespace": namespace}
    api.create({"apiVersion": version, "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec},
               namespace=namespace)  # fmt: skip

    def said() -> Any:
        status = {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
        api.patch(version, "PodDisruptionBudget", name, {"status": {**status, "observedGeneration": 1}},
                  namespace=namespace, how="merge", subresource="status")  # fmt: skip
        return True

    until(said)


def test_pods_are_evicted_and_what_belongs_to_the_node_stays(api: ApiServer, nodes: Nodes, namespace: str) -> None:
    """Training pods go; a DaemonSet's, a static one and an ended one do not hold the drain up."""
    name = nodes.add()
    nodes.pod(name, "train-0", namespace=namespace, labels={"app": "train"})
    nodes.pod(name, "train-1", namespace=namespace, labels={"app": "train"})
    nodes.pod(name, "exporter", owner="DaemonSet", namespace=namespace)
    nodes.pod(name, "static", owner="", namespace=namespace, annotations={"kubernetes.io/config.mirror": "x"})
    nodes.pod(name, "ended", namespace=namespace)
    api.patch("v1", "Pod", "ended", {"status": {"phase": "Succeeded"}}, namespace=namespace, how="merge",
              subresource="status")  # fmt: skip
    pool = KubernetesPool(api, KubernetesSite(namespace="default"))
    pool.admit(name, DIGEST, EXPIRES, {})
    drained = pool.drain(name, "maintenance", 20.0)
    assert (drained.end, drained.left) == (DrainEnd.EMPTY, ())
    assert nodes.seen(name).unschedulable  # an open node is shut first
    left = {p["metadata"]["name"] for p in api.list("v1", "Pod", namespace) if p["spec"].get("nodeName") == name}
    assert left == {"exporter", "static", "ended"}


def test_a_budget_that_never_allows_is_named_at_the_deadline(api: ApiServer, nodes: Nodes, namespace: str) -> None:
    """Nothing is deleted over its head."""
    name = nodes.add()
    nodes.pod(name, "train-0", namespace=namespace, labels={"app": "train"})
    budget(api, namespace, "keep-all", allowed=0)
    drained = Drain(api, name).run(1.5)
    assert drained.end is DrainEnd.BLOCKED
    assert drained.left == (f"{namespace}/train-0",)
    assert f"{namespace}/train-0 is held by budget {namespace}/keep-all allows 0 more" in drained.why
    assert api.get("v1", "Pod", "train-0", namespace) is not None


def test_two_budgets_on_one_pod_are_named_both(api: ApiServer, nodes: Nodes, namespace: str) -> None:
    """Kubernetes answers 500 to such an eviction for ever; that is said instead of a time-out."""
    name = nodes.add()
    nodes.pod(name, "train-0", namespace=namespace, labels={"app": "train"})
    for each in ("one", "two"):
        budget(api, namespace, each, allowed=1)
    drained = Drain(api, name).run(1.0)
    assert drained.end is DrainEnd.BLOCKED
    assert "under 2 budgets at once, which Kubernetes never evicts" in drained.why
    assert "/one" in drained.why
    assert "/two" in drained.why


def test_a_pod_that_nobody_would_start_again_is_left_and_named(api: ApiServer, nodes: Nodes, namespace: str) -> None:
    """A bare pod's work would be lost: that is for its owner to decide."""
    name = nodes.add()
    nodes.pod(name, "by-hand", owner="", namespace=namespace)
    drained = Drain(api, name).run(0.5)
    assert (drained.end, drained.left) == (DrainEnd.BLOCKED, (f"{namespace}/by-hand",))
    assert "no controller would start it again" in drained.why


@pytest.mark.parametrize(
    ("selector", "version", "covers"),
    [
        ({"matchLabels": {"app": "train"}}, "policy/v1", True),
        ({"matchLabels": {"app": "serve"}}, "policy/v1", False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["train"]}]}, "policy/v1", True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["train"]}]}, "policy/v1", False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, "policy/v1", True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, "policy/v1", False),
        ({"matchExpressions": [{"key": "app", "operator": "Odd"}]}, "policy/v1", False),
        ({}, "policy/v1", True),
        ({}, "policy/v1beta1", False),
        (None, "policy/v1", False),
    ],
)
def test_which_budget_covers_a_pod(selector: Any, version: str, *, covers: bool) -> None:
    """Selectors as Kubernetes reads them; an empty one means all in v1 and nothing in v1beta1."""
    pod = {"metadata": {"namespace": "n", "name": "p", "labels": {"app": "train"}}}
    made = {"apiVersion": version, "metadata": {"namespace": "n", "name": "b"}, "spec": {"selector": selector}}
    assert bool(holding(pod, [made])) is covers
    assert not holding(pod, [made | {"metadata": {"namespace": "other", "name": "b"}}])

"""Over a real API server: the taint comes and goes, and a pod that waits gets its node back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import Nodes, until
from tests.recertify.conftest import copied
from tests.recertify.service import SlowRack
from toolkit.pool.door import CERTIFIED, TAINT
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.node_object import READY, read_node
from toolkit.pool.policy import KubernetesSite
from toolkit.rack import topology
from toolkit.report.recert_run import End

__all__ = ["api", "control_plane"]

NAMES = ("node1", "node2")


class ClusterRack(SlowRack):
    """A rack whose pool is a cluster."""

    cluster = None

    @property
    def pool(self):
        """The cluster's nodes."""
        return self.cluster


@pytest.fixture
def cluster(api, served, tmp_path):
    """The rack's nodes in the cluster, let in by the certificate that they have on record."""
    made = copied(served, tmp_path / "copy", kind=ClusterRack)
    made.lab.cluster = KubernetesPool(api, KubernetesSite(namespace="default"))
    nodes = Nodes(api, "recert")
    certificates = served.pool()
    try:
        for name in NAMES:
            taints = [{"key": TAINT.key, "effect": TAINT.effect}]
            api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints}})
            nodes.names.append(name)
            nodes.report(name)
            labels = topology.labels(made.rack, made.rack.unit(name))
            made.lab.pool.register(name, "a test", labels)
            until(lambda name=name: read_node(api.get("v1", "Node", name)).condition(READY))
            known = certificates[name]
            made.lab.pool.admit(name, known.certificate, known.expires, labels)
        made.api = api
        yield made
    finally:
        for name in nodes.names:
            api.delete("v1", "Node", name)


def door(service, name):
    """Whether our taint is on, and what the label says."""
    node = read_node(service.api.get("v1", "Node", name))
    return TAINT in node.taints, node.label(CERTIFIED)


def test_the_door_is_shut_for_the_test_and_open_again_after_it(cluster):
    """While it runs the taint is on; afterwards the node is let in by the certificate that supersedes."""
    seen = []

    def look():
        seen.append(door(cluster, "node1"))
        cluster.lab.finish()

    cluster.clock.on_sleep = [look]
    before = cluster.pool()["node1"].certificate
    done = cluster.run(cluster.tasks("node1"))
    assert [turn.end for turn in done.turns] == [End.RENEWED]
    assert seen == [(True, "false")]
    assert door(cluster, "node1") == (False, "true")
    assert cluster.pool()["node1"].certificate not in ("", before)
    assert door(cluster, "node2") == (False, "true")


def test_a_pod_that_no_node_takes_gets_this_one_back(cluster):
    """It is created while the burn-in runs; the scheduler finds no node for it, and finds one a moment later."""
    name = f"train-{datetime.now(UTC):%H%M%S%f}"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "nodeSelector": {CERTIFIED: "true", "rackproof.dev/unit": "node1"},
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": "8"}}}],
        },
    }

    def arrive():
        cluster.api.create(body, namespace="default")
        until(lambda: cluster.lab.pool.wanted("node1"))

    cluster.clock.on_sleep = [arrive]
    try:
        done = cluster.run(cluster.tasks("node1"))
        (turn,) = done.turns
        assert (turn.end, turn.code) == (End.YIELDED, "YIELDED")
        assert f"pod default/{name} waits for 8 GPUs" in turn.message
        assert cluster.lab.active == {}
        assert door(cluster, "node1") == (False, "true")
        until(lambda: cluster.api.get("v1", "Pod", name, "default")["spec"].get("nodeName") == "node1")
        again = cluster.run(cluster.tasks("node1"))
        assert [(turn.end, turn.message) for turn in again.turns] == [(End.IN_USE, f"pod default/{name} is there")]
    finally:
        cluster.api.delete("v1", "Pod", name, "default")

"""The smoke collective as a Job in a real cluster: placed by its scheduler, ended by stand-in kubelets."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import DIGEST, EXPIRES, Nodes, nodes, until
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError
from toolkit.pool.door_rule import doormen
from toolkit.pool.installation import install
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.manifests import manifests
from toolkit.pool.model import SmokeEnd
from toolkit.pool.policy import KubernetesSite
from toolkit.pool.smoke_job import JOB_LABEL, Order, job_document

__all__ = ["api", "control_plane", "nodes"]

SPACE = "rackproof-smoke-test"


@pytest.fixture
def pool(api: ApiServer) -> KubernetesPool:
    install(api, tuple(o for o in manifests(SPACE, doormen(SPACE), None) if "Policy" not in o["kind"]))
    return KubernetesPool(api, KubernetesSite(namespace=SPACE, smoke_image="registry.example/smoke:1"))


@pytest.fixture
def kubelets(api: ApiServer) -> Iterator[dict[str, str]]:
    """Pods that were placed end as the dict says by node, else well."""
    ends: dict[str, str] = {}
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            for pod in api.list("v1", "Pod", SPACE, labels=JOB_LABEL):
                node, name = pod["spec"].get("nodeName"), pod["metadata"]["name"]
                if not node or pod["status"]["phase"] != "Pending":
                    continue
                phase = ends.get(node, "Succeeded")
                code = 0 if phase == "Succeeded" else 7
                ended = {"name": "smoke", "image": "i", "imageID": "", "ready": False, "restartCount": 0,
                         "state": {"running": {}} if phase == "Running" else {"terminated": {"exitCode": code}}}  # fmt: skip  # noqa: E501
                try:
                    api.patch("v1", "Pod", name, {"status": {"phase": phase, "containerStatuses": [ended]}},
                              namespace=SPACE, how="strategic", subresource="status")  # fmt: skip
                except ApiRefusedError:
                    continue  # deleted meanwhile

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield ends
    stop.set()
    thread.join()


def admitted(pool: KubernetesPool, nodes: Nodes, count: int) -> list[str]:
    """Nodes that the scheduler places on."""
    names = [nodes.add() for _ in range(count)]
    for name in names:
        pool.admit(name, DIGEST, EXPIRES, {})
    until(lambda: not any("not-ready" in t.key for n in names for t in nodes.seen(n).taints), 20.0)
    return names


def test_one_rank_ran_on_each_node_and_nothing_is_left(
    pool: KubernetesPool, nodes: Nodes, kubelets: dict[str, str], api: ApiServer
) -> None:
    """Ordinary pods: what the scheduler would not give a training job, it does not give them."""
    names = admitted(pool, nodes, 3)
    smoked = pool.smoke(names, 40.0)
    assert (smoked.end, smoked.detail) == (SmokeEnd.PASSED, "3 ranks ended well")
    for version, kind in (("batch/v1", "Job"), ("v1", "Service")):
        left = [o for o in api.list(version, kind, SPACE) if JOB_LABEL in (o["metadata"].get("labels") or {})]
        assert not [o for o in left if not o["metadata"].get("deletionTimestamp")]


def test_a_rank_that_dies_fails_with_its_node(pool: KubernetesPool, nodes: Nodes, kubelets: dict[str, str]) -> None:
    """Which node, which exit status."""
    names = admitted(pool, nodes, 2)
    kubelets[names[1]] = "Failed"
    smoked = pool.smoke(names, 40.0)
    assert smoked.end is SmokeEnd.FAILED
    assert f"the rank on {names[1]} failed: exit 7" in smoked.detail


def test_a_node_that_takes_no_jobs_leaves_it_undecided(
    pool: KubernetesPool, nodes: Nodes, kubelets: dict[str, str]
) -> None:
    """Our taint is not tolerated: a smoke over a shut node says nothing, and says why; one that is gone as well."""
    (name,), shut = admitted(pool, nodes, 1), nodes.add()
    kubelets[name] = "Running"  # a rank waits for the others
    smoked = pool.smoke([name, shut], 4.0)
    assert smoked.end is SmokeEnd.UNDECIDED
    assert "not placed after 4 s" in smoked.detail
    assert pool.smoke([name, "gone-9"], 3.0).detail == "not in the cluster any more: gone-9"


def test_newer_servers_number_the_ranks() -> None:
    """Indexed where the server has it; one pod a node, no second try, all GPUs, and our taint not tolerated."""
    job = job_document(Order("space", "image", ("a", "b"), 8, 60.0), "smoke-1", indexed=True)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["backoffLimit"]) == ("Indexed", 2, 0)
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "8"}}
    assert [t["key"] for t in pod["tolerations"]] == ["nvidia.com/gpu"]
    assert "completionMode" not in job_document(Order("s", "i", ("a",), 0, 1.0), "n", indexed=False)["spec"]

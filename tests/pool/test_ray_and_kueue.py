"""The manifests for Ray and Kueue users, against a real API server and its scheduler.

The projects' own CRDs are not at hand here. Those below have the field names that the manifests use, as the CRDs of
KubeRay 1.7.0 (ray.io/v1) and Kueue 0.19 (v1beta2) have them, and no others: what is misspelled is pruned, and missed.
"""

# ruff: noqa: F811 - fixtures that are imported are named again where they are asked for
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.plane import api, control_plane  # noqa: F401
from tests.pool.cluster_nodes import OURS, THEIRS, Nodes, nodes, until  # noqa: F401
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.door import CERTIFIED
from toolkit.rack.topology import PREFIX

EXAMPLES = Path(__file__).resolve().parents[2] / "inventory" / "examples"
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
WHOLE = {"type": "integer"}
ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}  # a PodTemplateSpec: pods are made of it below


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TOLERATIONS = _list(_object(key=TEXT, operator=TEXT, value=TEXT, effect=TEXT))
_GROUP = {"template": ANY, "rayStartParams": TEXTS}
_QUOTA = _list(_object(name=TEXT, nominalQuota={"anyOf": [WHOLE, TEXT], "x-kubernetes-int-or-string": True}))
# (group, version, plural, kind, namespaced): spec
CRDS: dict[tuple[str, str, str, str, bool], dict[str, Any]] = {
    ("ray.io", "v1", "rayclusters", "RayCluster", True): _object(
        rayVersion=TEXT,
        headGroupSpec=_object(**_GROUP),
        workerGroupSpecs=_list(
            _object(groupName=TEXT, replicas=WHOLE, minReplicas=WHOLE, maxReplicas=WHOLE, numOfHosts=WHOLE, **_GROUP)
        ),
    ),
    ("kueue.x-k8s.io", "v1beta2", "topologies", "Topology", False): _object(levels=_list(_object(nodeLabel=TEXT))),
    ("kueue.x-k8s.io", "v1beta2", "resourceflavors", "ResourceFlavor", False): _object(
        nodeLabels=TEXTS, nodeTaints=_TOLERATIONS, tolerations=_TOLERATIONS, topologyName=TEXT
    ),
    ("kueue.x-k8s.io", "v1beta2", "clusterqueues", "ClusterQueue", False): _object(
        namespaceSelector=_object(matchLabels=TEXTS),
        resourceGroups=_list(
            _object(coveredResources=_list(TEXT), flavors=_list(_object(name=TEXT, resources=_QUOTA)))
        ),
    ),
    ("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue", True): _object(clusterQueue=TEXT),
}


def documents(name: str) -> list[dict[str, Any]]:
    """A manifest of ours."""
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [d for d in documents(name) if d["kind"] == kind]


@pytest.fixture(scope="module")
def kinds(api: ApiServer) -> Iterator[None]:
    """The API server knows the kinds of Ray and Kueue."""
    names = []
    for (group, version, plural, kind, namespaced), spec in CRDS.items():
        schema = {"openAPIV3Schema": _object(spec=spec)}
        names.append(f"{plural}.{group}")
        body = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            # Groups under *.k8s.io are asked for it.
            "metadata": {"name": names[-1], "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
            "spec": {
                "group": group,
                "scope": "Namespaced" if namespaced else "Cluster",
                "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
                "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
            },
        }
        api.create(body)
    for name in names:
        until(lambda n=name: "Established" in _conditions(api, n))
    yield
    for name in names:
        api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)


def _conditions(server: ApiServer, crd: str) -> list[str]:
    found = server.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", crd) or {}
    return [c["type"] for c in found.get("status", {}).get("conditions", ()) if c["status"] == "True"]


@pytest.mark.parametrize("name", ["kuberay.yml", "kueue.yml"])
@pytest.mark.usefixtures("kinds")
def test_the_server_keeps_every_field_of_the_manifest(api: ApiServer, name: str) -> None:
    """A field that no schema has would be dropped without a word."""
    for document in documents(name):
        assert api.apply(document)["spec"] == document["spec"]


def test_every_way_in_asks_for_the_label_that_a_kubelet_cannot_write() -> None:
    """Each flavor and each Ray group; none tolerates our taint, and levels are labels that nodes have."""
    flavors = of_kind("kueue.yml", "ResourceFlavor")
    assert flavors
    for flavor in flavors:
        assert flavor["spec"]["nodeLabels"][CERTIFIED] == "true"
    (ray,) = of_kind("kuberay.yml", "RayCluster")
    for group in (ray["spec"]["headGroupSpec"], *ray["spec"]["workerGroupSpecs"]):
        assert group["template"]["spec"]["nodeSelector"] == {CERTIFIED: "true"}
    assert "uncertified" not in str(documents("kuberay.yml")) + str(documents("kueue.yml"))
    topologies = {t["metadata"]["name"]: t["spec"]["levels"] for t in of_kind("kueue.yml", "Topology")}
    assert {f["spec"]["topologyName"] for f in of_kind("kueue.yml", "ResourceFlavor")} == set(topologies)
    ours = {f"{PREFIX}{name}" for name in ("rack", "leaf", "rail-group", "nvlink-domain")}
    for levels in topologies.values():
        assert {level["nodeLabel"] for level in levels[:-1]} <= ours
        assert levels[-1] == {"nodeLabel": "kubernetes.io/hostname"}


def test_quotas_are_of_flavors_that_there_are() -> None:
    """Every flavor covers every resource, in their order, as Kueue asks."""
    flavors = {f["metadata"]["name"] for f in of_kind("kueue.yml", "ResourceFlavor")}
    (queue,) = of_kind("kueue.yml", "ClusterQueue")
    for group in queue["spec"]["resourceGroups"]:
        assert {f["name"] for f in group["flavors"]} <= flavors
        for flavor in group["flavors"]:
            assert [r["name"] for r in flavor["resources"]] == group["coveredResources"]
    assert {q["spec"]["clusterQueue"] for q in of_kind("kueue.yml", "LocalQueue")} == {queue["metadata"]["name"]}


def test_rays_workers_land_on_certified_nodes_only(api: ApiServer, nodes: Nodes) -> None:
    """Of three nodes with room: one certified, one not, and one whose taint somebody lifted by hand."""
    domain = {f"{PREFIX}nvlink-domain": "ray-test"}
    good = nodes.add(taints=(THEIRS,), labels={CERTIFIED: "true", **domain})
    nodes.add(taints=(OURS, THEIRS), labels={CERTIFIED: "false", **domain})
    nodes.add(taints=(THEIRS,), labels=domain)
    (ray,) = of_kind("kuberay.yml", "RayCluster")
    template = ray["spec"]["workerGroupSpecs"][0]["template"]
    (container,) = template["spec"]["containers"]
    container["resources"] = {"requests": {"cpu": "1", "nvidia.com/gpu": "4"}, "limits": {"nvidia.com/gpu": "4"}}
    until(lambda: api.get("v1", "ServiceAccount", "default", "default"))
    names = [f"ray-worker-{n}" for n in range(3)]
    for name in names:
        meta = {"name": name, "namespace": "default", **template["metadata"]}
        spec = template["spec"] | {"terminationGracePeriodSeconds": 0}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, namespace="default")
    try:
        until(lambda: _unschedulable(api, names))
        placed = [_pod(api, name)["spec"].get("nodeName") for name in names]
        assert sorted(placed, key=bool) == [None, good, good]  # eight GPUs: the third waits for a certified node
    finally:
        for name in names:
            api.delete("v1", "Pod", name, "default")


def _pod(server: ApiServer, name: str) -> Any:
    found = server.get("v1", "Pod", name, "default")
    assert found is not None
    return found


def _unschedulable(server: ApiServer, names: list[str]) -> bool:
    """The scheduler has placed all but one, and has said of that one that it cannot."""
    pods = [_pod(server, name) for name in names]
    waiting = [p for p in pods if not p["spec"].get("nodeName")]
    said = [c["reason"] for p in waiting for c in p.get("status", {}).get("conditions", ())]
    return len(waiting) == 1 and said == ["Unschedulable"]

"""The operators' charts by the real Helm in a real API server; the charts are stand-ins, values and roles are not."""

# ruff: noqa: F811 - fixtures that are imported are named again where they are asked for
from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm_program import helm  # noqa: F401
from tests.kubernetes.plane import api, control_plane  # noqa: F401
from tests.playbooks.local_plays import Book, Play, local, play_book
from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.control_plane.plane import ControlPlane

PINS = yaml.safe_load((Path(__file__).resolve().parents[2] / "inventory/group_vars/cluster.yml").read_text())
VERSIONS = PINS["rackproof_pins"]
MANIFEST = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: site-network, namespace: kube-system}\ndata: {a: b}\n"
# A chart that shows what values it was given.
TEMPLATE = """apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-values", namespace: "{{ .Release.Namespace }}"}
data:
  values: {{ .Values | toJson | quote }}
"""
NODE = {"rackproof_mode": "nvswitch_gen3", "rackproof_versions": {}}


def charts(folder: Path) -> Path:
    """Stand-ins of the vendors' charts, of the pinned versions."""
    for name, version in {
        "gpu-operator": VERSIONS["gpu_operator"],
        "network-operator": VERSIONS["network_operator"],
    }.items():
        (folder / name / "templates").mkdir(parents=True)
        (folder / name / "Chart.yaml").write_text(
            json.dumps({"apiVersion": "v2", "name": name, "version": str(version), "description": "a stand-in"})
        )
        (folder / name / "templates/values.yaml").write_text(TEMPLATE)
    return folder


def play(name: str, role: str, host: str = "control1", **variables: object) -> dict[str, object]:
    return {"name": name, "hosts": host, "roles": [{"role": role}], "vars": variables}


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "nicclusterpolicies.mellanox.com"},
    "spec": {
        "group": "mellanox.com", "scope": "Cluster",
        "names": {"plural": "nicclusterpolicies", "singular": "nicclusterpolicy", "kind": "NicClusterPolicy",
                  "listKind": "NicClusterPolicyList"},
        "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
    },
}  # fmt: skip
MORE = {"gpu_operator_values": {"mig": {"strategy": "single"}}}
GONE = {"gpu_operator_state": "absent"}
TYPO = {"gpu_operator_values": {"devicePlugins": {"enabled": False}}}
HOSTS = {"control1": local()}
Playing = Callable[..., Book]


@pytest.fixture(scope="module")
def playing(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane, helm: Path) -> Playing:
    """Plays on this machine against the cluster."""
    folder = tmp_path_factory.mktemp("operators")
    variables = site(folder, control_plane, helm)

    def played(*plays: Mapping[str, object], check: bool = False, hosts: Mapping[str, Any] = HOSTS) -> Book:
        groups = {"control_plane": hosts, "nodes": {"n1": NODE}}
        return play_book(folder / "book", plays, groups, variables, check)

    return played


@pytest.fixture(scope="module")
def story(playing: Playing, api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Play]:
    """One chart foretold, installed, left alone, changed; the other with its policy, and a site's own network, twice;
    then the way back and the undo foretold.
    """
    api.create(CRD)
    manifest = tmp_path_factory.mktemp("site") / "network.yml"
    manifest.write_text(MANIFEST)
    network = {"cni_kind": "manifest", "cni_manifest": str(manifest)}
    first = [play("installed", "gpu_operator"), play("again", "gpu_operator"), play("another", "gpu_operator", **MORE)]
    books = [
        playing(play("foretold", "gpu_operator"), check=True),
        playing(
            *first,
            play("network", "network_operator"),
            play("network again", "network_operator"),
            play("manifest", "cni", **network),
            play("manifest again", "cni", **network),
        ),
        playing(play("back foretold", "gpu_operator"), play("undo foretold", "gpu_operator", **GONE), check=True),
    ]
    for book in books:
        assert book.code == 0, book.text[-4000:]
    return {name: play for book in books for name, play in book.plays.items()}


def site(folder: Path, plane: ControlPlane, program: Path) -> dict[str, object]:
    """Where the roles find what they call."""
    reach = {"kubeconfig": str(plane.kubeconfig("helm", ("system:masters",))), "program": str(program)}
    found: dict[str, object] = {"rackproof_mirror": {"charts": str(charts(folder / "charts"))}}
    kubectl = str(Path(sys.executable).with_name("kubectl"))
    for role in ("network_operator", "cni"):
        found[f"{role}_kubectl"] = kubectl
    for role in ("gpu_operator", "network_operator", "cni"):
        found |= {f"{role}_{key}": value for key, value in reach.items()} | {f"{role}_timeout_s": 60}
    return found


def values(server: ApiServer, release: str, namespace: str) -> Mapping[str, Any]:
    """What the chart was installed with."""
    found = server.get("v1", "ConfigMap", f"{release}-values", namespace)
    assert found is not None
    given: dict[str, Any] = json.loads(found["data"]["values"])
    return given


def test_a_chart_is_installed_as_foretold_and_then_left_alone(story: Mapping[str, Play]) -> None:
    """Check mode says that it would and does not; a second run calls Helm for nothing."""
    assert story["foretold"].changed == (("control1", "Say what would be installed"),)
    assert "gpu-operator v26.7.0 would be installed: it is not installed" in story["foretold"].text
    assert story["installed"].changed == (("control1", "Install it"),)
    assert story["again"].changed == ()


def test_another_value_is_an_upgrade(story: Mapping[str, Play], api: ApiServer) -> None:
    """Named by its key; the release's second revision has it."""
    assert "would be installed: values differ: mig" in story["back foretold"].text
    assert story["another"].changed == (("control1", "Install it"),)
    given = values(api, "gpu-operator", "gpu-operator")
    assert given["mig"] == {"strategy": "single"}
    assert (given["driver"], given["toolkit"], given["nfd"]) == (
        {"enabled": False},
        {"enabled": True},
        {"enabled": True},
    )
    assert (given["clusterPolicy"], given["gpuCluster"]) == ({"deployCR": True}, {"deployCR": False})


def test_node_features_are_discovered_once(story: Mapping[str, Play], api: ApiServer) -> None:
    """By the GPU operator's chart; the other has it off."""
    given = values(api, "network-operator", "nvidia-network-operator")
    assert given["nfd"]["enabled"] is False
    assert {"key": "rackproof.dev/uncertified", "operator": "Exists", "effect": "NoSchedule"} in given["operator"][
        "tolerations"
    ]


def test_a_policy_and_a_sites_manifest_are_applied_once(story: Mapping[str, Play], api: ApiServer) -> None:
    """By server-side apply where the server's own comparison says that they differ."""
    assert [task for _, task in story["network"].changed] == ["Install it", "Apply the policy"]
    assert [task for _, task in story["manifest"].changed] == ["Apply it"]
    assert (story["network again"].changed, story["manifest again"].changed) == ((), ())
    policy = api.get("mellanox.com/v1alpha1", "NicClusterPolicy", "nic-cluster-policy")
    assert policy is not None
    assert policy["spec"]["rdmaSharedDevicePlugin"]["version"] == f"network-operator-v{VERSIONS['network_operator']}"
    assert api.get("v1", "ConfigMap", "site-network", "kube-system") is not None


def test_the_undo_uninstalls_and_then_changes_nothing(
    story: Mapping[str, Play],
    playing: Playing,
    api: ApiServer,
) -> None:
    """check, run, run; the cluster has nothing of the chart any more."""
    assert story["undo foretold"].changed == (("control1", "Say that it would be removed"),)
    assert values(api, "gpu-operator", "gpu-operator")
    book = playing(play("removed", "gpu_operator", **GONE), play("again", "gpu_operator", **GONE))
    assert book.code == 0, book.text[-3000:]
    assert book.plays["removed"].changed == (("control1", "Remove it"),)
    assert book.plays["again"].changed == ()
    assert api.get("v1", "ConfigMap", "gpu-operator-values", "gpu-operator") is None


def test_what_cannot_be_meant_is_refused_before_helm_is_called(playing: Playing) -> None:
    """Racks of both kinds in one cluster, the device plugin beside DRA, a value that the chart does not have."""
    both = {"gpu_operator_modes": ["mnnvl_dra", "nvswitch_gen3"]}
    beside = {"gpu_operator_modes": ["mnnvl_dra"], "gpu_operator_values": {"devicePlugin": {"enabled": True}}}
    hosts = {"control1": local(**both), "control2": local(**beside), "control3": local(**TYPO)}
    book = playing(play("refused", "gpu_operator", host="control_plane"), check=True, hosts=hosts)
    said = {line.split("[", 1)[1].split("]")[0]: line for line in book.text.splitlines() if line.startswith("fatal: [")}
    assert "never by both: the modes are mnnvl_dra, nvswitch_gen3" in said["control1"]
    assert "device plugin True, ClusterPolicy False, GPUCluster True" in said["control2"]
    assert "devicePlugins is no value of the chart" in said["control3"]
    assert "TASK [helm_release : Have it or not]" not in book.text

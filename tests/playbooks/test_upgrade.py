"""upgrade.yml refuses a node that takes jobs: asked of a real API server, with the kubelet's own identity."""

# ruff: noqa: F811 - fixtures that are imported are named again where they are asked for
from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.kubernetes.plane import api, control_plane  # noqa: F401
from tests.playbooks.local_plays import PLAYBOOKS, play_book
from tests.playbooks.own_etc import own_hosts, seen_as
from tests.pool.cluster_nodes import OURS, THEIRS, Nodes, nodes  # noqa: F401
from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.control_plane.plane import ControlPlane

pytestmark = [pytest.mark.root]
NAMES = ("open", "busy", "drained", "cordoned", "stranger")
NODE = {"rackproof_versions": {"kubelet": "1.36.4", "kubeadm": "1.36.4"}, "rackproof_labels": {}}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Path]:
    """Five hosts with nothing on them."""
    (tmp_path / "hosts").mkdir()
    with own_hosts(tmp_path / "hosts", NAMES) as folder:
        yield folder


def enrol(home: Path, plane: ControlPlane, name: str) -> None:
    """What a node has that joined: its kubelet's kubeconfig and certificate, and the cluster's CA."""
    config = plane.kubeconfig(f"system:node:{name}", ("system:nodes",))
    told = json.loads(config.read_text())
    user, cluster = told["users"][0]["user"], told["clusters"][0]["cluster"]
    pair = b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))
    for path, content in {
        "etc/kubernetes/kubelet.conf": yaml.safe_dump(told).encode(),
        "etc/kubernetes/pki/ca.crt": base64.b64decode(cluster["certificate-authority-data"]),
        "var/lib/kubelet/pki/kubelet-client-current.pem": pair,
    }.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)


def test_only_a_node_without_jobs_is_upgraded(
    hosts: Path,
    control_plane: ControlPlane,
    api: ApiServer,
    nodes: Nodes,
    tmp_path: Path,
) -> None:
    """Refused: in service, or tainted with a job on it yet. Taken: drained, cordoned, and no member at all."""
    named = {
        "open": nodes.add(taints=(THEIRS,)),
        "busy": nodes.add(taints=(OURS, THEIRS)),
        "drained": nodes.add(taints=(OURS, THEIRS)),
        "cordoned": nodes.add(taints=(THEIRS,)),
    }
    api.patch("v1", "Node", named["cordoned"], {"spec": {"unschedulable": True}}, how="merge")
    nodes.pod(named["busy"], "training-0")
    nodes.pod(named["drained"], "device-plugin-0", owner="DaemonSet")
    for host, node in named.items():
        enrol(hosts / host, control_plane, node)
    told = {
        n: seen_as(hosts, n, kubeadm_node_name=named.get(n, "stranger"), ansible_host="10.0.0.1", **NODE) for n in NAMES
    }
    look = {"name": "Look", "ansible.builtin.include_role": {"name": "kubeadm_node", "tasks_from": "idle"}}
    book = play_book(tmp_path / "book", [{"name": "idle", "hosts": "nodes", "tasks": [look]}], {"nodes": told}, {})
    said = {line.split("[", 1)[1].split("]")[0]: line for line in book.text.splitlines() if line.startswith("fatal: [")}
    assert set(said) == {"open", "busy"}, book.text[-4000:]
    assert f"{named['open']} still takes jobs; first: rackproof drain open" in said["open"]
    assert "still has pods: training-0; first: rackproof drain busy" in said["busy"]
    api.delete("v1", "Pod", "training-0", "default")
    api.delete("v1", "Pod", "device-plugin-0", "default")


def test_the_book_looks_first_and_goes_one_by_one() -> None:
    """Before containerd is touched, and a node that fails stops the others."""
    (play,) = yaml.safe_load((PLAYBOOKS / "upgrade.yml").read_text())
    assert (play["serial"], play["max_fail_percentage"]) == (1, 0)
    (first,) = play["pre_tasks"]
    assert first["ansible.builtin.include_role"] == {"name": "kubeadm_node", "tasks_from": "idle"}

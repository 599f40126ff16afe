"""Files that the cluster's roles write: rendered by Ansible itself, read as those read them that they are for."""

# ruff: noqa: F811 - fixtures that are imported are named again where they are asked for
from __future__ import annotations

import base64
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.plane import api, control_plane  # noqa: F401
from tests.pool.cluster_nodes import until
from toolkit.kubernetes.client import ApiServer

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
INVENTORY = PLAYBOOKS.parent / "inventory"
TOKEN = "abcdef.0123456789abcdef"
HASH = "sha256:" + "ab" * 32
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
CERTIFICATE_KEY = "0f" * 32
SITE = {
    "rackproof_labels": {"rackproof.dev/rack": "demo", "rackproof.dev/slot": "1"},
    "rackproof_versions": {"containerd.io": "2.3.4", "kubelet": "1.36.4", "kubeadm": "1.36.4"},
    "ansible_host": "10.0.0.11",
    "containerd_mirror": "https://mirror.example/",
    "containerd_mirror_ca": "/etc/mirror.pem",
    "item": "registry.k8s.io",
    "kubeadm_node_ticket": {"endpoint": "10.0.0.10:6443", "token": TOKEN, "ca_hash": HASH},
    "kubeadm_control_plane_endpoint": "10.0.0.10:6443",
    "kubeadm_control_plane_interface": "bond0",
    "kubeadm_control_plane_names": ["api.example"],
    "kubeadm_control_plane_vip_kubeconfig": "admin.conf",
    "kubeadm_control_plane_invitation": {"key": CERTIFICATE_KEY, "token": TOKEN},
    "kubeadm_control_plane_ca": {"content": base64.b64encode(CA.encode()).decode()},
}
WITH_CA = {"kubeadm_node_ticket": {"endpoint": "10.0.0.10:6443", "token": TOKEN, "ca": CA}}
OLD = {"containerd_config_version": 2, "containerd_mirror_ca": ""}
# (file here, role, template, what differs from SITE)
FILES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("config3", "containerd", "config.toml", {}),
    ("config2", "containerd", "config.toml", OLD),
    ("nvidia3", "containerd", "nvidia.toml", {}),
    ("nvidia2", "containerd", "nvidia.toml", OLD),
    ("hosts", "containerd", "hosts.toml", {}),
    ("hosts-plain", "containerd", "hosts.toml", OLD),
    ("kubelet", "kubeadm_node", "kubelet.conf", {}),
    ("join", "kubeadm_node", "join.yaml", {}),
    ("join-by-ca", "kubeadm_node", "join.yaml", WITH_CA),
    ("discovery", "kubeadm_node", "discovery.yaml", WITH_CA),
    ("init", "kubeadm_control_plane", "init.yaml", {}),
    ("init-again", "kubeadm_control_plane", "init.yaml", {}),
    ("invite", "kubeadm_control_plane", "invite.yaml", {}),
    ("join-control", "kubeadm_control_plane", "join.yaml", {}),
    ("discovery-control", "kubeadm_control_plane", "discovery.yaml", {}),
    ("kube-vip", "kubeadm_control_plane", "kube-vip.yaml", {}),
    ("audit", "kubeadm_control_plane", "audit-policy.yaml", {}),
    ("policy", "network_operator", "nic_cluster_policy.yaml", {}),
)
KUBEADM = "kubeadm.k8s.io/v1beta4"


@dataclass(frozen=True)
class Rendered:
    """The files by name."""

    texts: Mapping[str, str]

    def text(self, name: str) -> str:
        return self.texts[name]

    def toml(self, name: str) -> dict[str, Any]:
        return tomllib.loads(self.text(name))

    def documents(self, name: str) -> dict[str, dict[str, Any]]:
        """YAML documents by kind; each has an apiVersion."""
        found = [d for d in yaml.safe_load_all(self.text(name)) if d]
        assert all(d["apiVersion"] for d in found)
        return {d["kind"]: d for d in found}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Every template with the role's defaults and the shipped pins, in one process of Ansible."""
    folder = tmp_path_factory.mktemp("rendered")
    homes = {role: PLAYBOOKS / "roles" / role for _, role, _, _ in FILES}
    files = [f for home in homes.values() for f in (home / "defaults/main.yml", *home.glob("vars/main.yml"))]
    texts = {
        name: f"{{{{ lookup('template', '{homes[role]}/templates/{template}.j2', template_vars=more_{n}) }}}}"
        for n, (name, role, template, _) in enumerate(FILES)
    }
    variables = SITE | {f"more_{n}": more for n, (_, _, _, more) in enumerate(FILES)} | {"texts": texts}
    task = {
        "name": "Render",
        "ansible.builtin.copy": {"content": "{{ texts | to_json }}", "dest": str(folder / "all.json")},
    }
    known = [str(f) for f in (INVENTORY / "group_vars/cluster.yml", *files)]
    play = {"hosts": "control1", "gather_facts": False, "vars_files": known, "vars": {"rackproof_mirror": {}}}
    plays = [play | {"tasks": [task | {"vars": variables}]}]
    (folder / "book.yml").write_text(json.dumps(plays))
    python = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"cluster": {"children": {"control_plane": {"hosts": {"control1": python}}}}}
    (folder / "hosts.json").write_text(json.dumps(hosts))
    argv = [
        sys.executable,
        "-P",
        "-m",
        "ansible",
        "playbook",
        "-i",
        str(folder / "hosts.json"),
        str(folder / "book.yml"),
    ]
    done = subprocess.run(argv, cwd=PLAYBOOKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return Rendered(json.loads((folder / "all.json").read_text()))


@pytest.mark.parametrize(
    ("name", "plugin", "images"),
    [
        ("config3", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images"),
        ("config2", "io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri"),
    ],
)
def test_containerd_runs_pods_under_systemd(rendered: Rendered, name: str, plugin: str, images: str) -> None:
    """In either version of its configuration: the cgroup driver, the pinned sandbox, mirrors, fragments."""
    config = rendered.toml(name)
    assert config["version"] == int(name[-1])
    assert config["imports"] == ["/etc/containerd/conf.d/*.toml"]
    runc = config["plugins"][plugin]["containerd"]["runtimes"]["runc"]
    assert runc == {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}
    of_images = config["plugins"][images]
    sandbox = of_images["pinned_images"]["sandbox"] if name == "config3" else of_images["sandbox_image"]
    assert sandbox == "registry.k8s.io/pause:3.10.2"
    assert of_images["registry"]["config_path"] == "/etc/containerd/certs.d"
    nvidia = rendered.toml(name.replace("config", "nvidia"))["plugins"][plugin]["containerd"]["runtimes"]["nvidia"]
    assert nvidia["options"] == {"BinaryName": "/usr/bin/nvidia-container-runtime", "SystemdCgroup": True}


def test_a_mirror_is_the_only_place_asked(rendered: Rendered) -> None:
    """`server` is where containerd goes when no host answers: it must not be the registry itself."""
    hosts = rendered.toml("hosts")
    assert hosts == {
        "server": "https://mirror.example/v2/registry.k8s.io", "capabilities": ["pull", "resolve"],
        "override_path": True, "ca": "/etc/containerd/certs.d/rackproof-mirror-ca.pem",
    }  # fmt: skip
    assert "ca" not in rendered.toml("hosts-plain")


def test_a_node_joins_tainted_and_labelled(rendered: Rendered) -> None:
    """By a pinned CA, with the taint whose value is empty, and its place in the rack."""
    join = rendered.documents("join")["JoinConfiguration"]
    assert join["apiVersion"] == KUBEADM
    node = join["nodeRegistration"]
    assert node["name"] == "control1"
    assert node["taints"] == [{"key": "rackproof.dev/uncertified", "effect": "NoSchedule"}]
    arguments = {a["name"]: a["value"] for a in node["kubeletExtraArgs"]}
    assert arguments == {"node-ip": "10.0.0.11", "node-labels": "rackproof.dev/rack=demo,rackproof.dev/slot=1"}
    assert join["discovery"]["bootstrapToken"] == {
        "apiServerEndpoint": "10.0.0.10:6443", "token": TOKEN, "caCertHashes": [HASH],
    }  # fmt: skip
    assert "unsafeSkipCAVerification" not in rendered.text("join")
    kubelet = rendered.documents("kubelet")["KubeletConfiguration"]
    assert kubelet["registerWithTaints"] == node["taints"]


def test_a_node_joins_by_the_ca_itself(rendered: Rendered) -> None:
    """Discovery by a file that has no secret; the token is for the identity."""
    join = rendered.documents("join-by-ca")["JoinConfiguration"]
    assert join["discovery"] == {
        "file": {"kubeConfigPath": "/etc/kubernetes/rackproof/discovery.yaml"}, "tlsBootstrapToken": TOKEN,
    }  # fmt: skip
    (cluster,) = rendered.documents("discovery")["Config"]["clusters"]
    assert cluster["cluster"]["server"] == "https://10.0.0.10:6443"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode() == CA
    assert TOKEN not in rendered.text("discovery")


def test_a_control_plane_is_made_closed(rendered: Rendered) -> None:
    """Encryption at rest, audit log, NodeRestriction and policies; the pinned versions; nobody's token left behind."""
    found = rendered.documents("init")
    assert set(found) == {"InitConfiguration", "ClusterConfiguration", "KubeletConfiguration"}
    cluster = found["ClusterConfiguration"]
    assert (cluster["apiVersion"], cluster["kubernetesVersion"]) == (KUBEADM, "v1.36.4")
    assert cluster["controlPlaneEndpoint"] == "10.0.0.10:6443"
    assert cluster["etcd"]["local"]["imageTag"] == "3.6.8-0"
    assert cluster["apiServer"]["certSANs"] == ["10.0.0.10", "api.example"]
    arguments = {a["name"]: a["value"] for a in cluster["apiServer"]["extraArgs"]}
    assert arguments["enable-admission-plugins"] == "NodeRestriction,ValidatingAdmissionPolicy"
    mounted = {v["mountPath"]: v["hostPath"] for v in cluster["apiServer"]["extraVolumes"]}
    for name in ("encryption-provider-config", "audit-policy-file", "audit-log-path"):
        assert any(arguments[name].startswith(f"{place}/") for place in mounted), name
    assert all(isinstance(value, str) for value in arguments.values())
    tokens = [rendered.documents(n)["InitConfiguration"]["bootstrapTokens"][0] for n in ("init", "init-again")]
    assert tokens[0]["token"] != tokens[1]["token"]
    assert {t["ttl"] for t in tokens} == {"1m0s"}


def test_a_further_host_is_invited_for_a_while(rendered: Rendered) -> None:
    """Key and token are in files only; both configurations name the same."""
    invite = rendered.documents("invite")["InitConfiguration"]
    join = rendered.documents("join-control")["JoinConfiguration"]
    assert invite["certificateKey"] == join["controlPlane"]["certificateKey"] == CERTIFICATE_KEY
    assert invite["bootstrapTokens"][0]["token"] == join["discovery"]["tlsBootstrapToken"] == TOKEN
    assert invite["bootstrapTokens"][0]["ttl"] == "15m0s"
    (cluster,) = rendered.documents("discovery-control")["Config"]["clusters"]
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]).decode() == CA


def test_the_audit_log_never_has_a_secret_and_always_who_lifted_a_taint(rendered: Rendered) -> None:
    """The first rule that fits counts: secrets before writes in general, kubelets' heartbeats before nodes."""
    rules = rendered.documents("audit")["Policy"]["rules"]
    of = {
        (entry["group"], resource): (number, rule["level"])
        for number, rule in reversed(list(enumerate(rules)))
        for entry in rule.get("resources", ())
        for resource in entry.get("resources", ("*",))
    }
    assert of["", "secrets"][1] == of["authentication.k8s.io", "tokenreviews"][1] == "Metadata"
    assert of["", "nodes"][1] == "RequestResponse"
    general = next(n for n, rule in enumerate(rules) if rule["level"] == "Request" and "resources" not in rule)
    assert of["", "secrets"][0] < general
    assert rules[-1] == {"level": "Metadata"}


def test_kube_vip_holds_the_address_of_the_endpoint(rendered: Rendered) -> None:
    """The pinned image, one host by a Lease, no services."""
    pod = rendered.documents("kube-vip")["Pod"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "ghcr.io/kube-vip/kube-vip:v1.2.3"
    told = {e["name"]: e.get("value") for e in container["env"]}
    assert told | {"address": "10.0.0.10", "port": "6443", "vip_interface": "bond0", "cp_enable": "true"} == told
    assert (told["vip_leaderelection"], told["svc_enable"]) == ("true", "false")
    assert pod["spec"]["hostNetwork"] is True


def test_the_api_server_takes_kube_vips_pod(rendered: Rendered, api: ApiServer) -> None:
    """As the kubelet mirrors it; every field is one of a pod's, for a field that is none would not come back."""
    pod = rendered.documents("kube-vip")["Pod"]
    until(lambda: api.get("v1", "ServiceAccount", "default", "kube-system"))
    made = api.create(pod, namespace="kube-system")
    try:
        assert _within(pod["spec"], made["spec"]) == []
    finally:
        api.delete("v1", "Pod", "kube-vip", "kube-system")


def _within(wanted: Any, got: Any, path: str = "spec") -> list[str]:
    """Where what is wanted is not in what was got."""
    if isinstance(wanted, dict) and isinstance(got, dict):
        return [w for key, value in wanted.items() for w in _within(value, got.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(got, list):
        return [w for n, value in enumerate(wanted) for w in _within(value, got[n], f"{path}[{n}]")]
    return [] if wanted == got else [path]


def test_rdma_is_given_to_pods_of_uncertified_nodes_too(rendered: Rendered) -> None:
    """A burn-in as a Job takes what a training job takes."""
    spec = rendered.documents("policy")["NicClusterPolicy"]["spec"]
    assert "ofedDriver" not in spec
    (resource,) = json.loads(spec["rdmaSharedDevicePlugin"]["config"])["configList"]
    assert resource["selectors"] == {"vendors": ["15b3"], "linkTypes": ["infiniband"]}
    assert {"key": "rackproof.dev/uncertified", "operator": "Exists", "effect": "NoSchedule"} in spec["tolerations"]

"""What `kubeadm init` leaves in a cluster for nodes to be configured with: how kubelets are to be, and who may read it.

Beside what the control plane has for their certificates (toolkit/virtual/control_plane/bootstrap.py).
https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/#upload-kubeadm-clusterconfiguration
"""

from __future__ import annotations

import yaml

from toolkit.kubernetes.client import ApiServer, Object
from toolkit.virtual.control_plane.bootstrap import JOINING, MANAGER

_SYSTEM, _RBAC = "kube-system", "rbac.authorization.k8s.io"
_NODES = "system:nodes"
CA = "/etc/kubernetes/pki/ca.crt"  # where kubeadm puts it on a node


def configure(api: ApiServer, endpoint: str) -> None:
    """Lets nodes be configured; `endpoint` is the API server's, host:port. Safe to repeat."""
    major, minor = api.version()
    cluster = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "clusterName": "kubernetes",
        "controlPlaneEndpoint": endpoint,
        "kubernetesVersion": f"v{major}.{minor}.0",
    }
    for document in (
        *_readable("kubeadm-config", "ClusterConfiguration", cluster, "kubeadm:nodes-kubeadm-config"),
        *_readable("kubelet-config", "kubelet", kubelets(), "kubeadm:kubelet-config"),
    ):
        api.apply(document, manager=MANAGER, force=True)


def kubelets() -> Object:
    """KubeletConfiguration of every node: who may call it, and that the cluster signs what it serves with."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": CA},
        },
        "authorization": {"mode": "Webhook"},
        "rotateCertificates": True,
        "serverTLSBootstrap": True,
        "nodeStatusUpdateFrequency": "10s",
        "nodeLeaseDurationSeconds": 40,
    }


def _readable(name: str, key: str, content: Object, role: str) -> tuple[Object, ...]:
    """A ConfigMap, and the right of nodes and of those that join to read it."""
    place = {"namespace": _SYSTEM}
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get"]}
    groups = [{"apiGroup": _RBAC, "kind": "Group", "name": group} for group in (_NODES, JOINING)]
    return (
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, **place},
            "data": {key: yaml.safe_dump(content, sort_keys=False)},
        },
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": {"name": role, **place}, "rules": [rule]},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, **place},
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role},
            "subjects": groups,
        },
    )

"""What `kubeadm init` leaves in a cluster so that nodes can join: who may ask for a certificate, and where the CA is.

https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from toolkit.kubernetes.client import ApiServer, Object
from toolkit.virtual.control_plane import documents

MANAGER = "kubeadm"
JOINING = "system:bootstrappers:kubeadm:default-node-token"
_NODES, _ANYBODY = "system:nodes", "system:anonymous"
_RBAC = "rbac.authorization.k8s.io"
_INFO, _PUBLIC = "cluster-info", "kube-public"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"  # a token is [a-z0-9]{6}.[a-z0-9]{16}


def prepare(api: ApiServer, server: str, ca: bytes) -> None:
    """Lets nodes that hold a bootstrap token join. Safe to repeat."""
    for document in (*_rights(), *_cluster_info(server, ca)):
        api.apply(document, manager=MANAGER, force=True)


def token(api: ApiServer, lifetime: timedelta) -> str:
    """A new bootstrap token, as `kubeadm token create` makes them. A secret."""
    name, secret = (_random(6), _random(16))
    ends = (datetime.now(UTC) + lifetime).isoformat(timespec="seconds").replace("+00:00", "Z")
    api.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"bootstrap-token-{name}", "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": name,
                "token-secret": secret,
                "expiration": ends,
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": JOINING,
            },
        }
    )
    return f"{name}.{secret}"


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def _rights() -> tuple[Object, ...]:
    requests = "system:certificates.k8s.io:certificatesigningrequests"
    nodes = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    return (
        _binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", JOINING),
        _binding("kubeadm:node-autoapprove-bootstrap", f"{requests}:nodeclient", JOINING),
        _binding("kubeadm:node-autoapprove-certificate-rotation", f"{requests}:selfnodeclient", _NODES),
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "kubeadm:get-nodes"},
            "rules": [nodes],
        },
        _binding("kubeadm:get-nodes", "kubeadm:get-nodes", JOINING),
    )


def _binding(name: str, role: str, group: str) -> Object:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": group}],
    }


def _cluster_info(server: str, ca: bytes) -> tuple[Object, ...]:
    """The address and CA for everybody to read; the controllers sign it with each token, so that a joiner can check."""
    role = "kubeadm:bootstrap-signer-clusterinfo"
    readable = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [_INFO], "verbs": ["get"]}
    place = {"namespace": _PUBLIC}
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _PUBLIC}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": _INFO, **place},
            "data": {"kubeconfig": documents.kubeconfig(server, ca, "", None).decode()},
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": {"name": role, **place},
            "rules": [readable],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role, **place},
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": role},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": _ANYBODY}],
        },
    )

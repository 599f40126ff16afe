"""What the control plane's programs read: kubeconfigs, what is encrypted at rest, and what is audited. JSON is YAML."""

from __future__ import annotations

import base64
import json
from typing import Any

from toolkit.virtual.control_plane.certificates import Issued

CLUSTER = "rackproof"


def kubeconfig(server: str, ca: bytes, user: str, issued: Issued | None) -> bytes:
    """A kubeconfig with everything in it. Without `issued` it has no login: what `cluster-info` tells everybody."""
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CLUSTER, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [],
        "contexts": [],
    }
    if issued is not None:
        login = {"client-certificate-data": _base64(issued.certificate), "client-key-data": _base64(issued.key)}
        document["users"] = [{"name": user, "user": login}]
        document["contexts"] = [{"name": CLUSTER, "context": {"cluster": CLUSTER, "user": user}}]
        document["current-context"] = CLUSTER
    return _json(document)


def encryption(key: bytes) -> bytes:
    """Secrets are written with secretbox; what was written before there was a key is still read. `key`: 32 bytes."""
    return _json(
        {
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "EncryptionConfiguration",
            "resources": [
                {
                    "resources": ["secrets"],
                    "providers": [
                        {"secretbox": {"keys": [{"name": "key1", "secret": _base64(key)}]}},
                        {"identity": {}},
                    ],
                }
            ],
        }
    )


def audit_policy() -> bytes:
    """Who changed what: nodes with the change itself, all else by name; heartbeats and reads are not written down."""
    quiet = [{"group": "coordination.k8s.io", "resources": ["leases"]}, {"group": "", "resources": ["events"]}]
    changed = ["create", "update", "patch", "delete", "deletecollection"]
    return _json(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": [
                {"level": "None", "resources": quiet},
                {"level": "Request", "verbs": changed, "resources": [{"group": "", "resources": ["nodes"]}]},
                {"level": "Metadata", "verbs": changed},
                {"level": "None"},
            ],
        }
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"

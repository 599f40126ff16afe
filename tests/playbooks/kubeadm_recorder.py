"""Stands in for kubeadm on the hosts of a control plane: leaves the files of a member, and a record of every call.

`kubeadm FOLDER ARGUMENTS...`; the folder is shared by the hosts. Like the real one it prints the secrets it was given:
what it says must be kept from whoever looks on. What it refuses is what the role must never do.
"""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path("/etc/kubernetes")


def documents(path: str) -> dict[str, Any]:
    """By kind, of a file that only its owner reads."""
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600, f"{path} is readable by others"
    return {d["kind"]: d for d in yaml.safe_load_all(Path(path).read_text()) if d}


def member(version: str) -> None:
    """What a member has."""
    (KUBERNETES / "manifests").mkdir(exist_ok=True)
    image = f"    image: registry.k8s.io/kube-apiserver:{version}\n"
    (KUBERNETES / "manifests/kube-apiserver.yaml").write_text(f"spec:\n  containers:\n  - name: a\n{image}")
    (KUBERNETES / "admin.conf").write_text("kind: Config\n")


def main(shared: Path, arguments: list[str]) -> int:
    """One call."""
    told = documents(arguments[arguments.index("--config") + 1]) if "--config" in arguments else {}
    with (shared / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"argv": arguments, "told": told}) + "\n")
    cluster = shared / "cluster.json"
    match arguments:
        case ["config", "validate", *_]:
            sys.stdout.write("ok" + "\n")
        case ["init", "phase", "upload-certs", *_]:
            key = told["InitConfiguration"]["certificateKey"]
            cluster.write_text(json.dumps({"key": key}))
            sys.stdout.write(f"[upload-certs] Using certificate key:\n{key}" + "\n")
        case ["init", *_]:
            if cluster.exists():
                sys.stderr.write("there is a cluster already" + "\n")
                return 1
            cluster.write_text("{}")
            (KUBERNETES / "pki").mkdir(exist_ok=True)
            (KUBERNETES / "pki/ca.crt").write_text("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n")
            member(told["ClusterConfiguration"]["kubernetesVersion"])
            sys.stdout.write(f"kubeadm join --token {told['InitConfiguration']['bootstrapTokens'][0]['token']}" + "\n")
        case ["token", "create", *_]:
            token = told["InitConfiguration"]["bootstrapTokens"][0]["token"]
            cluster.write_text(json.dumps(json.loads(cluster.read_text()) | {"token": token}))
            sys.stdout.write(token + "\n")
        case ["join", *_]:
            known, join = json.loads(cluster.read_text()), told["JoinConfiguration"]
            if known.get("key") != join["controlPlane"]["certificateKey"]:
                sys.stderr.write(f"error decoding with key {join['controlPlane']['certificateKey']}" + "\n")
                return 1
            assert known["token"] == join["discovery"]["tlsBootstrapToken"]
            if (shared / "fail-join").exists():
                (KUBERNETES / "admin.conf").write_text("half\n")
                sys.stderr.write(f"error: token {known['token']} timed out" + "\n")
                return 1
            member("v1.36.4")
        case _:
            sys.stderr.write(f"unknown: {arguments}" + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))

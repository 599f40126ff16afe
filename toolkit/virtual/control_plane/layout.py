"""Where a control plane keeps its things, and what it is told: addresses, ports, and what its user wants otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PlaneOptions:
    """How a control plane is to be.

    address        the API server listens there and is told so to others
    port           of the API server; `etcd_port` and `etcd_peer_port`: on 127.0.0.1
    hosts          further names and addresses that the API server's certificate holds for
    namespace      network namespace that everything lives in; empty: the caller's
    durable        whether etcd waits for the disk; without, a crash of the machine (not of a program) loses data
    tied           whether the processes die with the thread that started them: for tests
    plugins        admission plugins beside the default ones and NodeRestriction
    node_grace_s   a node whose agent has been silent this long is not ready
    apiserver      further arguments of kube-apiserver
    """

    address: str = "127.0.0.1"
    port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    hosts: tuple[str, ...] = ()
    namespace: str = ""
    durable: bool = True
    tied: bool = False
    plugins: tuple[str, ...] = ()
    node_grace_s: int = 40
    apiserver: tuple[str, ...] = ()

    @property
    def server(self) -> str:
        """URL of the API server."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PlaneLayout:
    """Files of a control plane below one folder of mode 0700; absolute, without links."""

    folder: Path

    @property
    def authority(self) -> Path:
        """Key and certificate of the CA."""
        return self.folder / "pki/authority.pem"

    @property
    def ca(self) -> Path:
        """Certificate of the CA."""
        return self.folder / "pki/ca.crt"

    @property
    def ca_key(self) -> Path:
        """Key of the CA, as the controller that signs for nodes reads it."""
        return self.folder / "pki/ca.key"

    def certificate(self, name: str) -> Path:
        """Certificate of one of the programs."""
        return self.folder / f"pki/{name}.crt"

    def key(self, name: str) -> Path:
        """Its key."""
        return self.folder / f"pki/{name}.key"

    @property
    def encryption(self) -> Path:
        """What is encrypted at rest, and the key."""
        return self.folder / "pki/encryption.json"

    @property
    def audit_policy(self) -> Path:
        """What is written to the audit log."""
        return self.folder / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        """One JSON object a line."""
        return self.folder / "log/audit.log"

    def kubeconfig(self, name: str) -> Path:
        """A kubeconfig, mode 0600."""
        return self.folder / f"kubeconfigs/{name}.json"

    def log(self, name: str) -> Path:
        """What a program said, over all its starts."""
        return self.folder / f"log/{name}.log"

    @property
    def data(self) -> Path:
        """etcd's."""
        return self.folder / "etcd"

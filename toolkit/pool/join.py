"""Letting nodes into a Kubernetes cluster: a ticket to join with, what came of it, and the certificate they serve with.

A ticket is a bootstrap token, made for one play and deleted after it. A killed play's token ends by itself, soon.
https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from toolkit.errors import UndecidedError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ConflictError, printable
from toolkit.pool.policy import KubernetesSite

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

KUBECONFIG = "join-kubeconfig"  # in the site's secrets: of whoever may make tokens, where the door's account may not
_JOINING = "system:bootstrappers:kubeadm:default-node-token"  # the group that kubeadm gives its rights to
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_TOKEN_TRIES = 3
_CERTIFICATES, _REQUEST = "certificates.k8s.io/v1", "CertificateSigningRequest"
_SERVING = "kubernetes.io/kubelet-serving"
_SERVING_USAGES = frozenset(("digital signature", "key encipherment", "server auth"))
_MAX_REQUEST_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a node joins with. `token` is a secret: it goes into a private file, and nowhere else.

    endpoint   the API server as nodes reach it, host:port
    ca_hash    `sha256:` and the digest of the CA's public key, as kubeadm pins it
    ca         the CA's certificates, PEM
    """

    endpoint: str
    token: str = field(repr=False)
    ca_hash: str
    ca: str

    def text(self) -> str:
        """As the play reads it (`kubeadm_node_join_file`)."""
        document = {"endpoint": self.endpoint, "token": self.token, "ca_hash": self.ca_hash, "ca": self.ca}
        return json.dumps(document, indent=1)


@dataclass(frozen=True, slots=True)
class Member:
    """A Node as the cluster has it: which machine it is, how it is, and who may come to it.

    machine   /etc/machine-id of the machine whose kubelet reports it
    ready     whether that kubelet says that it is ready; `words`: what it says of that
    taints    by key
    """

    machine: str
    system: str
    ready: bool
    words: str
    taints: frozenset[str]


class Joins(Protocol):
    """Lets nodes into a cluster. Every method raises UndecidedError where the cluster does not answer or refuses."""

    def ticket(self, lifetime: timedelta) -> AbstractContextManager[Ticket]:
        """A ticket for a block; of no use after it, nor after its lifetime."""
        ...

    def member(self, node: str) -> Member | None:
        """The node as the cluster has it; None where it has none of that name."""
        ...

    def approve_serving(self, node: str, address: str) -> int:
        """Approves what the node asks to serve with, if that is its own name and address only; how many it were."""
        ...


class KubernetesJoins:
    """`Joins` of a cluster that kubeadm made, or one with the same objects."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    @classmethod
    def open(cls, site: KubernetesSite, folder: Path) -> KubernetesJoins:
        """By the site's secrets; nothing is sent yet. UsageError or InputError for a kubeconfig of no use."""
        own = folder / KUBECONFIG
        path, context = (own, "") if own.exists() else (folder / site.kubeconfig, site.context)
        return cls(ApiServer.connect(path, context))

    @contextmanager
    def ticket(self, lifetime: timedelta) -> Iterator[Ticket]:
        """See Joins."""
        endpoint, ca = self._cluster()
        name, token = self._token(lifetime)
        try:
            yield Ticket(endpoint, token, _pin(ca), ca)
        finally:
            with suppress(UndecidedError):  # it ends by itself, and hides no error of the block
                self._api.delete("v1", "Secret", name, "kube-system")

    def member(self, node: str) -> Member | None:
        """See Joins."""
        found = self._api.get("v1", "Node", node)
        return None if found is None else _member(found)

    def approve_serving(self, node: str, address: str) -> int:
        """See Joins."""
        user = f"system:node:{node}"
        asked = self._api.list(_CERTIFICATES, _REQUEST, fields=f"spec.signerName={_SERVING}")
        mine = [request for request in asked if request["spec"].get("username") == user and _undecided(request)]
        for request in mine:
            why = _refusal(request, node, address)
            if why:
                raise UndecidedError(
                    f"{node} asks for a serving certificate that its plan does not cover: {why}",
                    f"kubectl get csr {request['metadata']['name']} -o yaml; approve or deny it by hand",
                )
            self._approve(request, node)
        return len(mine)

    def _approve(self, request: Object, node: str) -> None:
        condition = {
            "type": "Approved",
            "status": "True",
            "reason": "RackproofJoin",
            "message": f"name and address are those planned for {node}",
        }
        with suppress(ConflictError):  # somebody else has decided meanwhile: the next look sees what
            self._api.replace({**request, "status": {"conditions": [condition]}}, subresource="approval")

    def _cluster(self) -> tuple[str, str]:
        """Endpoint and CA as the cluster tells everybody that is to join."""
        import yaml

        found = self._api.get("v1", "ConfigMap", "cluster-info", "kube-public")
        try:
            config = yaml.safe_load((found or {})["data"]["kubeconfig"])
            cluster = config["clusters"][0]["cluster"]
            ca = base64.b64decode(cluster["certificate-authority-data"], validate=True).decode()
            return urlsplit(cluster["server"]).netloc, ca
        except (KeyError, IndexError, TypeError, ValueError, yaml.YAMLError) as error:
            raise UndecidedError(
                "the cluster does not say where nodes join it: ConfigMap cluster-info in kube-public is not there, or "
                "is not what kubeadm writes",
                "on its control plane: kubeadm init phase bootstrap-token",
            ) from error

    def _token(self, lifetime: timedelta) -> tuple[str, str]:
        """Name of the Secret, and the token."""
        ends = (datetime.now(UTC) + lifetime).isoformat(timespec="seconds").replace("+00:00", "Z")
        for turn in range(_TOKEN_TRIES):
            ident, secret = _random(6), _random(16)
            name = f"bootstrap-token-{ident}"
            try:
                self._api.create(_secret(name, ident, secret, ends))
            except ConflictError:  # one of that name is there already
                if turn == _TOKEN_TRIES - 1:
                    raise
            except ApiRefusedError as refused:
                raise UndecidedError(
                    f"a ticket to join with could not be made: {refused.message}",
                    "whoever lets nodes join may create Secrets in kube-system: give that login as "
                    f"{KUBECONFIG} in the site's secrets",
                ) from refused
            else:
                return name, f"{ident}.{secret}"
        raise AssertionError("the last turn returns or raises")


def _secret(name: str, ident: str, secret: str, ends: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "description": "rackproof lets nodes of a rack join",
            "token-id": ident,
            "token-secret": secret,
            "expiration": ends,
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": _JOINING,
        },
    }


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def _member(node: Object) -> Member:
    status, spec = node.get("status") or {}, node.get("spec") or {}
    info = status.get("nodeInfo") or {}
    ready: Object = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    return Member(
        machine=str(info.get("machineID", "")),
        system=str(info.get("systemUUID", "")),
        ready=ready.get("status") == "True",
        words=printable(f"{ready.get('reason', '')} {ready.get('message', '')}".strip() or "it has not said anything"),
        taints=frozenset(str(taint.get("key", "")) for taint in spec.get("taints") or ()),
    )


def _undecided(request: Object) -> bool:
    return not (request.get("status") or {}).get("conditions")


def _refusal(request: Object, node: str, address: str) -> str:
    """Why a request for a serving certificate is not to be approved; empty where it is.

    https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
    """
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    spec = request["spec"]
    usages = set(spec.get("usages") or ())
    if not usages <= _SERVING_USAGES or "server auth" not in usages:
        return f"usages {sorted(usages)}"
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(str(spec.get("request", ""))[:_MAX_REQUEST_BYTES]))
    except ValueError as error:
        return f"its request cannot be read: {printable(str(error))}"
    subject = [(part.oid, str(part.value)) for part in asked.subject]
    wanted = {(NameOID.ORGANIZATION_NAME, "system:nodes"), (NameOID.COMMON_NAME, f"system:node:{node}")}
    if not asked.is_signature_valid or len(subject) != len(wanted) or set(subject) != wanted:
        return f"subject {printable(asked.subject.rfc4514_string())}"
    names = _names(asked)
    planned: set[Any] = {node, ip_address(address)}
    if not names or not names <= planned:
        return f"for {', '.join(sorted(printable(str(name)) for name in names - planned)) or 'no name at all'}"
    return ""


def _names(asked: Any) -> set[Any]:
    """Names and addresses that a request is for; what is neither comes as itself, and so is never planned."""
    from cryptography import x509

    try:
        found = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {name.value if isinstance(name, x509.DNSName | x509.IPAddress) else str(name) for name in found}


def _pin(ca: str) -> str:
    """The first CA's, as kubeadm pins it."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    certificate: Certificate = x509.load_pem_x509_certificate(ca.encode())
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(public).hexdigest()}"

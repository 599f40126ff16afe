"""A kubelet's certificates: the one it is known by, got with a bootstrap token, and the one it serves with.

https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .kube_files import KubeFileError, access, kubeconfig, openssl, read_access, read_documents, write_private
from .kubelet_config import ConfigError, Settings
from .node_api import ApiError, NodeApi

CLIENT, SERVING = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"
_REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_POLL_S = 0.5
_AGAIN_S = 2.0
Say = Callable[[str], None]


def client(settings: Settings, say: Say) -> NodeApi:
    """The API server as this node, bootstrapping where there is no identity yet; blocks until it has one.

    Raises ConfigError in the kubelet's words where there is none and nothing to get one with.
    """
    if settings.kubeconfig is None:
        raise ConfigError("there is no --kubeconfig")
    pair = settings.certificates / "kubelet-client-current.pem"
    if not _usable(settings.kubeconfig):
        if settings.bootstrap is None or not settings.bootstrap.exists():
            missing = settings.bootstrap or settings.kubeconfig
            raise ConfigError(
                f"failed to run Kubelet: unable to load bootstrap kubeconfig: stat {missing}: no such file or directory"
            )
        told = read_access(settings.bootstrap)
        say('"Bootstrapping kubelet client certificate from the bootstrap kubeconfig"')
        subject = f"/O=system:nodes/CN=system:node:{settings.name}"
        # Its key stays until it is signed: asking again after a crash asks for the same.
        key = settings.certificates / "kubelet-client.key.tmp"
        signed = request(NodeApi(told), key, subject, (), CLIENT, say)
        write_private(pair, signed + key.read_text())
        write_private(
            settings.kubeconfig,
            kubeconfig(
                told.server, told.ca, "default-auth", {"client-certificate": str(pair), "client-key": str(pair)}
            ),
        )
        key.unlink()
    return NodeApi(read_access(settings.kubeconfig))


def serving(settings: Settings, api: NodeApi | None, say: Say) -> tuple[Path, Path]:
    """Certificate and key to serve with. Blocks while the cluster has not approved the one it was asked for."""
    if settings.serving is not None:
        return settings.serving
    if api is None or not settings.asks_serving:
        return _self_signed(settings)
    pair = settings.certificates / "kubelet-server-current.pem"
    if not (pair.exists() and _in_force(pair)):
        subject = f"/O=system:nodes/CN=system:node:{settings.name}"
        key = settings.certificates / "kubelet-server.key.tmp"
        names = (f"DNS:{settings.name}", f"IP:{settings.address}")
        write_private(pair, request(api, key, subject, names, SERVING, say) + key.read_text())
        key.unlink()
    return pair, pair


def request(api: NodeApi, key: Path, subject: str, names: tuple[str, ...], signer: str, say: Say) -> str:
    """Posts a CertificateSigningRequest until somebody has approved and the controllers have signed it; PEM.

    Raises ConfigError where it is denied.
    """
    if not key.exists():
        write_private(key, openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))
    extensions = [f"subjectAltName={','.join(names)}"] if names else []
    options = [word for text in extensions for word in ("-addext", text)]
    asked = openssl("req", "-new", "-key", str(key), "-subj", subject, *options)
    # Signers before 1.27 insist on the second, which an elliptic-curve key has no use for.
    usages = ["digital signature", "key encipherment", "server auth" if names else "client auth"]
    # The same key and wish make the same name: a kubelet that was killed finds what it had asked for.
    mark = hashlib.sha256(f"{key.read_text()}{subject}{names}{signer}{usages}".encode()).hexdigest()[:10]
    body = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": f"{'csr' if names else 'node-csr'}-{mark}"},
        "spec": {"request": base64.b64encode(asked.encode()).decode(), "signerName": signer, "usages": usages},
    }
    return _until_signed(api, body, say)


def _until_signed(api: NodeApi, body: dict[str, Any], say: Say) -> str:
    name = body["metadata"]["name"]
    while True:
        try:
            found = _ask(api, name, body)
        except ApiError as error:
            say(f'"Failed to request certificate" err="{error}"')
            time.sleep(_AGAIN_S)
            continue
        status = found.get("status") or {}
        refused = [c for c in status.get("conditions") or () if c.get("type") in ("Denied", "Failed")]
        if refused:
            words = f"{refused[0].get('reason', '')} {refused[0].get('message', '')}".strip()
            raise ConfigError(f"failed to run Kubelet: certificate signing request {name} is not approved: {words}")
        if status.get("certificate"):
            return base64.b64decode(status["certificate"]).decode()
        time.sleep(_POLL_S)


def _ask(api: NodeApi, name: str, body: dict[str, Any]) -> dict[str, Any]:
    try:
        return api.get(f"{_REQUESTS}/{name}")
    except ApiError as error:
        if error.status != 404:
            raise
    return api.create(_REQUESTS, body)


def _usable(path: Path) -> bool:
    """Whether the kubeconfig is there, and its certificate in force."""
    try:
        found = access(read_documents(path)[0], path)
    except (KubeFileError, IndexError):
        return False
    return bool(found.token) or (bool(found.certificate) and _in_force(Path(found.certificate)))


def _in_force(certificate: Path) -> bool:
    try:
        openssl("x509", "-noout", "-checkend", "0", "-in", str(certificate))
    except KubeFileError:
        return False
    return True


def _self_signed(settings: Settings) -> tuple[Path, Path]:
    """What a kubelet serves with that was told nothing: nobody can verify it."""
    certificate, key = (settings.certificates / f"kubelet.{kind}" for kind in ("crt", "key"))
    if not (certificate.exists() and key.exists()):
        write_private(key, openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"))
        names = f"subjectAltName=DNS:{settings.name},IP:{settings.address}"
        subject = ("-subj", f"/CN={settings.name}@{int(time.time())}")
        made = openssl("req", "-x509", "-new", "-key", str(key), "-days", "365", *subject, "-addext", names)
        write_private(certificate, made, 0o644)
    return certificate, key

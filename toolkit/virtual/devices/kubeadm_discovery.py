"""How `kubeadm join` learns whom it joins, and that it is the right one: a token and a pin of the CA, or a file.

With a token the cluster's public `cluster-info` is asked for without trust, and believed when its signature is the
token's and its CA has the pinned key; then it is asked for again over TLS that this CA verifies.
https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/#token-based-discovery-with-ca-pinning
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import re
import ssl
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .kube_files import Access, KubeFileError, access, documents, openssl, read_access
from .node_api import ApiError, NodeApi

Object = dict[str, Any]
_INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_MAX_BYTES = 1 << 20
_AGAIN_S = 1.0
_TIMEOUT_S = 10.0


class DiscoveryError(Exception):
    """The cluster was not found, or is not the one that was meant."""


class _NotYetError(Exception):
    """It may be well in a moment: nobody answers, or the token is not signed yet."""


@dataclass(frozen=True)
class Cluster:
    """Whom to join, verified; `token` is what to ask for an identity with."""

    server: str
    ca: str
    token: str

    def access(self) -> Access:
        """As the joining node."""
        return Access(self.server, self.ca, token=self.token)


def discover(told: Mapping[str, Any], limit_s: float) -> Cluster:
    """The cluster of a JoinConfiguration; waits for it up to the limit. Raises DiscoveryError."""
    discovery = told.get("discovery") or {}
    by_token, by_file = discovery.get("bootstrapToken"), discovery.get("file")
    if bool(by_token) == bool(by_file):
        raise DiscoveryError('discovery: Invalid value: "": bootstrapToken or file must be set, and not both')
    token = str(discovery.get("tlsBootstrapToken") or (by_token or {}).get("token") or "")
    if not _TOKEN.fullmatch(token):
        raise DiscoveryError("discovery.tlsBootstrapToken: Invalid value: the bootstrap token is invalid")
    end = time.monotonic() + limit_s
    while True:
        try:
            found = _by_token(by_token, token) if by_token else _by_file(by_file or {})
            return Cluster(found.server, found.ca, token)
        except (_NotYetError, ApiError) as error:
            if time.monotonic() > end:
                raise DiscoveryError(str(error)) from error
            time.sleep(_AGAIN_S)


def _by_file(discovery: Mapping[str, Any]) -> Access:
    """A kubeconfig that somebody trusted brought here: its CA is believed."""
    path = str(discovery.get("kubeConfigPath", ""))
    try:
        told = read_access(Path(path))
        if not told.ca:
            raise DiscoveryError(f"the file {path} has no certificate authority")
        _cluster_info(NodeApi(told, agent="kubeadm"))  # whoever answers has a certificate of that CA
    except (KubeFileError, OSError) as error:
        raise DiscoveryError(str(error)) from error
    return told


def _by_token(told: Mapping[str, Any], token: str) -> Access:
    own = str(told.get("token") or token)
    pins = [str(pin) for pin in told.get("caCertHashes") or ()]
    if not pins and not told.get("unsafeSkipCAVerification"):
        raise DiscoveryError(
            "using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification"
        )
    server = f"https://{told['apiServerEndpoint']}"
    public = _untrusted(server)
    text = _signed(public, own)
    try:
        found = access(documents(text, "cluster-info")[0], "cluster-info")
    except (KubeFileError, IndexError) as error:
        raise DiscoveryError(str(error)) from error
    if pins and _pin(found.ca) not in [pin.lower() for pin in pins]:
        raise DiscoveryError(
            "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys "
            f"{_pin(found.ca)!r} are pinned"
        )
    verified = NodeApi(Access(server, found.ca), agent="kubeadm")
    if _cluster_info(verified) != public:
        raise DiscoveryError(
            "the second kubeconfig from the cluster-info ConfigMap (using validated TLS) differs from the first"
        )
    return found


def _cluster_info(api: NodeApi) -> Mapping[str, str]:
    return {str(k): str(v) for k, v in (api.get(_INFO).get("data") or {}).items()}


def _untrusted(server: str) -> Mapping[str, str]:
    """cluster-info from whoever answers."""
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE  # what is read is verified by its signature and by the pin
    address = server.removeprefix("https://")
    connection = http.client.HTTPSConnection(address, timeout=_TIMEOUT_S, context=anyone)
    try:
        connection.request("GET", _INFO, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read(_MAX_BYTES))
        data = found["data"] if answer.status == http.HTTPStatus.OK else {}
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise _NotYetError(f"failed to request the cluster-info ConfigMap: {error}") from error
    finally:
        connection.close()
    return {str(key): str(value) for key, value in data.items()}


def _signed(public: Mapping[str, str], token: str) -> str:
    """The kubeconfig of cluster-info, if its signature (a detached JWS, HS256) is made with this token's secret."""
    ident, _, secret = token.partition(".")
    text, jws = public.get("kubeconfig", ""), public.get(f"jws-kubeconfig-{ident}")
    if jws is None:
        raise _NotYetError(f'could not find a JWS signature in the cluster-info ConfigMap for token ID "{ident}"')
    head, _, signature = jws.partition("..")
    payload = base64.urlsafe_b64encode(text.encode()).rstrip(b"=")
    made = hmac.new(secret.encode(), f"{head}.".encode() + payload, hashlib.sha256).digest()
    if not hmac.compare_digest(base64.urlsafe_b64encode(made).rstrip(b"=").decode(), signature):
        raise DiscoveryError(
            "failed to verify JWS signature of received cluster info object, can't trust this API Server"
        )
    return text


def _pin(ca: str) -> str:
    """`sha256:` and the digest of the CA's public key (SubjectPublicKeyInfo)."""
    public = openssl("x509", "-noout", "-pubkey", given=ca)
    done = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "der"], input=public.encode(), capture_output=True, check=True
    )
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"

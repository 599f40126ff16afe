"""Puts the door's objects into a cluster, as its administrator, and fetches the login that the door acts with."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

from toolkit.durable import write_whole
from toolkit.errors import UndecidedError, UsageError
from toolkit.kubernetes.client import ApiServer, Object
from toolkit.pool.door_rule import ACCOUNT
from toolkit.pool.manifests import MUTATING, VALIDATING

ADMISSION = "admissionregistration.k8s.io/v1"
POLICY = "ValidatingAdmissionPolicy"
_NAME = "rackproof-door"
_SHOWS_WHAT_WAS = (
    1,
    21,
)  # CVE-2021-25735; the fix is in late patches of 1.18 to 1.20 too, which MUTATING suits as well
_TOKEN_S = 30.0
_POLL_S = 0.2


def has_policies(api: ApiServer) -> bool:
    """Whether the server evaluates our rule by itself (Kubernetes 1.30 and newer)."""
    return api.serves(ADMISSION, POLICY)


def install(api: ApiServer, objects: tuple[Object, ...]) -> tuple[str, ...]:
    """Applies the objects in their order; safe to repeat. Answers what was applied, and what it replaced.

    A cluster that was upgraded changes from one kind of webhook to the other, or to the policy: what held the door
    before goes after the new one came.
    """
    done = []
    for body in objects:
        api.apply(body, force=True)
        done.append(f"{body['kind']} {body['metadata']['name']}")
    kinds = {str(body["kind"]) for body in objects}
    if kinds & {POLICY, VALIDATING, MUTATING}:
        for kind in {VALIDATING, MUTATING} - kinds:
            if api.delete(ADMISSION, kind, _NAME):
                done.append(f"{kind} {_NAME} removed: another does its work")
    return tuple(done)


def webhook_kind(api: ApiServer) -> str:
    """As what the webhook is registered there."""
    return VALIDATING if api.version() >= _SHOWS_WHAT_WAS else MUTATING


def write_login(
    api: ApiServer, namespace: str, admin: Path, context: str, path: Path, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Writes the door's kubeconfig (0600): the administrator's server and CA, the door's token.

    Raises UndecidedError while the cluster has made no token.
    """
    token = _token(api, namespace, sleep)
    server, ca = _cluster(admin, context)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": ACCOUNT,
        "clusters": [{"name": ACCOUNT, "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
        "contexts": [{"name": ACCOUNT, "context": {"cluster": ACCOUNT, "user": ACCOUNT, "namespace": namespace}}],
    }
    try:
        write_whole(path, json.dumps(document, indent=1).encode(), 0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "check its folder's owner") from error


def _token(api: ApiServer, namespace: str, sleep: Callable[[float], None]) -> str:
    """The account's token, which the cluster's controller writes into our Secret."""
    end = time.monotonic() + _TOKEN_S
    while time.monotonic() < end:
        secret = api.get("v1", "Secret", ACCOUNT, namespace) or {}
        token = (secret.get("data") or {}).get("token")
        if token:
            return base64.b64decode(token).decode("ascii")
        sleep(_POLL_S)
    raise UndecidedError(
        f"no token came into the Secret {namespace}/{ACCOUNT} within {_TOKEN_S:g} s",
        "is kube-controller-manager up? then the same command again",
    )


def _cluster(admin: Path, context: str) -> tuple[str, str]:
    """(URL, CA in base64) of the cluster that the administrator's kubeconfig names."""
    from toolkit.kubernetes import kubeconfig

    chosen = kubeconfig.load(admin, context)
    cluster = chosen.cluster
    if cluster.certificate_auth_data:
        return cluster.server, cluster.certificate_auth_data
    if cluster.certificate_auth:
        return cluster.server, base64.b64encode(Path(chosen.abs_file(cluster.certificate_auth)).read_bytes()).decode()
    raise UsageError(
        f"{admin} names no CA for {cluster.server}", "take a kubeconfig with certificate-authority-data, as kubeadm's"
    )

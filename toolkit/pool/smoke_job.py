"""A small collective over nodes just admitted, as an ordinary Job: one pod on each, all GPUs, our taint not tolerated.

The policy's image is told by environment what it needs and runs its own entry point: RACKPROOF_RANKS (nodes),
RACKPROOF_PEERS (a name that resolves to the addresses of all pods, ready or not) and, on servers with Indexed Jobs,
JOB_COMPLETION_INDEX; on others its index is that of its own address among the sorted ones. Exit 0: the data were right.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from toolkit.kubernetes.client import ApiServer, Object
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from toolkit.pool.budgets import pod_name
from toolkit.pool.model import Smoked, SmokeEnd
from toolkit.pool.node_object import GPUS, shown
from toolkit.rack.topology import PREFIX

JOB_LABEL = f"{PREFIX}smoke"
_HOSTNAME = "kubernetes.io/hostname"
_INDEXED_SINCE = (1, 22)  # Indexed Jobs are on by default from 1.22 (beta)
_POLL_S = 1.0
_MAX_OUTPUT_BYTES = 1 << 20
_LATER_S = 60
_AFTERWARDS_S = 300  # a Job that nobody could delete goes by itself


@dataclass(frozen=True, slots=True)
class Order:
    """nodes  one pod on each; `gpus`: asked for by each pod, none where it is 0"""

    namespace: str
    image: str
    nodes: tuple[str, ...]
    gpus: int
    deadline_s: float


def run(
    api: ApiServer,
    order: Order,
    keep: Callable[[bytes], str] | None,
    sleep: Callable[[float], None] = time.sleep,
) -> Smoked:
    """The collective's end; Job and Service are taken away. Raises UndecidedError if it cannot be asked for."""
    name = f"rackproof-smoke-{secrets.token_hex(4)}"
    indexed = api.version() >= _INDEXED_SINCE
    service, job = _service(order, name), job_document(order, name, indexed=indexed)
    try:
        api.create(service, namespace=order.namespace)
        api.create(job, namespace=order.namespace)
        return _watched(api, order, name, keep, sleep)
    finally:
        for version, kind in (("batch/v1", "Job"), ("v1", "Service")):
            try:
                api.delete(version, kind, name, order.namespace)
            except (ApiUnreachableError, ApiRefusedError):
                continue  # it ends at its own deadline, and is collected after that


def job_document(order: Order, name: str, *, indexed: bool) -> Object:
    """The Job: exactly one pod for each node, none twice on a node, and no second try."""
    labels = {JOB_LABEL: name}
    apart = {"labelSelector": {"matchLabels": labels}, "topologyKey": _HOSTNAME}
    # By the nodes' names, one term each: a hostname label need not be the name, and a field takes one value.
    there = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in order.nodes]
    resources = {"limits": {GPUS: str(order.gpus)}} if order.gpus else {}
    environment = {"RACKPROOF_RANKS": str(len(order.nodes)), "RACKPROOF_PEERS": f"{name}.{order.namespace}.svc"}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "serviceAccountName": "rackproof-burnin",
        "affinity": {
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": there}},
        },
        "tolerations": [{"key": GPUS, "operator": "Exists"}],  # the usual mark of a GPU node; ours is not tolerated
        "containers": [
            {
                "name": "smoke",
                "image": order.image,
                "env": [{"name": key, "value": value} for key, value in environment.items()],
                "resources": resources,
                "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],  # NCCL's shared memory  # noqa: S108
            }
        ],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}],
    }
    spec: Object = {
        "parallelism": len(order.nodes),
        "completions": len(order.nodes),
        "backoffLimit": 0,
        # After ours: the cluster deletes the pods at its own, and with them what they would have told.
        "activeDeadlineSeconds": round(order.deadline_s) + _LATER_S,
        "ttlSecondsAfterFinished": _AFTERWARDS_S,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if indexed:
        spec["completionMode"] = "Indexed"
    meta = {"name": name, "namespace": order.namespace, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def _service(order: Order, name: str) -> Object:
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {JOB_LABEL: name}}
    meta = {"name": name, "namespace": order.namespace, "labels": {JOB_LABEL: name}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _watched(
    api: ApiServer,
    order: Order,
    name: str,
    keep: Callable[[bytes], str] | None,
    sleep: Callable[[float], None],
) -> Smoked:
    end = time.monotonic() + order.deadline_s
    while True:
        pods = api.list("v1", "Pod", order.namespace, labels=f"{JOB_LABEL}={name}")
        phases = [str((pod.get("status") or {}).get("phase") or "Pending") for pod in pods]
        if phases.count("Succeeded") == len(order.nodes):
            return _proven(api, order, pods, keep)
        if "Failed" in phases:
            pod = pods[phases.index("Failed")]
            return Smoked(SmokeEnd.FAILED, _failure(pod), _output(api, pod, keep))
        if time.monotonic() > end:
            return Smoked(SmokeEnd.UNDECIDED, _stuck(pods, order))
        sleep(min(_POLL_S, max(0.05, end - time.monotonic())))


def _proven(api: ApiServer, order: Order, pods: tuple[Object, ...], keep: Callable[[bytes], str] | None) -> Smoked:
    """All succeeded; on each node that was asked, or it proves nothing of the one that was left out."""
    ran = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in pods}
    missing = sorted(set(order.nodes) - ran)
    if missing:
        return Smoked(SmokeEnd.UNDECIDED, f"no rank ran on {', '.join(missing)}")
    return Smoked(SmokeEnd.PASSED, f"{len(order.nodes)} ranks ended well", _output(api, pods[0], keep))


def _failure(pod: Object) -> str:
    node = shown(str((pod.get("spec") or {}).get("nodeName") or "no node"), 80)
    status = pod.get("status") or {}
    codes = [
        (c.get("state") or {}).get("terminated", {}).get("exitCode") for c in status.get("containerStatuses") or ()
    ]
    told = next((f"exit {code}" for code in codes if code), shown(str(status.get("reason") or "no exit code")))
    return f"the rank on {node} failed: {told} (pod {shown(pod_name(pod), 130)})"


def _stuck(pods: tuple[Object, ...], order: Order) -> str:
    """Why it has not ended: the first pod that is not placed says what the scheduler says."""
    for pod in pods:
        for condition in (pod.get("status") or {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"not placed after {order.deadline_s:g} s: {shown(str(condition.get('message') or ''))}"
    return f"not ended after {order.deadline_s:g} s: {len(pods)} of {len(order.nodes)} pods are there"


def _output(api: ApiServer, pod: Object, keep: Callable[[bytes], str] | None) -> str:
    """sha256 of what the pod printed, kept; empty where nobody keeps it or its node does not give it."""
    if keep is None:
        return ""
    meta = pod["metadata"]
    try:
        return keep(api.logs(meta["name"], meta["namespace"], max_bytes=_MAX_OUTPUT_BYTES))
    except (ApiUnreachableError, ApiRefusedError):
        return ""

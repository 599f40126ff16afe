"""The documents of a burn-in in Kubernetes: the program's ConfigMaps, the Job, the GPUs' claim. Pure.

What a pod may, and why:

root               the image's python may be anybody's; /dev/kmsg and the serial in /sys are root's to read
privileged         only with the kernel's log, for /dev/kmsg alone: a container's device list has no other way to it.
                   Without it (`kernel_log: false` of the site's policy) the pod has no capability at all and no path of
                   the host, and every gate on Xids stays undecided
/dev/kmsg          the one path of the host, as a file, read by the program (it only opens it for reading)
/dev/shm           memory, for NCCL between the processes of the node: a container runtime gives 64 MiB
no service account token, no host network, no host process ids, no environment from elsewhere
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from toolkit.rack.topology import PREFIX, UNCERTIFIED
from toolkit.runners.carrier import Task

Object = dict[str, Any]

PART_BYTES = 900_000  # a ConfigMap holds 1 MiB, its metadata included
PROGRAM = "/rackproof/program"
WORK = "/rackproof/work"
CONTAINER = "burnin"
ACCOUNT = PRIORITY = "rackproof-burnin"
GPUS = "nvidia.com/gpu"
LABEL = f"{PREFIX}burnin"  # on Jobs, pods and ConfigMaps of burn-ins; its value is the Job's name
RUN, NODE, PROGRAM_OF = (f"{PREFIX}{word}" for word in ("burnin-run", "burnin-node", "burnin-program"))
CLAIM = "gpus"
DEVICE_CLASS = "gpu.nvidia.com"
CLAIM_VERSIONS = ("resource.k8s.io/v1", "resource.k8s.io/v1beta2", "resource.k8s.io/v1beta1")

_SLACK_S = 120.0  # to join the program, to start, and to write out what is left at the end
_GRACE_S = 60  # from SIGTERM: the suite stops what it started, and what it measured goes out
_KEPT_S = 7 * 24 * 3600  # a Job that nobody collected
_SHM, _WORK_SIZE = "16Gi", "2Gi"
# Of a node that is given over to us: enough not to be among the first that a node short of memory evicts.
_REQUESTS = {"cpu": "1", "memory": "2Gi"}


@dataclass(frozen=True, slots=True)
class JobSite:
    """Where and as what burn-ins run in a cluster.

    image          with Python 3.10 or newer, and what nccl-tests, DCGM or nvbandwidth the suite is to find
    runtime_class  the container runtime that gives GPUs; empty: the node's default does
    kernel_log     whether pods may read the kernel's log, for which they are privileged
    start_s        how long a Job may wait: for GPUs that another pod has, for a quota, for its image
    """

    namespace: str
    image: str
    runtime_class: str = ""
    kernel_log: bool = True
    start_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Program:
    """burnin.pyz in parts that a ConfigMap can hold."""

    digest: str
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, content: bytes) -> Program:
        """The program's parts."""
        parts = tuple(content[at : at + PART_BYTES] for at in range(0, len(content), PART_BYTES))
        return cls(hashlib.sha256(content).hexdigest(), parts)

    def name(self, part: int) -> str:
        """Of the part's ConfigMap: the same program has the same name everywhere."""
        return f"rackproof-burnin-{self.digest[:20]}-{part}"

    def config_maps(self, namespace: str) -> tuple[Object, ...]:
        """Immutable: what a name once held it holds for ever."""
        return tuple(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": self.name(number),
                    "namespace": namespace,
                    "labels": {"app.kubernetes.io/managed-by": "rackproof", LABEL: "program"},
                    "annotations": {PROGRAM_OF: self.digest},
                },
                "immutable": True,
                "binaryData": {"part": base64.b64encode(part).decode()},
            }
            for number, part in enumerate(self.parts)
        )


def job_name(identity: str) -> str:
    """Of the run's Job: the same for the same run, so that two controllers make one."""
    plain = re.sub(r"[^a-z0-9]+", "-", identity.lower())[:36].strip("-")
    return f"burnin-{plain}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def job(site: JobSite, node: str, task: Task, program: Program, boot: str, claim_version: str = "") -> Object:
    """The Job: one pod on that node and on no other, once.

    `boot` is the source of burnin/boot.py. With `claim_version` the GPUs come by a claim on all that the node's driver
    offers (DRA), not by the device plugin's count: a cluster has the one or the other.
    """
    name = job_name(task.identity)
    labels = {"app.kubernetes.io/managed-by": "rackproof", LABEL: name}
    notes = {RUN: task.identity, NODE: node, PROGRAM_OF: program.digest}
    meta = {"name": name, "namespace": site.namespace, "labels": labels, "annotations": notes}
    pod = _pod(site, node, task, program, boot)
    if claim_version:
        pod["resourceClaims"] = [{"name": CLAIM, "resourceClaimTemplateName": name}]
        pod["containers"][0]["resources"]["claims"] = [{"name": CLAIM}]
    else:
        pod["containers"][0]["resources"]["limits"] = {GPUS: str(task.gpus)}
    spec = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 0,  # what was cut is looked at before it is begun again
        # From the Job's creation: the wait for its turn counts. The pod's own limit, which keeps the log, comes first.
        "activeDeadlineSeconds": round(site.start_s + task.longest_s + 10 * _SLACK_S),
        "ttlSecondsAfterFinished": _KEPT_S,
        "template": {"metadata": {"labels": labels, "annotations": notes}, "spec": pod},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec}


def claim_template(site: JobSite, task: Task, claim_version: str) -> Object:
    """A claim on every GPU of the node that the pod lands on: it is refused while another pod has one of them."""
    asked: Object = {"deviceClassName": DEVICE_CLASS, "allocationMode": "All"}
    request = {"name": CLAIM, **asked} if claim_version.endswith("v1beta1") else {"name": CLAIM, "exactly": asked}
    name = job_name(task.identity)
    return {
        "apiVersion": claim_version,
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": name,
            "namespace": site.namespace,
            "labels": {"app.kubernetes.io/managed-by": "rackproof", LABEL: name},
        },
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def _pod(site: JobSite, node: str, task: Task, program: Program, boot: str) -> Object:
    log = ["--kernel-log", "/dev/kmsg"] if site.kernel_log else ["--kernel-log", "/nonexistent"]
    target = f"{WORK}/burnin.pyz"
    first = ["python3", "-I", "-c", boot, program.digest, PROGRAM, target]
    emit = ["emit", "--run", task.identity, "--out", f"{WORK}/out", "--program", program.digest, "--"]
    volumes, mounts = _volumes(site, program)
    pod: Object = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": round(site.start_s + task.longest_s + _SLACK_S),  # the pull of its image counts
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "serviceAccountName": ACCOUNT,
        "enableServiceLinks": False,
        "priorityClassName": PRIORITY,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _on(node)}},
        "tolerations": [
            {"key": UNCERTIFIED, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
            {"key": GPUS, "operator": "Exists"},  # the usual mark of a GPU node
        ],
        "containers": [
            {
                "name": CONTAINER,
                "image": site.image,
                "command": first,
                "args": [*emit, *task.arguments, *log],
                "env": [
                    {"name": "RACKPROOF_CARRIER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                    {"name": "RACKPROOF_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                    {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                ],
                "resources": {"requests": dict(_REQUESTS)},
                "securityContext": _security(site),
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if site.runtime_class:
        pod["runtimeClassName"] = site.runtime_class
    return pod


def _on(node: str) -> Object:
    """By the node's name itself: a label may lie, and a kubelet may set it."""
    return {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}


def _security(site: JobSite) -> Object:
    if site.kernel_log:
        return {"privileged": True, "runAsUser": 0}
    return {
        "runAsUser": 0,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _volumes(site: JobSite, program: Program) -> tuple[list[Object], list[Object]]:
    """Volumes and where they are mounted."""
    volumes: list[Object] = [
        {"name": "work", "emptyDir": {"sizeLimit": _WORK_SIZE}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _SHM}},
    ]
    mounts: list[Object] = [
        {"name": "work", "mountPath": WORK},
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - NCCL looks for it there
    ]
    for number in range(len(program.parts)):
        name = f"part-{number:02d}"
        volumes.append({"name": name, "configMap": {"name": program.name(number)}})
        mounts.append({"name": name, "mountPath": f"{PROGRAM}/{number:02d}", "readOnly": True})
    if site.kernel_log:
        volumes.append({"name": "kmsg", "hostPath": {"path": "/dev/kmsg", "type": "CharDevice"}})
        mounts.append({"name": "kmsg", "mountPath": "/dev/kmsg", "readOnly": True})
    return volumes, mounts

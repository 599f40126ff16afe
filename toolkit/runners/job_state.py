"""How a burn-in's Job stands, by what the API server says of it: waiting, running, over, and why. Pure.

Whatever became of the pod (evicted, preempted, out of memory, refused by a quota, an image that cannot be pulled) is an
outcome of ours, in words; none of it says anything about the hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from toolkit.kubernetes.errors import printable
from toolkit.runners.job_manifest import LABEL, NODE

Object = Mapping[str, Any]

_TOLD = 300  # characters of the cluster's words
# Why a pod went that did not end by itself: of the scheduler, the node life-cycle controller, the kubelet, an API call.
_ENDINGS = ("Preempted", "Evicted", "TaintManagerEviction", "NodeNotReady", "DeadlineExceeded", "Killing")
_BLOCKERS = ("FailedCreate", "FailedScheduling", "FailedMount", "Failed", "FailedAttachVolume", "InspectFailed")


class Phase(Enum):
    """Of a run in the cluster."""

    ABSENT = "absent"  # there is no such Job
    WAITING = "waiting"  # its container has not started
    RUNNING = "running"
    OVER = "over"  # ended, however, or its pod is gone


@dataclass(frozen=True, slots=True)
class Look:
    """Where a run stands. `words`: what it waits for, or how it ended; `pod`: the one that runs or ran, if any."""

    phase: Phase
    words: str = ""
    pod: Object | None = None


def look(job: Object | None, pods: Sequence[Object], followed: str = "") -> Look:
    """How the run stands. `followed`: UID of the pod whose log is being read; a later pod is another beginning."""
    if job is None:
        return Look(Phase.ABSENT, "its Job is gone")
    pod = _chosen([p for p in pods if _is_owned(p, str(job["metadata"]["uid"]))], followed)
    if followed and pod is None:
        return Look(Phase.OVER, "its pod is gone")
    if pod is None:
        ended = _finished(job)
        return Look(Phase.OVER, ended) if ended else Look(Phase.WAITING, "it has no pod yet")
    phase = str(_status(pod).get("phase", "Pending"))
    if phase in ("Succeeded", "Failed"):
        return Look(Phase.OVER, _pod_end(pod), pod)
    if _container(pod, "running") is not None:
        return Look(Phase.RUNNING, _leaving(pod), pod)
    if _container(pod, "terminated") is not None:
        return Look(Phase.OVER, _pod_end(pod), pod)
    return Look(Phase.WAITING, _waits_for(pod), pod)


def is_unfinished(job: Object) -> bool:
    """Whether a Job may still run something."""
    return not _finished(job) and not is_going(job)


def is_going(thing: Object) -> bool:
    """Whether somebody deleted it, and it is not gone yet."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def is_of(job: Object, node: str) -> bool:
    """Whether it burns in that node."""
    return note(job, NODE) == node and bool((job["metadata"].get("labels") or {}).get(LABEL))


def holders(pods: Iterable[Object], own: str) -> tuple[str, ...]:
    """Pods of a node, by namespace and name, that have GPUs; `own`: the label of ours."""
    found = []
    for pod in pods:
        meta = pod["metadata"]
        over = _status(pod).get("phase") in ("Succeeded", "Failed")
        if not over and _uses_gpus(pod) and (meta.get("labels") or {}).get(LABEL) != own:
            found.append(printable(f"{meta.get('namespace', '')}/{meta['name']}"))
    return tuple(found)


def told(events: Iterable[Object], *, ended: bool) -> str:
    """The newest event that says why something ended, or does not begin; empty where none does."""
    wanted = _ENDINGS if ended else _BLOCKERS
    found = [e for e in events if str(e.get("reason", "")) in wanted]
    found.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    return _short(f"{found[-1]['reason']}: {found[-1].get('message', '')}") if found else ""


def node_trouble(node: Object | None) -> str:
    """Why the cluster takes the node for lost; empty where it does not."""
    if node is None:
        return "the cluster has no such node any more"
    for condition in _status(node).get("conditions") or ():
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            return _short(f"the cluster has lost it: {condition.get('reason', '')}: {condition.get('message', '')}")
    return ""


def boot_id(node: Object | None) -> str:
    """The kernel's boot id as the node's kubelet told it; empty where it did not."""
    info = _status(node or {}).get("nodeInfo") or {}
    return str(info.get("bootID", ""))


def note(thing: Object, key: str) -> str:
    """An annotation; empty where there is none."""
    return str((thing["metadata"].get("annotations") or {}).get(key, ""))


def _is_owned(pod: Object, job: str) -> bool:
    """Whether it is this Job's: one of the same name may have been deleted a moment ago, and its pod still be going."""
    return any(owner.get("uid") == job for owner in pod["metadata"].get("ownerReferences") or ())


def _chosen(pods: Sequence[Object], followed: str) -> Object | None:
    """The pod that is followed; else the newest, for a Job whose pod was deleted may have made another."""
    if followed:
        return next((p for p in pods if p["metadata"]["uid"] == followed), None)
    return max(pods, key=lambda p: str(p["metadata"].get("creationTimestamp", "")), default=None)


def _finished(job: Object) -> str:
    """How a Job that is over ended; empty where it is not."""
    for condition in _status(job).get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            said = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
            return _short(f"its Job ended: {said or condition['type']}")
    return ""


def _waits_for(pod: Object) -> str:
    for condition in _status(pod).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _short(f"not scheduled: {condition.get('message') or condition.get('reason', '')}")
    waiting = _container(pod, "waiting") or {}
    said = f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    return _short(f"its container has not started: {said}" if said else "its container has not started")


def _pod_end(pod: Object) -> str:
    """How a pod ended; empty where its program ended by itself and well."""
    status = _status(pod)
    disrupted = _disruption(pod)
    if disrupted:
        return disrupted
    if status.get("reason"):
        return _short(f"its pod was ended: {status['reason']}: {status.get('message', '')}")
    ended = _container(pod, "terminated") or {}
    if ended.get("reason") not in (None, "", "Completed", "Error"):
        return _short(f"its container was ended: {ended['reason']}: {ended.get('message', '')}")
    if is_going(pod):
        return "its pod was deleted"
    code = ended.get("exitCode")
    return f"its program ended with status {code}" if code else ""


def _leaving(pod: Object) -> str:
    """Why a pod that runs will not for long; empty where it may stay."""
    return (_disruption(pod) or "its pod is being deleted") if is_going(pod) else ""


def _disruption(pod: Object) -> str:
    """Since 1.25 the API server says who ended a pod."""
    for condition in _status(pod).get("conditions") or ():
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return _short(f"its pod was ended: {condition.get('reason', '')}: {condition.get('message', '')}")
    return ""


def _container(pod: Object, state: str) -> Object | None:
    for container in _status(pod).get("containerStatuses") or ():
        found = (container.get("state") or {}).get(state)
        if found is not None:
            return dict(found)
    return None


def _uses_gpus(pod: Object) -> bool:
    spec = pod.get("spec") or {}
    if spec.get("resourceClaims"):
        return True
    asked = [
        resource
        for container in spec.get("containers") or ()
        for kind in ("limits", "requests")
        for resource in (container.get("resources") or {}).get(kind) or {}
    ]
    return any(resource.startswith("nvidia.com/") for resource in asked)


def _status(thing: Object) -> Object:
    return thing.get("status") or {}


def _short(words: str) -> str:
    return printable(words)[:_TOLD].rstrip(": ")

"""How a Job stands, from what API servers old and new say of it: words for every way a pod may not do its work."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.runners.job_state import Phase, boot_id, holders, look, node_trouble, told

JOB: dict[str, Any] = {"metadata": {"name": "burnin-x", "uid": "j"}, "status": {}}


def pod(name: str = "p", uid: str = "u", job: str = "j", **status: Any) -> dict[str, Any]:
    """A Job's pod with this status."""
    meta = {"name": name, "uid": uid, "creationTimestamp": name, "ownerReferences": [{"kind": "Job", "uid": job}]}
    return {"metadata": meta, "spec": {}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    """A pod's only container."""
    return {"containerStatuses": [{"name": "burnin", "state": state}]}


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": "0/3 nodes are available: 1 Insufficient nvidia.com/gpu."}  # fmt: skip
PREEMPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
             "message": "default-scheduler: preempting to accommodate a higher priority pod"}  # fmt: skip


@pytest.mark.parametrize(
    ("status", "phase", "words"),
    [
        ({"phase": "Pending", "conditions": [UNSCHEDULABLE]}, Phase.WAITING, "Insufficient nvidia.com/gpu"),
        (
            {"phase": "Pending", **container(waiting={"reason": "ImagePullBackOff", "message": "Back-off"})},
            Phase.WAITING,
            "its container has not started: ImagePullBackOff: Back-off",
        ),
        ({"phase": "Pending"}, Phase.WAITING, "its container has not started"),
        ({"phase": "Running", **container(running={"startedAt": "t"})}, Phase.RUNNING, ""),
        ({"phase": "Succeeded", **container(terminated={"exitCode": 0, "reason": "Completed"})}, Phase.OVER, ""),
        ({"phase": "Failed", **container(terminated={"exitCode": 4, "reason": "Error"})}, Phase.OVER, "status 4"),
        (
            {"phase": "Failed", **container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            Phase.OVER,
            "OOMKilled",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
            Phase.OVER,
            "its pod was ended: Evicted: The node was low on resource: memory",
        ),
        ({"phase": "Failed", "conditions": [PREEMPTED]}, Phase.OVER, "PreemptionByScheduler: default-scheduler"),
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"},
            Phase.OVER,
            "Allocate",
        ),
        ({"phase": "Failed", "reason": "Evil\x1b[31m", "message": "x" * 900}, Phase.OVER, "Evil [31m: xxx"),
    ],
)
def test_a_pod_is_told_by_its_status(status: dict[str, Any], phase: Phase, words: str):
    """In the cluster's own words, bounded and printable."""
    found = look(JOB, [pod(**status)])
    assert found.phase is phase and words in found.words
    assert len(found.words) <= 340 and found.words.isprintable()


def test_a_job_without_a_pod_waits_until_it_has_ended():
    """A deadline takes the pods away."""
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "Job was active too long"}
    assert look(JOB, []).phase is Phase.WAITING
    ended = look({**JOB, "status": {"conditions": [late]}}, [])
    assert (ended.phase, ended.words) == (Phase.OVER, "its Job ended: DeadlineExceeded Job was active too long")
    assert look(None, []).phase is Phase.ABSENT


def test_the_pod_that_is_followed_is_never_confused_with_its_successor():
    """Old servers make another pod where one was deleted."""
    pods = [pod("a", "1", phase="Running"), pod("b", "2", phase="Running", **container(running={}))]
    assert look(JOB, pods).pod is pods[1]
    assert look(JOB, pods[1:], "1").phase is Phase.OVER
    assert look(JOB, pods, "1").pod is pods[0]
    of_an_earlier_job = pod("c", "3", "i", phase="Running", **container(running={}))
    assert look(JOB, [*pods, of_an_earlier_job]).pod is pods[1]
    assert look(JOB, [of_an_earlier_job]).phase is Phase.WAITING


def test_whoever_has_gpus_is_named():
    """By count, by MIG slice or by claim; not us, not who is done."""
    uses = {"containers": [{"resources": {"limits": {"nvidia.com/mig-1g.10gb": "1"}}}]}
    claims = {"containers": [{}], "resourceClaims": [{"name": "gpu"}]}
    plain = {"containers": [{"resources": {"limits": {"cpu": "1"}}}]}

    def made(name: str, spec: dict[str, Any], phase: str = "Running", label: str = "") -> dict[str, Any]:
        labels = {"rackproof.dev/burnin": label}
        return {
            "metadata": {"name": name, "namespace": "ml", "labels": labels},
            "spec": spec,
            "status": {"phase": phase},
        }

    pods = [made("mig", uses), made("dra", claims), made("web", plain), made("done", uses, "Succeeded"),
            made("ours", uses, label="burnin-x"), made("another", uses, label="burnin-y")]  # fmt: skip
    assert holders(pods, "burnin-x") == ("ml/mig", "ml/dra", "ml/another")


def test_events_and_nodes_say_why():
    """The newest that tells; a node that is gone, or not ready; a boot id where there is one."""
    events = [
        {"reason": "FailedCreate", "message": "exceeded quota: old", "lastTimestamp": "2026-11-23T10:00:00Z"},
        {"reason": "FailedCreate", "message": "exceeded quota: new", "lastTimestamp": "2026-11-23T11:00:00Z"},
        {"reason": "Preempted", "message": "by ml/train", "lastTimestamp": "2026-11-23T12:00:00Z"},
        {"reason": "Started", "message": "x", "lastTimestamp": "2026-11-23T13:00:00Z"},
    ]
    assert told(events, ended=False) == "FailedCreate: exceeded quota: new"
    assert told(events, ended=True) == "Preempted: by ml/train" and told([], ended=True) == ""
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped"}
    assert node_trouble({"status": {"conditions": [unknown]}}) == (
        "the cluster has lost it: NodeStatusUnknown: Kubelet stopped"
    )
    assert node_trouble(None) == "the cluster has no such node any more"
    assert node_trouble({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}) == ""
    assert (boot_id({"status": {"nodeInfo": {"bootID": "b"}}}), boot_id({}), boot_id(None)) == ("b", "", "")

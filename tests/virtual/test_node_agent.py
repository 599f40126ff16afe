"""The node agent of virtual nodes against a real control plane: nodes, pods as processes, logs, and what goes wrong."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kubernetes.plane import settled
from tests.virtual.agents import MakeAgent, a_pod, condition, ended, phase, until
from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.faults import Fault, FaultKind

pytestmark = pytest.mark.root


def test_a_node_registers_with_its_taint_and_says_what_it_has(api: ApiServer, agent: MakeAgent) -> None:
    """Taint, labels, GPUs, serial, address and a lease; it stays as others made it when its kubelet is started anew."""
    machine = agent("registers", labels={"rackproof.dev/rack": "r1"}, serial="SN-7")
    node = api.get("v1", "Node", "registers")
    assert node is not None
    assert {"key": "rackproof.dev/uncertified", "effect": "NoSchedule"} in node["spec"]["taints"]
    assert node["metadata"]["labels"]["rackproof.dev/rack"] == "r1"
    assert node["status"]["capacity"]["nvidia.com/gpu"] == node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert node["status"]["nodeInfo"]["systemUUID"] == "SN-7"
    lease = until(lambda: api.get("coordination.k8s.io/v1", "Lease", "registers", "kube-node-lease"), "a lease")
    assert lease["spec"]["holderIdentity"] == "registers"
    until(lambda: condition(api, "registers", "Ready") == "True", "it is ready")
    settled(api, "registers")
    api.patch("v1", "Node", "registers", {"spec": {"taints": None}}, how="merge")
    machine.kill_kubelet(signal.SIGTERM)
    machine.start_kubelet()
    again = api.get("v1", "Node", "registers")
    assert again is not None
    assert "taints" not in again["spec"]


def test_a_pod_runs_as_processes_of_the_node_with_its_volumes(api: ApiServer, agent: MakeAgent) -> None:
    """ConfigMap, emptyDir shared with an init container, downward API, a token that the API server takes; its log."""
    machine = agent("runs")
    api.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "runs", "namespace": "default"},
            "data": {"greeting": "hello\n", "word": "from-a-map"},
        }
    )
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    labels = {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    mounts = [
        {"name": "map", "mountPath": "/deep/down/map"},
        {"name": "work", "mountPath": "/work"},
        {"name": "told", "mountPath": "/var/run/told"},
    ]
    script = (
        "cat /deep/down/map/greeting /work/made /var/run/told/name; echo; echo $WORD $EXPANDED; hostname;"
        " test -s /var/run/told/token && echo token; echo x 2>/dev/null > /deep/down/map/greeting || echo read-only;"
        " ls /run/hardware 2>/dev/null; echo scratch > /etc/scratch; ps ax | wc -l; printf unfinished; exit 3"
    )
    words = {"name": "WORD", "valueFrom": {"configMapKeyRef": {"name": "runs", "key": "word"}}}
    container = {"volumeMounts": mounts, "env": [words, {"name": "EXPANDED", "value": "<$(WORD)>"}]}
    api.create(
        a_pod(
            "runs",
            "volumes",
            script,
            container=container,
            initContainers=[
                {
                    "name": "first",
                    "image": "none",
                    "command": ["/bin/sh", "-c", "echo made > /work/made"],
                    "volumeMounts": mounts[1:2],
                }
            ],
            volumes=[
                {"name": "map", "configMap": {"name": "runs"}},
                {"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "told", "projected": {"sources": [token, labels]}},
            ],
        )
    )
    status = ended(api, "volumes")
    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert api.logs("volumes", "default", max_bytes=4096).decode().splitlines() == [
        "hello", "made", "volumes", "from-a-map <from-a-map>", "volumes", "token", "read-only", "4", "unfinished",
    ]  # fmt: skip
    assert api.logs("volumes", "default", max_bytes=5) == b"hello"
    assert not Path("/etc/scratch").exists()
    assert not Path("/deep").exists()
    api.delete("v1", "Pod", "volumes", "default")
    until(lambda: not phase(api, "volumes"), "it is gone")
    until(lambda: not list((machine.log.parent / "kubelet/pods").iterdir()), "its files are gone too")


def test_a_pod_that_is_evicted_is_killed_and_proven_gone(api: ApiServer, agent: MakeAgent) -> None:
    """A program that does not listen, with a child in a session of its own, is gone before its pod is."""
    agent("evicts")
    script = "trap '' TERM; setsid sleep 86321 & sleep 86322"
    api.create(a_pod("evicts", "stubborn", script))
    until(lambda: len(_running("8632")) >= 2, "its processes run")
    api.delete("v1", "Pod", "stubborn", "default")
    until(lambda: not phase(api, "stubborn"), "it is gone")
    assert _running("8632") == []


def test_a_pod_past_its_deadline_is_ended(api: ApiServer, agent: MakeAgent) -> None:
    """DeadlineExceeded, and nothing of it is left."""
    agent("late")
    api.create(a_pod("late", "late", "exec sleep 86323", activeDeadlineSeconds=1))
    assert ended(api, "late")["reason"] == "DeadlineExceeded"
    assert _running("86323") == []


def test_gpus_are_given_out_once(api: ApiServer, agent: MakeAgent) -> None:
    """A pod has the GPUs that it asked for, and the next one that asks for more than are left is refused."""
    agent("gives", gpus=2)
    api.create(a_pod("gives", "has-all", "tr , '\\n' <<< x; exec sleep 60", gpus=2, container={
        "command": ["/bin/bash", "-c", "tr , '\\n' <<< $NVIDIA_VISIBLE_DEVICES; exec sleep 60"],
    }))  # fmt: skip
    until(lambda: phase(api, "has-all") == "Running", "it runs")
    api.create(a_pod("gives", "has-none", "true", gpus=1))
    refused = ended(api, "has-none")
    assert (refused["phase"], refused["reason"]) == ("Failed", "UnexpectedAdmissionError")
    assert until(lambda: api.logs("has-all", "default", max_bytes=999), "a log").count(b"GPU-") == 2


def test_pods_outlive_their_kubelet_and_are_known_again(api: ApiServer, agent: MakeAgent) -> None:
    """A kubelet that was killed and started finds the pod that ran meanwhile, and tells how it ended."""
    machine = agent("outlives")
    api.create(a_pod("outlives", "outlives", "while [ ! -e /tmp/go/on ]; do sleep 0.05; done; exit 7",
                     container={"volumeMounts": [{"name": "go", "mountPath": "/tmp/go"}]},
                     volumes=[{"name": "go", "hostPath": {"path": str(machine.log.parent)}}]))  # fmt: skip
    until(lambda: phase(api, "outlives") == "Running", "it runs")
    machine.kill_kubelet()
    (machine.log.parent / "on").touch()
    machine.start_kubelet()
    assert ended(api, "outlives")["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_a_reboot_reruns_nothing_that_was_over(api: ApiServer, agent: MakeAgent) -> None:
    """What had ended stays ended; what ran without a restart policy has failed, what has one runs again."""
    machine = agent("reboots")
    mark = {"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]}
    disk = [{"name": "disk", "hostPath": {"path": str(machine.log.parent)}}]
    once = "echo $HOSTNAME >> /disk/ran; [ $HOSTNAME = over ] || exec sleep 60"
    for name, policy in (("over", "Never"), ("lost", "Never"), ("again", "OnFailure")):
        api.create(a_pod("reboots", name, once, container=mark, volumes=disk, restartPolicy=policy))
    ended(api, "over")
    until(lambda: phase(api, "lost") == phase(api, "again") == "Running", "both run")
    machine.power_off()
    machine.power_on()
    lost = ended(api, "lost")
    assert lost["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 255
    until(lambda: (machine.log.parent / "ran").read_text().split().count("again") == 2, "it runs again")
    assert sorted((machine.log.parent / "ran").read_text().split()) == ["again", "again", "lost", "over"]
    assert phase(api, "over") == "Succeeded"


def test_faults_of_the_node_agent_show_where_an_operator_looks(api: ApiServer, agent: MakeAgent) -> None:
    """Conditions, allocatable GPUs and failing pods; healthy again when the fault is mended."""
    machine = agent("faulty")

    def allocatable() -> str:
        node = api.get("v1", "Node", "faulty")
        return str(node["status"]["allocatable"]["nvidia.com/gpu"]) if node else ""

    machine.set_faults(
        Fault(FaultKind.NODE_NOT_READY, "faulty"),
        Fault(FaultKind.GPU_DEVICE_PLUGIN_GONE, "faulty"),
        Fault(FaultKind.GPU_XID_CONDITION, "faulty", gpu=3),
        Fault(FaultKind.PODS_FAIL, "faulty"),
    )
    until(lambda: condition(api, "faulty", "Ready") == "False", "not ready")
    until(lambda: condition(api, "faulty", "GpuXidError") == "True", "the Xid is told")
    assert allocatable() == "0"
    api.create(a_pod("faulty", "cannot-start", "true"))
    assert ended(api, "cannot-start")["containerStatuses"][0]["state"]["terminated"]["reason"] == "StartError"
    machine.set_faults()
    until(lambda: condition(api, "faulty", "Ready") == "True", "ready again")
    until(lambda: condition(api, "faulty", "GpuXidError") == "False" and allocatable() == "8", "healthy again")


def test_a_dead_kubelet_is_silent_and_a_renamed_machine_gets_no_node(api: ApiServer, agent: MakeAgent) -> None:
    """Both end the kubelet; the new name's node is refused by the API server, whose certificate is the old one's."""
    machine = agent("dies")
    machine.set_faults(Fault(FaultKind.KUBELET_DEAD, "dies"))
    machine.wait_for_kubelet_to_end()
    machine.set_faults(Fault(FaultKind.NODE_RENAMES_ITSELF, "dies"))
    machine.start_kubelet(wait=False)
    until(lambda: "Unable to register node" in machine.log.read_text(), "it is refused")
    assert api.get("v1", "Node", "dies-renamed") is None


def _running(mark: str) -> list[str]:
    """Command lines of `sleep` with that in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if words[0].endswith(b"sleep") and mark.encode() in words[1]:
            found.append(b" ".join(words).decode())
    return found

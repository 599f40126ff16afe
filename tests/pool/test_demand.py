"""Who has a use for a node: pods and jobs that are there, or wait and would fit. And a file that a scheduler writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import InputError, UndecidedError
from toolkit.pool import demand, file_jobs, slurm_demand
from toolkit.pool.door import CERTIFIED, TAINT
from toolkit.pool.node_object import NodeObject, Taint
from toolkit.pool.slurm_text import SlurmJob, SlurmNode

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
GPU = Taint("nvidia.com/gpu", "NoSchedule")
SHUT = (Taint(TAINT.key, TAINT.effect), Taint("node.kubernetes.io/unschedulable", "NoSchedule"))
NODE = NodeObject("node1", labels={CERTIFIED: "false", "zone": "a"}, taints=(*SHUT, GPU), gpus=(8, 8))
TOLERATES = [{"key": "nvidia.com/gpu", "operator": "Exists"}]


def pod(gpus: int = 8, **spec: Any) -> dict[str, Any]:
    """A pod that no node takes now, and that this one would."""
    container = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    return {
        "metadata": {"name": "train-1", "namespace": "default"},
        "spec": {"containers": [container], "tolerations": TOLERATES, "nodeSelector": {CERTIFIED: "true"}, **spec},
        "status": {"phase": "Pending", "conditions": [waits]},
    }


def required(*rules: dict[str, Any]) -> dict[str, Any]:
    """A node affinity that must hold."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(rules)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def test_a_pod_that_waits_for_a_certified_node_wants_one_whose_door_is_shut() -> None:
    """Our taint, our cordon and our label keep it out now, and would not any more."""
    assert demand.waited_for(NODE, [pod()]) == "pod default/train-1 waits for 8 GPUs, and would fit"


@pytest.mark.parametrize(
    "waiting",
    [
        pod(16),
        pod(0),
        pod(tolerations=[]),
        pod(nodeSelector={"zone": "b"}),
        pod(nodeName="node2"),
        pod(schedulingGates=[{"name": "kueue"}]),
        pod(affinity=required({"key": "zone", "operator": "NotIn", "values": ["a"]})),
        pod(
            affinity=required({"key": "zone", "operator": "Exists"}, {"key": "rank", "operator": "Gt", "values": ["3"]})
        ),
        pod() | {"status": {"phase": "Pending", "conditions": []}},
        pod() | {"metadata": {"name": "b", "namespace": "r", "labels": {"rackproof.dev/burnin": "x"}}},
    ],
    ids=["too many", "no gpu", "taint", "selector", "bound", "gated", "affinity", "number", "untried", "ours"],
)
def test_a_pod_that_would_not_fit_wants_nothing(waiting: dict[str, Any]) -> None:
    """Giving way to it would leave the node idle and untested."""
    assert demand.waited_for(NODE, [waiting]) == ""


def test_a_claim_for_gpus_counts_like_a_number() -> None:
    """By DRA a pod names no number; how many it asks for is in its claim."""
    assert demand.waited_for(NODE, [pod(0, resourceClaims=[{"name": "gpus"}])])


def test_what_is_on_a_node_uses_it_but_for_what_stays_everywhere() -> None:
    """A DaemonSet's pod and our own burn-in keep nobody from anything."""
    daemon = {"metadata": {"name": "d", "ownerReferences": [{"kind": "DaemonSet", "controller": True}]}}
    ours = {"metadata": {"name": "b", "labels": {"rackproof.dev/burnin": "x"}}}
    ended = {"metadata": {"name": "e"}, "status": {"phase": "Succeeded"}}
    assert demand.in_use([daemon, ours, ended]) == ""
    assert demand.in_use([daemon, pod()]) == "pod default/train-1 is there"


# Slurm

IDLE = SlurmNode("node1", frozenset({"idle", "drain"}), available=("h100",))


def pending(reason: str = "Resources", features: str = "(null)", nodes: str = "", name: str = "train") -> Any:
    """A job that waits, as squeue prints it."""
    said = "".join(f"{field}|!|" for field in ("17", "alice", name, reason, features, nodes))
    return slurm_demand.pending_of(said, "|!|")


def test_a_job_that_waits_for_resources_wants_a_node_with_its_features() -> None:
    """The certified feature is one that the node would have."""
    told = slurm_demand.waited_for(IDLE, pending(features="h100&rackproof_certified"))
    assert told == "job 17 train of alice waits (Resources)"
    assert slurm_demand.waited_for(IDLE, pending(nodes="node[1-4]"))
    assert slurm_demand.waited_for(IDLE, pending("BadConstraints", "rackproof_certified"))


@pytest.mark.parametrize(
    "job",
    [
        pending("Dependency"),
        pending("JobHeldUser"),
        pending(features="b200"),
        pending(nodes="node[2-4]"),
        pending(name="rackproof-burnin:node1:x"),
    ],
    ids=["dependency", "held", "features", "nodes", "ours"],
)
def test_a_job_that_waits_for_something_else_wants_nothing(job: Any) -> None:
    """Nor does one that this node could not help."""
    assert slurm_demand.waited_for(IDLE, job) == ""


def test_a_running_job_uses_its_node_and_ours_does_not() -> None:
    """A burn-in that goes as a job is no reason to stop itself."""
    ours = SlurmJob("1", "root", "RUNNING", "1:00", "rackproof-burnin:node1:demo-node1-2", "node1")
    assert slurm_demand.in_use([ours]) == ""
    assert slurm_demand.in_use([ours, SlurmJob("2", "bob", "RUNNING", "9:00", "train", "node1")]).startswith("job 2")


# A file


def written(folder: Path, text: str) -> Path:
    """The pool's path, with what the scheduler says beside it."""
    pool = folder / "site.yml"
    file_jobs.beside(pool).write_text(text)
    return pool


def test_a_file_says_who_runs_and_who_waits(tmp_path: Path) -> None:
    """Nobody, only where it was said just now."""
    at = (NOW - timedelta(minutes=1)).isoformat()
    pool = written(tmp_path, f"at: {at}\nrunning: {{node1: job 1}}\nwanted: {{node2: job 2 waits}}\n")
    assert file_jobs.wanted(pool, "node1", NOW) == "job 1 runs there"
    assert file_jobs.wanted(pool, "node2", NOW) == "job 2 waits"
    assert file_jobs.wanted(pool, "node3", NOW) is None


@pytest.mark.parametrize("minutes", [6, -6])
def test_a_file_of_another_time_says_nothing(tmp_path: Path, minutes: int) -> None:
    """A scheduler that has died would call every node idle for ever."""
    pool = written(tmp_path, f"at: {(NOW - timedelta(minutes=minutes)).isoformat()}\n")
    with pytest.raises(UndecidedError, match="says nothing of node1 now"):
        file_jobs.wanted(pool, "node1", NOW)


def test_no_file_is_no_idle_node(tmp_path: Path) -> None:
    """Silence is not an answer."""
    with pytest.raises(UndecidedError, match="nobody says whether node1 is idle"):
        file_jobs.wanted(tmp_path / "site.yml", "node1", NOW)


@pytest.mark.parametrize("text", ["running: {node1: 3}\n", "at: yesterday\n", "- a\n", "idle: [node1]\n"])
def test_a_file_that_is_wrong_is_told_with_its_line(tmp_path: Path, text: str) -> None:
    """Nothing is read out of it."""
    pool = written(tmp_path, text)
    with pytest.raises(InputError, match=r"site\.jobs\.yml:1"):
        file_jobs.wanted(pool, "node1", NOW)

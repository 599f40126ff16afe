"""The pool in a real API server: what is written on a Node to open and to shut it, and what is left alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import DIGEST, EXPIRES, NOW, OURS, THEIRS, Nodes, nodes
from toolkit.errors import UndecidedError, UsageError
from toolkit.kubernetes.client import ApiServer
from toolkit.kubernetes.errors import ApiRefusedError, ApiUnreachableError
from toolkit.pool.door import CERTIFICATE, CERTIFIED, CONDITION, CORDONED, MACHINE, MAX_REASON, REASON, TAINT
from toolkit.pool.door import EXPIRES as UNTIL
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.model import SmokeEnd
from toolkit.pool.policy import KubernetesSite, PoolPolicy

__all__ = ["api", "control_plane", "nodes"]

LABELS = {"rackproof.dev/rack": "demo", "rackproof.dev/slot": "3"}


@pytest.fixture
def pool(api: ApiServer) -> KubernetesPool:
    return KubernetesPool(api, KubernetesSite(namespace="default"))


def taints(nodes: Nodes, name: str) -> list[tuple[str, str]]:
    return [(t["key"], t["effect"]) for t in nodes.raw(name)["spec"].get("taints", [])]


def test_an_admitted_node_has_every_mark_and_others_taints_stay(pool: KubernetesPool, nodes: Nodes) -> None:
    """Label, annotations and condition are there, our taint is gone, the GPU taint is not."""
    name = nodes.add()
    assert not pool.nodes()[name].admitted
    before = pool.api.requests
    pool.admit(name, DIGEST, EXPIRES, LABELS)
    assert pool.api.requests - before <= 6
    raw = nodes.raw(name)
    assert raw["metadata"]["labels"][CERTIFIED] == "true"
    assert {key: raw["metadata"]["labels"][key] for key in LABELS} == LABELS
    assert raw["metadata"]["annotations"][CERTIFICATE] == DIGEST
    assert raw["metadata"]["annotations"][MACHINE] == "00000000-0000-0000-0000-000000000001"
    assert ("nvidia.com/gpu", "NoSchedule") in taints(nodes, name)
    assert TAINT.key not in dict(taints(nodes, name))
    said = nodes.seen(name).condition(CONDITION)
    assert said is not None
    assert said.status == "True"
    member = pool.nodes()[name]
    assert (member.admitted, member.certificate, member.expires) == (True, DIGEST, EXPIRES)
    assert member.reason.startswith("certificate abababababab in force until ")
    assert member.labels == LABELS
    assert nodes.seen(name).ready  # the kubelet's condition is not ours to lose


def test_an_evicted_node_is_tainted_and_cordoned_and_says_why(pool: KubernetesPool, nodes: Nodes) -> None:
    """And comes back uncordoned: the cordon was ours. Its certificate is no longer on it."""
    name = nodes.add()
    pool.admit(name, DIGEST, EXPIRES, LABELS)
    pool.evict(name, "certificate revoked: \x1b[2Jbad cable")
    raw = nodes.raw(name)
    assert raw["spec"]["unschedulable"] is True
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert ("nvidia.com/gpu", "NoSchedule") in taints(nodes, name)
    assert raw["metadata"]["labels"][CERTIFIED] == "false"
    assert raw["metadata"]["labels"]["rackproof.dev/rack"] == "demo"
    assert CERTIFICATE not in raw["metadata"]["annotations"]
    assert UNTIL not in raw["metadata"]["annotations"]
    member = pool.nodes()[name]
    assert not member.admitted
    assert member.reason == "certificate revoked: [2Jbad cable"
    before = pool.api.requests
    pool.evict(name, "certificate revoked: \x1b[2Jbad cable")
    assert pool.api.requests - before == 1  # it reads that it is done
    pool.admit(name, DIGEST, EXPIRES, LABELS)
    assert "unschedulable" not in nodes.raw(name)["spec"]
    assert CORDONED not in nodes.raw(name)["metadata"]["annotations"]
    assert pool.nodes()[name].admitted


def test_registering_an_admitted_node_shuts_it(pool: KubernetesPool, nodes: Nodes) -> None:
    """A node that joins is tainted, labelled and not cordoned; one that was in is out again."""
    name = nodes.add(taints=())
    pool.register(name, "joined; not certified yet", LABELS)
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert not nodes.seen(name).unschedulable
    assert pool.nodes()[name].labels == LABELS
    pool.admit(name, DIGEST, EXPIRES, LABELS)
    pool.register(name, "certificate expired")
    assert nodes.seen(name).unschedulable
    member = pool.nodes()[name]
    assert (member.admitted, member.reason, member.labels) == (False, "certificate expired", LABELS)


def test_a_taint_that_another_wrote_over_is_put_on_again(nodes: Nodes, api: ApiServer) -> None:
    """As the node lifecycle controller of old versions does: it writes the taints that it read before ours came."""
    name = nodes.add(taints=(THEIRS,))
    stale = nodes.raw(name)["spec"]["taints"]

    class Overwritten(ApiServer):
        """Another's write comes between our taint and our marks, as often as it is told."""

        def __init__(self, times: int) -> None:
            self.__dict__.update(api.__dict__)
            self.left = times

        def apply(self, *args: dict[str, object], **how: object) -> dict[str, object]:
            if self.left:
                self.left -= 1
                api.patch("v1", "Node", name, {"spec": {"taints": stale}}, how="strategic")
            return super().apply(*args, **how)  # type: ignore[arg-type]

    site = KubernetesSite(namespace="default")
    KubernetesPool(Overwritten(2), site).register(name, "joined; not certified yet", LABELS)
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert (THEIRS["key"], "NoSchedule") in taints(nodes, name)
    assert not KubernetesPool(api, site).nodes()[name].admitted
    KubernetesPool(api, site).admit(name, DIGEST, EXPIRES, LABELS)
    assert KubernetesPool(Overwritten(1), site).evict_all({name: "recall"}) == {}
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert nodes.seen(name).annotation(REASON) == "recall"


def test_of_many_nodes_all_are_tainted_before_any_is_marked(pool: KubernetesPool, nodes: Nodes, api: ApiServer) -> None:
    """One list, then a write a node that takes it out; others' marks follow. Each says its own reason."""
    names = [nodes.add() for _ in range(6)]
    for name in names[:5]:
        pool.admit(name, DIGEST, EXPIRES, LABELS)

    class Told(ApiServer):
        """Notes what is written."""

        def __init__(self) -> None:
            self.__dict__.update(api.__dict__)
            self.writes: list[str] = []

        def patch(self, *args: object, **how: object) -> dict[str, object]:
            self.writes.append(f"patch {args[2]}")
            if args[2] == names[3]:  # its kubelet reports in between
                nodes.report(names[3], machine="00000000-0000-0000-0000-000000000001", phase="")
                api.patch("v1", "Node", names[3], {"metadata": {"labels": {"x": str(len(self.writes))}}}, how="merge")
            return super().patch(*args, **how)  # type: ignore[arg-type]

        def apply(self, *args: dict[str, dict[str, str]], **how: object) -> dict[str, object]:
            self.writes.append(f"apply {args[0]['metadata']['name']}")
            return super().apply(*args, **how)  # type: ignore[arg-type]

    told = Told()
    failed = KubernetesPool(told, KubernetesSite(namespace="default")).evict_all(
        {name: f"reason {number}" for number, name in enumerate(names)} | {"nobody-7": "gone"}
    )
    assert failed == {}
    first_mark = next(number for number, write in enumerate(told.writes) if write.startswith("apply"))
    assert {f"patch {name}" for name in names} <= set(told.writes[:first_mark])
    assert not [write for write in told.writes[first_mark:] if write.startswith("patch")]
    for number, name in enumerate(names):
        node = nodes.seen(name)
        assert TAINT in node.taints and node.unschedulable and node.label(CERTIFIED) == "false"
        assert (node.annotation(REASON), node.annotation(CERTIFICATE)) == (f"reason {number}", "")
        assert ("nvidia.com/gpu", "NoSchedule") in taints(nodes, name)


def test_one_node_that_cannot_be_shut_holds_up_no_other(pool: KubernetesPool, nodes: Nodes, api: ApiServer) -> None:
    """It is told with the server's words; an API server that does not answer leaves every node as it is."""
    names = [nodes.add() for _ in range(6)]
    for name in names:
        pool.admit(name, DIGEST, EXPIRES, LABELS)

    class Refusing(ApiServer):
        """Says no to all that is written of one node."""

        def __init__(self) -> None:
            self.__dict__.update(api.__dict__)

        def patch(self, *args: object, **how: object) -> dict[str, object]:
            if args[2] == names[2]:
                raise ApiRefusedError(f"patch Node {names[2]}: 403", "see its rights", status=403)
            return super().patch(*args, **how)  # type: ignore[arg-type]

        def list(self, *args: object, **how: object) -> tuple[dict[str, object], ...]:
            if self.away:
                raise ApiUnreachableError("list Node: no answer", "wait")
            return super().list(*args, **how)  # type: ignore[arg-type]

        away = False

    refusing = Refusing()
    other = KubernetesPool(refusing, KubernetesSite(namespace="default"))
    failed = other.evict_all(dict.fromkeys(names, "recall"))
    assert {name: why.message for name, why in failed.items()} == {names[2]: f"patch Node {names[2]}: 403"}
    members = pool.nodes()
    assert [name for name in names if members[name].admitted] == [names[2]]
    refusing.away = True
    assert set(other.evict_all(dict.fromkeys(names, "recall"))) == set(names)


def test_a_node_that_has_not_joined_is_undecided(pool: KubernetesPool) -> None:
    """Nothing is waited for, and nothing is made in its place; to shut it there is nothing to do."""
    with pytest.raises(UndecidedError, match="has not joined the cluster"):
        pool.register("nobody-7", "joined")
    with pytest.raises(UndecidedError, match="not in the cluster"):
        pool.admit("nobody-7", DIGEST, EXPIRES, LABELS)
    pool.evict("nobody-7", "gone")
    assert pool.api.get("v1", "Node", "nobody-7") is None


@pytest.mark.parametrize(
    ("labels", "annotations", "taint", "why"),
    [
        ({"dgxc.nvidia.com/nvsentinel-state": "remediating"}, {}, None, "NVSentinel holds it \\(remediating\\)"),
        ({}, {"quarantineHealthEventIsCordoned": "True"}, None, "NVSentinel keeps a quarantine event"),
        ({"nvidia.com/gpu-driver-upgrade-state": "drain-required"}, {}, None, "the GPU operator is at its driver"),
        ({"nvidia.com/gpu.deploy.dcgm": "paused-for-driver-upgrade"}, {}, None, "has paused dcgm"),
        ({}, {}, {"key": "nvsentinel.nvidia.com/validation-pending", "effect": "NoSchedule"}, "validation-pending"),
    ],
)
def test_who_else_holds_a_node_is_not_overruled(
    pool: KubernetesPool, nodes: Nodes, labels: dict[str, str], annotations: dict[str, str],
    taint: dict[str, str] | None, why: str,
) -> None:  # fmt: skip
    """Undecided, nothing written, and their marks are as they were."""
    name = nodes.add(labels=labels, annotations=annotations, taints=(OURS, *([taint] if taint else [])))
    before = nodes.raw(name)
    with pytest.raises(UndecidedError, match=why):
        pool.admit(name, DIGEST, EXPIRES, LABELS)
    assert nodes.raw(name)["metadata"]["labels"] == before["metadata"]["labels"]
    assert {(t["key"], t["effect"]) for t in (OURS, *([taint] if taint else []))} <= set(taints(nodes, name))


def test_anothers_cordon_and_a_silent_kubelet_keep_a_node_out(pool: KubernetesPool, nodes: Nodes) -> None:
    """We undo no cordon but our own; and a shutting of ours does not claim theirs."""
    name = nodes.add()
    pool.api.patch("v1", "Node", name, {"spec": {"unschedulable": True}}, how="merge")
    with pytest.raises(UndecidedError, match="somebody else cordoned it"):
        pool.admit(name, DIGEST, EXPIRES, LABELS)
    pool.evict(name, "quarantined")
    assert CORDONED not in nodes.raw(name)["metadata"].get("annotations", {})
    with pytest.raises(UndecidedError, match="somebody else cordoned it"):
        pool.admit(name, DIGEST, EXPIRES, LABELS)
    silent = nodes.add(ready=False)
    with pytest.raises(UndecidedError, match="does not say that it is ready"):
        pool.admit(silent, DIGEST, EXPIRES, LABELS)


def test_a_node_that_others_write_all_the_time_is_not_admitted(
    pool: KubernetesPool, nodes: Nodes, api: ApiServer
) -> None:
    """409 on every write: a bounded number of attempts, then undecided; tainted, and without the label."""
    name = nodes.add()
    writes = iter(range(1000))

    class Crowded(ApiServer):
        """Between our reading and our writing somebody always comes first."""

        def __init__(self) -> None:
            self.__dict__.update(api.__dict__)

        def patch(self, *args: object, **how: object) -> dict[str, object]:
            api.patch("v1", "Node", name, {"metadata": {"annotations": {"x": str(next(writes))}}}, how="merge")
            return super().patch(*args, **how)  # type: ignore[arg-type]

    crowded = KubernetesPool(Crowded(), KubernetesSite(namespace="default"))
    with pytest.raises(UndecidedError, match="6 attempts to admit it met another's write"):
        crowded.admit(name, DIGEST, EXPIRES, LABELS)
    assert next(writes) == 6
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert nodes.seen(name).label(CERTIFIED) == "false"
    assert not pool.nodes()[name].admitted
    pool.admit(name, DIGEST, EXPIRES, LABELS)
    crowded.evict(name, "revoked")  # to shut it does not wait until they have ended
    assert not pool.nodes()[name].admitted
    assert {(TAINT.key, "NoSchedule"), ("nvidia.com/gpu", "NoSchedule")} <= set(taints(nodes, name))


def test_a_node_made_anew_under_the_same_name_is_another(pool: KubernetesPool, nodes: Nodes, api: ApiServer) -> None:
    """Deleted between reading and writing: what stands there now was not read, so it is not admitted."""
    name = nodes.add()

    class Replaced(ApiServer):
        """The machine behind the name changes once, before the marks are applied."""

        def __init__(self) -> None:
            self.__dict__.update(api.__dict__)
            self.done = False

        def apply(self, *args: object, **how: object) -> dict[str, object]:
            if not self.done:
                self.done = True
                api.delete("v1", "Node", name)
                spec = {"taints": [OURS]}
                api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec})
                nodes.report(name)
            return super().apply(*args, **how)  # type: ignore[arg-type]

    with pytest.raises(UndecidedError, match="deleted and made anew while it was admitted"):
        KubernetesPool(Replaced(), KubernetesSite(namespace="default")).admit(name, DIGEST, EXPIRES, LABELS)
    assert (TAINT.key, "NoSchedule") in taints(nodes, name)
    assert nodes.seen(name).label(CERTIFIED) != "true"


def test_bad_signs_are_told_by_node(pool: KubernetesPool, nodes: Nodes) -> None:
    """NVSentinel's and node-problem-detector's conditions, lost GPUs, failed pods, a node that is gone."""
    bad, good = nodes.add(), nodes.add()
    for name in (bad, good):
        pool.admit(name, DIGEST, EXPIRES, LABELS)
    xid = {"type": "GpuXidError", "status": "True", "reason": "GpuXidErrorIsNotHealthy", "message": "Xid \x1b[31m79"}
    api = pool.api
    api.patch("v1", "Node", bad, {"status": {"conditions": [xid], "allocatable": {"nvidia.com/gpu": "7"}}},
              how="strategic", subresource="status")  # fmt: skip
    nodes.pod(bad, f"{bad}-train")
    ended = {"terminated": {"exitCode": 1, "finishedAt": (NOW + timedelta(hours=1)).isoformat()}}
    container = {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": ended}
    status = {"phase": "Failed", "containerStatuses": [container]}
    api.patch("v1", "Pod", f"{bad}-train", {"status": status}, namespace="default", how="strategic",
              subresource="status")  # fmt: skip
    assert pool.signs([good], NOW) == ()
    told = {(s.node, s.code): s.detail for s in pool.signs([bad, good, "gone-1"], NOW)}
    assert told == {
        (bad, "CONDITION_GPU_XID_ERROR"): "GpuXidErrorIsNotHealthy Xid [31m79",
        (bad, "GPUS_LOST"): "the device plugin gives out 7 of 8 GPUs",
        (bad, "PODS_FAIL"): f"default/{bad}-train failed: exit 1",
        ("gone-1", "NODE_GONE"): "no Node of that name is there any more: deleted, or renamed",
    }
    later = pool.signs([bad], NOW + timedelta(hours=2))
    assert "PODS_FAIL" not in {s.code for s in later}
    api.delete("v1", "Pod", f"{bad}-train", "default")


def test_a_hostile_node_object_is_told_in_one_line_and_never_opens(pool: KubernetesPool, nodes: Nodes) -> None:
    """Huge annotations, escapes, and marks it wrote itself: without the condition it is not admitted."""
    flood = {REASON: "\x1b[2J\x1b[H" + "A" * 100_000, CERTIFICATE: "../../etc", "x": "B" * 100_000}
    name = nodes.add(taints=(THEIRS,), annotations=flood, labels={CERTIFIED: "true"})
    member = pool.nodes()[name]
    assert not member.admitted
    assert "\x1b" not in member.reason
    assert len(member.reason) < 1200
    assert "the annotation rackproof.dev/certificate is ../../etc" in member.reason


def test_what_the_site_does_not_give_is_said(pool: KubernetesPool) -> None:
    """Without a kubeconfig there is no pool; without an image nothing is smoked, and that is no pass."""
    with pytest.raises(UsageError, match="reading the kubeconfig"):
        KubernetesPool.open(PoolPolicy(), Path("/nonexistent"))
    smoked = pool.smoke(["any"], 1.0)
    assert (smoked.end, smoked.detail) == (SmokeEnd.NOT_ASKED, "the pool's policy names no smoke_image")


def test_a_smoke_collective_without_gpus_is_none(api: ApiServer, nodes: Nodes) -> None:
    """A node whose device plugin gives out none would be passed by a collective of its processors."""
    site = KubernetesSite(namespace="default", smoke_image="registry.example/smoke:1")
    good, bare = nodes.add(), nodes.add(gpus=0)
    smoked = KubernetesPool(api, site).smoke([good, bare], 1.0)
    assert smoked.end is SmokeEnd.UNDECIDED
    assert f"no GPUs are given out on {bare}" in smoked.detail
    assert KubernetesPool(api, site).smoke([], 1.0).end is SmokeEnd.UNDECIDED
    assert not [job for job in api.list("batch/v1", "Job", "default") if "smoke" in job["metadata"]["name"]]


def test_a_long_reason_is_kept_as_far_as_it_is_said_to_be(pool: KubernetesPool, nodes: Nodes) -> None:
    """A thousand characters, not the line or two that an error quotes."""
    name = nodes.add()
    pool.evict(name, "cable recall " * 100)
    assert len(pool.nodes()[name].reason) == MAX_REASON

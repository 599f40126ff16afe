"""A real Slurm as the pool: slurmctld and four slurmds of this machine, started once for this file."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from slurm_cluster import PARTITION, Cluster, on_loopback, slurm

from toolkit.errors import BusyError, UndecidedError, UnreachableError, UsageError
from toolkit.pool.model import DrainEnd, Pool, SmokeEnd
from toolkit.pool.policy import PoolKind, PoolPolicy, SlurmSite
from toolkit.pool.slurm import SlurmPool

pytestmark = pytest.mark.root
NAMES = tuple(f"node{number}" for number in range(1, 5))
DIGEST = "ab" * 32
LABELS = {
    "rackproof.dev/rack": "demo", "rackproof.dev/slot": "1", "rackproof.dev/leaf": "demo.leaf-1",
    "rackproof.dev/rail-group": "demo.leaf1_leaf2",
}  # fmt: skip
FEATURES = {
    "rackproof_certified", "rackproof_certificate_abababababab", "rackproof_rack_demo", "rackproof_slot_1",
    "rackproof_leaf_demo.leaf-1", "rackproof_rail_group_demo.leaf1_leaf2",
}  # fmt: skip


def expires() -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm(on_loopback(NAMES), silent_s=2, message_s=4) as made:
        yield made


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """A node of its own for each test, idle and unmarked; afterwards too, for the next one."""
    name = NAMES[0]
    reset(cluster, name)
    yield name
    with suppress(subprocess.CalledProcessError):
        cluster.ask("scancel", f"--nodelist={name}")
    cluster.until(lambda: cluster.ask("squeue", "--noheader", f"--nodelist={name}") == "", "an empty queue")
    reset(cluster, name)


def reset(cluster: Cluster, name: str) -> None:
    cluster.ask("scontrol", "update", f"NodeName={name}", "ActiveFeatures=", "AvailableFeatures=", "Comment=")
    with suppress(subprocess.CalledProcessError):  # it is idle
        cluster.ask("scontrol", "update", f"NodeName={name}", "State=RESUME")
    cluster.until(lambda: state(cluster, name) == "idle", f"an idle {name}")


def state(cluster: Cluster, name: str) -> str:
    return cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={name}", "--Format=StateComplete:|").rstrip("|\n")


def features(cluster: Cluster, name: str) -> set[str]:
    return set(cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={name}", "--format=%b").strip().split(","))


def reason(cluster: Cluster, name: str) -> str:
    return cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={name}", "--format=%E").strip()


def update(cluster: Cluster, name: str, *changes: str) -> None:
    cluster.ask("scontrol", "update", f"NodeName={name}", *changes)


@pytest.fixture
def site(cluster: Cluster) -> SlurmSite:
    return SlurmSite(config=cluster.config, partition=PARTITION, gres="gpu")


@pytest.fixture
def pool(site: SlurmSite, tmp_path: Path) -> Pool:
    return SlurmPool(PoolPolicy(PoolKind.SLURM, slurm=site), tmp_path / "regulator")


def admitted(pool: Pool, node: str, until: datetime | None = None) -> None:
    pool.register(node, "joined", LABELS)
    pool.admit(node, DIGEST, until or expires(), LABELS)


def codes(pool: Pool, *nodes: str) -> list[tuple[str, str]]:
    return [(sign.node, sign.code) for sign in pool.signs(nodes, datetime.now(UTC))]


def test_a_node_joins_drained_is_admitted_and_evicted(pool: Pool, cluster: Cluster, node: str) -> None:
    """Each step is what sinfo shows too; others' features and comment stay."""
    update(cluster, node, "AvailableFeatures=h100,ib", "ActiveFeatures=h100", "Comment=bought in spring")
    assert pool.nodes() == {}
    pool.register(node, "no certificate yet", LABELS)
    assert state(cluster, node) == "idle+drain"
    assert reason(cluster, node) == "rackproof: not certified: no certificate yet"
    member = pool.nodes()[node]
    assert (member.admitted, member.reason, member.labels) == (False, "not certified: no certificate yet", LABELS)
    until = expires()
    pool.admit(node, DIGEST, until, LABELS)
    member = pool.nodes()[node]
    assert (member.admitted, member.certificate, member.expires, member.labels) == (True, DIGEST, until, LABELS)
    assert features(cluster, node) == FEATURES | {"h100", f"rackproof_until_{until:%Y%m%dT%H%M%SZ}"}
    assert state(cluster, node) == "idle"
    pool.evict(node, "HBM_ERRORS GPU 3")
    member = pool.nodes()[node]
    assert (member.admitted, member.certificate, member.reason) == (False, "", "HBM_ERRORS GPU 3")
    assert state(cluster, node) == "idle+drain"
    assert "rackproof_certified" not in features(cluster, node)
    assert {"h100", "rackproof_rack_demo"} <= features(cluster, node)
    shown = cluster.ask("scontrol", "show", "node", node)
    assert "Comment=bought in spring [rackproof leaf=demo.leaf-1 left=abababababab rack=demo" in shown
    assert "AvailableFeatures=h100,ib," in shown


def test_every_step_can_be_repeated(pool: Pool, cluster: Cluster, node: str) -> None:
    """And what is as it should be is not written again: the time of a drain stays."""
    pool.register(node, "joined", LABELS)
    since = cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%H")
    time.sleep(1.1)
    pool.register(node, "joined", LABELS)
    pool.register(node, "joined")
    assert cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={node}", "--format=%H") == since
    until = expires()
    for _ in range(2):
        pool.admit(node, DIGEST, until, LABELS)
    for _ in range(2):
        pool.evict(node, "gone bad")
    assert pool.nodes()[node].reason == "gone bad"
    pool.register(node, "joined again")
    assert pool.nodes()[node].labels == LABELS


def test_a_stranger_is_not_admitted_and_need_not_be_evicted(pool: Pool, cluster: Cluster, node: str) -> None:
    """Neither one that slurmctld does not know, nor one that it has and nobody registered."""
    with pytest.raises(UndecidedError, match=f"knows no node node99 in partition {PARTITION}"):
        pool.register("node99", "joined")
    for stranger in ("node99", node):
        with pytest.raises(UndecidedError, match=f"{stranger} is not a member"):
            pool.admit(stranger, DIGEST, expires(), {})
        pool.evict(stranger, "never joined")
    assert state(cluster, node) == "idle"
    assert codes(pool, "node99", node) == [("node99", "NODE_GONE"), (node, "NODE_GONE")]


@pytest.mark.parametrize("how", ["DRAIN", "FAIL", "DOWN"])
def test_what_somebody_else_holds_is_not_resumed(pool: Pool, cluster: Cluster, node: str, how: str) -> None:
    """His drain stays his, with his words, through an eviction too; once he ends it, ours would have to come first."""
    pool.register(node, "joined", LABELS)
    update(cluster, node, f"State={how}", "Reason=NHC: fan 3 of 8")
    with pytest.raises(UndecidedError, match=r"by root: NHC: fan 3 of 8\. Its drain is not rackproof's to end"):
        pool.admit(node, DIGEST, expires(), LABELS)
    pool.evict(node, "revoked")
    pool.register(node, "joined again", LABELS)
    assert reason(cluster, node) == "NHC: fan 3 of 8"
    assert "NHC: fan 3 of 8" in pool.nodes()[node].reason
    code = {"DRAIN": "NODE_HELD", "FAIL": "NODE_FAILING", "DOWN": "NODE_DOWN"}[how]
    assert (node, code) in codes(pool, node)


def test_a_node_that_goes_bad_in_somebody_elses_hands_loses_its_certificate(
    pool: Pool, cluster: Cluster, node: str
) -> None:
    """Resumed by him later, it takes jobs that do not ask for a certificate: a sign, and no admitted member."""
    admitted(pool, node)
    update(cluster, node, "State=DRAIN", "Reason=NHC: fan 3 of 8")
    pool.evict(node, "revoked")
    assert "rackproof_certified" not in features(cluster, node)
    update(cluster, node, "State=RESUME")
    cluster.until(lambda: state(cluster, node) == "idle", "an idle node")
    assert not pool.nodes()[node].admitted
    assert codes(pool, node) == [(node, "NODE_UNCERTIFIED")]


def test_a_node_resumed_by_hand_is_not_admitted(pool: Pool, cluster: Cluster, node: str) -> None:
    """With a feature written by hand neither: the record in the comment does not say so."""
    pool.register(node, "joined", LABELS)
    update(cluster, node, "State=RESUME")
    cluster.until(lambda: state(cluster, node) == "idle", "an idle node")
    assert "resumed it by hand" in pool.nodes()[node].reason
    assert codes(pool, node) == [(node, "NODE_UNCERTIFIED")]
    update(cluster, node, "AvailableFeatures=rackproof_certified", "ActiveFeatures=rackproof_certified")
    assert not pool.nodes()[node].admitted
    assert codes(pool, node) == [(node, "FEATURES_EDITED")]
    pool.evict(node, "resumed by hand")
    assert state(cluster, node) == "idle+drain"


def test_features_that_slurmctld_forgets_are_a_sign_and_an_admission_puts_them_back(
    pool: Pool, cluster: Cluster, node: str
) -> None:
    """scontrol reconfigure throws them away; the record outlives it, and no drain is lost."""
    until = expires()
    admitted(pool, node, until)
    cluster.ask("scontrol", "reconfigure")
    cluster.until(lambda: "(null)" in features(cluster, node), "a reconfigured slurmctld")
    assert not pool.nodes()[node].admitted
    assert codes(pool, node) == [(node, "FEATURES_LOST")]
    pool.admit(node, DIGEST, until, LABELS)
    assert pool.nodes()[node].admitted
    assert codes(pool, node) == []


def test_a_certificate_whose_time_is_up_admits_nobody(pool: Pool, cluster: Cluster, node: str) -> None:
    """Neither now nor once it was admitted by it; and what is no sha256 is no certificate."""
    pool.register(node, "joined", LABELS)
    with pytest.raises(UndecidedError, match="expired at"):
        pool.admit(node, DIGEST, datetime.now(UTC), LABELS)
    with pytest.raises(UsageError, match="is no sha256"):
        pool.admit(node, "x State=RESUME", expires(), LABELS)
    pool.admit(node, DIGEST, datetime.now(UTC) + timedelta(seconds=4), LABELS)
    assert pool.nodes()[node].admitted
    cluster.until(lambda: not pool.nodes()[node].admitted, "an expired certificate", 10)
    assert codes(pool, node) == [(node, "CERTIFICATE_EXPIRED")]


HOSTILE = "x\nnode4|idle|rackproof_certified \x1b[2J State=IDLE Comment=[rackproof certificate=" + DIGEST + "]"


def test_a_hostile_reason_forges_nothing(pool: Pool, cluster: Cluster, node: str) -> None:
    """Line breaks, escapes and fields in it: one node, its own state, and one printable line for the operator."""
    pool.register(node, "joined", LABELS)
    update(cluster, node, "State=DRAIN", f"Reason={HOSTILE}")
    members = pool.nodes()
    assert set(members) == {node}
    assert members[node].reason.isprintable()
    assert not members[node].admitted
    pool.register(NAMES[1], HOSTILE, {"rackproof.dev/rack": HOSTILE, "rackproof.dev/slot": "2"})
    assert set(pool.nodes()) == {node, NAMES[1]}
    assert pool.nodes()[NAMES[1]].labels == {"rackproof.dev/slot": "2"}
    reset(cluster, NAMES[1])


def job(cluster: Cluster, node: str, more: str = "--requeue") -> str:
    """A job that runs on the node."""
    number = cluster.ask("sbatch", "--parsable", more, f"--nodelist={node}", "--job-name=train", "--output=/dev/null",
                         "--time=30", "--wrap=sleep 600").strip()  # fmt: skip
    cluster.until(lambda: f"{number} train RUNNING" in cluster.queue, "a running job")
    return number


def test_a_drain_waits_for_the_jobs_and_names_those_that_do_not_end(pool: Pool, cluster: Cluster, node: str) -> None:
    """No job is cancelled; at once there are no new ones; a job that ends lets the drain end."""
    admitted(pool, node)
    number = job(cluster, node)
    drained = pool.drain(node, "revoked", 1.0)
    assert drained.end is DrainEnd.BLOCKED
    assert len(drained.left) == 1
    assert drained.left[0].startswith(f"job {number} train of root (running, ")
    assert "root" in drained.why
    assert state(cluster, node) == "allocated+drain"
    assert not pool.nodes()[node].admitted
    assert f"{number} train RUNNING" in cluster.queue
    cluster.ask("scancel", number)
    assert pool.drain(node, "revoked", 30.0).end is DrainEnd.EMPTY
    assert state(cluster, node) == "idle+drain"


def test_a_job_that_ended_because_its_node_did_is_a_sign(pool: Pool, cluster: Cluster, node: str) -> None:
    """Of that node, beside what the node itself shows."""
    admitted(pool, node)
    number = job(cluster, node, more="--no-requeue")
    update(cluster, node, "State=DOWN", "Reason=power supply")
    down, lost = pool.signs((node,), datetime.now(UTC))
    assert (down.code, down.detail, down.source) == ("NODE_DOWN", "down: power supply", "reason by root")
    assert (lost.code, lost.source) == ("JOB_LOST_NODE", f"job {number}")
    assert f"job {number} train of root (node_fail" in lost.detail


def test_two_regulators_take_turns(pool: Pool, site: SlurmSite, tmp_path: Path) -> None:
    """The second is told who leads; the lead is free again after the block."""
    other = SlurmPool(PoolPolicy(slurm=site), tmp_path / "regulator")
    with (
        pool.leading("alice on login1"),
        pytest.raises(BusyError, match="alice on login1 admits nodes"),
        other.leading("bob"),
    ):
        pass
    with other.leading("bob"):
        pass


def test_a_partition_that_is_not_there_is_said(site: SlurmSite, tmp_path: Path) -> None:
    """And not taken for an empty one."""
    wrong = SlurmPool(PoolPolicy(slurm=replace(site, partition="nosuch")), tmp_path / "lock")
    with pytest.raises(UndecidedError, match="Partition nosuch not found"):
        wrong.nodes()


SMOKES: dict[str, tuple[str, SmokeEnd, str]] = {
    "right": ("echo '# nThread 1'; echo '# Out of bounds values : 0 OK'", SmokeEnd.PASSED, "every value was right"),
    "wrong": ("echo '# nThread 1'; echo '# Out of bounds values : 3 FAILED'; exit 1", SmokeEnd.FAILED, "3 values"),
    "a rank dies": ("echo '# nThread 1'; kill -SEGV $$", SmokeEnd.FAILED, "died: Segmentation fault"),
    "not installed": ("exec /nonexistent/all_reduce_perf", SmokeEnd.UNDECIDED, "did not run"),
    "nothing checked": ("echo '# nThread 1'", SmokeEnd.UNDECIDED, "never said that its data were right"),
    "a hang": ("echo '# nThread 1'; sleep 600", SmokeEnd.UNDECIDED, "no end within"),
}


@pytest.mark.parametrize("case", SMOKES)
def test_a_smoke_collective_passes_only_by_its_own_word(
    case: str, site: SlurmSite, cluster: Cluster, node: str, tmp_path: Path
) -> None:
    """What ran wrong is told from what did not run; nothing of it is left in the queue."""
    script, end, detail = SMOKES[case]
    program = cluster.folder / "all_reduce_perf"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    kept: list[bytes] = []

    def keep(output: bytes) -> str:
        kept.append(output)
        return "digest"

    pool = SlurmPool(PoolPolicy(slurm=replace(site, smoke=str(program))), tmp_path / "lock", keep)
    admitted(pool, node)
    smoked = pool.smoke((node,), 3.0 if case == "a hang" else 30.0)
    assert (smoked.end, smoked.output) == (end, "digest"), smoked
    assert detail in smoked.detail, smoked
    cluster.until(lambda: cluster.queue == "", "an empty queue")
    assert case == "not installed" or b"# nThread" in kept[0]


def test_a_rank_that_dies_on_one_node_fails_the_smoke_collective_of_all(
    site: SlurmSite, cluster: Cluster, tmp_path: Path
) -> None:
    """A task on each node; the node whose rank died is named, and the others are ended with it."""
    program, pair = cluster.folder / "all_reduce_perf", (NAMES[0], NAMES[1])
    program.write_text("#!/bin/sh\necho '# nThread 1'\ntest $SLURMD_NODENAME = node2 && exit 3\nsleep 600\n")
    program.chmod(0o755)
    pool = SlurmPool(PoolPolicy(slurm=replace(site, smoke=str(program), mpi="none")), tmp_path / "lock")
    for name in pair:
        reset(cluster, name)
        admitted(pool, name)
    smoked = pool.smoke(pair, 30.0)
    assert smoked.end is SmokeEnd.FAILED
    assert smoked.detail == "a rank on node2 died: Exited with exit code 3"
    cluster.until(lambda: cluster.queue == "", "an empty queue")
    for name in pair:
        reset(cluster, name)


def test_a_smoke_collective_goes_through_the_door(site: SlurmSite, cluster: Cluster, node: str, tmp_path: Path) -> None:
    """Over a node that is not certified it does not start."""
    program = cluster.folder / "all_reduce_perf"
    pool = SlurmPool(PoolPolicy(slurm=replace(site, smoke=str(program))), tmp_path / "lock")
    smoked = pool.smoke((node,), 4.0)
    assert smoked.end is SmokeEnd.UNDECIDED
    assert SlurmPool(PoolPolicy(slurm=site), tmp_path / "lock").smoke((node,), 4.0).end is SmokeEnd.NOT_ASKED


def test_a_slurmd_that_is_gone_is_a_sign_and_is_not_resumed(pool: Pool, cluster: Cluster) -> None:
    """First silent, then DOWN; drained by us it stays so when it comes back; its jobs' end is not known."""
    name = NAMES[2]
    admitted(pool, name)
    cluster.kill(name)
    cluster.until(lambda: "not_responding" in state(cluster, name), "a silent node")
    found = codes(pool, name)
    assert found in ([(name, "NODE_NOT_RESPONDING")], [(name, "NODE_DOWN")])
    assert not pool.nodes()[name].admitted
    cluster.until(lambda: "down" in state(cluster, name), "a node that is DOWN")
    assert codes(pool, name) == [(name, "NODE_DOWN")]
    drained = pool.drain(name, "its slurmd is gone", 0.0)
    assert drained.end is DrainEnd.UNDECIDED
    assert "nobody knows what still runs there" in drained.why
    with pytest.raises(UndecidedError, match=f"Slurm has {name} as down"):
        pool.admit(name, DIGEST, expires(), LABELS)
    cluster.begin_slurmd(name)
    cluster.until(lambda: state(cluster, name) == "down+drain", "a node that is back")
    assert pool.nodes()[name].reason == "its slurmd is gone"
    pool.admit(name, DIGEST, expires(), LABELS)
    assert pool.nodes()[name].admitted


def test_a_slurmctld_that_is_gone_for_a_while_is_said(pool: Pool, cluster: Cluster, node: str) -> None:
    """Nothing is taken for an end meanwhile; a drain that began before goes on when it is back."""
    admitted(pool, node)
    cluster.stop("slurmctld")
    steps: list[Callable[[], object]] = [
        pool.nodes, lambda: pool.evict(node, "x")
    ]  # fmt: skip
    for step in steps:
        with pytest.raises(UnreachableError, match="Unable to contact slurm controller"):
            step()
    cluster.begin_slurmctld("-R")
    cluster.until(lambda: state(cluster, node) == "idle", "an idle node")
    assert pool.nodes()[node].admitted

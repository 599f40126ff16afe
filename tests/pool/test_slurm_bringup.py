"""A rack brought up into a real Slurm: certified nodes take jobs there, the others are drained and say why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rehearsal import context_over, in_process, open_ledger, without_rails
from slurm_cluster import PARTITION, Cluster, on_loopback, slurm

from toolkit.bringup import bringup
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import verify
from toolkit.pool.model import DrainEnd, Pool
from toolkit.pool.policy import PoolKind, PoolPolicy, Regulation, SlurmSite
from toolkit.pool.slurm import SlurmPool
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.loading import load_rack
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack
from toolkit.withdrawal import Order, Target, revoke

pytestmark = pytest.mark.root
HALF = "half"
NODES = tuple(node.name for node in load_rack("demo", load({}).inventory).nodes)


@dataclass(slots=True)
class OverSlurm(InProcessRack):
    """A rack of files whose pool is a real Slurm."""

    members: SlurmPool | None = None

    @property
    def pool(self) -> Pool:  # type: ignore[override]  # another pool of the same protocol
        """The real pool."""
        assert self.members is not None
        return self.members


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm(on_loopback(NODES)) as made:
        yield made


def lab_over(
    cluster: Cluster, folder: Path, *faults: Fault, rack: str = "demo", partition: str = PARTITION
) -> OverSlurm:
    made = without_rails(in_process(folder, rack, *faults))
    policy = PoolPolicy(
        PoolKind.SLURM, Regulation(canary=1, soak_s=0.0, smoke=False), slurm=SlurmSite("", cluster.config, partition)
    )
    known = {field.name: getattr(made, field.name) for field in fields(made)} | {"policy": policy}
    return OverSlurm(**known, members=SlurmPool.open(policy, made.settings, made.rack.site))


def sinfo(cluster: Cluster, what: str) -> dict[str, str]:
    said = cluster.ask("sinfo", "--Node", "--noheader", f"--format=%N|{what}")
    return dict(line.split("|", 1) for line in said.splitlines())


def test_bringup_ends_with_certified_nodes_idle_and_a_revoked_one_drained(cluster: Cluster, tmp_path: Path) -> None:
    """The one that failed its burn-in is drained with its finding; a job that asks for a certified node finds one."""
    lab = lab_over(cluster, tmp_path, Fault(FaultKind.HBM_STICKY_BIT, "node2", gpu=1))
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        summary = bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        assert summary.exit_code == 1
        found = {s.node: s for s in standings(ledger, lab.rack)}
        states = {node: stand.state for node, stand in found.items()}
        assert states == {n: NodeState.QUARANTINED if n == "node2" else NodeState.ADMITTED for n in NODES}, found
        assert sinfo(cluster, "%T") == {n: "drained" if n == "node2" else "idle" for n in NODES}
        order = Order("optic of leaf 3 recalled", lab.policy.regulation, 20.0, below_floor=True)
        (row,) = revoke(ledger, lab.pool, [Target("demo", "node3")], order)
    assert (row.shut, row.drained and row.drained.end) == (True, DrainEnd.EMPTY), row
    shut = {"node2", "node3"}
    assert sinfo(cluster, "%T") == {n: "drained" if n in shut else "idle" for n in NODES}
    reasons, features = sinfo(cluster, "%E"), sinfo(cluster, "%f")
    assert "HBM_MISCOMPARE" in reasons["node2"] and reasons["node2"].startswith("rackproof: ")
    assert reasons["node3"] == "rackproof: certificate revoked: optic of leaf 3 recalled"
    assert {n for n in NODES if "rackproof_certified" in features[n].split(",")} == set(NODES) - shut
    assert all("rackproof_rack_demo" in features[n].split(",") for n in NODES)
    issued = verify(
        lab.settings.certificate("demo").read_bytes(), trusted_keys([lab.settings.keys / PUBLIC]), datetime.now(UTC)
    )
    assert "KUBELET_TAINT_MISSING: the pool is Slurm, no kubelet is there" in map(str, issued.not_verified)
    assert not any("kubernetes" in playbook for n in NODES for playbook in lab.machine(n).played)
    ran = cluster.ask("srun", "--constraint=rackproof_certified", "--nodes=1", "printenv", "SLURMD_NODENAME")
    assert ran.strip() in set(NODES) - shut


def test_a_node_that_slurm_does_not_know_waits_for_it_and_holds_nobody_up(cluster: Cluster, tmp_path: Path) -> None:
    """Its slurmd is for the site to bring; the same command again takes it from there."""
    cluster.ask("scontrol", "create", f"PartitionName={HALF}", f"Nodes={','.join(set(NODES) - {'node2'})}")
    lab = lab_over(cluster, tmp_path, rack="demo-small", partition=HALF)
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        found = {s.node: s for s in standings(ledger, lab.rack)}
    assert found["node2"].state is NodeState.CONNECTED
    assert "slurmctld knows no node node2 in partition half" in found["node2"].message
    assert found["node1"].state is NodeState.ADMITTED

"""The same burn-in by SSH and by a Kubernetes Job: the same evidence gives the same digests and the same verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rehearsal import context_over, in_process, open_ledger, without_rails
from runners.job_bench import Bench, Door, Recorded, program

from tests.kubernetes.plane import api, control_plane, free_ports  # noqa: F401 - fixtures
from toolkit.bringup import bringup, burn_in
from toolkit.kubernetes.client import ApiServer
from toolkit.ledger import EventKind
from toolkit.pool.policy import BurninBy, KubernetesSite, PoolKind, PoolPolicy, SlurmSite
from toolkit.pool.policy_file import load_policy
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.rack.model import Host, Suite, Unit, UnitKind
from toolkit.rack.plan import make_plan
from toolkit.runners.carrier import RECORDS, Task
from toolkit.runners.job_run import Patience
from toolkit.runners.jobs import JobCarrier
from toolkit.settings import load
from toolkit.stages.carriers import CarriedBy, carried_by, in_words
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack
from toolkit.virtual.node_agent import AgentOptions, NodeAgent

NODE = "node1"
RUN = "demo-small-node1-1"


@dataclass(slots=True)
class ByJobs(InProcessRack):
    """A rack of files whose burn-ins run as Jobs."""

    carries: Any = field(default=None)

    def carrier(self, node: Unit) -> Any:
        """The cluster."""
        return self.carries


class Replaying(JobCarrier):
    """Ships another program in the place of the real one."""

    program: Path
    digest: str
    kill: bool = False  # the controller, in the moment after the evidence is on record
    started: int = 0

    def ship(self, node: Unit, archive: Path, digest: str) -> None:
        """The test's."""
        super().ship(node, self.program, self.digest)

    def start(self, node: Unit, task: Task) -> None:
        """Counted."""
        self.started += 1
        super().start(node, task)

    def forget(self, node: Unit, identity: str) -> None:
        """Dies when it should."""
        super().forget(node, identity)
        if self.kill:
            self.kill = False
            raise KilledError


class KilledError(BaseException):
    """The controller is killed: no code of ours may catch it."""


@dataclass(frozen=True)
class Burnt:
    """What a burn-in by hand left."""

    outcome: Outcome | None
    code: str
    message: str
    verdict: Any
    details: Any
    measured: Any


@pytest.fixture(scope="module")
def machine(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeAgent]:  # noqa: F811
    """node1, in the cluster too."""
    (port,) = free_ports("127.0.0.1", 1)
    with NodeAgent(control_plane, NODE, tmp_path_factory.mktemp("agent"), AgentOptions(port=port)) as made:
        yield made


@pytest.fixture
def bench(api: ApiServer, control_plane: ControlPlane, tmp_path: Path) -> Bench:  # noqa: F811
    """A namespace of its own."""
    return Bench(api, control_plane, tmp_path / "jobs")


def burn(lab: InProcessRack, times: int = 1) -> list[Burnt]:
    """Burn-ins of node1 by an operator's hand, one after the other, by one ledger."""
    found = []
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        if NODE not in ledger.node_states(lab.rack.name):
            bringup(context, make_plan(lab.rack, {}, NodeState.CONFIGURED))
        for _ in range(times):
            examined = burn_in(context, [NODE], Suite.QUICK)
            (run,) = examined.runs
            seen = ledger.find(lab.rack.name, NODE, EventKind.OBSERVED, "burnin by hand, quick")
            told = ledger.measurements(lab.rack.name, NODE, run=run.id)
            # without their times: some are found here, by our clock
            measured = sorted((m.metric, str(m.subject), str(m.value), m.unit, m.origin) for m in told)
            burned = examined.burned.get(NODE)
            found.append(Burnt(run.outcome, run.code, run.message, burned.verdict if burned else None,
                               seen.body["details"] if seen else None, measured))  # fmt: skip
    return found


def recorded(lab: InProcessRack, identity: str = RUN) -> Recorded:
    """What a run left on the node's disk."""
    folder = lab.folder / NODE / "files/var/lib/rackproof/burnin" / identity
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    return Recorded(files.pop(RECORDS), files)


def by_job(bench: Bench, run: Recorded, script: str = "write(records)") -> ByJobs:
    """The same rack, its burn-ins by a cluster whose pods replay the run."""
    tmp_path = bench.folder
    plain = without_rails(in_process(tmp_path, "demo-small"))
    lab = ByJobs(plain.rack, plain.settings, plain.folder)
    lab.carries = Replaying(bench.login, bench.carrier()._site, patience=Patience(60.0, 15.0, 0.2))
    lab.carries.program = tmp_path / "replay.pyz"
    lab.carries.digest = program(lab.carries.program, run, script)
    return lab


@pytest.mark.root
@pytest.mark.parametrize(
    "faults",
    [(), (Fault(FaultKind.HBM_STICKY_BIT, NODE, gpu=3),), (Fault(FaultKind.XID_79, NODE, gpu=5),)],
    ids=["healthy", "miscompares", "fell off the bus"],
)
def test_ssh_and_job_bring_the_same_evidence_to_the_same_verdict(
    tmp_path: Path, bench: Bench, machine: NodeAgent, faults: tuple[Fault, ...]
):  # fmt: skip
    """Every digest on record, every measurement, every finding."""
    by_ssh = without_rails(in_process(tmp_path / "ssh", "demo-small", *faults))
    (one,) = burn(by_ssh)
    (other,) = burn(by_job(bench, recorded(by_ssh)))
    assert one.details["complete"] and other.details == one.details, other.message
    assert all(len(digest) == 64 for digest in other.details["artifacts"].values())
    assert other.measured == one.measured and len(one.measured) > 100
    assert (other.verdict, other.outcome, other.code) == (one.verdict, one.outcome, one.code)
    assert one.outcome is (Outcome.FAILED if faults else Outcome.PASSED)


@pytest.mark.root
def test_a_run_whose_job_is_gone_is_read_from_the_record(tmp_path: Path, bench: Bench, machine: NodeAgent):
    """Killed between the evidence and the verdict: the same command judges what is on record, and starts nothing."""
    by_ssh = without_rails(in_process(tmp_path / "ssh", "demo-small"))
    (one,) = burn(by_ssh)
    lab = by_job(bench, recorded(by_ssh))
    lab.carries.kill = True
    with pytest.raises(KilledError):
        burn(lab)
    assert bench.jobs() == [] and lab.carries.started == 1
    (other,) = burn(lab)
    assert (other.verdict, other.details, other.outcome) == (one.verdict, one.details, Outcome.PASSED)
    assert lab.carries.started == 1 and bench.jobs() == []


@pytest.mark.root
def test_a_job_cut_in_the_middle_condemns_nobody_and_runs_again(
    tmp_path: Path, bench: Bench, machine: NodeAgent
):  # fmt: skip
    """Miscompares came before the pod was taken away: an ERROR with its reason; the next burn-in is a new run."""
    bad = without_rails(in_process(tmp_path / "ssh", "demo-small", Fault(FaultKind.HBM_STICKY_BIT, NODE, gpu=3)))
    burn(bad)
    run = recorded(bad)
    door = Door()
    cut = f"lines = records.splitlines(True); write(b''.join(lines[:-3])); wait({door.port}); time.sleep(600)"
    lab = by_job(bench, run, cut)

    def take_away(progress: object) -> None:
        """Once the program has written almost everything."""
        pods = bench.api.list("v1", "Pod", bench.namespace)
        if "hbm" in str(progress) and pods and not pods[0]["metadata"].get("deletionTimestamp"):
            with door.held():
                bench.api.delete("v1", "Pod", pods[0]["metadata"]["name"], bench.namespace)

    with open_ledger(lab.settings) as ledger:
        context = replace(context_over(lab, ledger), progress=take_away)
        bringup(context, make_plan(lab.rack, {}, NodeState.CONFIGURED))
        (first,) = burn_in(context, [NODE], Suite.QUICK).runs
        assert (first.outcome, first.code) == (Outcome.ERROR, "BURNIN_CUT")
        assert re.search("its pod (was deleted|is gone)|status -15", first.message)
        seen = ledger.find(lab.rack.name, NODE, EventKind.OBSERVED, "burnin by hand, quick")
        assert seen is not None and not seen.body["details"]["complete"]
        assert ledger.node_states(lab.rack.name)[NODE].state is NodeState.CONFIGURED
        again = Recorded(run.records.replace(b"demo-small-node1-1", b"demo-small-node1-2"), run.artifacts)
        lab.carries.digest = program(lab.carries.program, again)
        (second,) = burn_in(context_over(lab, ledger), [NODE], Suite.QUICK).runs
    assert (second.outcome, second.code) == (Outcome.FAILED, "HBM_MISCOMPARE")
    door.close()


SITE = KubernetesSite(image="nvcr.io/nvidia/pytorch:25.10-py3")
HOST = Host("10.0.0.1")
UNIT = Unit(name="n", kind=UnitKind.NODE, serial="", slot=1)


@pytest.mark.parametrize(
    ("policy", "host", "by"),
    [
        (PoolPolicy(), HOST, CarriedBy.SSH),
        (PoolPolicy(), None, CarriedBy.SSH),
        (PoolPolicy(PoolKind.KUBERNETES, kubernetes=SITE), HOST, CarriedBy.SSH),
        (PoolPolicy(PoolKind.KUBERNETES, kubernetes=SITE), None, CarriedBy.JOBS),
        (PoolPolicy(PoolKind.KUBERNETES, kubernetes=replace(SITE, burnin=BurninBy.JOBS)), HOST, CarriedBy.JOBS),
        (PoolPolicy(PoolKind.KUBERNETES, kubernetes=replace(SITE, image="")), None, CarriedBy.SSH),
        (PoolPolicy(PoolKind.SLURM, kubernetes=SITE), None, CarriedBy.SSH),
        (PoolPolicy(PoolKind.SLURM, slurm=SlurmSite(shared="/nfs/burnin")), HOST, CarriedBy.SLURM),
    ],
)
def test_the_site_says_who_carries_a_burn_in(policy: PoolPolicy, host: Host | None, by: CarriedBy):
    """Jobs need an image, and a node that SSH reaches takes them only where the site says so; Slurm needs storage."""
    assert carried_by(policy, replace(UNIT, host=host)) is by


def test_a_pool_file_says_how_jobs_are_to_be(tmp_path: Path):
    """Every field of its own, with a wait in words."""
    settings = load({"RACKPROOF_HOME": str(tmp_path)})
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools/lab.yml").write_text(
        "kind: kubernetes\nkubernetes:\n  image: python:3.11\n  burnin: jobs\n  runtime_class: nvidia\n"
        "  kernel_log: false\n  burnin_wait: 5m\n"
    )
    told = load_policy(settings, "lab").kubernetes
    assert (told.burnin, told.runtime_class, told.kernel_log) == (BurninBy.JOBS, "nvidia", False)
    assert told.burnin_wait_s == 300.0


def test_a_plan_tells_who_carries():
    """Where some nodes have no SSH, by name."""
    policy = PoolPolicy(PoolKind.KUBERNETES, kubernetes=SITE)
    nodes = [replace(UNIT, host=HOST), replace(UNIT, name="m")]
    where = "Kubernetes Jobs in namespace rackproof, image nvcr.io/nvidia/pytorch:25.10-py3"
    assert in_words(policy, nodes) == ("SSH: n", f"{where}: m")
    assert in_words(policy, nodes[1:]) == (where,)
    assert in_words(PoolPolicy(), nodes) == ("SSH",)

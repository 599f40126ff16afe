"""Burn-in by jobs of a real Slurm: what comes back, and every way it may not. Recorded runs stand for the suite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from runners.job_bench import Door, Recorded, followed, program, small, task, unit
from slurm_cluster import PARTITION, Cluster, on_loopback, slurm

from toolkit.errors import UndecidedError, UnreachableError, UsageError
from toolkit.pool.policy import PoolPolicy, SlurmSite
from toolkit.pool.slurm import SlurmPool
from toolkit.runners.carrier import RECORDS
from toolkit.runners.job_output import ForgedError
from toolkit.stages import slurm_carrier
from toolkit.stages.slurm_carrier import SbatchCarrier

pytestmark = pytest.mark.root
NAMES = ("node1", "node2")
LABELS = {"rackproof.dev/rack": "demo"}
# the first line at once, the others when the test lets it go on
HALF = "lines = records.splitlines(True); write(lines[0]); wait({port}); write(b''.join(lines[1:]))"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with slurm(on_loopback(NAMES), message_s=4) as made:
        yield made


@dataclass
class Bench:
    """A site with shared storage; carriers of it are as many controllers."""

    cluster: Cluster
    pool: SlurmPool
    folder: Path
    start_s: float = 60.0

    def carrier(self) -> SbatchCarrier:
        """A controller that knows nothing yet."""
        made = SbatchCarrier(self.pool, "demo", start_s=self.start_s)
        made.poll_s = 0.2
        return made

    def shipped(self, run: Recorded, script: str = "write(records)", emit: str = "") -> SbatchCarrier:
        """A controller with this program."""
        made, archive = self.carrier(), self.folder / "burnin.pyz"
        made.ship(unit("node1"), archive, program(archive, run, script, emit))
        return made

    def state(self, name: str) -> str:
        """As sinfo has it."""
        said = self.cluster.ask("sinfo", "--noheader", "--Node", f"--nodes={name}", "--Format=StateComplete:|")
        return said.rstrip("|\n")


@pytest.fixture
def bench(cluster: Cluster, tmp_path: Path) -> Iterator[Bench]:
    """Both nodes joined and drained by us; afterwards neither a job nor a reservation."""
    site = SlurmSite(config=cluster.config, partition=PARTITION, gres="gpu", shared=str(tmp_path / "shared"))
    pool = SlurmPool(PoolPolicy(slurm=site), tmp_path / "lock")
    for name in NAMES:
        pool.register(name, "joined", LABELS)
    yield Bench(cluster, pool, tmp_path)
    cluster.ask("scancel", "--user=root")
    cluster.until(lambda: cluster.ask("squeue", "--noheader") == "", "an empty queue")
    with suppress(CalledProcessError):
        cluster.ask("scontrol", "delete", "ReservationName=rackproof_demo")


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that is one machine's shows a file's growth at once."""
    monkeypatch.setattr(slurm_carrier, "END_SECONDS", 0.5)


def test_what_a_job_wrote_comes_back_byte_for_byte(bench: Bench) -> None:
    """Records and artifacts; meanwhile nobody else gets the node, and afterwards it is drained as before."""
    run = small("r1", {"a.txt": b"raw\0\xff" * 5000, "empty": b""})
    carrier, node = bench.shipped(run), unit("node1")
    carrier.start(node, task("r1"))
    assert followed(carrier, node, "r1") == run.records
    for name, content in run.artifacts.items():
        assert carrier.read(node, "r1", name, 0, 1 << 20) == content
    with pytest.raises(FileNotFoundError, match="not in the output"):
        carrier.read(node, "r1", "other", 0, 10)
    assert carrier.doubt(node, "r1") == ""
    carrier.forget(node, "r1")
    assert bench.pool.lent() == frozenset()
    bench.cluster.until(lambda: bench.state("node1") == "idle+drain", "a node that is drained")
    assert list((bench.folder / "shared/runs").iterdir()) == []


def test_the_node_is_drained_while_its_burn_in_runs_and_reserved_before(bench: Bench, door: Door) -> None:
    """Another user's job, even one that waits, does not get in between."""
    carrier, node = bench.shipped(small("r1"), HALF.format(port=door.port)), unit("node1")
    bench.cluster.ask("sbatch", "--nodelist=node1", "--job-name=train", "--output=/dev/null", "--wrap=sleep 600")
    carrier.start(node, task("r1"))
    with door.held():
        assert carrier.is_active(node, "r1")
        assert bench.state("node1").startswith("allocated+drain")
        assert not bench.pool.nodes()["node1"].admitted
        assert carrier.others(node, "r2") != ()
        assert carrier.others(node, "r1") == ()
        carrier.start(node, task("r1"))  # again: nothing happens
        queue = bench.cluster.queue
        assert "train PENDING" in queue and queue.count("rackproof-burnin:node1:r1 RUNNING") == 1
    assert followed(carrier, node, "r1") == small("r1").records
    assert "train PENDING" in bench.cluster.queue


def test_a_controller_that_was_killed_goes_on_with_its_job(bench: Bench, door: Door) -> None:
    """By its name and its folder; what has ended is not begun again."""
    run = small("r1")
    first, node = bench.shipped(run, HALF.format(port=door.port)), unit("node1")
    first.start(node, task("r1"))
    with door.held():
        second = bench.shipped(run, HALF.format(port=door.port))
        assert second.is_active(node, "r1")
        second.start(node, task("r1"))
    assert followed(second, node, "r1") == run.records
    third = bench.carrier()
    bench.cluster.until(lambda: bench.cluster.ask("squeue", "--noheader") == "", "the job's end")
    assert not third.is_active(node, "r1")
    third.ship(node, bench.folder / "burnin.pyz", program(bench.folder / "burnin.pyz", run))
    third.start(node, task("r1"))
    assert bench.cluster.ask("squeue", "--noheader") == ""
    assert third.read(node, "r1", RECORDS, 0, 1 << 20) == run.records
    assert third.doubt(node, "r1") == ""


def test_two_controllers_at_once_run_it_once(bench: Bench) -> None:
    """Both may submit; one job has the run, and the other one ends without a word."""
    run = small("r1")
    carriers = [bench.shipped(run) for _ in range(2)]
    node = unit("node1")
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda carrier: carrier.start(node, task("r1")), carriers))
    assert [followed(carrier, node, "r1") for carrier in carriers] == [run.records] * 2
    assert [carrier.doubt(node, "r1") for carrier in carriers] == ["", ""]


def test_a_busy_node_is_waited_for_and_then_left_alone(bench: Bench) -> None:
    """Who holds it is named; our job is cancelled, his goes on, and no reservation is left."""
    bench.pool.admit("node1", "ab" * 32, datetime(2099, 1, 1, tzinfo=UTC), LABELS)
    number = bench.cluster.ask("sbatch", "--parsable", "--nodelist=node1", "--job-name=train", "--output=/dev/null",
                               "--exclusive", "--wrap=sleep 600").strip()  # fmt: skip
    bench.cluster.until(lambda: "train RUNNING" in bench.cluster.queue, "a running job")
    bench.pool.evict("node1", "to be tested again")
    bench.start_s = 1.0
    carrier, node = bench.shipped(small("r1")), unit("node1")
    carrier.start(node, task("r1"))
    with pytest.raises(UndecidedError, match=f"did not begin within .*: job {number} train of root"):
        followed(carrier, node, "r1")
    assert bench.cluster.queue == f"{number} train RUNNING\n{number}.batch batch\n"
    assert bench.pool.lent() == frozenset()
    assert "drain" in bench.state("node1")


def test_a_node_that_somebody_else_drained_is_not_lent(bench: Bench) -> None:
    """His words come back, and nothing is submitted."""
    bench.cluster.ask("scontrol", "update", "NodeName=node1", "State=DRAIN", "Reason=NHC: fan 3")
    carrier = bench.shipped(small("r1"))
    with pytest.raises(UndecidedError, match=r"NHC: fan 3\. Its drain is not rackproof's to end"):
        carrier.start(unit("node1"), task("r1"))
    assert bench.cluster.ask("squeue", "--noheader") == ""
    bench.cluster.ask("scontrol", "update", "NodeName=node1", "State=RESUME")


def test_a_job_that_is_cancelled_in_the_middle_is_no_evidence(bench: Bench, door: Door, impatient: None) -> None:
    """What came stays, with a doubt; stop proves that nothing is left."""
    carrier, node = bench.shipped(small("r1"), HALF.format(port=door.port)), unit("node1")
    carrier.start(node, task("r1"))
    with door.held():
        bench.cluster.until(lambda: carrier.read(node, "r1", RECORDS, 0, 100) != b"", "a first record")
        carrier.stop(node, "r1")
        assert bench.cluster.ask("squeue", "--noheader") == ""
    assert "has no end" in carrier.doubt(node, "r1") or "ended with status" in carrier.doubt(node, "r1")
    assert bench.pool.lent() == frozenset()


def test_a_slurmctld_that_is_away_in_the_middle_costs_nothing(bench: Bench, door: Door) -> None:
    """The job goes on, its output comes, and the end is seen when slurmctld is back."""
    run = small("r1")
    carrier, node = bench.shipped(run, HALF.format(port=door.port)), unit("node1")
    carrier.start(node, task("r1"))
    with door.held():
        assert carrier.is_active(node, "r1")
        bench.cluster.stop("slurmctld")
        assert carrier.is_active(node, "r1")
        threading.Timer(1.0, lambda: bench.cluster.begin_slurmctld("-R")).start()
    assert followed(carrier, node, "r1") == run.records
    assert carrier.doubt(node, "r1") == ""


def test_output_of_another_machine_is_refused(bench: Bench) -> None:
    """What it measured is not this node's."""
    emit = "import os; os.environ['RACKPROOF_NODE'] = 'node2'"
    carrier, node = bench.shipped(small("r1"), emit=emit), unit("node1")
    carrier.start(node, task("r1"))
    with pytest.raises(ForgedError, match="a machine of node node2"):
        followed(carrier, node, "r1")


def test_a_program_that_is_not_the_one_ordered_does_not_run(bench: Bench, impatient: None) -> None:
    """Somebody changed it on the shared storage."""
    carrier, node = bench.shipped(small("r1")), unit("node1")
    (stored,) = (bench.folder / "shared").glob("burnin-*.pyz")
    stored.write_bytes(b"#!/usr/bin/python3\nprint('all is well')\n")
    carrier.start(node, task("r1"))
    assert followed(carrier, node, "r1") == b""
    assert "the program is not" in carrier.doubt(node, "r1")


def test_without_shared_storage_there_is_no_such_carrier(bench: Bench, tmp_path: Path) -> None:
    """And storage that is not mounted is said."""
    bare = SlurmPool(PoolPolicy(slurm=replace(bench.pool.site, shared="")), tmp_path / "lock")
    with pytest.raises(UsageError, match="need shared storage"):
        SbatchCarrier(bare, "demo")
    (tmp_path / "file").touch()
    site = replace(bench.pool.site, shared=str(tmp_path / "file/shared"))
    away = SbatchCarrier(SlurmPool(PoolPolicy(slurm=site), tmp_path / "lock"), "demo")
    archive = tmp_path / "p.pyz"
    with pytest.raises(UnreachableError, match="shared storage is mounted"):
        away.ship(unit("node1"), archive, program(archive, small("r1")))

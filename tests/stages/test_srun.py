"""A collective over three hosts by the real srun in an allocation of a real Slurm: what it measures, how failures end.

slurmctld and munged run beside the hosts, a slurmd in each of them: its own address, name, processes and spool.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from slurm_cluster import Cluster, Member, slurm

from toolkit.errors import UndecidedError, UsageError
from toolkit.facts.nccl_path import Answer, Fabric
from toolkit.facts.nccl_run import Outcome
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome as Ended
from toolkit.rack.model import Slurm
from toolkit.runners.ssh import SshShell
from toolkit.settings import load
from toolkit.stages import mpi_command
from toolkit.stages.collective_result import Collected, Remains, result
from toolkit.stages.collectives import Site, end, measure
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order
from toolkit.virtual.faults import Fault, FaultKind

if TYPE_CHECKING:
    from conftest import Hosts

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30
CONTROLLER = "10.213.77.254"  # this machine's end of the hosts' bridge
STEP_DAEMON_SECONDS = 10.0  # Slurm takes a job out of its queue before the daemon of its batch step has ended
# a rank that is nothing but Open MPI: who it is, and a sum over all ranks
_REAL_MPI = """#!{python} -S
import ctypes, socket
mpi = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
handle = lambda name: ctypes.byref((ctypes.c_char * 1).in_dll(mpi, name))
world = handle("ompi_mpi_comm_world")
assert mpi.MPI_Init(None, None) == 0
rank, size, total = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
mpi.MPI_Comm_rank(world, ctypes.byref(rank)), mpi.MPI_Comm_size(world, ctypes.byref(size))
mpi.MPI_Allreduce(ctypes.byref(rank), ctypes.byref(total), 1, handle("ompi_mpi_int"), handle("ompi_mpi_op_sum"), world)
print(f"rank {{rank.value}} of {{size.value}} on {{socket.gethostname()}}, sum {{total.value}}", flush=True)
mpi.MPI_Finalize()
"""


@dataclass
class OverSsh:
    """Hands that reach nodes by SSH and nothing else."""

    shell: SshShell


@dataclass
class Hosted(Cluster):
    """A Slurm of the hosts."""

    hosts: Hosts = field(kw_only=True)


def inside(hosts: Hosts, name: str) -> tuple[str, ...]:
    """argv that enters a host."""
    outer = hosts.servers[name].pid
    inner = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0]
    return ("nsenter", f"--target={inner}", "--mount", "--uts", "--net", "--pid")


@pytest.fixture
def cluster(hosts: Hosts) -> Iterator[Hosted]:
    """Slurm over the hosts, with a munged of its own; all of it ends with the test."""
    members = [Member(n.name, n.host.address, enter=inside(hosts, n.name)) for n in hosts.rack.nodes if n.host]
    with slurm(members, CONTROLLER) as made:
        yield Hosted(made.folder, made.members, made.daemons, hosts=hosts)


@dataclass
class Bench:
    """Measures over the hosts; `slurm` changes the rack's setting, other keyword arguments the order."""

    cluster: Hosted
    context: Context
    site: Site

    def __call__(self, slurm: Slurm | None = None, **change: object) -> Collected:
        """What it came to."""
        context = self._context(slurm)
        collected = measure(context, self._order(change), Fabric.NIC, self.site)
        kinds = [e.kind for e in context.ledger.events(context.rack.name, collected.order.nodes[0].name)]
        assert kinds.index(EventKind.INTENT) < kinds.index(EventKind.OBSERVED)
        return collected

    def end(self, **change: object) -> tuple[Remains, ...]:
        """What a controller does that finds a run that another has left."""
        return end(self._context(None), self._order(change), self.site)

    def _context(self, slurm: Slurm | None) -> Context:
        slurm = slurm or Slurm(gres="gpu", config=self.cluster.config)
        return replace(self.context, rack=replace(self.context.rack, slurm=slurm))

    def _order(self, change: dict[str, object]) -> Order:
        hosts = self.cluster.hosts
        plain = Order("c1", "all_reduce", hosts.rack.nodes, 2, 60, 256 << 20, GIB, programs=str(hosts.folder / "bin"))
        return replace(plain, **change)  # type: ignore[arg-type]


@pytest.fixture
def bench(cluster: Hosted) -> Iterator[Bench]:
    """The cluster's, by a controller that knows its hosts' keys."""
    hosts = cluster.hosts
    settings = load({"RACKPROOF_HOME": str(hosts.folder / "home"), "RACKPROOF_CACHE": str(hosts.folder / "cache")})
    settings.keys.mkdir(parents=True, mode=0o700)
    (settings.keys / "login").write_bytes((hosts.folder / "login").read_bytes())
    (settings.keys / "login").chmod(0o600)
    pinned = settings.known_hosts(hosts.rack.name)
    pinned.parent.mkdir(parents=True)
    keys = {n: (hosts.home(n.name) / "host.pub").read_text().strip() for n in hosts.rack.nodes}
    pinned.write_text("".join(f"{n.host.address} {key}\n" for n, key in keys.items() if n.host))
    ledger = Ledger.open(settings.ledger_url, settings.artifacts, "test", lambda: datetime.now(UTC))
    site = Site(str(ROOT), str(hosts.folder / "runs"), sys.executable, str(hosts.folder / "infiniband"))
    with SshShell(settings, hosts.rack.name) as shell:
        context = Context(
            hosts.rack, settings, ledger, OverSsh(shell), lambda: datetime.now(UTC), time.sleep, lambda p: None,  # type: ignore[arg-type]
        )  # fmt: skip
        yield Bench(cluster, context, site)


def nothing_is_left(cluster: Hosted) -> None:
    """Neither a job nor a step in Slurm's queue, no rank on any host; Slurm's own step daemons follow their job."""
    assert cluster.queue == ""
    for word in (f"{cluster.hosts.folder}/bin", "/srun --", "/salloc --"):
        assert cluster.hosts.processes(word) == []
    until = time.monotonic() + STEP_DAEMON_SECONDS
    while left := cluster.hosts.processes("slurmstepd"):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_a_collective_in_an_allocation_is_one_communicator_over_the_hosts_hcas(bench: Bench, cluster: Hosted) -> None:
    """Six ranks that PMIx brought together, in the order's order, with no environment but the one on record."""
    order = tuple(reversed(cluster.hosts.rack.nodes))
    collected = bench(nodes=order)
    assert collected.outcome is Outcome.COMPLETED, collected.output
    assert (collected.run.ranks, collected.run.hosts, collected.run.wrong_total) == (6, 3, 0)
    assert collected.proof.answer is Answer.PROVEN, collected.proof.text
    assert result(collected).outcome is Ended.PASSED, result(collected)
    nothing_is_left(cluster)


def test_srun_brings_ranks_of_a_real_mpi_together_and_not_without_pmix(bench: Bench, cluster: Hosted) -> None:
    """Open MPI's own library in every rank, in the place of nccl-tests: one communicator of six, through PMIx alone."""
    (cluster.hosts.folder / "bin/alltoall_perf").write_text(_REAL_MPI.format(python=sys.executable))
    # Debian's Open MPI 4.1.4 sets up its TCP connections in a thread of its own, and on a busy machine a rank of it now
    # and then dies there of a null pointer. Whether PMIx brings the ranks together is what is asked here.
    for _ in range(3):
        said = bench(collective="alltoall").output
        if "Segmentation fault" not in said:
            break
    assert sorted(line for line in said.splitlines() if " of " in line and "***" not in line) == [
        f"rank {rank} of 6 on node{1 + rank // 2}, sum 15" for rank in range(6)
    ], said
    nothing_is_left(cluster)
    program = str(cluster.hosts.folder / "bin/alltoall_perf")
    argv = ("srun", "--mpi=none", "--nodes=3", "--ntasks=6", "--overcommit", program)
    with pytest.raises(subprocess.CalledProcessError) as alone:
        cluster.ask(*argv)
    assert alone.value.stdout == "" and "An error occurred in MPI_Init" in alone.value.stderr


@pytest.mark.parametrize("state", ["drain", "down"])
def test_a_node_that_slurm_does_not_give_is_named_with_its_reason(bench: Bench, cluster: Hosted, state: str) -> None:
    """Nothing was measured, and nothing waits in the queue."""
    name = cluster.hosts.rack.nodes[1].name
    cluster.ask("scontrol", "update", f"nodename={name}", f"state={state}", "reason=optic of rail 3")
    ended = result(bench(deadline_s=10))
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_LAUNCHER_ERROR")
    assert f"Slurm has {name} as {'drained' if state == 'drain' else 'down'}: optic of rail 3" in ended.message
    assert "Unable to allocate resources" in ended.message
    nothing_is_left(cluster)


@pytest.mark.parametrize("fault", [FaultKind.NCCL_HANG, FaultKind.NCCL_ABSENT])
def test_a_hang_ends_at_its_deadline_with_the_allocation(bench: Bench, cluster: Hosted, fault: FaultKind) -> None:
    """In a collective and in the bootstrap; the deadline is ours, minutes before Slurm's."""
    cluster.hosts.break_by(Fault(fault, cluster.hosts.rack.nodes[1].name))
    begun = time.monotonic()
    collected = bench(deadline_s=10)
    assert time.monotonic() - begun < 45
    ended = result(collected)
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_INCOMPLETE")
    assert "no end within 10 s, 0 rows and 6 ranks printed" in ended.message
    assert len(collected.remains) == len(cluster.hosts.rack.nodes)
    assert all(r.alive == () and r.problem == "" for r in collected.remains), collected.remains
    nothing_is_left(cluster)


def test_a_host_that_dies_in_the_middle_is_named(bench: Bench, cluster: Hosted) -> None:
    """Its slurmd is gone with every process; the others are stopped, and Slurm gives the allocation up."""
    hosts, victim = cluster.hosts, cluster.hosts.rack.nodes[2]
    hosts.break_by(Fault(FaultKind.NCCL_HANG, victim.name))

    def die() -> None:
        until = time.monotonic() + 30
        while len(hosts.processes("_perf -b 2")) < 6 and time.monotonic() < until:
            time.sleep(0.1)
        hosts.kill(victim.name)

    thread = threading.Thread(target=die)
    thread.start()
    collected = bench(deadline_s=20)
    thread.join()
    ended = result(collected)
    assert ended.outcome is Ended.ERROR and victim.name in ended.message, ended
    assert [r.node for r in collected.remains if r.problem] == [victim.name], collected.remains
    nothing_is_left(cluster)


def test_what_outlives_its_step_is_found_and_ended_on_every_host(bench: Bench, cluster: Hosted) -> None:
    """A rank that starts something deaf to SIGTERM and goes: Slurm ended the step, the mark finds what is left."""
    deaf = "setsid sh -c \"trap '' TERM; while :; do sleep 0.2; done # left_perf -b\" >/dev/null 2>&1 </dev/null &"
    (cluster.hosts.folder / "bin/alltoall_perf").write_text(f"#!/bin/sh\n{deaf}\nexit 0\n")
    collected = bench(collective="alltoall", deadline_s=30)
    assert result(collected).code == "COLLECTIVE_INCOMPLETE"
    assert len(collected.remains) == len(cluster.hosts.rack.nodes)
    assert all(r.alive == () for r in collected.remains), collected.remains
    nothing_is_left(cluster)


def test_a_job_that_holds_the_nodes_takes_steps_side_by_side_and_outlives_them(bench: Bench, cluster: Hosted) -> None:
    """Two collectives on the same nodes at once, one of which hangs: only its step is cancelled."""
    held = Slurm(allocation="held", gres="gpu", config=cluster.config)
    with pytest.raises(UndecidedError, match="Slurm runs 0 jobs named held"):
        bench(slurm=held)
    cluster.ask(
        "salloc", "--no-shell", "--exclusive", "--mem=0", "--nodes=3", "--gres=gpu:8", "--job-name=held", "--time=10"
    )
    ran: dict[str, Collected] = {}

    def rail(name: str, number: int) -> None:
        environment = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": str(number),
                       "NCCL_IB_HCA": f"=mlx5_{number}"}  # fmt: skip
        ran[name] = bench(slurm=held, identity=name, gpus_per_node=1, environment=environment, beside="rail")

    threads = [threading.Thread(target=rail, args=(f"rail{number}", number)) for number in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: result(collected).outcome for name, collected in ran.items()} == dict.fromkeys(
        ("rail3", "rail4"), Ended.PASSED
    ), [(result(c), c.output) for c in ran.values()]
    cluster.hosts.break_by(Fault(FaultKind.NCCL_HANG, cluster.hosts.rack.nodes[1].name))
    assert result(bench(slurm=held, identity="hangs", deadline_s=8)).code == "COLLECTIVE_INCOMPLETE"
    assert cluster.queue.split()[1:] == ["held", "RUNNING"]
    assert cluster.hosts.processes("_perf -b") == []
    cluster.ask("scancel", "--name=held")


def test_the_gpu_of_the_order_is_taken_and_not_the_one_that_slurm_counts_from(bench: Bench, cluster: Hosted) -> None:
    """Slurm's plugin sets CUDA_VISIBLE_DEVICES to all GPUs of the step; but for its own, no variable comes unasked."""
    (cluster.hosts.folder / "bin/alltoall_perf").write_text("#!/bin/sh\nexec /usr/bin/env\n")
    collected = bench(collective="alltoall", environment={"CUDA_VISIBLE_DEVICES": "5"})
    lines = collected.output.splitlines()
    assert lines.count("CUDA_VISIBLE_DEVICES=5") == 6, collected.output
    names = {line.partition("=")[0] for line in lines if re.fullmatch(r"[A-Z][A-Za-z0-9_]+=.*", line)}
    recorded = set(mpi_command.environment(collected.order, "")) | {"OMPI_MCA_btl", "OMPI_MCA_pml"}
    assert recorded <= names
    foreign = {name for name in names - recorded if not name.startswith(("SLURM_", "SLURMD_", "PMIX_"))}
    slurms = {"GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "TMPDIR", "PWD"}
    assert foreign <= slurms, foreign
    (plain,) = {line for line in bench(collective="alltoall", identity="c2").output.splitlines() if "CUDA_" in line}
    assert plain == "CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7"


def test_what_a_killed_controller_left_is_cancelled_by_the_next(bench: Bench, cluster: Hosted) -> None:
    """The allocation by the run's name, and its ranks by their mark."""
    cluster.ask("salloc", "--no-shell", "--exclusive", "--nodes=3", "--job-name=c9", "--time=10")
    job = cluster.queue.split()[0]
    cluster.begin("step", "srun", f"--jobid={job}", "--overlap", "--export=RACKPROOF_COLLECTIVE=c9,PATH=/usr/bin:/bin",
                  "sleep", "600.25")  # fmt: skip
    until = time.monotonic() + 20
    while len(cluster.hosts.processes("sleep 600.25")) < 3 and time.monotonic() < until:
        time.sleep(0.1)
    remains = bench.end(identity="c9")
    assert [(r.alive, r.problem) for r in remains] == [((), "")] * 3, remains
    nothing_is_left(cluster)
    assert cluster.hosts.processes("sleep 600.25") == []


def test_a_slurm_that_does_not_answer_is_said_and_not_taken_for_an_end(bench: Bench, cluster: Hosted) -> None:
    """slurmctld is gone: nothing was measured, and nobody can tell what it would start when it comes back."""
    cluster.kill("slurmctld")
    ended = result(bench(deadline_s=20))
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_LAUNCHER_ERROR"), ended
    assert "Unable to contact slurm controller" in ended.message
    assert "nobody can tell what still runs on node1: " in ended.message


def test_tests_side_by_side_without_such_a_job_are_refused(bench: Bench, cluster: Hosted) -> None:
    """Slurm would run them one after another, and their deadlines would pass."""
    with pytest.raises(UsageError, match="Slurm gives a node to one job"):
        bench(beside="rail")
    assert cluster.queue == ""

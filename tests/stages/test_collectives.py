"""A collective over three hosts by the real mpirun over the real ssh: what it measures, and how every failure ends."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from toolkit.errors import UndecidedError
from toolkit.facts.nccl_path import Answer, Fabric
from toolkit.facts.nccl_run import Outcome
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome as Ended
from toolkit.runners.ssh import SshShell
from toolkit.settings import load
from toolkit.stages import collectives
from toolkit.stages.collective_result import Collected, measured, result
from toolkit.stages.collectives import Site, measure
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order
from toolkit.virtual.faults import Fault, FaultKind

if TYPE_CHECKING:
    from conftest import Hosts

pytestmark = pytest.mark.root
ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30


@dataclass
class OverSsh:
    """Hands that reach nodes by SSH and nothing else."""

    shell: SshShell


Measure = Callable[..., Collected]


@pytest.fixture
def bench(hosts: Hosts) -> Iterator[Measure]:
    """Measures over the hosts; keyword arguments change the order."""
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
    plain = Order(
        "c1", "all_reduce", hosts.rack.nodes, 8, 60, smallest=256 << 20, largest=GIB, programs=str(hosts.folder / "bin")
    )
    with SshShell(settings, hosts.rack.name) as shell:
        hands = OverSsh(shell)
        context = Context(hosts.rack, settings, ledger, hands, lambda: datetime.now(UTC), time.sleep, lambda p: None)  # type: ignore[arg-type]

        def run(**change: object) -> Collected:
            order = replace(plain, **change)  # type: ignore[arg-type]
            collected = measure(context, order, Fabric.NIC, site)
            kinds = [e.kind for e in ledger.events(hosts.rack.name, hosts.rack.nodes[0].name)]
            assert kinds.index(EventKind.INTENT) < kinds.index(EventKind.OBSERVED)
            return collected

        yield run


def nothing_is_left(hosts: Hosts, identity: str = "c1") -> None:
    """No process of the run on any host that lives, no key that lets in, no private key."""
    assert hosts.processes("_perf -b") == [] and hosts.processes("orted") == []
    for node in hosts.rack.nodes:
        home = hosts.home(node.name)
        assert "rackproof:" not in (home / ".ssh/authorized_keys").read_text()
        assert not (home / "runs" / identity / "key").exists()


def test_a_collective_over_three_hosts_is_one_communicator_over_their_hcas(bench: Measure, hosts: Hosts) -> None:
    """24 ranks, the rate that eight rails allow, and HCAs that counted what had to cross."""
    collected = bench()
    assert collected.outcome is Outcome.COMPLETED, collected.output
    assert (collected.run.ranks, collected.run.hosts, collected.run.wrong_total) == (24, 3, 0)
    assert collected.run.busbw is not None and 440 < collected.run.busbw[0] < 490
    assert collected.proof.answer is Answer.PROVEN, collected.proof.text
    ended = result(collected)
    assert ended.outcome is Ended.PASSED, ended
    numbers = {metric: value for metric, _, value in measured(collected)}
    assert numbers["rack_nccl_all_reduce_ranks"] == 24 and numbers["rack_nccl_all_reduce_path"] == "proven"
    nothing_is_left(hosts)


def test_a_rail_at_half_its_rate_costs_bandwidth_and_still_carries_its_share(bench: Measure, hosts: Hosts) -> None:
    """The slowest rail paces the ring: a number for the gate, on the right fabric."""
    hosts.break_by(Fault(FaultKind.HALF_RATE_RAIL, hosts.rack.nodes[1].name, hca="mlx5_3"))
    collected = bench()
    assert result(collected).outcome is Ended.PASSED
    assert collected.run.busbw is not None and 250 < collected.run.busbw[1] < 300


def test_a_pair_on_one_rail_is_that_rails_alone(bench: Measure, hosts: Hosts) -> None:
    """One GPU and one HCA a host, no way inside a host: the others' counters are no part of the proof."""
    hosts.break_by(Fault(FaultKind.SLOW_RAIL, hosts.rack.nodes[1].name, hca="mlx5_3"))
    rail = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"}
    pair = {"nodes": hosts.rack.nodes[:2], "gpus_per_node": 1}
    slow = bench(**pair, environment=rail | {"NCCL_IB_HCA": "=mlx5_3", "CUDA_VISIBLE_DEVICES": "3"})
    assert result(slow).outcome is Ended.PASSED, result(slow)
    assert slow.run.busbw is not None and 23 < slow.run.busbw[0] < 24
    assert "NET/IB" in slow.proof.text and slow.proof.fraction is not None and slow.proof.fraction > 1
    whole = bench(**pair, identity="c2", environment=rail | {"NCCL_IB_HCA": "=mlx5_4", "CUDA_VISIBLE_DEVICES": "4"})
    assert whole.run.busbw is not None and 46 < whole.run.busbw[0] < 48
    nothing_is_left(hosts)


def test_sockets_on_one_host_are_the_wrong_fabric(bench: Measure, hosts: Hosts) -> None:
    """An ERROR that says what was measured instead."""
    hosts.break_by(Fault(FaultKind.WRONG_TRANSPORT, hosts.rack.nodes[2].name))
    ended = result(bench(largest=256 << 20))
    assert (ended.outcome, ended.code) == (Ended.ERROR, "WRONG_FABRIC")
    assert "measured the wrong fabric: NET/Socket between ranks" in ended.message


def test_a_rank_that_hangs_ends_at_the_deadline_on_every_host(bench: Measure, hosts: Hosts) -> None:
    """All ranks wait for one another for ever; ours is the end."""
    hosts.break_by(Fault(FaultKind.NCCL_HANG, hosts.rack.nodes[1].name))
    begun = time.monotonic()
    collected = bench(deadline_s=10)
    assert time.monotonic() - begun < 45
    ended = result(collected)
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_INCOMPLETE")
    assert "no end within 10 s, 0 rows and 24 ranks printed" in ended.message
    assert all(r.alive == () and r.problem == "" for r in collected.remains)
    nothing_is_left(hosts)


def test_a_host_that_dies_in_the_middle_is_named(bench: Measure, hosts: Hosts) -> None:
    """Its kernel is gone with every process; the others are stopped, and it is said that nobody can ask it."""
    victim = hosts.rack.nodes[2]
    hosts.break_by(Fault(FaultKind.NCCL_HANG, victim.name))

    def die() -> None:
        until = time.monotonic() + 30
        while len(hosts.processes("_perf -b")) < 24 and time.monotonic() < until:
            time.sleep(0.1)
        hosts.kill(victim.name)

    thread = threading.Thread(target=die)
    thread.start()
    collected = bench(deadline_s=25)
    thread.join()
    ended = result(collected)
    assert ended.outcome is Ended.ERROR and victim.name in ended.message, ended
    assert [r.node for r in collected.remains if r.problem] == [victim.name]
    assert hosts.processes("_perf -b") == []


def test_a_host_that_refuses_ssh_is_named(bench: Measure, hosts: Hosts) -> None:
    """The key is let in on one host only: the other is a launcher's error, not a crash of NCCL."""
    refused = hosts.rack.nodes[1]
    keys = hosts.home(refused.name) / ".ssh/authorized_keys"
    stop = threading.Event()

    def forget() -> None:
        while not stop.is_set():
            lines = keys.read_text().splitlines()
            if any("rackproof:" in line for line in lines):
                keys.write_text("".join(f"{line}\n" for line in lines if "rackproof:" not in line))
            time.sleep(0.005)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        collected = bench(deadline_s=30)
    finally:
        stop.set()
        thread.join()
    ended = result(collected)
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_LAUNCHER_ERROR"), collected.output
    assert refused.name in ended.message and "Permission denied" in ended.message
    nothing_is_left(hosts)


def test_a_host_at_another_address_is_not_let_in(bench: Measure, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostfile's entry that nobody answers at ends in time, with the node's name."""
    written = collectives.mpi_command.hostfile
    address = hosts.rack.nodes[2].host
    assert address is not None
    monkeypatch.setattr(
        collectives.mpi_command, "hostfile", lambda order: written(order).replace(address.address, "10.213.77.99")
    )
    begun = time.monotonic()
    ended = result(bench(deadline_s=40))
    assert time.monotonic() - begun < 60
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_LAUNCHER_ERROR"), ended
    assert "10.213.77.99" in ended.message
    nothing_is_left(hosts)


def test_a_gpu_lost_in_the_middle_is_a_crash_with_its_host(bench: Measure, hosts: Hosts) -> None:
    """CUDA failed on one rank; the others learn it from NCCL."""
    hosts.break_by(Fault(FaultKind.XID_79, hosts.rack.nodes[1].name, gpu=5, value=4096))
    ended = result(bench())
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_CRASHED")
    assert f"{hosts.rack.nodes[1].name}: Test CUDA failure" in ended.message
    nothing_is_left(hosts)


def test_a_program_that_is_not_there_is_the_launchers_error(bench: Measure, hosts: Hosts) -> None:
    """Nothing was measured, and the program is named."""
    ended = result(bench(collective="sendrecv"))
    assert (ended.outcome, ended.code) == (Ended.ERROR, "COLLECTIVE_LAUNCHER_ERROR"), ended
    assert "sendrecv_perf" in ended.message
    nothing_is_left(hosts)


def test_what_leaves_its_session_is_found_and_ended_on_every_host(bench: Measure, hosts: Hosts) -> None:
    """A rank that starts something deaf to SIGTERM and goes: mpirun knows nothing of it, the mark does."""
    deaf = "setsid sh -c \"trap '' TERM; while :; do sleep 0.2; done # left_perf -b\" >/dev/null 2>&1 </dev/null &"
    (hosts.folder / "bin/alltoall_perf").write_text(f"#!/bin/sh\n{deaf}\nexit 0\n")
    collected = bench(collective="alltoall", deadline_s=30)
    assert result(collected).code == "COLLECTIVE_INCOMPLETE"
    assert all(r.found >= 8 and r.alive == () for r in collected.remains), collected.remains
    nothing_is_left(hosts)


def test_a_node_with_another_run_of_ours_is_left_alone(bench: Measure, hosts: Hosts) -> None:
    """Two tests on one node would measure each other; nothing is started, and the node is named."""
    other = hosts.home(hosts.rack.nodes[2].name) / "rackproof-burnin-r7.pid"
    other.write_text("1\n")  # the host's first process: as good as a burn-in that runs
    with pytest.raises(UndecidedError, match=f"{hosts.rack.nodes[2].name} is busy with rackproof-burnin-r7"):
        bench()
    nothing_is_left(hosts)

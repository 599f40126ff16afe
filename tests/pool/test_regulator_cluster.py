"""The regulator over a real API server: taints fall wave by wave, and are back when something is bad."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.kubernetes.plane import api, control_plane
from tests.pool.cluster_nodes import DIGEST, EXPIRES, Nodes, nodes, until
from toolkit.kubernetes.client import ApiServer
from toolkit.ledger import Ledger
from toolkit.ledger.holder import this_process
from toolkit.pool.desk import Entry, KeptOut, Site
from toolkit.pool.door import TAINT
from toolkit.pool.election import Terms
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.model import Smoked
from toolkit.pool.policy import KubernetesSite, Regulation
from toolkit.pool.regulator import Regulator
from toolkit.pool.waves import Candidate
from toolkit.virtual.control_plane.plane import ControlPlane

__all__ = ["api", "control_plane", "nodes"]

SHORT = Terms(duration_s=8.0, renew_s=0.5)
QUICK = Regulation(soak_s=0.0, poll_s=0.1, patience_s=60.0, smoke=False)


class Desk:
    """Lets every node in by the same certificate; keeps the results."""

    def __init__(self) -> None:
        self.results: dict[str, str] = {}
        self.told: dict[str, KeptOut] = {}

    def entry(self, node: str) -> Entry | None:
        """Everybody's."""
        return Entry(DIGEST, EXPIRES, {"rackproof.dev/rack": "demo"})

    def each(self, nodes: Sequence[str], do: Callable[[str], None]) -> None:
        """Side by side."""
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(do, nodes))

    def void(self, entries: Mapping[str, Entry]) -> Mapping[str, str]:
        """Nobody's is."""
        return {}

    def admitted(self, node: str, entry: Entry, smoked: Smoked) -> None:
        """Kept."""
        self.results[node] = "ADMITTED"

    def kept_out(self, node: str, why: KeptOut) -> None:
        """Kept."""
        self.results[node], self.told[node] = why.code, why

    def tell(self, node: str, text: str, done: float | None = None) -> None:
        """Nobody watches."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "a", "test", lambda: datetime.now(UTC)) as opened:
        yield opened


Make = Callable[..., tuple[Regulator, Desk]]


@pytest.fixture
def regulator(api: ApiServer, ledger: Ledger) -> Make:
    """One over the cluster, with a desk of its own."""

    def make(regulation: Regulation = QUICK, holder: str = this_process()) -> tuple[Regulator, Desk]:
        desk, pool = Desk(), KubernetesPool(api, KubernetesSite(namespace="default"), terms=SHORT)
        site = Site("demo", pool, regulation, ledger, holder, lambda: datetime.now(UTC), time.sleep)
        return Regulator(site, desk), desk

    return make


def tainted(nodes: Nodes) -> list[str]:
    """Which of the test's nodes take no jobs."""
    return [name for name in nodes.names if TAINT in nodes.seen(name).taints]


def candidates(nodes: Nodes) -> list[Candidate]:
    return [Candidate(name) for name in nodes.names]


def test_waves_lift_the_taint_of_every_node(regulator: Make, nodes: Nodes) -> None:
    """One, two, three of six: three requests a node, and looks that cost the same whatever a wave's size is."""
    for _ in range(6):
        nodes.add()
    run, desk = regulator()
    before = nodes.api.requests
    run.run(candidates(nodes))
    spent = nodes.api.requests - before
    assert desk.results == dict.fromkeys(nodes.names, "ADMITTED")
    assert tainted(nodes) == []
    assert spent <= 3 * 6 + 15 * 3


def test_an_xid_that_a_health_agent_tells_puts_the_taint_back_on_its_whole_wave(regulator: Make, nodes: Nodes) -> None:
    """The canary counts; of the second wave one node goes bad; the third is not begun."""
    for _ in range(4):
        nodes.add()
    canary, ill, sibling, last = nodes.names
    run, desk = regulator(replace(QUICK, soak_s=1.0, poll_s=0.2))

    def fall_ill() -> None:
        until(lambda: desk.results.get(canary) and TAINT not in nodes.seen(ill).taints)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        xid = {"type": "GpuXidError", "status": "True", "reason": "GpuXidErrorIsNotHealthy", "message": "Xid 79",
               "lastTransitionTime": now, "lastHeartbeatTime": now}  # fmt: skip
        nodes.api.patch("v1", "Node", ill, {"status": {"conditions": [xid]}}, how="strategic", subresource="status")

    agent = threading.Thread(target=fall_ill)
    agent.start()
    run.run(candidates(nodes))
    agent.join()
    assert desk.results == {
        canary: "ADMITTED", ill: "CONDITION_GPU_XID_ERROR", sibling: "ADMISSION_HALTED", last: "ADMISSION_NOT_BEGUN"
    }  # fmt: skip
    assert "Xid 79" in desk.told[ill].message
    assert tainted(nodes) == [ill, sibling, last]


def test_an_api_server_that_is_away_in_the_middle_of_a_wave_is_waited_for(
    regulator: Make, nodes: Nodes, control_plane: ControlPlane
) -> None:
    """The lead is taken anew, the wave is watched to its end, the others follow."""
    for _ in range(3):
        nodes.add()
    run, desk = regulator(replace(QUICK, soak_s=1.0, poll_s=0.2))
    done = threading.Thread(target=run.run, args=(candidates(nodes),))
    done.start()
    try:
        until(lambda: len(tainted(nodes)) == 2)
        control_plane.stop_api()
        time.sleep(1.0)  # what passes while nobody answers
    finally:
        control_plane.start_api()
    done.join(120)
    assert desk.results == dict.fromkeys(nodes.names, "ADMITTED")
    assert tainted(nodes) == []


def test_of_two_regulators_of_one_cluster_one_leads(regulator: Make, nodes: Nodes) -> None:
    """The other touches nothing and says who leads."""
    nodes.add()
    (first, of_first), (second, of_second) = regulator(replace(QUICK, soak_s=3.0)), regulator(holder="bob@elsewhere")
    lead = threading.Thread(target=first.run, args=(candidates(nodes),))
    lead.start()
    until(lambda: not tainted(nodes))
    second.run(candidates(nodes))
    assert set(of_second.results.values()) == {"REGULATOR_BUSY"}
    assert this_process() in next(iter(of_second.told.values())).message
    lead.join(60)
    assert set(of_first.results.values()) == {"ADMITTED"}


def test_a_node_that_its_owner_cordoned_is_not_let_in_and_halts_nobody(regulator: Make, nodes: Nodes) -> None:
    """Nor is one that a health agent holds, nor one that never joined."""
    for _ in range(3):
        nodes.add()
    cordoned, held, well = nodes.names
    nodes.api.patch("v1", "Node", cordoned, {"spec": {"unschedulable": True}}, how="merge")
    label = {"metadata": {"labels": {"dgxc.nvidia.com/nvsentinel-state": "quarantined"}}}
    nodes.api.patch("v1", "Node", held, label, how="merge")
    run, desk = regulator()
    run.run([*candidates(nodes), Candidate("never-joined")])
    assert desk.results == {
        cordoned: "NODE_CORDONED", held: "NODE_HELD", well: "ADMITTED", "never-joined": "NODE_NOT_JOINED"
    }  # fmt: skip
    assert tainted(nodes) == [cordoned, held]

"""A repaired node comes back alone: who it is measured against on the rails, and what becomes of those."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rehearsal import context_over, in_process, now, open_ledger

from toolkit.bringup import bringup
from toolkit.ledger import Change, Ledger
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.plan import make_plan
from toolkit.report.standing import Standing, standings, status_of
from toolkit.report.why import why
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack

REPAIRED = "node3"
OTHERS = ("node1", "node2", "node4")


def up(lab: InProcessRack, ledger: Ledger, goal: NodeState = NodeState.CERTIFIED) -> dict[str, Standing]:
    """Brings up what is not at the goal; where every node stands then."""
    bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack), goal))
    return {s.node: s for s in standings(ledger, lab.rack)}


def burnins(ledger: Ledger, node: str) -> list[str]:
    """Ids of the node's runs of that stage."""
    return [run.id for run in ledger.runs("demo", node, Stage.BURNIN)]


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four certified nodes of the demo rack, in files; each test works on a copy."""
    folder = tmp_path_factory.mktemp("certified")
    lab = of_four(in_process(folder, "demo"))
    with open_ledger(lab.settings) as ledger:
        assert {s.state for s in up(lab, ledger).values()} == {NodeState.CERTIFIED}
    return folder


def of_four(lab: InProcessRack) -> InProcessRack:
    """The rack without its last two nodes, and without tests of more than two nodes."""
    gone = ("node5", "node6")
    units = tuple(u for u in lab.rack.units if u.name not in gone)
    links = tuple(k for k in lab.rack.links if k.a.unit not in gone)
    profile = replace(lab.rack.profile, levels=())
    return replace(lab, rack=replace(lab.rack, units=units, links=links, profile=profile))


@pytest.fixture
def repaired(certified: Path, tmp_path: Path) -> Callable[..., Iterator[tuple[InProcessRack, Ledger]]]:
    """The same rack, one node of it repaired and to be brought up again."""

    @contextmanager
    def opened(*faults: Fault) -> Iterator[tuple[InProcessRack, Ledger]]:
        shutil.copytree(certified, tmp_path / "rack")
        plain = in_process(tmp_path / "rack", "demo", *faults)
        lab = of_four(replace(plain, settings=load({"RACKPROOF_HOME": str(tmp_path / "rack/home"),
                                                    "RACKPROOF_CACHE": str(plain.settings.cache)})))  # fmt: skip
        with open_ledger(lab.settings) as ledger:
            for before, move in ((NodeState.CERTIFIED, Move.QUARANTINE), (NodeState.QUARANTINED, Move.REPAIR)):
                ledger.move("demo", REPAIRED, Change(before, move), "a cable was replaced")
            yield lab, ledger

    return opened  # type: ignore[return-value]


def test_certified_nodes_are_partners_and_stay_what_they_are(repaired) -> None:  # type: ignore[no-untyped-def]
    """Neither their state nor their evidence changes, and no run is added to theirs."""
    with repaired() as (lab, ledger):
        before = {node: burnins(ledger, node) for node in OTHERS}
        found = up(lab, ledger)
        assert {s.state for s in found.values()} == {NodeState.CERTIFIED}
        assert {node: burnins(ledger, node) for node in OTHERS} == before
        run = burnins(ledger, REPAIRED)[-1]
        told = ledger.measurements("demo", REPAIRED, run=run, metric="rail_busbw_gb_per_s")
        assert len(told) == 8 and all(float(m.value) > 45 for m in told)
        assert len([e for e in ledger.events("demo", limit=100_000) if e.body.get("what") == "rails"]) == 4


def test_a_partner_whose_own_rail_is_bad_leaves_with_it(repaired) -> None:  # type: ignore[no-untyped-def]
    """Evidence that failed quarantines, whoever it was asked for; the repaired node goes on."""
    with repaired(Fault(FaultKind.SLOW_RAIL, "node1", hca="mlx5_2")) as (lab, ledger):
        found = up(lab, ledger)
        assert found[REPAIRED].state is NodeState.CERTIFIED
        bad = found.pop("node1")
        assert (bad.state, bad.outcome, bad.code) == (NodeState.QUARANTINED, Outcome.FAILED, "RAIL_SLOW")
        assert bad.part == "cable node1:mlx5_2 - leaf3:1"
        assert {s.state for s in found.values()} == {NodeState.CERTIFIED}
        shown = why("demo", bad, ledger.story("demo", "node1"))
        assert shown.part == bad.part and any("50% of what it should" in line for line in shown.evidence)
        assert lab.pool.nodes()["node1"].admitted is False


def test_nodes_that_jobs_run_on_are_asked_only_where_the_pool_lets_none_start(repaired) -> None:  # type: ignore[no-untyped-def]
    """Alone, the node is undecided and the command names whom to take out; drained, that node is its partner."""
    with repaired() as (lab, ledger):
        for node in OTHERS:
            ledger.move("demo", node, Change(NodeState.CERTIFIED, Move.ADMIT), "as an earlier bringup did")
        for node in OTHERS:
            lab.pool.register(node, "joined")
            lab.pool.admit(node, "ab" * 32, now() + timedelta(days=1), {})
        alone = up(lab, ledger)[REPAIRED]
        assert (alone.state, alone.code) == (NodeState.JOINED, "RAIL_UNDECIDED")
        assert "node1: it is ADMITTED: jobs may run on it" in alone.message
        assert alone.next.startswith("rackproof quarantine node1 ") and "rackproof release node1" in alone.next
        lab.pool.evict("node2", "drained by the operator")
        found = up(lab, ledger)
        assert found[REPAIRED].state is NodeState.CERTIFIED, found[REPAIRED]
        assert {found[node].state for node in OTHERS} == {NodeState.ADMITTED}


def test_partners_that_do_not_answer_or_are_not_well_are_left_out_with_the_reason(repaired) -> None:  # type: ignore[no-untyped-def]
    """Two are left out: one is off, the other's port is down to half its rate; the third is enough."""
    with repaired(Fault(FaultKind.HALF_RATE_RAIL, "node2", hca="mlx5_1")) as (lab, ledger):
        with lab.changing("node1") as machine:
            machine.power = "Off"
        found = up(lab, ledger)
        assert found[REPAIRED].state is NodeState.CERTIFIED, found[REPAIRED]
        begun = [e for e in ledger.events("demo", limit=100_000) if e.body.get("what") == "rails"][-2]
        left_out = begun.body["details"]["left_out"]  # type: ignore[index,call-overload]
        assert begun.body["details"]["nodes"] == ["node3", "node4"]  # type: ignore[index,call-overload]
        assert "no route to host" in left_out["node1"] and "HCA_RATE_LOW" in left_out["node2"]
        assert {found[node].state for node in ("node1", "node2")} == {NodeState.CERTIFIED}

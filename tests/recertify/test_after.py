"""After a change exactly the steps of the plan are carried out, and a certificate supersedes the one before."""

import pytest

from tests.recertify.test_recertify import certificate
from toolkit.bringup import bringup
from toolkit.errors import UndecidedError
from toolkit.judge.recert.touch import Proof
from toolkit.ledger import Change, EventKind
from toolkit.rack.gate import WIDE, Scope
from toolkit.rack.lifecycle import Move, NodeState, Stage
from toolkit.rack.plan import make_plan
from toolkit.report.recert_run import End
from toolkit.report.standing import status_of
from toolkit.virtual.faults import Fault, FaultKind


def swapped(service, node="node1"):
    """Another tray in the slot: taken out, repaired, brought up again as far as the cluster."""
    with service.ledger() as ledger:
        rack = service.rack.name
        service.lab.pool.evict(node, "its tray is swapped")
        ledger.move(rack, node, Change(NodeState.ADMITTED, Move.QUARANTINE), "a test")
        ledger.move(rack, node, Change(NodeState.QUARANTINED, Move.REPAIR), "a test")
        service.lab.serials[node] = "16500009999"
        context = service.context(ledger)
        bringup(context, make_plan(service.rack, status_of(ledger, service.rack), NodeState.JOINED))


def newest(service, node, stage=Stage.BURNIN):
    """Measurements of the node's newest run of the stage."""
    with service.ledger() as ledger:
        run = ledger.last_run(service.rack.name, node, stage)
        return run, ledger.measurements(service.rack.name, None, run.id)


def test_a_swapped_tray_is_measured_by_the_steps_of_the_plan_and_certified(whole):
    """Its suite, its rails and its levels, against the other node, which is free meanwhile and back afterwards."""
    before = certificate(whole)
    swapped(whole)
    done = whole.run_after("swap node1")
    (turn,) = done.turns
    assert (turn.node, turn.end, done.exit_code) == ("node1", End.RENEWED, 0)
    assert turn.next == f"rackproof admit {whole.rack.name}"
    after = certificate(whole)
    assert after.supersedes == before.digest
    assert "16500009999" in after.fingerprint.node("node1").gpus
    _, told = newest(whole, "node1")
    assert {m.subject.scope for m in told} >= {Scope.NODE, Scope.GPU, Scope.HCA, Scope.RACK}
    assert whole.pool()["node2"].admitted
    assert [e.body["details"]["role"] for e in whole.events(kind=EventKind.INTENT, what="aside")] == ["partner"]


def test_a_cable_costs_its_rail_and_the_unit_and_no_burn_in(whole):
    """What the node's own suite measured three days ago is carried, and none of its workloads is run again."""
    before = certificate(whole)
    ran = len(whole.lab.burnins("node1"))
    made = whole.plan("swap cable node1:mlx5_3")
    assert {step.proof for step in made.steps} == {Proof.RAILS, Proof.UNIT}
    done = whole.run_after("swap cable node1:mlx5_3")
    assert [(turn.node, turn.end) for turn in done.turns] == [("node1", End.RENEWED)]
    assert len(whole.lab.burnins("node1")) == ran
    after = certificate(whole)
    assert after.supersedes == before.digest
    assert f"carried from certificate {before.digest[:12]}" in after.lifetime_source
    assert after.expires_at <= before.expires_at
    _, told = newest(whole, "node1")
    young = {m.subject for m in told if (whole.clock.now() - m.at).days < 1}
    assert {s.hca for s in young if s.scope is Scope.HCA} >= {"mlx5_3"}
    assert not any(s.scope is Scope.GPU for s in young)
    keys = [(m.metric, m.subject) for m in told if m.subject.scope not in WIDE and m.metric != "levels_left_out"]
    assert len(keys) == len(set(keys))  # each measurement once
    assert all(member.admitted for member in whole.pool().values())


def test_a_node_whose_change_was_not_proven_does_not_come_back(service):
    """One of two slow ends: nobody can say whose. Its old certificate spoke of another cable, and lets nobody in."""
    service.lab.faults.append(Fault(FaultKind.HALF_RATE_RAIL, "node1", hca="mlx5_0"))
    done = service.run_after("swap cable node1:mlx5_0")
    (turn,) = done.turns
    assert (turn.end, turn.code, done.exit_code) == (End.UNDECIDED, "RAIL_UNDECIDED", 3)
    assert not service.pool()["node1"].admitted
    assert service.standing()["node1"].state is NodeState.JOINED
    assert service.pool()["node2"].admitted


def test_a_node_that_is_not_up_has_its_command_named_first(service):
    """Nothing is touched: neither the node nor its partners."""
    with service.ledger() as ledger:
        ledger.move(service.rack.name, "node1", Change(NodeState.ADMITTED, Move.QUARANTINE), "a test")
    with pytest.raises(UndecidedError, match="QUARANTINED") as refused:
        service.run_after("swap node1")
    assert "rackproof release node1" in refused.value.hint
    assert not service.events(kind=EventKind.INTENT, what="aside")


def test_a_partner_in_use_is_named_and_nobody_is_taken(service):
    """Jobs run on: the operator drains it first, or waits."""
    swapped(service)
    service.schedule(running={"node2": "job 17 of alice"})
    with pytest.raises(UndecidedError, match="node2: job 17 of alice runs there"):
        service.run_after("swap node1")
    assert service.pool()["node2"].admitted


def test_the_capacity_floor_holds_for_partners_too(service):
    """Of two nodes one is being repaired already: the other goes on running jobs."""
    swapped(service)
    with pytest.raises(UndecidedError, match="node2 would have to be taken out"):
        service.run_after("swap node1", floor=0.5)

"""Nodes in service are measured again and given back: their certificates, their doors and their faults."""

from datetime import timedelta

import pytest

from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import verify
from toolkit.errors import UndecidedError
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.rack.lifecycle import Move, NodeState, Stage
from toolkit.report.recert_run import End
from toolkit.virtual.faults import Fault, FaultKind

LEAF = {"node1": ("leaf1",), "node2": ("leaf1",)}


def certificate(service):
    """The rack's newest, verified."""
    envelope = service.lab.settings.certificate(service.rack.name).read_bytes()
    return verify(envelope, trusted_keys([service.lab.settings.keys / PUBLIC]), service.clock.now())


def ends(done):
    """What each node's turn came to."""
    return {turn.node: turn.end for turn in done.turns}


def test_a_pass_gives_a_certificate_that_supersedes_and_the_node_back(service):
    """Rails and levels are carried from the certificate before: the new one says so, and ends when that one would."""
    before = certificate(service)
    done = service.run(service.tasks("node1"))
    after = certificate(service)
    assert (done.exit_code, ends(done)) == (0, {"node1": End.RENEWED})
    assert after.supersedes == before.digest
    assert "node1" in after.nodes
    assert timedelta(0) <= before.expires_at - after.expires_at < timedelta(minutes=11)
    assert f"carried from certificate {before.digest[:12]}" in after.lifetime_source
    member = service.pool()["node1"]
    assert (member.admitted, member.certificate) == (True, after.digest)
    assert service.standing()["node1"].state is NodeState.ADMITTED


def test_with_rails_and_levels_a_certificate_lives_its_whole_life_again(service):
    """Two nodes at once are measured against each other: nothing is carried."""
    before = certificate(service)
    done = service.run(service.tasks(whole=True))
    assert ends(done) == {"node1": End.RENEWED, "node2": End.RENEWED}
    after = certificate(service)
    assert after.expires_at - before.expires_at > timedelta(days=2)
    assert "carried" not in after.lifetime_source


def test_one_node_alone_keeps_the_end_of_its_certificate_and_says_what_would_move_it(service):
    """Of a leaf that may lose one node at a time nobody can measure rails: it is not called renewed."""
    done = service.run(service.tasks(whole=True), at_once=1)
    assert ends(done) == {"node1": End.KEPT, "node2": End.KEPT}
    assert done.exit_code == UndecidedError.exit_code
    assert all("rackproof drain" in turn.next for turn in done.turns)
    assert all(member.admitted for member in service.pool().values())


def test_what_a_test_was_meant_to_measure_is_never_carried(service):
    """A GPU that fell off the bus has no numbers of its own: the healthy ones of three days ago are not taken."""
    service.lab.faults.append(Fault(FaultKind.XID_79, "node1", gpu=0))
    done = service.run(service.tasks("node1"))
    (turn,) = done.turns
    assert (turn.end, turn.code) == (End.FAILED, "GPU_LOST")


def test_a_failure_quarantines_with_the_part_and_the_way_back(service):
    """As bring-up does it; the other node is served."""
    service.lab.faults.append(Fault(FaultKind.ECC_DRIP, "node1", gpu=0))
    done = service.run(service.tasks())
    assert done.exit_code == 1
    failed = next(turn for turn in done.turns if turn.node == "node1")
    assert (failed.end, failed.code) == (End.FAILED, "HBM_ECC_CORRECTED")
    assert failed.part.startswith("GPU 0")
    assert "rackproof release node1" in failed.next
    assert {n: m.admitted for n, m in service.pool().items()} == {"node1": False, "node2": True}
    assert service.standing()["node1"].state is NodeState.QUARANTINED


def test_an_undecided_run_opens_the_door_by_the_certificate_that_stands(service):
    """Nothing could be told (the collectives took another way): that is no reason to keep a node from jobs."""
    before = service.pool()["node1"].certificate
    service.lab.faults.append(Fault(FaultKind.WRONG_TRANSPORT, "node1"))
    done = service.run(service.tasks("node1"))
    (turn,) = done.turns
    assert (turn.end, done.exit_code) == (End.UNDECIDED, 3)
    member = service.pool()["node1"]
    assert (member.admitted, member.certificate) == (True, before)


def test_a_node_in_use_is_left_alone(service):
    """Its door is not touched, nothing is measured, and the scheduler's words are the answer."""
    service.schedule(running={"node1": "job 17 of alice"})
    done = service.run(service.tasks())
    turn = next(turn for turn in done.turns if turn.node == "node1")
    assert (turn.end, turn.message) == (End.IN_USE, "job 17 of alice runs there")
    assert ends(done)["node2"] is End.RENEWED
    assert not service.events(node="node1", kind=EventKind.INTENT, what="aside")


def test_without_a_word_of_the_scheduler_nobody_is_taken(service):
    """A pool in a file knows no jobs; what was said an hour ago says nothing of now."""
    service.schedule(at=service.clock.now() - timedelta(hours=1))
    done = service.run(service.tasks())
    assert set(ends(done).values()) == {End.IN_USE}
    assert all(member.admitted for member in service.pool().values())


def test_the_capacity_floor_is_asked_before_each_wave(service):
    """Of two nodes that must both run jobs none is taken; with one of them spare they go one after another."""
    assert set(ends(service.run(service.tasks(), floor=0.9)).values()) == {End.NOT_BEGUN}
    waves = []
    done = service.run(service.tasks(), floor=0.5)
    assert set(ends(done).values()) == {End.RENEWED}
    taken = [(e.kind, e.node) for e in service.events(what="aside")]
    waves += [node for kind, node in taken if kind is EventKind.INTENT]
    order = [node for _, node in taken]
    assert waves == ["node1", "node2"]
    assert order == ["node1", "node1", "node2", "node2"]  # the first is back before the second is taken


def test_no_more_nodes_of_a_leaf_than_allowed_are_out_at_once(service):
    """Both are on one leaf: one after the other."""
    service.run(service.tasks(), at_once=1, near=LEAF)
    assert [e.node for e in service.events(what="aside")] == ["node1", "node1", "node2", "node2"]


def test_a_board_that_was_swapped_unsaid_is_found_before_any_load(service):
    """Its certificate is another machine's: nothing is carried, it leaves the pool, and the way back is named."""
    service.lab.serials["node1"] = "99999999999"
    done = service.run(service.tasks("node1"))
    (turn,) = done.turns
    assert (turn.end, turn.code) == (End.UNDECIDED, "DRIFTED")
    assert "99999999999" in turn.message
    assert not service.pool()["node1"].admitted
    assert service.standing()["node1"].state is NodeState.JOINED


def test_a_certificate_that_was_revoked_meanwhile_opens_no_door(service):
    """The burn-in could tell nothing, and the certificate before is void by now: the node stays out and lapses."""
    service.lab.faults.append(Fault(FaultKind.WRONG_TRANSPORT, "node1"))
    digest = service.pool()["node1"].certificate
    with service.ledger() as ledger:
        body = {"certificate": digest, "nodes": ["node1"], "reason": "recall"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, service.rack.name, body=body, what=digest))
    service.run(service.tasks("node1"))
    assert not service.pool()["node1"].admitted
    assert service.standing()["node1"].state is NodeState.JOINED


def test_a_revoked_neighbour_is_not_certified_anew_by_old_evidence(service):
    """Revoked, and not yet out of the pool: it may not ride on what is carried for another."""
    digest = service.pool()["node2"].certificate
    with service.ledger() as ledger:
        body = {"certificate": digest, "nodes": ["node2"], "reason": "recall"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, service.rack.name, body=body, what=digest))
    done = service.run(service.tasks("node1"))
    assert ends(done) == {"node1": End.UNDECIDED}
    assert certificate(service).digest == digest  # no other was issued
    assert service.pool()["node1"].admitted


@pytest.mark.parametrize("state", [NodeState.QUARANTINED, NodeState.JOINED])
def test_a_node_that_left_service_since_the_plan_is_not_touched(service, state):
    """Somebody was quicker."""
    move = Move.QUARANTINE if state is NodeState.QUARANTINED else Move.LAPSE
    with service.ledger() as ledger:
        ledger.move(service.rack.name, "node1", Change(NodeState.ADMITTED, move), "a test")
    done = service.run(service.tasks("node1"))
    assert ends(done) == {"node1": End.UNDECIDED}
    with service.ledger() as ledger:
        runs = [r.stage for r in ledger.runs(service.rack.name, "node1")]
    assert runs.count(Stage.BURNIN) == 1

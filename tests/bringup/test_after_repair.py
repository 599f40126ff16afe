"""Released after a repair: everything is measured anew, and nothing from before counts for or against the node."""

import json
from dataclasses import replace

import pytest
from rehearsal import context_over, in_process, now, open_ledger, without_rails

from tests.bringup.test_kill import small
from toolkit.bringup import bringup
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import verify
from toolkit.errors import UsageError
from toolkit.ledger import Change, EventKind
from toolkit.rack.lifecycle import Move, NodeState, Stage
from toolkit.rack.plan import make_plan
from toolkit.repair import release
from toolkit.report.standing import standings, status_of
from toolkit.stages.burnin_records import last_burnin
from toolkit.stages.peers import _siblings
from toolkit.stages.rail_partners import measured_last
from toolkit.virtual.faults import Fault, FaultKind


def go(lab, goal=NodeState.ADMITTED):
    """One bringup; answers where every node stands."""
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack), goal))
        return {s.node: s for s in standings(ledger, lab.rack)}


def let_go(lab):
    """`rackproof release node2`."""
    with open_ledger(lab.settings) as ledger:
        return release(ledger, lab.rack, lab.rack.unit("node2"), "GPU replaced")


def quarantine(lab, state):
    """Sets node2 aside by hand."""
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(state, Move.QUARANTINE), "to be repaired")


def seen_of(lab):
    """The certificate's word on node2: runs and digests its evidence is of."""
    envelope = lab.settings.certificate(lab.rack.name).read_bytes()
    return verify(envelope, trusted_keys([lab.settings.keys / PUBLIC]), now())


def test_a_node_that_was_admitted_counts_for_nothing_from_the_moment_it_is_released(tmp_path):
    """Its burn-in, its rails and its comparisons are no evidence, no yardstick and no history any more."""
    lab = small(in_process(tmp_path, "demo-small"))
    assert go(lab)["node2"].state is NodeState.ADMITTED
    with open_ledger(lab.settings) as ledger:
        context, node = context_over(lab, ledger), lab.rack.unit("node2")
        before = last_burnin(context, node)
        assert before is not None
        assert "node2" in _siblings(context, ["node1"])
        assert measured_last(context, node)
    quarantine(lab, NodeState.ADMITTED)
    assert let_go(lab) == (NodeState.QUARANTINED, NodeState.PLANNED)
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        assert last_burnin(context, node) is None
        assert _siblings(context, ["node1"]) == {}
        assert measured_last(context, node) == ()


def test_the_new_certificate_rests_on_nothing_older_than_the_repair(tmp_path):
    """Every run it names of the node, and every measurement they judged, began after the release."""
    lab = small(in_process(tmp_path, "demo-small"))
    go(lab, NodeState.CERTIFIED)
    old = seen_of(lab)
    quarantine(lab, NodeState.CERTIFIED)
    let_go(lab)
    with open_ledger(lab.settings) as ledger:
        released = ledger.node_states(lab.rack.name)["node2"].event
        begun = len(ledger.events(lab.rack.name, "node2", limit=100_000))
    assert go(lab, NodeState.CERTIFIED)["node2"].state is NodeState.CERTIFIED
    new = seen_of(lab)
    assert new.digest != old.digest
    with open_ledger(lab.settings) as ledger:
        rack = lab.rack.name
        since = [r for r in ledger.runs(rack, "node2") if r.event > released]
        assert [r.stage for r in since if r.outcome == "PASSED"] == list(Stage)[:-1], "from the image on"
        context, node = context_over(lab, ledger), lab.rack.unit("node2")
        run = last_burnin(context, node)
        assert run.event > released
        assert all(m.at >= run.started for m in ledger.measurements(rack, "node2", run.id))
        events = ledger.events(rack, "node2", limit=100_000)[begun:]
        fresh = {e.body["artifact"] for e in events if e.kind == EventKind.OBSERVED and e.body.get("artifact")}
        fresh |= {d for e in events for d in _digests(e.body)}
        fresh |= {m.origin for r in since for m in ledger.measurements(rack, None, r.id)}
    told = json.dumps(new.statement)
    stale = {m for m in _of_node2(lab, released) if m in told} - fresh
    assert stale == set(), "a digest of evidence from before the repair is in the new certificate"


def _of_node2(lab, released):
    """Digests of what was measured of node2 before it was released."""
    with open_ledger(lab.settings) as ledger:
        old = [r for r in ledger.runs(lab.rack.name, "node2") if r.event < released]
        return {m.origin for r in old for m in ledger.measurements(lab.rack.name, "node2", r.id)}


def _digests(body):
    """Every sha256 in an event."""
    text = json.dumps(body)
    return {word for word in text.replace('"', " ").split() if len(word) == 64}


def test_a_fault_from_before_the_repair_is_not_held_against_the_node(tmp_path):
    """Failed, mended, released: what was counted then condemns nobody now; and a fault that stayed does."""
    lab = small(without_rails(in_process(tmp_path, "demo-small", Fault(FaultKind.ECC_DRIP, "node2", gpu=0))))
    assert go(lab)["node2"].code == "HBM_ECC_CORRECTED"
    let_go(lab)
    assert go(lab)["node2"].code == "HBM_ECC_CORRECTED", "released without a repair"
    let_go(lab)
    lab.faults.clear()
    assert go(lab)["node2"].state is NodeState.ADMITTED


@pytest.mark.parametrize("state", [NodeState.JOINED, NodeState.TESTED, NodeState.CERTIFIED])
def test_wherever_it_was_set_aside_it_goes_all_the_way_again(tmp_path, state):
    """Also a burn-in that was done and not yet judged is done again."""
    lab = small(in_process(tmp_path, "demo-small"))
    go(lab, state)
    burnins = len(lab.burnins("node2"))
    quarantine(lab, state)
    let_go(lab)
    assert go(lab, NodeState.CERTIFIED)["node2"].state is NodeState.CERTIFIED
    assert len(lab.burnins("node2")) == burnins + 1
    assert lab.machine("node2").disk_writes == 2


def test_a_rented_node_begins_anew_where_it_entered(tmp_path):
    """Nobody images it here: from IMAGED. Cut off between the two moves, the same command ends it."""
    lab = small(without_rails(in_process(tmp_path, "demo-small", Fault(FaultKind.ECC_DRIP, "node2", gpu=0))))
    assert go(lab)["node2"].state is NodeState.QUARANTINED
    lab.rack = replace(lab.rack, units=tuple(replace(u, bmc=None) if u.name == "node2" else u for u in lab.rack.units))
    assert let_go(lab) == (NodeState.QUARANTINED, NodeState.IMAGED)
    quarantine(lab, NodeState.IMAGED)
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(NodeState.QUARANTINED, Move.REPAIR), "and killed here")
    assert let_go(lab) == (NodeState.PLANNED, NodeState.IMAGED)
    with pytest.raises(UsageError, match="there is nothing to repair"):
        let_go(lab)
    lab.faults.clear()
    found = go(lab, NodeState.TESTED)["node2"]
    assert found.state is NodeState.TESTED, found.message

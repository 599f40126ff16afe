"""A slow GPU over every absolute floor, end to end over a rack of files: siblings tell, fresh readings convict."""

import re
from dataclasses import replace

import pytest
from rehearsal import context_over, in_process, now, open_ledger

from toolkit.bringup import bringup, burn_in
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import verify
from toolkit.judge.compared import Standing
from toolkit.ledger import Change, EventKind
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.loading import load_profile
from toolkit.rack.model import Suite
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.stages.peer_records import comparisons
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process_burnin import Noise

SLOW = Fault(FaultKind.SLOW_GPU, "node3", gpu=2, value=0.93)


def lab_of(tmp_path, *faults, rack="demo", seed=1):
    """The demo rack with noise in its rates."""
    lab = in_process(tmp_path, rack, *faults)
    lab.noise = Noise(0.005, seed)
    return lab


def go(lab, ledger):
    """One bringup; where every node stands."""
    bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))
    return {s.node: s for s in standings(ledger, lab.rack)}


def test_a_slow_gpu_over_the_floor_is_caught_by_its_siblings(tmp_path):
    """445 GB/s pass the floor of 440: six nodes say that 478 is normal, and three rounds that it was no bad luck."""
    lab = lab_of(tmp_path, SLOW)
    with open_ledger(lab.settings) as ledger:
        found = go(lab, ledger)
        rounds = [e for e in ledger.events("demo", "", EventKind.OBSERVED, limit=9999) if e.what.startswith("peers ")]
        (busbw,) = ledger.measurements("demo", "node3", metric="nccl_busbw_gb_per_s")
    slow = found.pop("node3")
    assert busbw.value > 440
    assert (slow.state, slow.code) == (NodeState.QUARANTINED, "NCCL_BUSBW_BELOW_PEERS")
    assert slow.part == "tray node3 (VR00000003)"
    assert re.search(r"the median of 6 \(-7\.\d%\); -\d\.\d% in \d fresh readings beside 5 of them", slow.message)
    assert len(rounds) >= 2
    assert {s.state for s in found.values()} == {NodeState.ADMITTED}


def test_the_gpu_itself_is_named_where_its_products_tell(tmp_path):
    """With the metal's gate on products: GPU 2, by serial and slot, before the tray that is slow with it."""
    lab = lab_of(tmp_path, replace(SLOW, value=0.6))
    metal = load_profile("dgx-h100", lab.settings.inventory).gates
    gates = (*lab.rack.profile.gates, *(g for g in metal if g.code == "GEMM_RATE_BELOW_PEERS"))
    lab.rack = replace(lab.rack, profile=replace(lab.rack.profile, gates=gates))
    with open_ledger(lab.settings) as ledger:
        found = go(lab, ledger)
    assert (found["node3"].state, found["node3"].code) == (NodeState.QUARANTINED, "GEMM_RATE_BELOW_PEERS")
    assert found["node3"].part == "GPU 2 (16500000302 at 00000000:52:00.0)"
    assert "also NCCL_BUSBW_LOW" in found["node3"].message


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_rack_with_noise_is_admitted(tmp_path, seed):
    """Nobody is blamed, whoever was a suspect."""
    lab = lab_of(tmp_path, seed=seed)
    with open_ledger(lab.settings) as ledger:
        assert {s.state for s in go(lab, ledger).values()} == {NodeState.ADMITTED}


def test_two_nodes_cannot_be_compared_and_their_certificate_says_so(tmp_path):
    """They are admitted by the absolute gates; what was not asked is among what is not verified."""
    lab = lab_of(tmp_path, replace(SLOW, node="node2"), rack="demo-small")
    with open_ledger(lab.settings) as ledger:
        found = go(lab, ledger)
    assert {s.state for s in found.values()} == {NodeState.ADMITTED}
    envelope = lab.settings.certificate(lab.rack.name).read_bytes()
    issued = verify(envelope, trusted_keys([lab.settings.keys / PUBLIC]), now())
    (words,) = [w.what for w in issued.not_verified if w.what.startswith("NCCL_BUSBW_BELOW_PEERS")]
    assert "2 of its kind were measured with it, itself included: fewer than 5" in words


def test_a_node_that_comes_back_is_compared_with_what_its_siblings_measured_lately(tmp_path):
    """They work in the pool and are not loaded again: a suspect is left open, a healthy one passes."""
    lab = lab_of(tmp_path, SLOW)
    with open_ledger(lab.settings) as ledger:
        go(lab, ledger)
        before = {n.name: len(lab.burnins(n.name)) for n in lab.rack.nodes}
        ledger.move("demo", "node3", Change(NodeState.QUARANTINED, Move.REPAIR), "nothing was done")
        again = go(lab, ledger)["node3"]
        assert (again.state, again.code) == (NodeState.JOINED, "EVIDENCE_INCONCLUSIVE")
        assert "not free to be read again" in again.message
        lab.faults.clear()
        go(lab, ledger)  # its rails wait for a partner that is free
        run = ledger.last_run("demo", "node3", Stage.BURNIN)
        stood = comparisons(context_over(lab, ledger), lab.rack.unit("node3"), run)
        assert {c.standing for c in stood} == {Standing.ALIKE}
    after = {n.name: len(lab.burnins(n.name)) for n in lab.rack.nodes}
    assert {name for name in after if after[name] > before[name]} == {"node3"}


def test_a_burn_in_by_hand_compares_the_nodes_it_was_asked_for(tmp_path):
    """The same finding by the same rounds, of the suite that was asked for."""
    lab = lab_of(tmp_path)
    with open_ledger(lab.settings) as ledger:
        context = context_over(lab, ledger)
        bringup(context, make_plan(lab.rack, {}, NodeState.CONFIGURED))
        lab.faults.append(SLOW)
        examined = burn_in(context, [n.name for n in lab.rack.nodes], Suite.QUICK)
    outcomes = {run.node: (run.outcome, run.code) for run in examined.runs}
    assert outcomes.pop("node3") == (Outcome.FAILED, "NCCL_BUSBW_BELOW_PEERS")
    assert set(outcomes.values()) == {(Outcome.PASSED, "")}
    assert "NCCL_BUSBW_BELOW_PEERS" in {f.code for f in examined.burned["node3"].verdict.findings}

"""Levels in the pipeline over a rack of files: from the profile's word to the certificate."""

import base64
import json
from dataclasses import replace

import pytest
from rehearsal import context_over, open_ledger

from toolkit.bringup import bringup
from toolkit.judge.evidence import Subject
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.virtual.faults import Fault, FaultKind


@pytest.fixture
def brought_up(lab_of):
    """Brings a rack of files up; answers its standings by node, and the measurements of levels by (subject, metric)."""

    def bring(*faults, rack="demo"):
        lab = lab_of(rack, *faults)
        profile = lab.rack.profile  # the rails have tests of their own
        gates = tuple(g for g in profile.gates if not g.metric.startswith("rail_"))
        lab.rack = replace(lab.rack, profile=replace(profile, rail_test=False, gates=gates))
        with open_ledger(lab.settings) as ledger:
            plan = make_plan(lab.rack, status_of(ledger, lab.rack), NodeState.ADMITTED)
            summary = bringup(context_over(lab, ledger), plan)
            told = [m for m in ledger.measurements(lab.rack.name) if "_nccl_" in m.metric and m.subject.scope in WIDE]
            found = {s.node: s for s in standings(ledger, lab.rack)}
            return summary, found, {(m.subject, m.metric): m.value for m in told}

    return bring


WIDE = (Scope.LEAF, Scope.RACK)


def test_a_rack_that_is_well_is_measured_leaf_by_leaf_and_whole(brought_up):
    """Rates that eight NDR rails allow, proven to have crossed them; all nodes are admitted."""
    summary, _, told = brought_up()
    assert summary.exit_code == 0
    leaf, unit = Subject(Scope.LEAF, "leaf4"), Subject(Scope.RACK)
    assert 46 < told[leaf, "leaf_nccl_all_reduce_busbw_gb_per_s"] < 48
    assert 440 < told[unit, "rack_nccl_all_reduce_busbw_gb_per_s"] < 470
    assert told[unit, "rack_nccl_all_reduce_ranks"] == 48
    assert told[unit, "rack_nccl_all_reduce_path"] == "proven" and told[leaf, "leaf_nccl_alltoall_path"] == "proven"


def test_a_port_that_is_slow_only_in_a_crowd_keeps_its_node_back_and_blames_nothing(brought_up):
    """Pairs cannot see it. The leaf's test does, and names the node it is bad with; nobody is quarantined for it."""
    _, found, _ = brought_up(Fault(FaultKind.CROWDED_RAIL, "node4", hca="mlx5_3"))
    assert {n: s.code for n, s in found.items() if s.state is not NodeState.ADMITTED} == {"node4": "LEAF_BUSBW_LOW"}
    assert found["node4"].state is NodeState.JOINED
    assert "leaf4, rail 3" in found["node4"].message and "with it and not without it" in found["node4"].message


def test_a_node_whose_ranks_never_come_is_named_and_the_others_are_admitted(brought_up):
    """In the first level already; the unit is measured without it."""
    _, found, told = brought_up(Fault(FaultKind.NCCL_ABSENT, "node2"))
    away = {n: s for n, s in found.items() if s.state is not NodeState.ADMITTED}
    assert {n: s.code for n, s in away.items()} == {"node2": "LEAF_UNDECIDED"}
    assert "Ranks that never came: node2" in away["node2"].message
    assert told[Subject(Scope.RACK), "rack_nccl_all_reduce_ranks"] == 40


def test_the_certificate_says_what_was_measured_among_many_nodes(brought_up):
    """Gates of leaf and unit with their evidence; of the levels a pair cannot have, that they were not asked."""
    summary, _, _ = brought_up()
    envelope = json.loads(summary.certificate.read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    text = json.dumps(statement)
    assert "UNIT_BUSBW_LOW" in text and "LEAF_BUSBW_LOW" in text
    assert "no collective over more than one node was measured" not in text
    summary, _, _ = brought_up(rack="demo-small")
    statement = base64.b64decode(json.loads(summary.certificate.read_text())["payload"]).decode()
    assert "no all_reduce among nodes of a leaf was measured: LEAF_BUSBW_LOW" in statement
    assert "no all_reduce among all GPUs of the unit" not in statement

"""What a ledger comes to as results: never a pass without evidence that counts."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from rehearsal import now, open_ledger

from toolkit.export.on_record import OUTCOME, STATE, results
from toolkit.export.results import Answered, Results, worst
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

PASSED, FAILED, ERROR, SKIPPED = Answered


@pytest.fixture
def ledger(lab, tmp_path):
    """A copy of the rack's ledger, to write on."""
    shutil.copytree(lab.settings.home, tmp_path / "home")
    url = f"sqlite:///{tmp_path}/home/ledger.db"
    with open_ledger(replace(lab.settings, home=tmp_path / "home", ledger_url=url)) as opened:
        yield opened


def read(ledger, lab, **wanted):
    return results(ledger, lab.rack, now(), "1.2.3", **wanted)


def of(found: Results, node, stage, name=None, subject=None):
    """The cases of a suite, or those of that name and subject."""
    (suite,) = [s for s in found.suites if (s.node, s.stage) == (node, stage)]
    return [c for c in suite.cases if name in (None, c.name) and subject in (None, c.subject)]


def answers(cases):
    return {case.answer for case in cases}


def test_an_admitted_node_passed_everything_that_was_asked_of_it(found, lab):
    """A case for each gate and part: 18 links of 8 GPUs among them. What was not asked says why."""
    assert [c.answer for c in of(found, "node1", "node", STATE)] == [PASSED]
    for stage in Stage:
        assert answers(of(found, "node1", stage, OUTCOME)) == {PASSED}
        assert answers(of(found, "node1", stage)) <= {PASSED, SKIPPED}
    links = of(found, "node1", "nvlink", "NVLINK_LINK_DOWN")
    assert len({c.subject for c in links}) == 18 * 8
    assert all(c.at and c.artifact and c.value is not None for c in links)
    skipped = [c for c in of(found, "node1", "burnin") if c.answer is SKIPPED]
    assert skipped
    assert all(c.detail for c in skipped)


def test_a_failure_names_its_part_and_is_one_case(found):
    """GPU 3 counted errors; its siblings, the other stages and the other node did not."""
    failed = [(s.node, s.stage, c.name, c.subject) for s, c in found.cases() if c.answer is FAILED]
    assert failed == [
        ("node2", "node", STATE, "node2"),
        ("node2", "burnin", "HBM_ECC_CORRECTED", "node2/gpu3"),
        ("node2", "certify", OUTCOME, "node2"),
    ]
    (gpu,) = of(found, "node2", "burnin", "HBM_ECC_CORRECTED", "node2/gpu3")
    assert gpu.value > 0
    assert gpu.part.startswith("GPU 3 (16500000203")
    assert found.answer is FAILED
    assert [n.gpus[3][1].serial for n in found.nodes if n.name == "node2"] == ["16500000203"]


def test_a_stage_that_never_ran_is_skipped_with_every_gate(found, ledger, lab):
    """Its gates are cases too: the planned and the tested set are seen side by side."""
    assert [c.answer for c in of(found, "node2", "admit")] == [SKIPPED]
    rack = replace(lab.rack, name="never-touched")
    fresh = results(ledger, rack, now(), "1.2.3")
    assert answers(c for s, c in fresh.cases() if s.stage != "node") == {SKIPPED}
    assert len(of(fresh, "node1", "burnin")) > 50


def test_a_rack_that_nobody_touched_is_undecided_by_its_cases_and_not_green(ledger, lab):
    """A reader that counts failures and errors alone must find some: one for each node."""
    fresh = results(ledger, replace(lab.rack, name="never-touched"), now(), "1.2.3")
    assert [(c.name, c.answer) for s, c in fresh.cases() if s.stage == "node"] == [(STATE, ERROR)] * len(lab.rack.nodes)
    assert fresh.answer is ERROR


def test_a_run_without_an_end_is_an_error_of_every_gate(ledger, lab):
    """Whatever passed before it: it is measured anew, or its process died."""
    ledger.start_run(lab.rack.name, "node1", Stage.BURNIN)
    found = read(ledger, lab)
    assert answers(of(found, "node1", "burnin")) == {ERROR}
    assert of(found, "node1", "burnin", OUTCOME)[0].code == "INTERRUPTED"


def burnin(ledger, lab, outcome, code, told):
    """A burn-in of node1 that measured this of the node as a whole."""
    run = ledger.start_run(lab.rack.name, "node1", Stage.BURNIN)
    node = Subject(Scope.NODE, "node1")
    ledger.record_measurements(run, [Measurement(m, u, v, node, now(), run.id, "a" * 64) for m, u, v in told])
    return ledger.finish_run(run, outcome, code=code)


def test_what_was_measured_over_another_fabric_is_no_pass(ledger, lab):
    """471 GB/s meet the gate's floor, and prove nothing of NVLink."""
    told = [("nccl_path", "word", "wrong"), ("nccl_busbw_gb_per_s", "GB/s", 471.0), ("nccl_ranks", "count", 8)]
    burnin(ledger, lab, Outcome.PASSED, "", told)
    found = read(ledger, lab)
    for code in ("NCCL_BUSBW_LOW", "NCCL_RANKS_MISSING"):
        assert answers(of(found, "node1", "burnin", code)) == {ERROR}


def test_what_was_not_measured_is_an_error_and_one_case_a_gate(ledger, lab):
    """Evidence that is missing is neither a pass nor a failure, nor 144 lines."""
    burnin(ledger, lab, Outcome.PASSED, "", [("gpus_lost", "count", 0)])
    found = read(ledger, lab)
    assert answers(of(found, "node1", "burnin", "GPU_LOST")) == {PASSED}
    (missing,) = of(found, "node1", "burnin", "HBM_MISCOMPARE")
    assert (missing.answer, missing.value) == (ERROR, None)


def test_a_run_that_was_cut_off_before_a_verdict_passes_nothing(ledger, lab):
    """What it measured until then may be well, and it is not whole."""
    burnin(ledger, lab, Outcome.ERROR, "BURNIN_CUT", [("gpus_lost", "count", 0)])
    (lost,) = of(read(ledger, lab), "node1", "burnin", "GPU_LOST")
    assert lost.answer is ERROR
    assert "BURNIN_CUT" in lost.detail


def test_a_run_that_gave_its_node_back_takes_nothing_away(ledger, lab, found):
    """A re-certification yields to a job: what the certificate rests on was measured before, and is still that."""
    burnin(ledger, lab, Outcome.ERROR, "YIELDED", [("gpus_lost", "count", 0)])
    told = read(ledger, lab)
    assert of(told, "node1", "burnin") == of(found, "node1", "burnin")
    assert answers(of(told, "node1", "node")) == {PASSED}


def test_a_worse_finding_on_record_stands(ledger, lab):
    """certify read a fact again and found it wrong: the earlier pass is none any more."""
    gone = {"code": "GPU_COUNT_WRONG", "answer": "FAIL", "subject": "node1", "value": 7, "required": True,
            "detail": "gpu_count 7 count, must be 8", "artifact": "c" * 64}  # fmt: skip
    open_ = gone | {"code": "NVLINK_LINK_DOWN", "answer": "INCONCLUSIVE", "subject": "node1/gpu0/nvlink1",
                    "detail": "nvlink_active was not measured", "value": None}  # fmt: skip
    body = {"answer": "FAIL", "passed": 0, "findings": [gone, open_]}
    ledger.append(NewEvent(EventKind.JUDGED, lab.rack.name, "node1", body, "FAIL"))
    found = read(ledger, lab)
    (count,) = of(found, "node1", "base", "GPU_COUNT_WRONG")
    assert (count.answer, count.value, count.artifact) == (FAILED, 7, "c" * 64)
    assert [c.subject for c in of(found, "node1", "nvlink", "NVLINK_LINK_DOWN") if c.answer is ERROR] == [
        "node1/gpu0/nvlink1"
    ]


def test_after_a_lapse_certify_and_admit_are_open_again(ledger, lab):
    """A node whose certificate lapsed is not shown as admitted by the run that admitted it once."""
    ledger.move(lab.rack.name, "node1", Change(NodeState.ADMITTED, Move.LAPSE), "expired")
    found = read(ledger, lab)
    assert answers(of(found, "node1", "admit") + of(found, "node1", "certify")) == {SKIPPED}
    assert answers(of(found, "node1", "node")) == {ERROR}
    assert answers(of(found, "node1", "burnin", OUTCOME)) == {PASSED}


def test_after_a_repair_nothing_stands(ledger, lab):
    """It is another machine; an operator who set it aside had no evidence."""
    rack = lab.rack.name
    ledger.move(rack, "node1", Change(NodeState.ADMITTED, Move.QUARANTINE), "smoke")
    (aside,) = of(read(ledger, lab), "node1", "node")
    assert (aside.answer, aside.code) == (ERROR, "OPERATOR")
    ledger.move(rack, "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "new board")
    found = read(ledger, lab)
    assert answers(c for stage in Stage for c in of(found, "node1", stage)) == {SKIPPED}


def test_without_kubelets_their_gates_are_not_asked(ledger, lab):
    """A Slurm pool has none; the stage itself is judged all the same."""
    cases = of(read(ledger, lab, kubelets=False), "node1", "kubernetes")
    assert [(c.name == OUTCOME, c.answer) for c in cases] == [(True, PASSED), (False, SKIPPED)]


def test_a_rack_passes_only_whole(found):
    """All cases of one node passed, and the other was never worked on: that is no pass of the rack."""
    alone = tuple(s for s in found.suites if s.node == "node1")
    assert worst(c.answer for s in alone for c in s.cases) is PASSED
    assert replace(found, suites=alone).answer is ERROR
    admitted = tuple(n for n in found.nodes if n.name == "node1")
    assert replace(found, suites=alone, nodes=admitted).answer is PASSED
    assert replace(found, suites=(), nodes=()).answer is SKIPPED

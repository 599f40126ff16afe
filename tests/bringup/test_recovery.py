"""A replaced row: reset, full rerun, and the rerun decides. Once for one cause, whoever kills us where."""

import os
import shutil
import signal
from dataclasses import fields, replace

import pytest
from rehearsal import context_over, in_process, open_ledger, without_rails

from tests.bringup.test_kill import child, small
from toolkit.bringup import bringup, burn_in
from toolkit.errors import UsageError
from toolkit.judge.verdict import Answer
from toolkit.ledger import Change, EventKind
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.model import Suite
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.runners.shell import MAX_OUTPUT_BYTES
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack

ONE_ROW = Fault(FaultKind.ROW_REMAP, "node2", gpu=3)
TWO_ROWS = replace(ONE_ROW, times=2)


def go(lab):
    """One bringup; answers where every node stands."""
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))
        return {s.node: s for s in standings(ledger, lab.rack)}


def recoveries(lab, kind=EventKind.INTENT):
    """What the ledger says of node2's recoveries."""
    with open_ledger(lab.settings) as ledger:
        events = ledger.events(lab.rack.name, "node2", kind=kind, limit=100_000)
        return [e.body["details"] for e in events if e.what == "gpu recovery"]


def test_a_row_replaced_once_costs_a_reset_and_a_rerun_and_the_node_is_admitted(lab_of):
    """The first burn-in is on record with what it found; the certificate rests on the second."""
    lab = lab_of("demo-small", ONE_ROW)
    assert go(lab)["node2"].state is NodeState.ADMITTED
    assert lab.machine("node2").resets == 1
    first, again = lab.burnins("node2")
    assert again == f"{first}.again"
    (intent,), (seen,) = recoveries(lab), recoveries(lab, EventKind.OBSERVED)
    assert (intent["cause"], intent["gpus"]) == (first, [3])
    assert intent["reset"] == list(range(8)), "GPUs that share NVSwitches are reset together"
    assert seen["done"]
    with open_ledger(lab.settings) as ledger:
        judged = ledger.events(lab.rack.name, "node2", kind=EventKind.JUDGED)
        codes = {f["code"] for e in judged for f in e.body["findings"]}
        remaps = [m.value for m in ledger.measurements(lab.rack.name, "node2", metric="row_remaps_delta")]
    assert {"ROW_REMAPPED", "ROW_REMAP_PENDING", "HBM_ECC_CORRECTED", "XID_MEMORY"} <= codes
    assert remaps == [0] * 8, "what the rerun replaced is no evidence of the run"
    assert lab.burnins("node1") == (first.replace("node2", "node1"),)
    assert lab.machine("node1").resets == 0


def test_a_second_row_after_the_reset_sends_the_board_back(lab_of):
    """No second reset: code, GPU and serial, and the node is set aside."""
    lab = lab_of("demo-small", TWO_ROWS)
    found = go(lab)["node2"]
    assert (found.state, found.code) == (NodeState.QUARANTINED, "ROW_REMAPPED_AGAIN")
    assert found.part.startswith("GPU 3 (16500000203 at ")
    assert lab.machine("node2").resets == 1
    assert len(lab.burnins("node2")) == 2


def test_after_the_repair_the_count_begins_anew(lab_of):
    """Another board in the slot has its own first row."""
    lab = lab_of("demo-small", TWO_ROWS)
    go(lab)
    lab.faults[0] = replace(ONE_ROW, times=3)
    with open_ledger(lab.settings) as ledger:
        ledger.move(lab.rack.name, "node2", Change(NodeState.QUARANTINED, Move.REPAIR), "GPU 3 replaced")
    assert go(lab)["node2"].state is NodeState.ADMITTED
    assert lab.machine("node2").resets == 2


@pytest.mark.parametrize("other", [FaultKind.HBM_STICKY_BIT, FaultKind.GEMM_WRONG_FMA, FaultKind.NVLINK_LANE_DOWN])
def test_a_fault_that_no_spare_row_explains_is_not_run_again(lab_of, other):
    """A rerun that happens to pass would hide it: judged at once, nothing is reset."""
    lab = lab_of("demo-small", ONE_ROW, Fault(other, "node2", gpu=3, link=1))
    assert go(lab)["node2"].state is NodeState.QUARANTINED
    assert lab.machine("node2").resets == 0
    assert len(lab.burnins("node2")) <= 1


def test_a_reset_that_is_refused_is_our_error_and_done_when_it_can_be(lab_of):
    """Something holds the GPUs: nothing is held against the board, and the same command goes on from there."""
    lab = lab_of("demo-small", ONE_ROW)
    lab.reset_status = 255
    found = go(lab)["node2"]
    assert (found.state, found.code) == (NodeState.JOINED, "GPU_RESET_FAILED")
    assert "in use by another client" in found.message
    lab.reset_status = 0
    assert go(lab)["node2"].state is NodeState.ADMITTED
    assert lab.machine("node2").resets == 1
    assert len(lab.burnins("node2")) == 2
    assert len(recoveries(lab)) == 1, "one cause, one intent"


def test_of_two_gpus_that_ask_the_one_that_asks_again_is_named(lab_of):
    """Both are reset for their first row; only the second row of one of them is one too many."""
    lab = lab_of("demo-small", ONE_ROW, replace(ONE_ROW, gpu=5, times=2))
    found = go(lab)["node2"]
    assert (found.state, found.code) == (NodeState.QUARANTINED, "ROW_REMAPPED_AGAIN")
    assert found.part.startswith("GPU 5 ")
    assert recoveries(lab)[0]["gpus"] == [3, 5]
    assert lab.machine("node2").resets == 1


def end_of(lab):
    """What must not depend on where we were killed."""
    with open_ledger(lab.settings) as ledger:
        (found,) = [s for s in standings(ledger, lab.rack) if s.node == "node2"]
    causes = {details["cause"] for details in recoveries(lab)}
    return found.state, found.code, found.part, lab.machine("node2").resets, len(lab.burnins("node2")), len(causes)


def joined(folder, fault):
    """A rack whose node2 waits for its burn-in; node1 is set aside, so that every append is node2's."""
    lab = small(without_rails(in_process(folder, "demo-small", fault)))
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, NodeState.JOINED))
        ledger.move(lab.rack.name, "node1", Change(NodeState.JOINED, Move.QUARANTINE), "not needed here")
    return lab


@pytest.mark.parametrize(
    ("fault", "every"), [(replace(ONE_ROW, gpu=0), 1), (replace(TWO_ROWS, gpu=0), 4)], ids=["repaired", "again"]
)
def test_killed_anywhere_between_burn_in_and_verdict_the_reset_is_done_once(tmp_path, fault, every):
    """Every append from the burn-in on is a place to die: one reset, two burn-ins, the same end."""
    joined(tmp_path / "joined", fault)

    def copy(name):
        shutil.copytree(tmp_path / "joined", tmp_path / name)
        return small(without_rails(in_process(tmp_path / name, "demo-small", fault)))

    calm = copy("calm")
    assert child(calm, None)
    expected, commits = end_of(calm), int((calm.folder / "commits").read_text())
    assert expected[3] == 1
    assert expected[4] == 2
    assert commits > 15
    for dies_after in range(1, commits + 1, every):
        lab = copy(str(dies_after))
        child(lab, dies_after)
        assert child(lab, None)
        assert end_of(lab) == expected, f"killed after append {dies_after} of {commits}"


class DiesAtTheReset(InProcessRack):
    """A rack of files whose controller is killed when the reset is done and nothing of it is on record yet."""

    def run(self, node, argv, timeout_s, max_bytes=MAX_OUTPUT_BYTES):
        """The rack's own answer, which nobody gets to hear."""
        answer = super().run(node, argv, timeout_s, max_bytes)
        if "--gpu-reset" in argv:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


def test_killed_in_the_very_act_the_gpus_are_looked_at_and_not_reset_again(tmp_path):
    """The pending row is gone: that is the observation the killed one could not record."""
    lab = joined(tmp_path / "joined", replace(ONE_ROW, gpu=0))
    mortal = DiesAtTheReset(**{f.name: getattr(lab, f.name) for f in fields(lab)})
    assert not child(mortal, None)
    assert lab.machine("node2").resets == 1
    assert not recoveries(lab, EventKind.OBSERVED)
    assert child(mortal, None), "it does not come to a second reset, or it would die of it again"
    state, _, _, resets, burnins, causes = end_of(lab)
    assert (state, resets, burnins, causes) == (NodeState.ADMITTED, 1, 2, 1)


def examined(lab, suite=Suite.QUICK, nodes=("node2",)):
    """One burn-in by hand."""
    with open_ledger(lab.settings) as ledger:
        return burn_in(context_over(lab, ledger), list(nodes), suite)


def test_a_burn_in_by_hand_measures_judges_and_moves_nobody_up(lab_of):
    """A pass leaves the node where it was, and the pipeline does not take it for its own."""
    lab = lab_of("demo-small")
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, NodeState.TESTED))
    found = examined(lab)
    assert found.exit_code == 0
    assert found.burned["node2"].verdict.answer is Answer.PASS
    with open_ledger(lab.settings) as ledger:
        assert ledger.node_states(lab.rack.name)["node2"].state is NodeState.TESTED
    assert examined(lab, Suite.LONG).exit_code == 0
    assert len(lab.burnins("node2")) == 3, "each is another one"
    lab.faults.append(Fault(FaultKind.HBM_FLIP, "node2", gpu=1))
    with open_ledger(lab.settings) as ledger:
        plan = make_plan(lab.rack, status_of(ledger, lab.rack), NodeState.CERTIFIED)
        assert bringup(context_over(lab, ledger), plan).exit_code == 0, "certify rests on the stage's own burn-in"


def test_a_burn_in_by_hand_that_fails_on_evidence_sets_the_node_aside(lab_of):
    """Through the lifecycle, with code and part, out of the pool; a symptom alone only says run it again."""
    lab = lab_of("demo-small", Fault(FaultKind.HBM_COUPLING, "node2", gpu=1), Fault(FaultKind.CUDA_ERROR, "node1"))
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, NodeState.JOINED))
    found = examined(lab, nodes=("node1", "node2"))
    assert found.exit_code == 1
    codes = {run.node: (run.outcome, run.code) for run in found.runs}
    assert codes == {"node1": ("ERROR", "CUDA_FAILED"), "node2": ("FAILED", "HBM_MISCOMPARE")}
    with open_ledger(lab.settings) as ledger:
        states = {name: row.state for name, row in ledger.node_states(lab.rack.name).items()}
    assert states == {"node1": NodeState.JOINED, "node2": NodeState.QUARANTINED}


def test_a_burn_in_by_hand_recovers_a_row_too_and_goes_on_after_a_refused_reset(lab_of):
    """The operator's next one is the rerun, not another first."""
    lab = lab_of("demo-small", ONE_ROW)
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, NodeState.JOINED))
    lab.reset_status = 1
    assert examined(lab).runs[0].code == "GPU_RESET_FAILED"
    lab.reset_status = 0
    assert examined(lab).exit_code == 0
    assert lab.machine("node2").resets == 1
    assert len(lab.burnins("node2")) == 2


@pytest.mark.parametrize(
    ("goal", "says"),
    [(NodeState.ADMITTED, "jobs may run on it"), (NodeState.IMAGED, "it is not up")],
)
def test_a_node_that_is_not_free_is_refused(lab_of, goal, says):
    """Before anything is touched."""
    lab = lab_of("demo-small")
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, goal))
    before = lab.burnins("node2")
    with pytest.raises(UsageError, match=says):
        examined(lab)
    assert lab.burnins("node2") == before

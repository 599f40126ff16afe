"""`rackproof burnin` over a rack of files: exit codes, JSON, the table, and what it refuses."""

import json
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
from click.testing import CliRunner
from rehearsal import context_over, in_process, open_ledger

import toolkit.cli.burnin as verb
from toolkit.bringup import bringup
from toolkit.cli import main
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.plan import make_plan
from toolkit.virtual.faults import Fault, FaultKind


@pytest.fixture
def rack(tmp_path, monkeypatch, capsys):
    """Runs the verb on a rack whose nodes are at `goal`; answers status, stdout and stderr."""

    def start(*words, goal=NodeState.JOINED, faults=()):
        lab = in_process(tmp_path, "demo-small", *faults)
        with open_ledger(lab.settings) as ledger:
            bringup(context_over(lab, ledger), make_plan(lab.rack, {}, goal))

        @contextmanager
        def files(rack, progress):
            with open_ledger(lab.settings) as ledger:
                yield replace(context_over(lab, ledger), progress=progress)

        monkeypatch.setattr(verb, "context_of", files)
        monkeypatch.setenv("RACKPROOF_HOME", str(lab.settings.home))
        monkeypatch.setattr(sys, "argv", ["rackproof", "burnin", *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return start


def test_a_pass_is_exit_0_with_progress_on_stderr_and_a_table_on_stdout(rack):
    """Live lines per GPU go where logs go."""
    status, out, err = rack("node2", "--suite", "quick")
    assert status == 0
    assert "node2: suite quick  PASS" in out
    assert "16500000207" in out
    assert "suite quick does not ask 18 gates: 3 x NCCL_DATA_WRONG, 3 x NCCL_RANKS_MISSING" in out
    assert "3 x NCCL_SIZES_SMALL, 3 x NCCL_BUSBW_BELOW_PEERS\n" in out  # of each of the three that quick does not run
    assert "too few siblings to be compared with: 2 x NCCL_BUSBW_BELOW_PEERS" in out
    assert "node2 gpu7: hbm sweep" in err


def test_failed_evidence_is_exit_1_and_json_has_code_part_and_next(rack):
    """A script reads the same."""
    status, out, _ = rack("node2", "--json", faults=[Fault(FaultKind.GEMM_NAN, "node2", gpu=4)])
    assert status == 1
    (node,) = json.loads(out)["nodes"]
    assert (node["answer"], node["code"], node["suite"]) == ("FAIL", "GEMM_WRONG", "rehearsal")
    assert node["findings"][0]["part"] == "GPU 4 (16500000204 at 00000000:9D:00.0)"
    assert node["findings"][0]["artifact"]
    assert node["next"].startswith("service GPU 4")
    assert node["gpus"][4]["measured"]["gemm_wrong_tiles"] == 7


def test_a_doubt_is_exit_3(rack):
    """NCCL gave nothing: neither pass nor fault."""
    status, out, _ = rack("node2", faults=[Fault(FaultKind.NCCL_HANG, "node2")])
    assert status == 3
    assert "EVIDENCE_MISSING" in out
    assert "next: rackproof burnin node2" in out


def test_the_wrong_fabric_is_exit_3_with_one_outcome_that_says_what_was_measured_instead(rack):
    """No gate speaks beside it: neither of a part nor of evidence."""
    status, out, _ = rack("node2", faults=[Fault(FaultKind.WRONG_TRANSPORT, "node2")])
    assert status == 3
    said = " ".join(out.split())
    assert "WRONG_FABRIC: all_reduce, all_gather, reduce_scatter, alltoall, sendrecv measured the wrong" in said
    assert "next: rackproof explain WRONG_FABRIC, then: rackproof burnin node2 --suite rehearsal" in said
    assert "NCCL_" not in out
    rows = [line.split() for line in out.splitlines() if line.startswith(("all_", "reduce_", "alltoall", "sendrecv"))]
    assert [row[-2:] for row in rows] == [["wrong", "0.00"]] * 5


def test_a_rack_burns_in_all_its_free_nodes(rack):
    """Both, side by side."""
    status, out, _ = rack("demo-small", "--power-step")
    assert status == 0
    assert "node1: suite rehearsal  PASS" in out
    assert "node2: suite rehearsal  PASS" in out


@pytest.mark.parametrize(
    ("goal", "words", "says"),
    [
        (NodeState.ADMITTED, ["node2"], "rackproof quarantine node2"),
        (NodeState.ADMITTED, ["demo-small"], "no node of demo-small can be burnt in"),
        (NodeState.IMAGED, ["node2"], "rackproof bringup demo-small --to CONFIGURED"),
    ],
)
def test_nodes_that_are_not_free_are_refused_with_the_way_out(rack, goal, words, says):
    """Exit 2; jobs are never burnt in over."""
    status, out, err = rack(*words, goal=goal)
    assert (status, out) == (2, "")
    assert says in err


def test_a_rehearsal_is_for_virtual_racks():
    """The real rack's suites are quick, standard and long."""
    done = CliRunner().invoke(verb.burnin, ["dgx-h100-su", "--suite", "rehearsal"])
    assert done.exit_code != 0
    assert "is no virtual rack" in str(done.exception)

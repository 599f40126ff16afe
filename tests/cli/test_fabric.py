"""`rackproof fabric` and `rackproof drift` over a rack of files: exit codes, the order, and the files it writes."""

import csv
import json
import sys
from contextlib import contextmanager

import pytest
from rehearsal import context_over, in_process, open_ledger

import toolkit.cli.drift as drift_verb
import toolkit.cli.fabric as fabric_verb
from toolkit.bringup import bringup
from toolkit.cli import main
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.plan import make_plan
from toolkit.virtual.faults import Fault, FaultKind

SWAPPED = Fault(FaultKind.SWAPPED_CABLES, "node2", hca="mlx5_1", other="mlx5_2")


@pytest.fixture
def rack(tmp_path, monkeypatch, capsys):
    """Runs a verb on a rack whose nodes have their base; answers status, stdout and stderr."""
    lab = in_process(tmp_path, "demo-small")
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, {}, NodeState.CONFIGURED))

    @contextmanager
    def files(rack):
        with open_ledger(lab.settings) as ledger:
            yield context_over(lab, ledger)

    def run(*words, faults=(), off=()):
        lab.faults[:] = faults
        for node in off:
            with lab.changing(node) as machine:
                machine.power = "Off"
        for module in (fabric_verb, drift_verb):
            monkeypatch.setattr(module, "context_of", files)
        monkeypatch.setenv("RACKPROOF_HOME", str(lab.settings.home))
        monkeypatch.setattr(sys, "argv", ["rackproof", *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_a_sound_fabric_is_exit_0_with_nothing_to_do(rack):
    """InfiniBand and NVLink together."""
    status, out, _ = rack("fabric", "demo-small")
    assert status == 0
    assert "work order  PASS" in out and "nothing to do" in out
    assert "cables as designed 16 of 16" in out and "NVLinks up 288 of 288" in out


def test_a_swapped_pair_is_one_swap_line_on_screen_in_json_in_csv_and_on_the_page(rack, tmp_path):
    """Both ends and the rack position, and exit 1."""
    table, page = tmp_path / "order.csv", tmp_path / "order.html"
    status, out, err = rack("fabric", "demo-small", "--csv", str(table), "--html", str(page), faults=[SWAPPED])
    assert status == 1
    assert out.count("[ ] swap ") == 1
    assert "demo-small, slot 2: node2" in out
    assert "swap node2 mlx5_1 and node2 mlx5_2 (leaf2 port 2/leaf3 port 2)" in out
    (row,) = list(csv.DictReader(table.open()))
    assert (row["action"], row["code"], row["slot"]) == ("swap", "FABRIC_CABLES_SWAPPED", "2")
    assert "leaf2 port 2" in page.read_text() and "<script" not in page.read_text()
    assert err.count("written: ") == 2
    status, out, _ = rack("fabric", "demo-small", "--json", faults=[SWAPPED])
    told = json.loads(out)
    assert (status, told["schema"], told["answer"]) == (1, "rackproof/work-order/v1", "FAIL")
    assert [line["action"] for line in told["lines"]] == ["swap"]


def test_a_node_that_is_off_is_exit_3(rack):
    """Undecided: nobody looked at its ports, and nothing is said to be broken."""
    status, out, _ = rack("fabric", "demo-small", off=["node2"])
    assert status == 3
    assert "is it off?" in out and "[ ]" not in out


def test_a_file_that_cannot_be_written_is_told_by_its_name(rack, tmp_path):
    """Its folder is a file."""
    (tmp_path / "folder").touch()
    status, _, err = rack("fabric", "demo-small", "--csv", str(tmp_path / "folder" / "order.csv"))
    assert status == 2
    assert "order.csv cannot be written" in err


def test_packages_of_the_lock_are_exit_0_and_a_node_that_does_not_answer_exit_3(rack):
    """The lock is the rack's, one for all nodes."""
    status, out, _ = rack("drift", "demo-small")
    assert (status, "all 2 nodes have" in out) == (0, True)
    status, out, _ = rack("drift", "demo-small", "--json", off=["node1"])
    assert (status, json.loads(out)["answer"]) == (3, "INCONCLUSIVE")

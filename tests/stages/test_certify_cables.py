"""What certify says of cables that went wrong after their own stage had passed them: real stages, a rack of files."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rehearsal import context_over, in_process, open_ledger, without_rails

from toolkit.bringup import bringup
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.rack.plan import make_plan
from toolkit.report.standing import Standing, standings, status_of
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.in_process import InProcessRack


@pytest.fixture
def lab(tmp_path):
    """Two nodes without faults, their rails left alone."""
    return without_rails(in_process(tmp_path, "demo-small"))


def brought_up(lab: InProcessRack, *faults: Fault) -> dict[str, Standing]:
    """Where the nodes stand after a bring-up in whose burn-in these faults join those that the rack has."""
    before = tuple(lab.faults)
    with open_ledger(lab.settings) as ledger:

        def meanwhile(told):
            if told.stage is Stage.BURNIN:
                lab.faults[:] = before + faults

        context = replace(context_over(lab, ledger), progress=meanwhile)
        bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack)))
        return {s.node: s for s in standings(ledger, lab.rack)}


def test_a_cable_that_wears_out_under_load_is_named_with_both_its_ends(lab):
    """The code is the fabric's, not the gate's: it says what is wrong, and the part where the cable is."""
    found = brought_up(lab, Fault(FaultKind.SYMBOL_ERRORS, "node2", hca="mlx5_4"))
    assert (found["node2"].state, found["node2"].code) == (NodeState.QUARANTINED, "FABRIC_SYMBOL_ERRORS")
    assert "node2:mlx5_4" in found["node2"].part and "leaf5:2" in found["node2"].part
    assert found["node1"].state is NodeState.ADMITTED


@pytest.mark.parametrize(
    ("kind", "code"), [(FaultKind.PKEY_LIMITED, "FABRIC_PKEY_LIMITED"), (FaultKind.WRONG_GUID, "FABRIC_HCA_REPLACED")]
)
def test_a_setting_sends_its_node_back_and_blames_no_cable(lab, kind, code):
    """It is measured again once that is mended; nothing is to be pulled."""
    found = brought_up(lab, Fault(kind, "node2", hca="mlx5_4"))
    assert (found["node2"].state, found["node2"].code, found["node2"].part) == (NodeState.JOINED, code, "")


def test_a_setting_beside_a_cable_that_counts_errors_comes_first(lab):
    """Configuration before hardware, on the same node."""
    found = brought_up(
        lab,
        Fault(FaultKind.PKEY_LIMITED, "node2", hca="mlx5_4"),
        Fault(FaultKind.SYMBOL_ERRORS, "node2", hca="mlx5_1"),
    )
    assert (found["node2"].state, found["node2"].code) == (NodeState.JOINED, "FABRIC_PKEY_LIMITED")


def test_a_setting_hides_no_other_part_that_failed(lab):
    """A GPU that drips is pulled whatever the fabric's keys are."""
    lab.faults[:] = [Fault(FaultKind.ECC_DRIP, "node2", gpu=3)]
    found = brought_up(
        lab,
        Fault(FaultKind.PKEY_LIMITED, "node2", hca="mlx5_4"),
        Fault(FaultKind.SYMBOL_ERRORS, "node2", hca="mlx5_1"),
    )
    assert (found["node2"].state, found["node2"].code) == (NodeState.QUARANTINED, "HBM_ECC_CORRECTED")

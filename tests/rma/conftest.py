"""A rack of files on which a node failed."""

import pytest
from rehearsal import context_over, folder, in_process, open_ledger, without_rails

from tests.bringup.test_kill import small
from toolkit.bringup import bringup
from toolkit.rack.plan import make_plan
from toolkit.report.standing import status_of
from toolkit.virtual.faults import Fault, FaultKind


def go(lab):
    """One bringup."""
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))


@pytest.fixture(scope="module")
def lost(tmp_path_factory):
    """A small rack; node2 lost its GPU, with an Xid, and is set aside."""
    with folder(tmp_path_factory.mktemp("rma") / "rack") as place:
        lab = small(without_rails(in_process(place, "demo-small", Fault(FaultKind.XID_79, "node2", gpu=0, times=1))))
        go(lab)
        yield lab

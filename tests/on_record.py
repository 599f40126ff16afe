"""A ledger that a bringup left behind: node1 is admitted, node2 in quarantine for the corrected errors of its GPU 3."""

from rehearsal import context_over, in_process, open_ledger, without_rails

from toolkit.bringup import bringup
from toolkit.rack.plan import make_plan
from toolkit.report.standing import status_of
from toolkit.virtual.faults import Fault, FaultKind


def brought_up(folder):
    """The rack of files, after its bringup."""
    lab = without_rails(in_process(folder, "demo-small", Fault(FaultKind.ECC_DRIP, "node2", gpu=3)))
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))
    return lab

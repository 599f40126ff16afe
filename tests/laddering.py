"""A rack of files on which a node failed, and what an operator does about it."""

import itertools
import shutil
from dataclasses import replace

from rehearsal import context_over, in_process, open_ledger, without_rails

from tests.bringup.test_kill import small
from toolkit.bringup import bringup
from toolkit.ledger import EventKind
from toolkit.rack.plan import make_plan
from toolkit.repair import Order, plan, recover
from toolkit.repair import release as let_go
from toolkit.report.standing import standings, status_of
from toolkit.virtual.faults import Fault, FaultKind

LOST = Fault(FaultKind.XID_79, "node2", gpu=3, times=1)
DOUBLE_BIT = Fault(FaultKind.HBM_DOUBLE_BIT, "node2", gpu=0, times=1)
CONFIRMED = Order(confirmed=True)


def go(lab):
    """One bringup; answers where every node stands."""
    with open_ledger(lab.settings) as ledger:
        bringup(context_over(lab, ledger), make_plan(lab.rack, status_of(ledger, lab.rack)))
        return {s.node: s for s in standings(ledger, lab.rack)}


def mend(lab, order=CONFIRMED):
    """One `recover node2`."""
    with open_ledger(lab.settings) as ledger:
        return recover(context_over(lab, ledger), "node2", order)


def with_gpu(rack, name, gpu):
    """The rack with another board in that node."""
    others = {u.name: tuple(g for g in u.gpus if g.index != gpu.index) for u in rack.units}
    units = (replace(u, gpus=(*others[u.name], gpu)) if u.name == name else u for u in rack.units)
    return replace(rack, units=tuple(units))


def planned(lab):
    """`recover node2 --plan`."""
    with open_ledger(lab.settings) as ledger:
        return plan(ledger, lab.rack, lab.rack.unit("node2"))


def release(lab):
    """What the operator does after it."""
    with open_ledger(lab.settings) as ledger:
        let_go(ledger, lab.rack, lab.rack.unit("node2"), "recovered")


def rungs(lab, kind=EventKind.INTENT):
    """What the ledger has of node2's rungs."""
    with open_ledger(lab.settings) as ledger:
        events = ledger.events(lab.rack.name, "node2", kind=kind, what="recovery", limit=1000)
        return [e.body["details"] for e in events]


def copies(place, fault):
    """Makes copies of a rack of small nodes whose node2 failed by this fault, each as it is told to differ."""

    def at(name):
        return small(without_rails(in_process(place / name, "demo-small", replace(fault, gpu=0))))

    assert go(at("first"))["node2"].state == "QUARANTINED"
    taken = itertools.count()

    def copy(**how):
        name = f"copy{next(taken)}"
        shutil.copytree(place / "first", place / name)
        lab = at(name)
        for key, value in how.items():
            setattr(lab, key, value)
        return lab

    return copy

"""Carrying out a plan: every node for itself, every result on record, the same command again is the resume."""

import threading
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from toolkit.bringup import bringup
from toolkit.errors import BusyError, UndecidedError, UnreachableError
from toolkit.ledger import Change, LeaseLostError, Ledger
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.settings import load
from toolkit.stages.context import Context, Result, error, passed

RACK = load_rack("demo-small", load({}).inventory)
NODES = [n.name for n in RACK.nodes]
FIRST, SECOND = NODES[0], NODES[1]


class NoHands:
    """Stages of these tests reach for nothing but the pool."""

    class pool:  # noqa: N801
        """Evicts nobody: nobody was admitted."""

        evicted: ClassVar[list[str]] = []

        @classmethod
        def evict(cls, node, reason):
            cls.evicted.append(node)


@pytest.fixture
def settings(tmp_path):
    """An installation of its own."""
    return load({"RACKPROOF_HOME": str(tmp_path)})


@pytest.fixture
def ledger(settings):
    """A real ledger."""
    with Ledger.open(settings.ledger_url, settings.artifacts, "test", lambda: datetime.now(UTC)) as opened:
        yield opened


@pytest.fixture
def context(settings, ledger):
    """A context without progress."""
    return Context(RACK, settings, ledger, NoHands(), lambda: datetime.now(UTC), lambda s: None, lambda p: None)


def all_pass(context, work):
    """A stage that passes everybody."""
    work.each(work.nodes, lambda node: passed())


def stages(**special):
    """Stages that pass, but for the named ones."""
    return {stage: special.get(stage.value, all_pass) for stage in Stage}


def go(context, **special):
    """One bringup as the operator runs it: plan, then carry out."""
    plan = make_plan(RACK, status_of(context.ledger, RACK))
    return bringup(context, plan, stages(**special))


def states(context):
    """Where the nodes rest."""
    return {s.node: s.state for s in standings(context.ledger, RACK)}


def only(name, result):
    """A stage whose result for one node is `result`, or what raising it gives; the others pass."""

    def stage(context, work):
        def one(node):
            if node.name != name:
                return passed()
            if isinstance(result, Exception):
                raise result
            return result

        work.each(work.nodes, one)

    return stage


def test_all_nodes_that_pass_are_admitted_and_exit_is_0(context):
    """The whole way in one run."""
    summary = go(context)
    assert states(context) == dict.fromkeys(NODES, NodeState.ADMITTED)
    assert summary.exit_code == 0
    assert [stage for stage, _ in summary.seconds] == list(Stage)


def test_a_node_that_fails_on_evidence_is_quarantined_and_the_others_go_on(context):
    """FAILED carries code and part to the ledger, evicts from the pool, and exits 1."""
    broken = Result(Outcome.FAILED, "NVLINK_LINK_DOWN", "link 7 is down", "GPU 5", "replace it")
    summary = go(context, nvlink=only(FIRST, broken))
    found = {s.node: s for s in standings(context.ledger, RACK)}
    assert found[FIRST].state is NodeState.QUARANTINED
    assert (found[FIRST].code, found[FIRST].part) == ("NVLINK_LINK_DOWN", "GPU 5")
    assert found[SECOND].state is NodeState.ADMITTED
    assert FIRST in NoHands.pool.evicted
    assert summary.exit_code == 1


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (UnreachableError("no route"), "NODE_UNREACHABLE"),
        (UndecidedError("odd"), "UNDECIDED"),
        (ZeroDivisionError("oops"), "DEFECT"),
        (error("IMAGE_TIMEOUT", "silent", "again"), "IMAGE_TIMEOUT"),
    ],
)
def test_an_error_moves_nothing_and_running_again_is_the_resume(context, failure, code):
    """What we could not do is never held against the hardware, and what passed is not repeated."""
    summary = go(context, base=only(FIRST, failure))
    assert summary.exit_code == 3
    assert states(context) == {FIRST: NodeState.IMAGED, SECOND: NodeState.ADMITTED}
    assert {s.node: s.code for s in standings(context.ledger, RACK)}[FIRST] == code
    seen = []

    def watched(context, work):
        seen.extend(n.name for n in work.nodes)
        all_pass(context, work)

    assert go(context, image=watched, base=watched).exit_code == 0
    assert seen == [FIRST]


def test_a_stage_that_falls_over_before_any_node_is_an_error_of_every_node(context):
    """The traceback is kept as an artifact, named in the next step."""

    def broken(context, work):
        raise RuntimeError("the playbook folder is gone")

    assert go(context, kubernetes=broken).exit_code == 3
    found = standings(context.ledger, RACK)
    assert {s.code for s in found} == {"DEFECT"}
    digest = found[0].next.split()[-1]
    (artifact,) = [p for p in context.settings.artifacts.rglob("*") if p.name.startswith(digest) or digest in str(p)]
    assert b"the playbook folder is gone" in artifact.read_bytes()


def test_a_node_a_stage_is_silent_about_did_not_pass(context):
    """Silence is never green."""
    assert go(context, burnin=lambda context, work: work.finish(FIRST, passed())).exit_code == 3
    assert states(context)[SECOND] is NodeState.JOINED
    assert {s.node: s.code for s in standings(context.ledger, RACK)}[SECOND] == "STAGE_SILENT"


def test_two_bringups_of_one_rack_at_once_are_refused(context):
    """The second is told who drives the rack; nothing of it is recorded."""
    inside, leave = threading.Event(), threading.Event()

    def slow(context, work):
        inside.set()
        assert leave.wait(30)
        all_pass(context, work)

    first = threading.Thread(target=go, args=(context,), kwargs={"image": slow})
    first.start()
    try:
        assert inside.wait(30)
        with pytest.raises(BusyError, match="rack/demo-small is driven by"):
            go(context)
    finally:
        leave.set()
        first.join()
    assert states(context) == dict.fromkeys(NODES, NodeState.ADMITTED)


def test_a_plan_that_is_no_longer_true_is_not_carried_out(context):
    """What the operator confirmed is what is done, or nothing is."""
    plan = make_plan(RACK, {})
    context.ledger.move(RACK.name, FIRST, Change(NodeState.PLANNED, Move.QUARANTINE), "meanwhile")
    with pytest.raises(UndecidedError, match="changed since this plan was made"):
        bringup(context, plan, stages())
    assert not context.ledger.runs(RACK.name)


def test_a_run_that_was_cut_off_is_closed_as_an_error_and_done_again(context):
    """The ledger of a killed process has an open run: it gets an end, and the stage is run anew."""
    context.ledger.start_run(RACK.name, FIRST, Stage.IMAGE)
    assert go(context).exit_code == 0
    cut, again = context.ledger.runs(RACK.name, FIRST, Stage.IMAGE)
    assert (cut.outcome, cut.code) == (Outcome.ERROR, "INTERRUPTED")
    assert again.outcome is Outcome.PASSED


def test_a_driver_that_lost_its_lease_records_nothing_more(context):
    """A process that slept too long finds its writes refused: the fencing token is an older one."""

    def overtaken(inner, work):
        context.ledger.acquire("rack/demo-small", "somebody else", timedelta(minutes=1), gone=lambda holder: True)
        all_pass(inner, work)

    with pytest.raises(LeaseLostError):
        go(context, image=overtaken)
    assert all(run.outcome is None for run in context.ledger.runs(RACK.name))


def test_an_operators_quarantine_shows_its_reason_and_holds_the_node(context):
    """`why` and `plan` say who set the node aside."""
    go(context)
    context.ledger.move(RACK.name, FIRST, Change(NodeState.ADMITTED, Move.QUARANTINE), "smells of smoke")
    (standing,) = [s for s in standings(context.ledger, RACK) if s.node == FIRST]
    assert (standing.code, standing.message) == ("OPERATOR", "smells of smoke")
    plan = make_plan(RACK, status_of(context.ledger, RACK))
    assert not plan.steps
    assert {h.node for h in plan.held} == set(NODES)

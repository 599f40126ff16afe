"""Whoever has a use for a node gets it back within seconds; what was measured until then is not measured again."""

import pytest

from tests.recertify.conftest import copied
from tests.recertify.service import SlowRack
from toolkit.ledger import EventKind
from toolkit.rack.lifecycle import NodeState
from toolkit.report.recert_run import End
from toolkit.stages import aside


@pytest.fixture
def slow(served, tmp_path, clock):
    """Two admitted nodes whose burn-ins take their time."""
    made = copied(served, tmp_path / "copy", clock, kind=SlowRack)
    made.later(days=3)
    return made


def wanted_after(service, polls):
    """A job waits for node1 from that poll on."""
    service.clock.on_sleep = [service.schedule] * polls + [
        lambda: service.schedule(wanted={"node1": "job 18 of bob waits"})
    ]


def test_a_node_that_a_job_waits_for_is_given_back_within_seconds(slow):
    """The run ends YIELDED with nothing left on the node; its door is open by the certificate it had."""
    before = slow.pool()["node1"].certificate
    wanted_after(slow, 3)
    done = slow.run(slow.tasks("node1"))
    (turn,) = done.turns
    assert (turn.end, turn.code, done.exit_code) == (End.YIELDED, "YIELDED", 3)
    assert "job 18 of bob waits" in turn.message
    assert slow.lab.active == {}
    member = slow.pool()["node1"]
    assert (member.admitted, member.certificate) == (True, before)
    (began,) = slow.events(node="node1", kind=EventKind.INTENT, what="aside")
    (ended,) = slow.events(node="node1", kind=EventKind.OBSERVED, what="aside")
    assert (ended.at - began.at).total_seconds() < 60  # of the rack's time, in which every wait counts
    with slow.ledger() as ledger:
        told = ledger.find(slow.rack.name, "node1", EventKind.OBSERVED, "burnin").body["details"]
    assert (told["ended"], told["cells"]) == (False, ["nvml", "hbm", "gemm"])


def test_the_next_run_goes_on_with_what_the_node_has(slow):
    """The same run on the node, told how old a cell may be; it ends whole, and the certificate is a new one."""
    wanted_after(slow, 3)
    slow.run(slow.tasks("node1"))
    slow.later(minutes=30)
    slow.clock.on_sleep = [slow.schedule, slow.lab.finish]
    done = slow.run(slow.tasks("node1"))
    assert [turn.end for turn in done.turns] == [End.RENEWED]
    first, second = (words[words.index("--run") + 1] for words in slow.lab.asked)
    assert first == second
    assert slow.lab.asked[1][slow.lab.asked[1].index("--take-over") + 1] == "14400"
    assert len(slow.lab.burnins("node1")) == 2  # the one it was admitted by, and this one


def test_cells_that_are_too_old_are_measured_again(slow):
    """A run of yesterday is not gone on with: a new one is begun."""
    wanted_after(slow, 3)
    slow.run(slow.tasks("node1"))
    slow.later(hours=5)
    slow.clock.on_sleep = [slow.schedule, slow.lab.finish]
    assert [turn.end for turn in slow.run(slow.tasks("node1")).turns] == [End.RENEWED]
    first, second = (words[words.index("--run") + 1] for words in slow.lab.asked)
    assert first != second


def test_a_pool_that_does_not_answer_gives_the_node_to_nobody(slow):
    """Its silence stops no burn-in: whoever waits there waits for the pool."""

    def silent():
        slow.schedule(at=slow.clock.now().replace(year=2001))

    def back():
        slow.schedule()
        slow.lab.finish()

    slow.clock.on_sleep = [silent, lambda: None, lambda: None, back]
    assert [turn.end for turn in slow.run(slow.tasks("node1")).turns] == [End.RENEWED]


def test_a_burn_in_that_cannot_be_proven_stopped_keeps_the_door_shut(slow):
    """Two loads on one node: rather a node too few than a job that runs beside a burn-in."""
    slow.lab.stuck = True
    wanted_after(slow, 3)
    done = slow.run(slow.tasks("node1"))
    (turn,) = done.turns
    assert turn.end is End.UNDECIDED
    assert "may still run" in turn.message
    assert not slow.pool()["node1"].admitted
    with slow.ledger() as ledger:
        assert [one.node for one in aside.open_ones(slow.context(ledger))] == ["node1"]
    slow.lab.stuck = False
    slow.schedule()
    slow.clock.on_sleep = [slow.schedule, slow.lab.finish]
    assert [turn.end for turn in slow.run([]).turns] == [End.RENEWED]
    assert slow.standing()["node1"].state is NodeState.ADMITTED

"""What is read of many racks at once, by indexes of its own. The same on both databases."""

from datetime import UTC, datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage

AT = datetime(2026, 11, 23, tzinfo=UTC)


def ended(ledger, rack, stage, outcome=Outcome.PASSED):
    run = ledger.start_run(rack, "node1", stage)
    return ledger.finish_run(run, outcome)


def test_newest_passes_are_of_the_named_racks_and_stage_newest_first(ledger):
    """Failures, open runs, other stages and other racks are passed over; never more than asked for."""
    first = ended(ledger, "a", Stage.BASE)
    second = ended(ledger, "b", Stage.BASE)
    ended(ledger, "a", Stage.IMAGE)
    ended(ledger, "a", Stage.BASE, Outcome.FAILED)
    ended(ledger, "c", Stage.BASE)
    ledger.start_run("b", "node2", Stage.BASE)
    assert ledger.newest_passes(["a", "b"], Stage.BASE, 9) == (second, first)
    assert ledger.newest_passes(["a", "b"], Stage.BASE, 1) == (second,)
    assert ledger.newest_passes([], Stage.BASE, 9) == ()


def test_a_runs_measurements_are_read_by_name_in_their_order(ledger):
    """All that one transaction wrote, each once, and of no other run."""
    run, other = (ledger.start_run("a", node, Stage.BURNIN) for node in ("node1", "node2"))
    told = [Measurement(m, "count", n, Subject(Scope.GPU, "node1", gpu=n), AT, run.id, "ab" * 32)
            for n in range(3) for m in ("x", "y", "z")]  # fmt: skip
    ledger.record_measurements(run, told)
    more = Measurement("x", "count", 7, Subject(Scope.GPU, "node2", gpu=0), AT, other.id, "ab" * 32)
    ledger.record_measurements(other, [more])
    assert list(ledger.measured_by(run.id, ("z", "x"))) == [m for m in told if m.metric in "xz"]
    assert ledger.measured_by(run.id, ()) == ()
    assert list(ledger.measurements("a", "node1")) == told


def test_events_of_a_kind_are_found_by_an_index(ledger, sql):
    """Whatever else a rack did: the index is there on both."""
    ledger.append(NewEvent(EventKind.NOTE, "a", "", {"words": "x"}))
    assert [e.body["words"] for e in ledger.events("a", kind=EventKind.NOTE)] == ["x"]
    assert {name for (name,) in sql("SELECT name FROM schema_migration WHERE number = 3")} == {"quick_reads"}

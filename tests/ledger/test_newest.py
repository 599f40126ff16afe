"""What a whole rack comes to, in a few statements: newest runs, totals, extremes. The same on both databases."""

from datetime import UTC, datetime

import pytest

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Extremes
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import NodeState, Outcome, Stage

AT = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)


def ended(ledger, node, stage, outcome):
    run = ledger.start_run("su1", node, stage)
    return ledger.finish_run(run, outcome, code="" if outcome is Outcome.PASSED else "WHY")


def test_the_newest_run_of_each_node_and_stage_is_the_last_attempt(ledger):
    """Older attempts, other racks and the rack's own runs do not stand in for it."""
    ended(ledger, "n1", Stage.BURNIN, Outcome.PASSED)
    failed = ended(ledger, "n1", Stage.BURNIN, Outcome.FAILED)
    base = ended(ledger, "n1", Stage.BASE, Outcome.PASSED)
    other = ended(ledger, "n2", Stage.BURNIN, Outcome.PASSED)
    begun = ledger.start_run("su1", "n2", Stage.BURNIN)
    ledger.start_run("su2", "n1", Stage.BURNIN)
    assert ledger.newest_runs("su1") == (failed, base, begun)
    assert [r.id for r in ledger.newest_runs("su1", Outcome.PASSED)] == ["su1/n1/burnin/1", base.id, other.id]
    assert ledger.newest_runs("su3") == ()


def test_totals_count_what_ended(ledger):
    """An open run is none of them, and what never happened is not there."""
    for outcome in (Outcome.PASSED, Outcome.PASSED, Outcome.ERROR):
        ended(ledger, "n1", Stage.BURNIN, outcome)
    ledger.start_run("su1", "n1", Stage.BURNIN)
    assert ledger.run_totals("su1") == {(Stage.BURNIN, Outcome.PASSED): 2, (Stage.BURNIN, Outcome.ERROR): 1}


def test_racks_are_those_with_a_node_or_a_run(ledger):
    """Also one whose nodes never left PLANNED."""
    assert ledger.racks() == ()
    ledger.enter("rented", {"n1": NodeState.IMAGED}, "rented")
    ledger.start_run("failed", "n1", Stage.IMAGE)
    assert ledger.racks() == ("failed", "rented")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([3, -1.5, 2e9], Extremes("m", "count", -1.5, 2e9, 3)),
        ([7, "word", "9 lives", "true"], Extremes("m", "count", 7.0, 7.0, 1)),
        (["word"], None),
    ],
)
def test_extremes_are_of_numbers_alone(ledger, values, found):
    """A word is no number and no 0, whatever it begins with."""
    run = ledger.start_run("su1", "n1", Stage.BURNIN)
    subjects = [Subject(Scope.GPU, "n1", gpu=gpu) for gpu in range(len(values))]
    told = [Measurement("m", "count", v, s, AT, run.id, "") for v, s in zip(values, subjects, strict=True)]
    ledger.record_measurements(run, [*told, Measurement("x", "count", 99, subjects[0], AT, run.id, "")])
    assert ledger.extremes(run.id, ["m", "absent"]) == ((found,) if found else ())
    assert ledger.extremes(run.id, []) == ()
    assert ledger.extremes("su1/n1/burnin/9", ["m"]) == ()

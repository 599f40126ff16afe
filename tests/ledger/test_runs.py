"""Runs, the moves they make, and what they measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.errors import RackproofError
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, Ledger, StaleMoveError
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import MOVES, IllegalMoveError, Move, NodeState, Outcome, Stage

IMAGED = Change(NodeState.PLANNED, Move.IMAGE)


def test_attempts_are_counted_for_each_node_and_stage(ledger: Ledger) -> None:
    """The id is the natural key: rack, node, stage, attempt."""
    runs = [ledger.start_run("demo", node, Stage.IMAGE) for node in ("node1", "node2", "node1", "")]
    assert [run.id for run in runs] == [
        "demo/node1/image/1",
        "demo/node2/image/1",
        "demo/node1/image/2",
        "demo/-/image/1",
    ]
    assert [run.event for run in runs] == [1, 2, 3, 4]


def test_a_run_ends_and_its_node_moves_in_one_transaction(ledger: Ledger, clock, assert_whole) -> None:
    """The end carries what the operator needs; the state carries the event that made it."""
    run = ledger.start_run("demo", "node1", Stage.IMAGE)
    clock.advance(90)
    ended = ledger.finish_run(run, Outcome.PASSED, message="as planned", change=IMAGED)
    assert ledger.runs("demo") == (ended,)
    assert ended.finished is not None
    assert ended.finished - ended.started == timedelta(seconds=90)
    row = ledger.node_states("demo")["node1"]
    assert (row.state, row.since, row.event) == (NodeState.IMAGED, clock.now, 3)
    assert_whole(ledger, "demo")


def test_a_failed_run_names_code_part_and_next(ledger: Ledger) -> None:
    """What `why` prints is what was recorded."""
    run = ledger.start_run("demo", "node1", Stage.BURNIN)
    ledger.finish_run(run, Outcome.FAILED, code="HBM_ERRORS", part="GPU 3", message="42 errors", next="rma")
    last = ledger.last_run("demo", "node1")
    assert last is not None
    assert (last.outcome, last.code, last.part, last.message, last.next) == (
        Outcome.FAILED, "HBM_ERRORS", "GPU 3", "42 errors", "rma",
    )  # fmt: skip


def test_a_message_from_a_node_cannot_break_the_database(ledger: Ledger) -> None:
    """NUL and half a surrogate pair are text in Python and in no database."""
    run = ledger.start_run("demo", "node1", Stage.BURNIN)
    ledger.finish_run(run, Outcome.ERROR, message="a\0b\ud800'; DROP TABLE event; --")
    last = ledger.last_run("demo", "node1")
    assert last is not None
    assert last.message == "a\ufffdb?'; DROP TABLE event; --"


def test_a_stale_move_leaves_nothing_of_its_run(ledger: Ledger, assert_whole) -> None:
    """The operator quarantined the node while the run went on: neither end nor move is recorded."""
    run = ledger.start_run("demo", "node1", Stage.IMAGE)
    ledger.move("demo", "node1", Change(NodeState.PLANNED, Move.QUARANTINE), "smoke")
    with pytest.raises(StaleMoveError, match="node1 of demo is QUARANTINED, not PLANNED"):
        ledger.finish_run(run, Outcome.PASSED, change=IMAGED)
    assert ledger.runs("demo") == (run,)
    assert_whole(ledger, "demo")


def test_a_run_ends_once(ledger: Ledger) -> None:
    """A second end of the same run changes nothing."""
    run = ledger.start_run("demo", "node1", Stage.IMAGE)
    ended = ledger.finish_run(run, Outcome.PASSED)
    with pytest.raises(StaleMoveError, match="not open"):
        ledger.finish_run(run, Outcome.FAILED)
    assert ledger.runs("demo") == (ended,)


def test_an_illegal_move_is_refused_with_the_nodes_story(ledger: Ledger) -> None:
    """The table decides, inside the transaction."""
    ledger.move("demo", "node1", IMAGED, "test")
    with pytest.raises(IllegalMoveError, match="PLANNED -image-> IMAGED"):
        ledger.move("demo", "node1", Change(NodeState.IMAGED, Move.ADMIT), "hurry")
    assert ledger.node_states("demo")["node1"].state is NodeState.IMAGED


def test_a_node_enters_once(ledger: Ledger) -> None:
    """A rented node begins at IMAGED; a second entry is refused as a whole."""
    ledger.enter("demo", {"node1": NodeState.IMAGED}, "rented")
    with pytest.raises(StaleMoveError, match="known already"):
        ledger.enter("demo", {"node2": NodeState.IMAGED, "node1": NodeState.IMAGED}, "again")
    assert list(ledger.node_states("demo")) == ["node1"]


def test_history_is_every_move_in_order(ledger: Ledger) -> None:
    """With the verbs of the lifecycle."""
    ledger.move("demo", "node1", IMAGED, "test")
    ledger.move("demo", "node1", Change(NodeState.IMAGED, Move.QUARANTINE), "test")
    ledger.move("demo", "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "test")
    assert [(m.before.value, m.move.value, m.after.value) for m in ledger.history("demo", "node1")] == [
        ("PLANNED", "image", "IMAGED"),
        ("IMAGED", "quarantine", "QUARANTINED"),
        ("QUARANTINED", "repair", "PLANNED"),
    ]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(walk=st.lists(st.tuples(st.sampled_from(["n1", "n2"]), st.integers(0, 11), st.booleans()), max_size=12))
def test_the_tables_always_say_what_the_events_say(
    ledger: Ledger, assert_whole: Callable[[Ledger, str], None], walk: list[tuple[str, int, bool]]
) -> None:
    """Whatever legal, illegal or stale moves are tried."""
    for node, pick, stale in walk:
        row = ledger.node_states("demo").get(node)
        state = row.state if row else NodeState.PLANNED
        run = ledger.start_run("demo", node, Stage.BASE)
        move = list(Move)[pick]
        before = NodeState.RETIRED if stale else state
        change = Change(before, move)
        legal = before is state and (state, move) in MOVES
        if legal:
            ledger.finish_run(run, Outcome.PASSED, change=change)
        else:
            with pytest.raises((StaleMoveError, IllegalMoveError)):
                ledger.finish_run(run, Outcome.PASSED, change=change)
    assert_whole(ledger, "demo")


def test_measurements_are_read_back_as_measured(ledger: Ledger, clock) -> None:
    """Kind of number, subject, time and origin survive; filters choose."""
    run = ledger.start_run("demo", "node1", Stage.BURNIN)
    taken = [
        Measurement("busbw", "GB/s", 361.25, Subject(Scope.NODE, "node1"), clock(), run.id, "a" * 64),
        Measurement("ecc", "errors", 0, Subject(Scope.GPU, "node1", gpu=3), clock(), run.id, "b" * 64),
        Measurement("driver", "version", "580.10", Subject(Scope.NODE, "node1"), clock(), run.id, "c" * 64),
        Measurement("up", "bool", 1, Subject(Scope.LINK, "node1", gpu=0, link=17), clock(), run.id, ""),
        Measurement("rate", "Gb/s", 400, Subject(Scope.HCA, "node1", hca="mlx5_0"), clock(), run.id, ""),
        Measurement("alltoall", "GB/s", 40.5, Subject(Scope.RACK), clock(), run.id, "d" * 64),
    ]
    ledger.record_measurements(run, taken)
    assert ledger.measurements("demo") == tuple(taken)
    assert ledger.measurements("demo", run=run.id, metric="ecc") == (taken[1],)
    assert ledger.measurements("demo", node="node1", metric="alltoall") == ()
    assert isinstance(ledger.measurements("demo", metric="ecc")[0].value, int)


def test_a_measurement_that_is_no_number_leaves_none(ledger: Ledger, clock) -> None:
    """NaN never becomes evidence, nor does what was measured beside it."""
    run = ledger.start_run("demo", "node1", Stage.BURNIN)
    subject = Subject(Scope.NODE, "node1")
    pair = [Measurement("t", "C", v, subject, clock(), run.id, "") for v in (50.0, math.nan)]
    with pytest.raises(RackproofError, match="not evidence"):
        ledger.record_measurements(run, pair)
    assert ledger.measurements("demo") == ()


def test_a_measurement_of_another_run_is_refused(ledger: Ledger, clock) -> None:
    """Evidence stays with the run that took it."""
    first, second = (ledger.start_run("demo", "node1", Stage.BURNIN) for _ in range(2))
    stray = Measurement("t", "C", 50.0, Subject(Scope.NODE, "node1"), clock(), first.id, "")
    with pytest.raises(RackproofError, match="recorded for run"):
        ledger.record_measurements(second, [stray])

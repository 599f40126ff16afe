"""Revoking and draining on record: what is written first, what moves, and what is said of a pool that tells little."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from toolkit.errors import RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.pool.admission import revocations
from toolkit.pool.file import FilePool
from toolkit.pool.floor import Capacity
from toolkit.pool.model import DrainEnd
from toolkit.pool.policy import Regulation
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.withdrawal import Order, Target, drain, exit_code, revoke

RACK, OLD, NEW = "demo", "0d" * 32, "ab" * 32
NODES = ("node1", "node2", "node3")
WAY = (Move.IMAGE, Move.CONFIGURE, Move.CONNECT, Move.JOIN, Move.TEST, Move.CERTIFY, Move.ADMIT)
UNTIL = datetime.now(UTC) + timedelta(days=30)
ORDER = Order("cable recall", Regulation(floor=0.0), 1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Three admitted nodes; the third has its own, older certificate."""
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", tmp_path / "a", "test", lambda: datetime.now(UTC)) as opened:
        for node in NODES:
            opened.enter(RACK, {node: NodeState.PLANNED}, "test")
            for move in WAY:
                opened.move(RACK, node, Change(opened.node_states(RACK)[node].state, move), "test")
        for digest, nodes in ((OLD, NODES), (NEW, NODES[:2])):
            body = {"nodes": list(nodes), "expires": UNTIL.isoformat()}
            opened.append(NewEvent(EventKind.CERTIFICATE_ISSUED, RACK, body=body, what=digest))
        yield opened


@pytest.fixture
def pool(tmp_path: Path) -> FilePool:
    made = FilePool(tmp_path / "pool.yml")
    for node in NODES:
        made.register(node, "joined")
        made.admit(node, OLD if node == "node3" else NEW, UNTIL, {})
    return made


def targets(*nodes: str) -> list[Target]:
    return [Target(RACK, node) for node in nodes]


def test_each_nodes_newest_certificate_is_revoked_for_it(ledger: Ledger, pool: FilePool) -> None:
    """One event for each certificate, before the nodes are shut; the older one stays good for whom it still names."""
    rows = revoke(ledger, pool, targets(*NODES), ORDER)
    bodies = [e.body for e in ledger.events(RACK, kind=EventKind.CERTIFICATE_REVOKED)]
    assert revocations(bodies) == {
        (NEW, "node1"): "cable recall",
        (NEW, "node2"): "cable recall",
        (OLD, "node3"): "cable recall",
    }
    assert not any(node.admitted for node in pool.nodes().values())
    assert {row.state for row in ledger.node_states(RACK).values()} == {NodeState.JOINED}
    first = ledger.events(RACK, kind=EventKind.CERTIFICATE_REVOKED)[0].id
    moved = [e.id for e in ledger.events(RACK, kind=EventKind.NODE_MOVED) if e.id > first]
    assert len(moved) == 3
    # A file does not know what runs: that is told, and is no success.
    assert {row.drained.end for row in rows if row.drained} == {DrainEnd.UNDECIDED}
    assert exit_code(rows) == UndecidedError.exit_code


def test_revoking_again_goes_on_where_it_stopped(ledger: Ledger, pool: FilePool) -> None:
    """A second time changes nothing that is done: no node moves twice."""
    revoke(ledger, pool, targets("node1"), ORDER)
    before = len(ledger.history(RACK, "node1"))
    rows = revoke(ledger, pool, targets("node1"), ORDER)
    assert rows[0].shut
    assert len(ledger.history(RACK, "node1")) == before


def test_a_node_that_no_certificate_names_is_told_and_is_no_success(ledger: Ledger, pool: FilePool) -> None:
    """The others are revoked all the same; whoever reads the exit code alone looks at it."""
    pool.register("node9", "joined")
    rows = revoke(ledger, pool, targets("node9", "node1"), ORDER)
    assert [(row.node, row.shut) for row in rows] == [("node1", True), ("node9", False)]
    assert "no certificate on record names it: nothing was revoked" in rows[1].trouble
    assert pool.nodes()["node9"].reason == "joined"
    assert exit_code(rows) == 3


def test_a_node_of_many_that_could_not_be_shut_keeps_its_place_on_record(
    ledger: Ledger, pool: FilePool, tmp_path: Path
) -> None:
    """The others lapse and are drained."""

    class Stubborn(FilePool):
        """Leaves node2 in."""

        def evict_all(self, reasons: Mapping[str, str]) -> Mapping[str, RackproofError]:
            rest = {node: why for node, why in reasons.items() if node != "node2"}
            return {**super().evict_all(rest), "node2": UnreachableError("nobody answers", "wait")}

    rows = {row.node: row for row in revoke(ledger, Stubborn(tmp_path / "pool.yml"), targets(*NODES), ORDER)}
    assert {node: row.shut for node, row in rows.items()} == {"node1": True, "node2": False, "node3": True}
    assert rows["node2"].trouble == "NOT shut: nobody answers"
    states = {node: row.state for node, row in ledger.node_states(RACK).items()}
    assert states == {"node1": NodeState.JOINED, "node2": NodeState.ADMITTED, "node3": NodeState.JOINED}


def test_a_pool_that_falls_silent_after_the_shutting_leaves_the_jobs_and_says_of_each_node_how_it_is(
    ledger: Ledger, pool: FilePool, tmp_path: Path
) -> None:
    """Shut is shut, on record too; that nothing runs there any more is not claimed, and nobody is sent to --force."""

    class Silent(FilePool):
        """Counts jobs, and does not answer when it is asked for them."""

        def capacity(self) -> Capacity:
            raise UnreachableError("list Pod: nobody answers", "wait")

        def running(self, nodes: Collection[str]) -> frozenset[str]:
            raise UnreachableError("list Pod: nobody answers", "wait")

    rows = revoke(ledger, Silent(tmp_path / "pool.yml"), targets(*NODES), ORDER)
    assert [(row.shut, row.drained) for row in rows] == [(True, None)] * 3
    assert {row.trouble for row in rows} == {"shut; what runs there was left: list Pod: nobody answers"}
    assert exit_code(rows) == 3
    assert {row.state for row in ledger.node_states(RACK).values()} == {NodeState.JOINED}


def test_a_pool_that_cannot_be_written_leaves_the_nodes_on_record_as_they_are(
    ledger: Ledger, pool: FilePool, tmp_path: Path
) -> None:
    """What may still take jobs is not called lapsed; the revocation stands, so nothing admits it again."""
    (tmp_path / "pool.yml").write_text("nodes: [broken]\n")
    rows = revoke(ledger, pool, targets("node1"), ORDER)
    assert (rows[0].shut, rows[0].drained) == (False, None)
    assert rows[0].trouble.startswith("NOT shut: ")
    assert ledger.node_states(RACK)["node1"].state is NodeState.ADMITTED
    assert revocations(e.body for e in ledger.events(kind=EventKind.CERTIFICATE_REVOKED)) == {
        (NEW, "node1"): "cable recall"
    }
    assert exit_code(rows) == 3


def test_a_drain_lapses_the_node_and_revokes_nothing(ledger: Ledger, pool: FilePool) -> None:
    """It is tested anew before it comes back; below the floor it is not begun unless somebody types so."""
    with pytest.raises(UsageError, match="1 nodes are to be drained, 0 may be"):
        drain(ledger, pool, targets("node1"), Order("fan", Regulation(floor=0.9), 1.0))
    assert pool.nodes()["node1"].admitted
    rows = drain(ledger, pool, targets("node1"), Order("fan", Regulation(floor=0.9), 1.0, below_floor=True))
    assert rows[0].shut
    assert ledger.node_states(RACK)["node1"].state is NodeState.JOINED
    assert ledger.events(RACK, kind=EventKind.CERTIFICATE_REVOKED) == ()
    assert pool.nodes()["node2"].admitted

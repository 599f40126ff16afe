"""A ledger opened to read: it answers, and nothing can be written through it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from toolkit.errors import RackproofError, UsageError
from toolkit.ledger import EventKind, Ledger, LedgerError, NewEvent
from toolkit.rack.lifecycle import NodeState, Stage


def test_it_answers_and_refuses_every_write(ledger: Ledger, url: str, tmp_path: Path, clock) -> None:
    """On both databases, by the database itself."""
    ledger.enter("demo", {"node1": NodeState.IMAGED}, "rented")
    run = ledger.start_run("demo", "node1", Stage.BASE)
    lease = ledger.acquire("rack/demo", "ann@one", timedelta(minutes=1))
    with Ledger.open_to_read(url, tmp_path / "artifacts", clock) as reader:
        assert reader.node_states("demo")["node1"].state is NodeState.IMAGED
        assert reader.last_event() == ledger.last_event() == 3
        assert reader.leases() == (lease,)
        for write in (
            lambda: reader.start_run("demo", "node1", Stage.BURNIN),
            lambda: reader.append(NewEvent(EventKind.NOTE, "demo")),
            lambda: reader.acquire("rack/other", "bob", timedelta(minutes=1)),
        ):
            with pytest.raises(RackproofError):
                write()
        assert ledger.last_event() == 3
        ledger.release(lease)
        assert reader.leases() == () and reader.runs("demo") == (run,)


def test_the_newest_of_some_kinds_come_oldest_first(ledger: Ledger) -> None:
    """Of a rack, of a node, or of all; as many as are asked for."""
    for n in range(6):
        ledger.append(NewEvent(EventKind.NOTE, "demo", f"node{n % 2}", {}, str(n)))
        ledger.observed("demo", "node0", "fact", {})
    ledger.append(NewEvent(EventKind.NOTE, "other", "node0", {}, "elsewhere"))
    notes = (EventKind.NOTE,)
    assert [e.what for e in ledger.recent(notes, "demo", limit=3)] == ["3", "4", "5"]
    assert [e.what for e in ledger.recent(notes, "demo", "node1")] == ["1", "3", "5"]
    assert [e.what for e in ledger.recent(notes, limit=2)] == ["5", "elsewhere"]
    assert [e.kind for e in ledger.recent((EventKind.OBSERVED, *notes), "demo", limit=2)] == ["note", "observed"]
    assert ledger.recent((), "demo") == ()


def test_none_is_made_and_an_older_one_is_refused(tmp_path: Path, clock) -> None:
    """By looking, nothing comes into being; what to do is said."""
    url = f"sqlite://{tmp_path}/home/ledger.db"
    with pytest.raises(LedgerError, match="there is no ledger"):
        Ledger.open_to_read(url, tmp_path, clock)
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/ledger.db").touch()
    with pytest.raises(UsageError, match="older rackproof"):
        Ledger.open_to_read(url, tmp_path, clock)

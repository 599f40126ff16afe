"""Many writers, killed writers, readers beside them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from toolkit.errors import RackproofError
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

url, artifacts, name, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with Ledger.open(url, artifacts, name, lambda: datetime.now(UTC)) as ledger:
    print("open", flush=True)
    for number in range(rounds):
        run = ledger.start_run("demo", f"{name}-{number}", Stage.IMAGE)
        ledger.append_all([NewEvent(EventKind.NOTE, "demo", run.node, {"i": i}) for i in range(3)])
        ledger.finish_run(run, Outcome.PASSED, change=Change(NodeState.PLANNED, Move.IMAGE))
"""

HALF = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from toolkit.ledger import EventKind, Ledger, NewEvent, events

ledger = Ledger.open(sys.argv[1], Path(sys.argv[2]), "half", lambda: datetime.now(UTC))
with ledger._write() as (session, stamp):
    events.append(session, stamp, [NewEvent(EventKind.NOTE, "demo")] * 100)
    print("inside", flush=True)
    sys.stdin.read()
"""


def writer(url: str, artifacts: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    child = [sys.executable, "-c", WRITER, url, str(artifacts), name, str(rounds)]
    return subprocess.Popen(child, stdout=subprocess.PIPE, text=True)


def test_processes_append_side_by_side(url: str, opened, tmp_path: Path, assert_whole) -> None:
    """Nothing is lost, nothing is refused, and the ids have no gaps."""
    children = [writer(url, tmp_path / "a", name, 25) for name in ("ann", "bob", "cyd")]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    for child in children:
        child.communicate()
    ledger = opened()
    assert_whole(ledger, "demo")
    assert len(ledger.node_states("demo")) == 75


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_leaves_whole_transactions(url: str, opened, tmp_path: Path, assert_whole, seed: int) -> None:
    """SIGKILL at any moment: what was answered is there, what was not is not there at all."""
    child = writer(url, tmp_path / "a", "victim", 100_000)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    time.sleep(random.Random(seed).uniform(0.02, 0.3))
    child.kill()
    child.communicate()
    ledger = opened()
    assert_whole(ledger, "demo")
    notes = [e for e in ledger.events(kind=EventKind.NOTE, limit=1_000_000)]
    assert [e.body["i"] for e in notes] == [0, 1, 2] * (len(notes) // 3)
    ledger.append(NewEvent(EventKind.NOTE, "demo"))


def test_a_writer_killed_inside_a_transaction_leaves_nothing(url: str, opened, tmp_path: Path) -> None:
    """And blocks nobody: its lock goes with it."""
    ledger = opened()
    ledger.append(NewEvent(EventKind.NOTE, "demo"))
    child = subprocess.Popen(
        [sys.executable, "-c", HALF, url, str(tmp_path / "a")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "inside\n"
    assert len(ledger.events()) == 1, "a reader sees the state before, and is not blocked"
    child.kill()
    child.communicate()
    assert ledger.append(NewEvent(EventKind.NOTE, "demo")).id == 2


def test_readers_do_not_wait_for_a_writer(opened) -> None:
    """A status asked for during a long write answers at once, with what was committed."""
    first, second = opened(), opened()
    first.append(NewEvent(EventKind.NOTE, "demo"))
    with first._write() as (session, _):
        session.run("UPDATE lease SET released = 1")
        began = time.monotonic()
        assert len(second.events()) == 1
        assert len(first.events()) == 1, "in the writing process too"
        assert time.monotonic() - began < 1


def test_threads_share_one_ledger(ledger: Ledger, assert_whole: Callable[[Ledger, str], None]) -> None:
    """As a stage does: one run for each node, side by side."""

    def work(number: int) -> None:
        run = ledger.start_run("demo", f"node{number}", Stage.IMAGE)
        ledger.intent("demo", run.node, "power", {"to": "on"})
        assert ledger.find("demo", run.node, EventKind.INTENT, "power") is not None
        ledger.finish_run(run, Outcome.PASSED, change=Change(NodeState.PLANNED, Move.IMAGE))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(64)))
    assert_whole(ledger, "demo")
    assert len(ledger.node_states("demo")) == 64


def test_two_drivers_cannot_both_move_a_node(opened) -> None:
    """Of two moves from one state exactly one is made."""
    ledgers = [opened(), opened()]
    barrier = threading.Barrier(2)

    def push(ledger: Ledger) -> bool:
        barrier.wait()
        try:
            ledger.move("demo", "node1", Change(NodeState.PLANNED, Move.IMAGE), "race")
        except RackproofError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(push, ledgers)) == [False, True]


def test_a_forked_child_is_told_to_open_its_own(ledger: Ledger) -> None:
    """A connection shared over a fork corrupts a database; it is refused instead."""
    reader, writer_ = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ledger.events()
        except RackproofError as refused:
            os.write(writer_, str(refused).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer_)
    with os.fdopen(reader) as answer:
        assert "open the ledger in the child" in answer.read()

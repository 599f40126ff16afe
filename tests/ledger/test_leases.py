"""One driver of a rack at a time, and no late writes of the one before."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from toolkit.errors import BusyError
from toolkit.ledger import Change, EventKind, LeaseLostError, Ledger, NewEvent
from toolkit.ledger import holder as holders
from toolkit.ledger.holder import is_gone, this_process
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage

MINUTE = timedelta(minutes=1)


def test_a_held_lease_names_its_holder_and_expiry(ledger: Ledger) -> None:
    """The second driver learns whom to ask and how long to wait."""
    ledger.acquire("rack/demo", "ann@one", MINUTE)
    with pytest.raises(BusyError, match=r"rack/demo is driven by ann@one until 2026-11-23T08:01:00"):
        ledger.acquire("rack/demo", "bob@two", MINUTE)


def test_tokens_grow_with_every_holder(ledger: Ledger, clock) -> None:
    """After a release, and after an expiry."""
    first = ledger.acquire("rack/demo", "ann", MINUTE)
    ledger.release(first)
    second = ledger.acquire("rack/demo", "bob", MINUTE)
    clock.advance(61)
    third = ledger.acquire("rack/demo", "cyd", MINUTE)
    assert [first.token, second.token, third.token] == [1, 2, 3]
    assert ledger.acquire("rack/other", "ann", MINUTE).token == 1


def test_a_renewed_lease_lasts_longer(ledger: Ledger, clock) -> None:
    """Renewing moves the end, not the token."""
    lease = ledger.acquire("rack/demo", "ann", MINUTE)
    clock.advance(50)
    renewed = ledger.renew(lease, MINUTE)
    clock.advance(50)
    with pytest.raises(BusyError):
        ledger.acquire("rack/demo", "bob", MINUTE)
    assert renewed.token == lease.token


WRITES: dict[str, Callable[[Ledger], object]] = {
    "append": lambda held: held.append(NewEvent(EventKind.NOTE, "demo")),
    "start": lambda held: held.start_run("demo", "node1", Stage.IMAGE),
    "move": lambda held: held.move("demo", "node1", Change(NodeState.PLANNED, Move.IMAGE), ""),
    "enter": lambda held: held.enter("demo", {"node9": NodeState.IMAGED}, ""),
    "plan": lambda held: held.store_plan("demo", "d", "{}"),
    "intent": lambda held: held.intent("demo", "node1", "power", {}),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_under_a_lost_lease_is_refused(ledger: Ledger, clock, write: str) -> None:
    """The first driver was suspended past its lease; the second has begun."""
    late = ledger.under(ledger.acquire("rack/demo", "ann", MINUTE))
    clock.advance(61)
    WRITES["append"](late)  # expired, but nobody else has begun
    ledger.acquire("rack/demo", "bob", MINUTE)
    before = ledger.events()
    with pytest.raises(LeaseLostError, match="bob holds it with token 2"):
        WRITES[write](late)
    assert ledger.events() == before


def test_a_write_after_giving_the_lease_back_is_refused(ledger: Ledger) -> None:
    """A worker thread that outlived its run writes nothing."""
    lease = ledger.acquire("rack/demo", "ann", MINUTE)
    held = ledger.under(lease)
    run = held.start_run("demo", "node1", Stage.IMAGE)
    ledger.release(lease)
    with pytest.raises(LeaseLostError, match="given back"):
        held.finish_run(run, Outcome.PASSED)
    with pytest.raises(LeaseLostError):
        ledger.renew(lease, MINUTE)
    with pytest.raises(LeaseLostError):
        ledger.release(lease)


def test_writes_carry_the_token(ledger: Ledger) -> None:
    """Who drove is on record with every event; taking and giving back are events too."""
    lease = ledger.acquire("rack/demo", "ann", MINUTE)
    ledger.under(lease).append(NewEvent(EventKind.NOTE, "demo"))
    ledger.append(NewEvent(EventKind.NOTE, "demo"))
    ledger.release(lease)
    assert [(e.kind.value, e.token) for e in ledger.events()] == [
        ("lease_taken", None),
        ("note", 1),
        ("note", None),
        ("lease_released", 1),
    ]


def test_a_holder_that_died_need_not_be_waited_for(ledger: Ledger) -> None:
    """A process of this machine that is gone lost its lease with its life; its late writes are fenced anyhow."""
    script = "from toolkit.ledger.holder import this_process; print(this_process(), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    holder = child.stdout.readline().strip()
    ledger.acquire("rack/demo", holder, MINUTE)
    with pytest.raises(BusyError):
        ledger.acquire("rack/demo", this_process(), MINUTE)
    child.kill()
    deadline = time.monotonic() + 10
    while not is_gone(holder) and time.monotonic() < deadline:  # a zombie counts as gone: nobody need reap it
        time.sleep(0.01)
    assert ledger.acquire("rack/demo", this_process(), MINUTE).token == 2
    child.communicate()


@pytest.mark.parametrize("holder", ["ann@elsewhere pid 1 (5 other-boot pid:[1])", "ann", "", "x pid 0 ()"])
def test_a_holder_that_cannot_be_seen_from_here_is_not_gone(holder: str) -> None:
    """Another machine, another container, or free text: only the expiry ends it."""
    assert not is_gone(holder)


def test_this_process_is_not_gone_and_a_reused_pid_is() -> None:
    """The start time tells them apart."""
    mine = this_process()
    assert not is_gone(mine)
    started = mine.rpartition("(")[2].split()[0]
    assert is_gone(mine.replace(f"({started} ", "(1 "))
    assert f"pid {os.getpid()} " in mine


@pytest.mark.root
def test_a_holder_whose_process_is_hidden_is_not_gone() -> None:
    """hidepid= and systemd's ProtectProc= hide other users' processes: then only the expiry ends it."""
    source = Path(holders.__file__).read_text() + f"\nprint(is_gone({this_process()!r}))"
    hidden = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups"
    said = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{hidden} /usr/bin/python3 -I -c "$0"', source],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert said == "False\n"

"""Removals as the ledger has them: on evidence, by serial, over racks; whose word a node's serial is."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from toolkit.judge.lemons import PartKind
from toolkit.ledger import Change, EventKind, Ledger, NewEvent
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.report.lemons import lemon_list, lemons_in, load_thresholds, removals_on_record
from toolkit.settings import load

THRESHOLDS = load_thresholds(load({}))


@dataclass
class Clock:
    """A day passes at every look."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture
def ledger(tmp_path):
    """An empty one."""
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", Clock()) as opened:
        yield opened


def remove(ledger, rack, node, part, code="GPU_LOST", serial=b""):
    """A node leaves on evidence, and is let in again."""
    if serial:
        body = {"artifact": ledger.artifacts.put(serial), "problem": None}
        ledger.append(NewEvent(EventKind.OBSERVED, rack, node, body, "fact identity"))
    run = ledger.start_run(rack, node, Stage.IMAGE)
    change = Change(NodeState.PLANNED, Move.QUARANTINE)
    ledger.finish_run(run, Outcome.FAILED, code=code, part=part, change=change)
    ledger.move(rack, node, Change(NodeState.QUARANTINED, Move.REPAIR), "repaired")


def listed(ledger):
    """Kind and serial of every lemon."""
    found = lemon_list(ledger, THRESHOLDS, ledger._clock())
    return [(x.kind, x.serial) for x in found.lemons]


def test_a_board_is_followed_into_another_rack(ledger):
    """Out of two racks and two slots: one lemon, and no node is one."""
    remove(ledger, "r1", "node1", "GPU 3 (S3 at 00000000:61:00.0)", serial=b"T1")
    remove(ledger, "r2", "node9", "GPU 5 (S3 at 00000000:9D:00.0)", serial=b"T9")
    assert listed(ledger) == [(PartKind.GPU, "S3")]
    (lemon,) = lemon_list(ledger, THRESHOLDS, ledger._clock()).lemons
    assert [(r.rack, r.node, r.place) for r in lemon.removals] == [
        ("r1", "node1", "GPU 3 at 00000000:61:00.0"), ("r2", "node9", "GPU 5 at 00000000:9D:00.0"),
    ]  # fmt: skip
    assert lemons_in([lemon], frozenset({"S3"}))[0].startswith("lemon: gpu S3 was taken out 2 times")
    assert lemons_in([lemon], frozenset({"S4"})) == ()


def test_three_boards_that_failed_in_one_tray_say_something_of_the_tray(ledger):
    """By its own word, not by its name: another machine under that name is another."""
    for number in range(3):
        remove(ledger, "r1", "node1", f"GPU {number} (S{number})", serial=b"T1\n")
    assert listed(ledger) == [(PartKind.NODE, "T1")]
    remove(ledger, "r1", "node2", "GPU 0 (A)", serial=b"T2")
    remove(ledger, "r1", "node2", "GPU 0 (B)", serial=b"T3")
    remove(ledger, "r1", "node2", "GPU 0 (C)", serial=b"T4")
    assert listed(ledger) == [(PartKind.NODE, "T1")]


def test_an_operators_own_quarantine_counts_for_none(ledger):
    """It names no part and rests on no evidence."""
    for _ in range(3):
        ledger.move("r1", "node1", Change(NodeState.PLANNED, Move.QUARANTINE), "GPU 3 (S3) by hand")
        ledger.move("r1", "node1", Change(NodeState.QUARANTINED, Move.REPAIR), "repaired")
    assert removals_on_record(ledger).told == ()


def test_a_part_without_a_serial_is_counted_as_untold_and_followed_by_nobody(ledger):
    """Two unknown ones are not the same one."""
    for _ in range(2):
        remove(ledger, "r1", "node1", "GPU 3 (serial unknown)")
    found = lemon_list(ledger, THRESHOLDS, ledger._clock())
    assert (found.lemons, found.untold) == ((), 2)


@pytest.mark.parametrize("lie", [b"\x1b[2J", b"A" * 300, "S\u202e3".encode(), b"a b", b"\xff\xfe", b""])
def test_a_serial_that_is_none_makes_no_lemon(ledger, lie):
    """What a node says its serial is may be anything."""
    for _ in range(3):
        remove(ledger, "r1", "node1", "cable node1:mlx5_0 - leaf1:1", serial=lie)
    assert listed(ledger) == []


def test_hcas_are_followed_by_their_guid(ledger):
    """A cable between them is not an HCA."""
    for rack in ("r1", "r2"):
        remove(ledger, rack, "node1", "HCA mlx5_3 (0x0200de0000000103)", code="RAIL_SLOW")
    assert listed(ledger) == [(PartKind.HCA, "0x0200de0000000103")]

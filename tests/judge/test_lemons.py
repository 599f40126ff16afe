"""Removals are counted by serial, over racks and slots, within their time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.evidence import Subject
from toolkit.judge.lemons import PartKind, Removal, Threshold, lemons
from toolkit.judge.part import GpuSeat, NamedPart, named_parts, part
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.loading import load_rack
from toolkit.settings import load

NOW = datetime(2026, 11, 23, tzinfo=UTC)
LIMITS = {
    PartKind.GPU: Threshold(2, timedelta(days=365), "a source", "2026-11-23"),
    PartKind.NODE: Threshold(3, timedelta(days=365), "a source", "2026-11-23"),
}


def removal(serial, rack="r1", node="node1", run="1", days=1, kind=PartKind.GPU):
    """One, so many days ago."""
    return Removal(kind, serial, NOW - timedelta(days=days), rack, node, "GPU 0", "GPU_LOST", f"{rack}/{node}/{run}")


def test_a_board_that_failed_in_two_racks_is_a_lemon_and_the_slot_it_left_is_not():
    """The serial is followed; two boards that failed in one slot are two boards."""
    told = [removal("A", days=9), removal("B", run="2", days=5), removal("A", rack="r2", node="node7", days=2)]
    (found,) = lemons(told, LIMITS, NOW)
    assert (found.serial, [r.rack for r in found.removals]) == ("A", ["r1", "r2"])
    assert str(found) == ("gpu A was taken out 2 times (GPU_LOST; in r1/node1, r2/node7): 2 within 365 days. a source")


def test_a_node_has_its_own_threshold():
    """Three of a node's, two of a board's."""
    told = [removal("T", run=str(n), kind=PartKind.NODE) for n in range(3)]
    assert lemons(told[:2], LIMITS, NOW) == ()
    assert [x.kind for x in lemons(told, LIMITS, NOW)] == [PartKind.NODE]


def test_what_is_long_ago_and_what_has_no_serial_does_not_count():
    """Nor the same run told twice."""
    assert lemons([removal("A", days=400), removal("A", run="2")], LIMITS, NOW) == ()
    assert lemons([removal(""), removal("", run="2")], LIMITS, NOW) == ()
    assert lemons([removal("A"), removal("A")], LIMITS, NOW) == ()
    assert lemons([removal("A", kind=PartKind.HCA), removal("A", run="2", kind=PartKind.HCA)], LIMITS, NOW) == ()


NODE = load_rack("demo-small", load({}).inventory).nodes[0]


def blamed(kind, scope=Scope.GPU, **where):
    """A failed finding of such a part."""
    gate = Gate("C", "m", "count", scope, Operator.AT_MOST, 0, "burnin", True, kind, "why", "source", "2026-11-23")
    return Finding(gate, Subject(scope, NODE.name, **where), Answer.FAIL, 1, "detail")


def test_the_words_of_a_part_give_its_serial_back():
    """GPU, tray and HCA; a cable has none of its own."""
    seats = {3: GpuSeat("16500000103", "00000000:61:00.0"), 4: GpuSeat()}
    assert named_parts(part(blamed("gpu", gpu=3), NODE, seats)) == (
        NamedPart("gpu", "16500000103", "GPU 3 at 00000000:61:00.0"),
    )
    assert named_parts(part(blamed("cooling", gpu=3), NODE, seats))[0].serial == "16500000103"
    assert named_parts(part(blamed("gpu", Scope.LINK, gpu=3, link=7), NODE, seats))[0].serial == "16500000103"
    assert named_parts(part(blamed("gpu", gpu=4), NODE, seats)) == (NamedPart("gpu", "", "GPU 4"),)
    assert named_parts(part(blamed("tray", Scope.NODE), NODE, seats)) == (NamedPart("tray", NODE.serial, NODE.name),)
    hca = part(blamed("hca", Scope.HCA, hca="mlx5_3"), NODE, seats)
    assert named_parts(hca) == (NamedPart("hca", NODE.hcas[3].guid, "mlx5_3"),)
    assert named_parts("cable node1:mlx5_3 - leaf4:1") == ()
    two = [blamed("gpu", gpu=3), blamed("gpu", gpu=4)]
    both = part(blamed("gpu", Scope.NODE), NODE, {3: GpuSeat("A"), 4: GpuSeat("B")}, two)
    assert [p.serial for p in named_parts(both)] == ["A", "B"]


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_serial_that_lies_accuses_nobody_else(serial, pci):
    """What a node says its serial is cannot end the brackets and name another board."""
    words = part(blamed("gpu", gpu=3), NODE, {3: GpuSeat(f"{serial}), GPU 5 (VICTIM", pci)})
    assert [p.place.split()[1] for p in named_parts(words)] == ["3"]
    assert "VICTIM" not in {p.serial for p in named_parts(words)}

"""A part's readings over time, by its serial, over nodes and racks."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.report.html.values import Limits
from toolkit.serve.part_view import part_page
from toolkit.serve.seats import SeatIndex, names
from toolkit.serve.site import Site
from toolkit.serve.trend import HEIGHT, TOP, WIDTH, Reading, chart
from toolkit.settings import load

BEGAN = datetime(2026, 8, 1, tzinfo=UTC)
FLOOR = Limits("HBM_SLOW", Operator.AT_LEAST, 2_800.0, "a vendor's figure")
METRIC = "hbm_sweep_gb_per_s_median"


def readings(*values, place="demo node1 GPU 3"):
    """One a day."""
    return [Reading(BEGAN + timedelta(days=n), v, place, f"run {n}", "ab" * 32) for n, v in enumerate(values)]


def test_points_gates_and_limits_stand_where_their_values_are():
    """Higher is higher; what is under its floor is marked, by form as well as by colour."""
    made = chart("HBM", "GB/s", readings(3_000.0, 2_900.0, 2_700.0), [FLOOR])
    assert [dot.fails for dot in made.dots] == [False, False, True] and made.failing == 1
    assert made.dots[0].x < made.dots[1].x < made.dots[2].x
    assert made.dots[0].y < made.dots[1].y < made.rules[0].y < made.dots[2].y
    assert all(0 <= d.x <= WIDTH and TOP <= d.y <= HEIGHT for d in made.dots)
    assert made.rules[0].words == "HBM_SLOW: at least 2,800"
    assert "1 outside today's gate" in made.summary and "last 2,700" in made.summary


def test_a_ceiling_fails_what_is_over_it():
    """The other way round."""
    top = Limits("GPU_HOT", Operator.AT_MOST, 85.0, "x")
    assert [d.fails for d in chart("heat", "celsius", readings(84.0, 86.0), [top]).dots] == [False, True]


def test_labels_of_gates_that_are_close_do_not_cover_each_other():
    """Their lines may."""
    near = [Limits(f"G{n}", Operator.AT_LEAST, 2_800.0 + n, "x") for n in range(3)]
    labels = [rule.label_y for rule in chart("HBM", "GB/s", readings(3_000.0, 100.0), near).rules]
    assert all(b - a >= 13 for a, b in pairwise(labels))


def test_a_change_of_place_is_a_line_with_words():
    """Between the readings before and after."""
    moved = [*readings(1.0, 2.0), *(Reading(BEGAN + timedelta(days=9), 3.0, "other node7 GPU 0", "r", ""),)]
    made = chart("HBM", "GB/s", moved, [])
    (move,) = made.moves
    assert move.words == "to other node7 GPU 0" and made.dots[1].x < move.x < made.dots[2].x


@pytest.mark.parametrize("values", [(5.0,), (5.0, 5.0), (0.0, 0.0, 0.0)])
def test_values_that_do_not_differ_are_drawn(values):
    """No division by nothing."""
    made = chart("HBM", "GB/s", readings(*values), [])
    assert len(made.dots) == len(values) and made.single is (len(values) == 1)


def test_a_serial_is_named_as_a_word_of_its_own():
    """12 is not in 123."""
    assert names("GPU 3 (1650 at 00000000:61:00.0)", "1650")
    assert not names("GPU 3 (16500 at 00000000:61:00.0)", "1650")


def burn_in(ledger, clock, rack, node, serials, value):
    """A burn-in that found these boards and measured them."""
    clock[0] += timedelta(days=1)
    run = ledger.start_run(rack, node, Stage.BURNIN)
    gpus = {str(gpu): [serial, f"00000000:0{gpu}:00.0"] for gpu, serial in enumerate(serials)}
    ledger.observed(rack, node, "burnin", {"gpus": gpus})
    subjects = [Subject(Scope.GPU, node, gpu=gpu) for gpu in range(len(serials))]
    made = [Measurement(METRIC, "GB/s", value + s.gpu, s, clock[0], run.id, "cd" * 32) for s in subjects]
    ledger.record_measurements(run, made)
    return ledger.finish_run(run, Outcome.PASSED)


@pytest.fixture
def moved(tmp_path):
    """Board B was GPU 1 of node1 twice, failed, and is GPU 0 of another rack's node now; A stayed."""
    clock = [BEGAN]
    settings = load({"RACKPROOF_HOME": str(tmp_path)})
    with Ledger.open(settings.ledger_url, settings.artifacts, "test", lambda: clock[0]) as ledger:
        burn_in(ledger, clock, "demo-small", "node1", ["A", "B"], 100.0)
        burn_in(ledger, clock, "demo-small", "node1", ["A", "B"], 200.0)
        run = ledger.start_run("demo-small", "node1", Stage.CERTIFY)
        ledger.finish_run(run, Outcome.FAILED, code="HBM_SLOW", part="GPU 1 (B at 00000000:01:00.0)")
        burn_in(ledger, clock, "demo-small", "node1", ["A", "C"], 300.0)
        burn_in(ledger, clock, "demo", "node2", ["B"], 400.0)
        yield settings, ledger, clock


def test_a_board_takes_its_readings_along(moved):
    """From place to place; those of the board that came after it in its old place are not its own."""
    settings, ledger, clock = moved
    site = Site(settings, ledger, lambda: clock[0])
    while site.seats.read_some(ledger.last_event()):
        pass
    page = part_page(site, "B")
    assert [(p.rack, p.node, p.now) for p in page.places] == [("demo", "node2", True), ("demo-small", "node1", False)]
    (drawn,) = page.charts
    assert [(r.value, r.place) for r in drawn.readings] == [
        (101.0, "demo-small node1 GPU 1"), (201.0, "demo-small node1 GPU 1"), (400.0, "demo node2 GPU 0"),
    ]  # fmt: skip
    assert [run.code for run in page.blames] == ["HBM_SLOW"]
    assert [r.value for r in part_page(site, "A").charts[0].readings] == [100.0, 200.0, 300.0]
    assert [r.value for r in part_page(site, "C").charts[0].readings] == [301.0]
    assert part_page(site, "C").blames == ()


def test_a_board_whose_past_is_not_read_yet_is_not_one_without_a_past(moved):
    """The page says how far the reading has come, and then has it all; new events are taken in."""
    settings, ledger, clock = moved
    site = Site(settings, ledger, lambda: clock[0])
    site.seats._newest = ledger.last_event()
    assert part_page(site, "B").read < 1 and not part_page(site, "B").charts
    while site.seats.read_some(ledger.last_event()):
        pass
    assert part_page(site, "B").read == 1 and part_page(site, "no such") is None
    burn_in(ledger, clock, "demo", "node2", ["B"], 500.0)
    site.seats.read_some(ledger.last_event())
    assert len(part_page(site, "B").charts[0].readings) == 4


def test_seats_are_read_in_pieces(tmp_path):
    """As many as there are, whatever stands between them."""
    settings = load({"RACKPROOF_HOME": str(tmp_path)})
    clock = [BEGAN]
    with Ledger.open(settings.ledger_url, settings.artifacts, "test", lambda: clock[0]) as ledger:
        for n in range(450):
            ledger.append_all([])
            ledger.observed("demo", f"node{n}", "burnin", {"gpus": {"0": [f"S{n}", "x"], "bad": 3, "1": "no list"}})
        index = SeatIndex(ledger)
        pieces = 1
        while index.read_some(ledger.last_event()):
            pieces += 1
        assert pieces == 3 and all(len(index.of(f"S{n}").seats) == 1 for n in range(450))
        assert ledger.find("demo", "node3", EventKind.OBSERVED, "burnin").id == index.of("S3").seats[0].last_event

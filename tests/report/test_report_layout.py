"""Where things stand in a report's charts: limits on the right side, outliers named, colours that can be read on."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import toolkit.report
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Answer
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.model import UnitKind
from toolkit.report.html.layout import elevation, heat_map, number, outliers, strip
from toolkit.report.html.page import LETTERS
from toolkit.report.html.series import series_of
from toolkit.report.html.timeline import lasted, timeline
from toolkit.report.html.values import Bar, Limits, Point, Seat, Series
from toolkit.settings import load

AT = datetime(2026, 11, 23, tzinfo=UTC)
TEMPLATES = Path(toolkit.report.__file__).parent / "templates"


def series(values, *, limit=None, ceiling=None, failed=(), unit="GB/s"):
    """GPUs of one node with these values."""
    points = tuple(
        Point(
            Subject(Scope.GPU, "node1", gpu=n), n, f"node1 GPU {n}", value,
            None if value is None else Answer.FAIL if n in failed else Answer.PASS,
        )
        for n, value in enumerate(values)
    )  # fmt: skip
    limits = () if limit is None else (Limits("LOW", Operator.AT_LEAST, limit, "s"),)
    return Series("m", "title", unit, Scope.GPU, points, limits, ceiling)


def test_limit_and_ceiling_stand_left_and_right_of_the_values_between_them():
    """In the order of their numbers, inside the chart; labels are on rows of their own."""
    drawn = strip(series([478.0, 480.0, 470.0], limit=440.0, ceiling=("NVLS", 700.0)))
    gate, top = drawn.lines
    xs = [x for x, *_ in drawn.bars]
    assert 0 <= gate.x < min(xs) <= max(xs) < top.x <= drawn.width
    assert (gate.words, top.words, gate.row, top.row) == ("LOW ≥ 440", "ceiling NVLS 700", 0, 1)
    assert (gate.anchor, top.anchor, gate.ceiling, top.ceiling) == ("start", "end", False, True)


def test_bars_hold_every_value_and_one_among_hundreds_is_seen():
    """The tallest is the commonest; the loner is at least a pixel high."""
    drawn = strip(series([*[100.0] * 400, 90.0]))
    heights = [h for *_, h in drawn.bars]
    assert len(heights) == 2
    assert max(heights) / min(heights) == pytest.approx(20)
    assert min(heights) > 1


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0, 0, 0], [-1.0, 1.0]])
def test_values_that_are_all_alike_still_have_a_scale(values):
    """No division by nothing, and every bar is inside."""
    drawn = strip(series(values))
    assert all(x >= 0 and x + w <= drawn.width + 1 for x, _, w, _ in drawn.bars)


def test_nothing_on_record_is_no_chart():
    """And words and gaps are no numbers."""
    assert strip(series([None, None])) is None
    drawn = strip(series([None, 3.0]))
    assert "1 of 2 on record" in drawn.summary


def test_those_that_fail_are_named_first_then_those_far_off_the_farthest_first():
    """The rest is alike; at most six are named, and the others counted."""
    values = [100.0, 100.1, 99.9, 100.2, 99.8, 100.0, 60.0, 80.0, 99.0]
    found = outliers(series(values, failed={8}))
    assert [p.column for p in found] == [8, 6, 7]
    assert outliers(series([100.0, 100.5, 99.6, 100.4])) == ()
    many = strip(series([*[100.0] * 20, *[50.0] * 9]))
    assert (len(many.marks), many.more) == (6, 3)
    assert [m.number for m in many.marks] == [1, 2, 3, 4, 5, 6]
    assert [m.label for m in many.marks] == ["1,2,3,4,5,6", "", "", "", "", ""]


def test_a_finding_relative_to_peers_marks_its_part_and_nobody_else():
    """Its limit is no line to draw: the chart says by which gate and share it is compared."""
    rack = load_rack("dgx-h100-su", load({}).inventory)
    subject = Subject(Scope.GPU, "dgx01", gpu=2)
    told = [Measurement("gemm_bf16_tflop_per_s", "TFLOP/s", 400.0, subject, AT, "run", "ab" * 32)]
    failed = frozenset({("GEMM_RATE_BELOW_PEERS", "dgx01/gpu2"), ("GEMM_RATE_BELOW_PEERS", "dgx02/gpu2")})
    by_metric = {s.metric: s for s in series_of(rack, told, {}, {}, failed)}
    found = by_metric["gemm_bf16_tflop_per_s"]
    assert [p.who for p in found.points if p.answer is Answer.FAIL] == ["dgx01 GPU 2, serial unknown"]
    assert (found.limits, found.unjudged) == ((), "GEMM_RATE_BELOW_PEERS compares it with its peers, 33%")
    assert by_metric["hbm_celsius_max"].unjudged == "HBM_HOT has no sourced limit: measured, not judged"
    assert by_metric["gpu_watts_max"].unjudged == "no gate of dgx-h100 reads it"


def contrast(one, two):
    """WCAG 2.2's ratio of two colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("unit", ["GB/s", "celsius", "count"])
def test_text_can_be_read_on_every_cell(unit):
    """WCAG AAA: 7 to 1, from the least value to the most; the most is the darkest."""
    cells = heat_map(series([0, 1, 2, 3, 4], unit=unit)).cells
    assert min(contrast(c.fill, "#15181d") for c in cells) >= 7
    assert contrast(cells[-1].fill, "#15181d") < contrast(cells[0].fill, "#15181d")


def test_colours_of_words_can_be_read_on_white_and_on_their_boxes():
    """WCAG AA, 4.5 to 1: every colour of text in the two pages."""
    for name in ("rack_report.html", "contract.html"):
        style = (TEMPLATES / name).read_text()
        colours = set(re.findall(r"[; {]color: (#[0-9a-f]{6})", style))
        assert colours
        assert min(contrast(colour, "#ffffff") for colour in colours) >= 4.5


def test_every_state_has_a_letter_of_its_own():
    """So that the elevation reads without colour."""
    assert set(LETTERS) == set(NodeState)
    assert len(set(LETTERS.values())) == len(NodeState)


def test_the_highest_slot_stands_on_top_and_gaps_are_one_line():
    """Whatever order the rack file has."""
    seats = [Seat(slot, f"u{slot}", UnitKind.NODE, "s") for slot in (1, 9, 2, 4)]
    height, places = elevation(seats)
    assert [p.seat.slot if p.seat else p.gap for p in places] == [
        9, "slots 5 to 8: nothing is planned", 4, "slot 3: nothing is planned", 2, 1,
    ]  # fmt: skip
    assert [p.y for p in places] == sorted(p.y for p in places)
    assert places[-1].y < height


def test_a_run_that_is_open_lasts_until_now_and_says_so():
    """Bars are inside the chart, in the order of time; rows in the elevation's."""
    minute = timedelta(minutes=1)
    bars = [
        Bar("node1", Stage.IMAGE, AT, AT + minute, Outcome.PASSED, "", ""),
        Bar("node1", Stage.BASE, AT + minute, AT + 2 * minute, Outcome.FAILED, "X", ""),
        Bar("node2", Stage.IMAGE, AT, None, None, "", ""),
    ]
    drawn = timeline(bars, AT + 4 * minute, ["node2", "node1"])
    assert [name for _, name in drawn.rows] == ["node2", "node1"]
    assert drawn.took == 4 * minute
    image, base, open_ = drawn.drawn
    assert image.x + image.width == pytest.approx(base.x)
    assert open_.x + open_.width == pytest.approx(900)
    assert [d.text for d in drawn.drawn] == ["im", "F ba", "… im"]
    assert "did not end" in open_.title
    assert timeline([], AT, []) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")],
)
def test_durations_are_told_in_two_units_at_most(seconds, words):
    """Of a short one the tenths."""
    assert lasted(timedelta(seconds=seconds)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0, "0"), (2900.4, "2,900"), (47.366, "47.37"), (0.8651, "0.8651"), (12345, "12,345"), ("x", "x")],
)
def test_numbers_are_short_and_a_missing_one_is_a_dash(value, words):
    """Never a zero."""
    assert number(value) == words

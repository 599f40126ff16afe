"""A work order on every medium: complete, in order, and never markup, formula or escape sequence."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cabling import World, port, unit
from rich.console import Console

import toolkit.judge.fabric
from toolkit.judge.fabric.line import Action, Place, WorkEnd, WorkLine
from toolkit.judge.fabric.work_order import WorkOrder, cable_order, ordered, work_order
from toolkit.judge.verdict import Answer
from toolkit.report.fabric_codes import FABRIC_CODES
from toolkit.report.work_order import COLUMNS, SCHEMA, work_order_csv, work_order_json, work_order_page, work_order_view

AT = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
HOSTILE = '=HYPERLINK("http://evil.example","x")\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>{{7*7}}\r\n@SUM(A1)'


def faulty() -> WorkOrder:
    world = World(unit(16))
    world.swap("leaf-1:5", "leaf-2:5")
    world.swap("leaf-3:1", "leaf-3:2", "leaf-3:3")
    world.pull("leaf-4:9")
    world.lanes[port("leaf-5:7")] = 1
    world.grown[port("leaf-1:10")] = {"SymbolErrorCounter": 4242}
    world.pkeys["dgx-001:mlx5_3"] = (0x7FFF,)
    world.doubts = ("one line was not understood",)
    return cable_order(world.report())


def hostile() -> WorkOrder:
    end = WorkEnd(HOSTILE, HOSTILE, "su1", 3)
    line = WorkLine(
        "FABRIC_CABLES_SWAPPED", Action.SWAP, Answer.FAIL, HOSTILE, (end, end, end), Place("su1", 3, HOSTILE),
        (HOSTILE,), HOSTILE, "cable", HOSTILE,
    )  # fmt: skip
    return work_order("su1", Answer.FAIL, [line], [("cables", HOSTILE)], [HOSTILE], [HOSTILE])


def on_terminal(order: WorkOrder, colour: bool = False) -> str:
    out = io.StringIO()
    Console(file=out, width=80, no_color=not colour, force_terminal=colour, highlight=False, markup=False).print(
        work_order_view(order)
    )
    return out.getvalue()


def test_settings_come_first_and_then_each_place_once_by_slot():
    """A technician walks once; whoever sits at a console is done before."""
    visits = faulty().visits
    assert visits[0].place is None
    slots = [visit.place.slot for visit in visits[1:] if visit.place]
    assert slots == sorted(set(slots))


def test_steps_of_a_rotation_stay_together_and_in_order():
    """Also where other work at the same place would sort between them."""
    lines = ordered(reversed(faulty().lines))
    steps = [line.step for line in lines if line.code == "FABRIC_CABLES_ROTATED"]
    at = [number for number, line in enumerate(lines) if line.code == "FABRIC_CABLES_ROTATED"]
    assert steps == [1, 2]
    assert at[1] == at[0] + 1


def test_the_terminal_shows_every_line_within_80_columns():
    """Number, box, instruction, the other way, evidence, what proves it mended; no colour where none is wanted."""
    text = on_terminal(faulty())
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "\x1b" not in text
    assert "su1: work order  FAIL" in text
    assert "[ ] swap dgx-005 mlx5_0 and dgx-005 mlx5_1 (leaf-1 port 5/leaf-2 port 5)" in text
    assert "or swap leaf-1 port 5 and leaf-2 port 5 (dgx-005 mlx5_0/mlx5_1)" in text
    assert "undecided: discovery: one line was not understood" in text


def test_a_long_order_is_cut_on_the_terminal_and_says_so():
    """All of it is in the other forms."""
    one = faulty().lines[0]
    order = work_order("su1", Answer.FAIL, [replace(one, text=f"line {n}") for n in range(100)])
    text = on_terminal(order)
    assert "and 60 more lines: all with --json, --csv or --html" in text
    assert len(work_order_json(order)["lines"]) == 100
    assert len(work_order_csv(order).splitlines()) == 101


def test_a_sound_fabric_has_nothing_to_do():
    """On all media."""
    order = cable_order(World().report())
    assert "nothing to do" in on_terminal(order)
    assert "Nothing to do." in work_order_page(order, AT)
    assert work_order_json(order)["lines"] == []


def test_json_names_its_schema_and_holds_both_ends():
    """And survives a round trip."""
    body = json.loads(json.dumps(work_order_json(faulty())))
    assert body["schema"] == SCHEMA
    assert body["answer"] == "FAIL"
    (swap,) = [line for line in body["lines"] if line["code"] == "FABRIC_CABLES_SWAPPED"]
    assert {(end["unit"], end["port"]) for end in swap["ends"]} == {
        ("dgx-005", "mlx5_0"), ("dgx-005", "mlx5_1"), ("leaf-1", "5"), ("leaf-2", "5"),
    }  # fmt: skip
    assert swap["place"] == {"rack": "su1", "slot": 5, "unit": "dgx-005"}
    assert [line["number"] for line in body["lines"]] == list(range(1, len(body["lines"]) + 1))


def test_csv_has_a_row_a_line_and_no_cell_is_a_formula():
    """Not even one that begins with a blank; a reader of the standard takes it."""
    rows = list(csv.reader(io.StringIO(work_order_csv(hostile()))))
    assert rows[0] == list(COLUMNS)
    assert len(rows) == 3  # the line and the doubt
    assert not [cell for row in rows for cell in row if cell.lstrip().startswith(("=", "+", "-", "@"))]
    assert not [cell for row in rows for cell in row if not cell.isprintable()]
    assert len(list(csv.reader(io.StringIO(work_order_csv(faulty()))))) == 1 + len(faulty().lines) + 1


def test_hostile_names_do_not_reach_the_terminal_as_they_are():
    """No escape sequence, no carriage return: what a node calls itself is untrusted."""
    text = on_terminal(hostile())
    assert not set(text) & {"\x1b", "\x07", "\r"}


class _Page(HTMLParser):
    """Elements, and attributes that could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        loading = ("src", "href", "action", "style")
        self.loads += [f"{name}={value}" for name, value in attrs if name in loading or name.startswith("on")]


def test_the_page_escapes_all_that_the_fabric_said():
    """And neither loads nor runs anything: no script, no link, no image, and a policy that forbids them."""
    text = work_order_page(hostile(), AT)
    page = _Page(text)
    assert not {"script", "img", "link", "iframe", "a", "form"} & set(page.tags)
    assert page.loads == []
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert "{{7*7}}" in text  # not a template's 49
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_a_box_for_every_line_and_a_place_to_sign():
    """On A4, without the network."""
    order = faulty()
    text = work_order_page(order, AT)
    assert text.count('type="checkbox"') == len(order.lines)
    assert "size: A4" in text
    assert "signature" in text
    assert "2026-11-23 08:30 UTC" in text


def test_every_code_of_the_fabric_is_explained():
    """And no explanation is left of a code that is gone."""
    folder = Path(toolkit.judge.fabric.__file__).parent
    files = [file for file in folder.glob("*.py") if not file.name.startswith(("nvlink", "imex"))]
    used = {code for file in files for code in re.findall(r'"(FABRIC_[A-Z_]+)"', file.read_text())}
    assert used == set(FABRIC_CODES)


@pytest.mark.parametrize("code", sorted(FABRIC_CODES))
def test_explanations_are_sentences(code):
    """Long enough to help, short enough for a screen."""
    words = FABRIC_CODES[code]
    assert words.endswith(".")
    assert 40 < len(words) < 400

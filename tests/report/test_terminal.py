"""What an operator sees on a terminal: nothing cut, readable without colour, the worst first, the next command last."""

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from nvlink_racks import nvl72
from rich.console import Console

from toolkit.ledger import Change, Ledger
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Suite
from toolkit.rack.plan import NodeStatus, make_plan
from toolkit.report.elevation import Elevation, legend, slots_of
from toolkit.report.eta import NO_HISTORY, usual, usual_times
from toolkit.report.lines import plan_lines, plan_next, status_lines
from toolkit.report.overview import AtWork, Overview, next_command, overview
from toolkit.report.standing import Standing
from toolkit.report.terminal import fleet_view, plan_view, status_view
from toolkit.report.watch import Watch
from toolkit.settings import load

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202ereversed\u2066\r\n[bold]not markup[/bold]"


def stood(node, state=NodeState.ADMITTED, outcome=Outcome.PASSED, stage=Stage.ADMIT, code="", **more):
    """A standing."""
    return Standing(node, state, outcome, stage, code, **more)


def failed(node, part="GPU 3 (16500000203 at 00000000:61:00.0)"):
    """One that failed on evidence."""
    return stood(
        node, NodeState.QUARANTINED, Outcome.FAILED, Stage.NVLINK, "NVLINK_LINK_DOWN", part=part,
        message="it is down", next=f"service {part}, then: rackproof release {node}",
    )  # fmt: skip


def undecided(node):
    """One whose BMC does not answer."""
    return stood(node, NodeState.PLANNED, Outcome.ERROR, Stage.IMAGE, "BMC_UNREACHABLE",
                 message=f"BMC of {node} does not answer", next="rackproof bringup gb200-nvl72")  # fmt: skip


def seen(nodes, **more):
    """An overview of the NVL72 rack."""
    told = {"driver": "", "at_work": (), "next": next_command("gb200-nvl72", nodes)} | more
    return Overview("gb200-nvl72", "example", "gb200-nvl72", tuple(nodes), **told)


def shown(view, width, **console):
    """What is printed on a terminal of that width, without colour."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=True, color_system=None, highlight=False, emoji=False, markup=False,
            **console).print(view)  # fmt: skip
    return out.getvalue()


TRAYS = [f"tray{n:02d}" for n in range(1, 19)]
MIXED = [stood(t) for t in TRAYS[:15]] + [failed("tray16"), undecided("tray17"), undecided("tray18")]


@pytest.mark.parametrize("width", [60, 80, 132])
def test_a_rack_of_18_trays_fits_and_nothing_that_matters_is_cut(width):
    """Every unit, code, part and command is there, in lines that are no wider than the terminal."""
    text = shown(status_view(nvl72(), seen(MIXED), NOW), width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    assert "…" not in words
    for unit in nvl72().units:
        assert re.search(rf"\b{unit.slot} +\S+ +{unit.name}\b", text), unit.name
    for needed in ("NVLINK_LINK_DOWN", "16500000203 at 00000000:61:00.0", "rackproof release tray16", "BMC_UNREACHABLE",
                   "tray[17-18]", "BMC of NODE does not answer", "15 ADMITTED", "site example"):  # fmt: skip
        assert needed in words
    assert len(text.splitlines()) <= 40


@pytest.mark.parametrize("width", [60, 80, 132])
def test_72_nodes_are_folded_into_columns_that_keep_their_order(width):
    """Highest slot first, down and then right; no line is wider than the terminal, no node is missing."""
    rack = load_rack("dgx-h100-su", load({}).inventory)
    node = rack.nodes[0]
    units = tuple(replace(node, name=f"node{n:02d}", slot=n) for n in range(1, 73))
    slots = slots_of(replace(rack, units=units), [stood(u.name) for u in units])
    rows = [row.plain for row in Elevation(slots).rows(width)]
    assert max(map(len, rows)) <= width
    assert len(rows) <= 24
    found = [re.findall(r"(\d+) A +node(\d+)", row) for row in rows]
    by_column = [found[r][c] for c in range(len(found[0])) for r in range(len(found)) if c < len(found[r])]
    assert [int(slot) for slot, _ in by_column] == list(range(72, 0, -1))
    assert all(int(slot) == int(name) for slot, name in by_column)


def test_states_read_without_colour_and_the_legend_names_each_letter_there():
    """A letter for a state, a mark for trouble and for work, a small letter for what has no state."""
    slots = slots_of(nvl72(), MIXED, at_work=["tray01"])
    of = {slot.name: (slot.letter, slot.mark) for slot in slots if slot.name}
    assert (of["tray16"], of["tray17"], of["tray02"], of["tray01"]) == (("Q", ""), ("P", "!"), ("A", ""), ("A", "*"))
    assert (of["nvswitch1"], of["shelf1"]) == (("s", ""), ("w", ""))
    words = legend(slots)
    for letter in ("A ADMITTED", "P PLANNED", "Q QUARANTINED", "s nvlink switch", "w power shelf", "! last", "* at"):
        assert letter in words
    assert "IMAGED" not in words


def test_failures_come_before_doubts_and_both_before_the_rack():
    """An operator reads from the top."""
    text = shown(status_view(nvl72(), seen([undecided("tray01"), failed("tray02"), *MIXED[2:15]]), NOW), 80)
    places = [text.index(words) for words in ("NVLINK_LINK_DOWN", "BMC_UNREACHABLE", " A  tray05")]
    assert places == sorted(places)


def test_what_a_node_said_moves_no_cursor_and_turns_no_letters():
    """Escapes, bidirectional overrides, new lines and markup of a hostile node are letters like others."""
    bad = stood("tray01", NodeState.QUARANTINED, Outcome.FAILED, Stage.BASE, HOSTILE, part=HOSTILE, next=HOSTILE)
    text = shown(status_view(nvl72(), seen([bad]), NOW), 80) + "\n".join(status_lines([seen([bad])]))
    assert not re.search("[\x00-\x09\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert "\x1b[2J" not in text and "\x1b]" not in text
    assert "[bold]not markup[/bold]" in " ".join(text.split())


def test_lines_are_one_a_node_those_with_trouble_first_and_the_command_last():
    """For programs: columns, no box, no fold, however long."""
    lines = list(status_lines([seen(MIXED)]))
    assert lines[0].split()[:5] == ["RACK", "NODE", "STATE", "STAGE", "CODE"]
    assert [line.split()[1] for line in lines[1:4]] == ["tray16", "tray17", "tray18"]
    assert len(lines) == 1 + 18 + 1
    assert lines[1].endswith("then: rackproof release tray16")
    assert lines[-1] == "next: rackproof why tray16"
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("nodes", "driver", "command"),
    [
        ([stood("a")], "", "rackproof recert plan r"),
        ([stood("a"), failed("b")], "", "rackproof why b"),
        ([failed("a"), failed("b")], "", "rackproof why r"),
        ([stood("a"), undecided("b")], "", "rackproof why r"),
        ([stood("a", NodeState.PLANNED, None, None)], "", "rackproof plan r"),
        ([stood("a", NodeState.CERTIFIED)], "", "rackproof plan r"),
        ([failed("a")], "ops@host pid 1", "rackproof status r"),
    ],
)
def test_the_next_command_looks_at_evidence_before_anything_runs_again(nodes, driver, command):
    """And waits while somebody drives the rack."""
    assert next_command("r", nodes, driver) == command


def test_many_racks_get_a_line_each_the_worst_first():
    """With how often each code is there."""
    racks = [replace(seen([stood("a")]), rack="fine"), replace(seen([undecided("a"), undecided("b")]), rack="unsure"),
             replace(seen([failed("a")]), rack="broken")]  # fmt: skip
    text = shown(fleet_view(racks), 80)
    assert [line.split()[0] for line in text.splitlines()[1:4]] == ["broken", "unsure", "fine"]
    assert "2 BMC_UNREACHABLE" in text


@pytest.mark.parametrize(
    ("environment", "boxes", "colours", "escapes"),
    [
        ({}, False, False, False),
        ({"FORCE_COLOR": "1", "COLUMNS": "80"}, True, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80"}, True, False, True),
        ({"TTY_COMPATIBLE": "1", "TERM": "dumb", "COLUMNS": "80"}, True, False, False),
    ],
    ids=["no terminal", "FORCE_COLOR", "NO_COLOR", "TERM=dumb"],
)
def test_the_environment_says_whether_there_are_colours(tmp_path, environment, boxes, colours, escapes):
    """no-color.org and force-color.org; without a terminal plain lines."""
    program = Path(sys.executable).parent / "rackproof"
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "RACKPROOF_HOME": str(tmp_path / "home"), **environment}
    done = subprocess.run([program, "status", "demo"], env=env, capture_output=True, text=True, check=True)
    assert ("legend" if boxes else "RACK") in done.stdout.replace("P PLANNED", "legend")
    assert bool(re.search("\x1b\\[[0-9;]*3[0-9]m", done.stdout)) is colours
    assert ("\x1b" in done.stdout) is escapes
    assert "next: " in re.sub("\x1b\\[[0-9;]*m", "", done.stdout).splitlines()[-1]


# Plans and times


def test_a_plan_says_how_long_each_stage_takes_only_where_that_is_on_record():
    """A stage without history says so; the sum names what it leaves out."""
    plan = make_plan(nvl72(), {t: NodeStatus(NodeState.CONFIGURED) for t in TRAYS[:9]})
    known = {Stage.NVLINK: usual([60.0, 70.0, 80.0])}
    text = " ".join(shown(plan_view(plan, None, known), 132).split())
    assert "1 min 10 s (1 min to 1 min 20 s, 3 runs)" in text
    assert NO_HISTORY in text and "together: usually 1 min 10 s" in text
    assert "tray[01-18]" in text and "tray[10-18]" in text and "erases disks" in text
    assert f"together: {NO_HISTORY}" in " ".join(shown(plan_view(plan), 80).split())
    lines = list(plan_lines(plan, known))
    assert any(line.startswith("image") and "erases disks" in line for line in lines)
    assert plan_next(plan) == "rackproof bringup gb200-nvl72 --confirm gb200-nvl72"


@pytest.mark.parametrize("width", [60, 80, 132])
def test_a_plan_of_18_trays_fits(width):
    """Nodes are folded as rack files write them."""
    text = shown(plan_view(make_plan(nvl72(), {}), None, {Stage.IMAGE: usual([800.0] * 20)}), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "tray[01-18]" in text and "…" not in text


def test_spread_is_the_outer_tenths_of_many_runs_and_all_of_few():
    """Nothing of nothing; one run has no spread."""
    assert usual([]) is None
    few, many = usual([10.0, 20.0, 60.0]), usual([float(n) for n in range(1, 101)])
    assert (few.median_s, few.low_s, few.high_s) == (20.0, 10.0, 60.0)
    assert (many.median_s, many.low_s, many.high_s) == (50.5, pytest.approx(10.9), pytest.approx(90.1))
    assert usual([42.0]).words == "42 s (1 run)"


def test_what_is_left_is_never_made_up():
    """Before the middle the rest; then the usual longest; then how rare it has become."""
    took = usual([600.0 + n for n in range(20)])
    assert took.left(60) == "about 9 min 10 s left"
    assert "at most" in took.left(612)
    assert took.left(10_000) == "longer than 9 of 10 earlier runs"
    assert usual([5.0, 6.0]).left(60) == "longer than all earlier runs"


@pytest.fixture
def ledger(tmp_path):
    """A ledger whose time is told."""
    at = [NOW - timedelta(days=9)]
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", lambda: at[0]) as opened:
        yield opened, at


def test_usual_times_are_of_passes_of_that_suite_on_racks_of_that_profile(ledger):
    """A failure, another rack and another suite say nothing of it."""
    book, at = ledger
    told = [("demo", 100, "standard", Outcome.PASSED), ("demo", 5, "standard", Outcome.FAILED),
            ("demo", 7, "quick", Outcome.PASSED), ("other", 300, "standard", Outcome.PASSED),
            ("alike", 200, "standard", Outcome.PASSED)]  # fmt: skip
    for rack, seconds, suite, outcome in told:
        run = book.start_run(rack, "node1", Stage.BURNIN)
        book.intent(rack, "node1", "burnin", {"suite": suite, "run": run.id})
        at[0] += timedelta(seconds=seconds)
        book.finish_run(run, outcome)
    rack = load_rack("demo", load({}).inventory)
    found = usual_times(book, rack, ["alike"], Suite.STANDARD, Stage)
    assert set(found) == {Stage.BURNIN}
    assert (found[Stage.BURNIN].low_s, found[Stage.BURNIN].high_s, found[Stage.BURNIN].runs) == (100.0, 200.0, 2)


def test_a_run_that_somebody_drives_is_at_work_and_one_that_nobody_does_was_interrupted(ledger):
    """By the rack's lease: the holder lives, and it has not expired."""
    book, at = ledger
    rack = load_rack("demo", load({}).inventory)
    book.enter("demo", {"node1": NodeState.IMAGED}, "a test")
    lease = book.acquire("rack/demo", "ops@elsewhere pid 7 (x y)", timedelta(minutes=1))
    book.start_run("demo", "node1", Stage.BASE)
    now = overview(book, rack, at[0])
    assert (now.driver, now.at_work) == ("ops@elsewhere pid 7", (AtWork(Stage.BASE, ("node1",), at[0]),))
    assert not any(s.trouble for s in now.nodes)
    text = shown(status_view(rack, now, at[0] + timedelta(seconds=30)), 80)
    assert f"base on node1 for 30 s; {NO_HISTORY}" in text and "* node1" in text
    late = overview(book, rack, at[0] + timedelta(minutes=2))
    assert (late.driver, late.at_work) == ("", ())
    assert [s.code for s in late.nodes if s.trouble] == ["INTERRUPTED"]
    book.release(lease)
    assert overview(book, rack, at[0]).driver == ""
    assert Change(NodeState.IMAGED, Move.QUARANTINE).before is NodeState.IMAGED


def test_live_progress_shows_failures_first_and_no_more_rows_than_the_screen_has():
    """And what is left by the history, or that there is none."""
    console = Console(file=io.StringIO(), width=80, height=12, force_terminal=True, color_system=None)
    watch = Watch(console, {Stage.BURNIN: usual([600.0] * 12)})
    watch.open_stage(Stage.BURNIN, TRAYS)
    for tray in TRAYS[:4]:
        watch.show(tray, "passed", 1.0)
    watch.show("tray18", "NVLINK_LINK_DOWN", 1.0)
    watch.show("tray09", HOSTILE, 0.4)
    lines = shown(watch.panel(), 80).splitlines()
    assert lines[0].startswith("burnin 0.") and "4 passed, 1 did not, 13 at work" in lines[0]
    assert "about 10 min left" in " ".join(lines[:2])
    assert next(line for line in lines if line.startswith("  tray")).split() == ["tray18", "NVLINK_LINK_DOWN"]
    assert len(lines) <= 12 and lines[-1].split()[0] == "and"
    assert not re.search("\x1b\\[2J|\u202e", "".join(lines))
    watch.open_stage(Stage.CERTIFY, ["tray01"])
    assert NO_HISTORY in shown(watch.panel(), 80)
    watch.close_stage()
    assert "tray18: NVLINK_LINK_DOWN" in console.file.getvalue()

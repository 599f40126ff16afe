"""The report of a rack with four faults: what a reader must find in it, and that nothing a node said runs in it."""

import json
import re
import sys
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from chromium import A4_POINTS, looked_at, needs_chromium, printed
from rehearsal import context_over, folder, in_process, now, open_ledger

from toolkit.bringup import bringup
from toolkit.cli import main
from toolkit.judge.verdict import Answer
from toolkit.ledger import Change, EventKind
from toolkit.rack.lifecycle import Move, NodeState, Outcome
from toolkit.rack.loading import load_rack
from toolkit.rack.plan import make_plan
from toolkit.report.html.gather import gather
from toolkit.report.html.layout import heat_map, outliers
from toolkit.report.html.page import report_json, report_page
from toolkit.report.in_force import in_force, own_trust
from toolkit.settings import load
from toolkit.virtual.faults import Fault, FaultKind

HOSTILE = '"><script>document.title="owned"</script><svg onload=alert(1)>{{7*7}}\x1b[2J\u202e]]>'
FAULTS = (
    Fault(FaultKind.ECC_DRIP, "node2", gpu=3),
    Fault(FaultKind.NVLINK_LANE_DOWN, "node4", gpu=5, link=7),
    Fault(FaultKind.BMC_DEAD, "node5"),
    Fault(FaultKind.SWAPPED_CABLES, "node6", hca="mlx5_1", other="mlx5_2"),
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Six nodes with the demo's four faults, brought up as far as each goes; made once."""
    with folder(tmp_path_factory.mktemp("rack") / "made") as made:
        lab = in_process(made, "demo", *FAULTS)
        with open_ledger(lab.settings) as ledger:
            bringup(context_over(lab, ledger), make_plan(lab.rack, {}))
        yield lab


def gathered(settings, rack):
    """The report as the ledger has it now."""
    with open_ledger(settings) as ledger:
        held = in_force(ledger, rack, own_trust(settings.keys, now()), now())
        return gather(ledger, rack, held, {}, now())


@pytest.fixture(scope="module")
def report(lab):
    """Of the six."""
    return gathered(lab.settings, lab.rack)


@pytest.fixture(scope="module")
def page(report):
    """As HTML."""
    return report_page(report)


class _Page(HTMLParser):
    """Elements with their attributes, in order, and the text of each kind of element."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, *tags):
        """Attributes of these elements."""
        return [attrs for tag, attrs in self.found if tag in tags]


def series(report, metric):
    """The series of a metric."""
    return next(s for s in report.series if s.metric == metric)


def test_verdict_certificate_and_next_command_come_first(report, page):
    """Two of six nodes are certified, four are not, each with why; what to do stands on top."""
    assert report.answer is Answer.FAIL
    (certificate,) = report.certificates
    assert certificate.nodes == ("node1", "node3")
    assert [node for node, _ in report.doubts] == ["node2", "node4", "node5", "node6"]
    head = page[page.index("<header") : page.index('id="elevation"')]
    for words in ("FAIL", "2 of 6 nodes certified", certificate.digest, report.next.split(",")[0], "BMC_UNREACHABLE"):
        assert words in head


def test_each_fault_is_a_finding_with_its_part_its_meaning_and_the_next_command(report):
    """Failures before what we could not do; what follows from them comes after."""
    blamed = [f for f in report.findings if f.blamed]
    assert [(f.node, f.code, f.answer.value) for f in blamed] == [
        ("node2", "HBM_ECC_CORRECTED", "FAIL"),
        ("node4", "NVLINK_LINK_DOWN", "FAIL"),
        ("node6", "FABRIC_CABLES_SWAPPED", "FAIL"),
        ("node5", "BMC_UNREACHABLE", "INCONCLUSIVE"),
    ]
    assert blamed[0].part == "GPU 3 (16500000203 at 00000000:61:00.0)"
    assert blamed[0].next.endswith("rackproof release node2")
    assert all(f.meaning and f.next for f in blamed)
    assert report.findings[: len(blamed)] == tuple(blamed)


def test_a_map_names_the_part_that_fails_by_serial_and_place(report):
    """In its node's row and its GPU's column; the others of the node are well."""
    ecc = series(report, "hbm_corrected_errors_delta")
    (bad,) = [p for p in ecc.points if p.answer is Answer.FAIL]
    assert (bad.subject.node, bad.column, bad.value) == ("node2", 3, 12)
    assert outliers(ecc) == (bad,)
    (cell,) = [c for c in heat_map(ecc).cells if c.kind == "fail"]
    assert (cell.text, cell.title) == (
        "F 12",
        "node2 GPU 3, serial 16500000203 at 00000000:61:00.0: 12, fails its gate",
    )
    assert [name for _, name in heat_map(ecc).rows] == [f"node{n}" for n in range(6, 0, -1)]


def test_what_was_not_measured_is_hatched_and_never_a_zero(report):
    """Of three nodes that never came to a burn-in, and of a metric that is not on record at all."""
    bandwidth = series(report, "hbm_sweep_gb_per_s_median")
    assert len(bandwidth.points) == 48
    missing = {p.subject.node for p in bandwidth.points if p.value is None}
    assert missing == {"node4", "node5", "node6"}
    cells = [c for c in heat_map(bandwidth).cells if c.kind == "missing"]
    assert len(cells) == 24
    assert {c.text for c in cells} == {"-"}
    assert all("not on record" in c.title for c in cells)


def test_cables_show_what_the_last_look_found(report, page):
    """Two are in each other's port; of a node that is off nothing is known; the others are as designed."""
    faults = {(c.node, c.hca): c.fault for c in report.cables}
    assert len(faults) == 48
    assert {cable for cable, fault in faults.items() if fault == "FABRIC_CABLES_SWAPPED"} == {
        ("node6", "mlx5_1"), ("node6", "mlx5_2"),
    }  # fmt: skip
    assert {fault for (node, _), fault in faults.items() if node == "node5"} == {""}
    assert {fault for (node, _), fault in faults.items() if node == "node1"} == {"none"}
    assert report.look.answer is Answer.FAIL
    assert "swap node6 mlx5_1 and node6 mlx5_2" in page


def test_the_timeline_has_every_run_of_the_last_plan(report, lab):
    """With its outcome; runs of earlier plans are counted."""
    with open_ledger(lab.settings) as ledger:
        runs = ledger.runs("demo")
    assert len(report.bars) + report.earlier == len(runs)
    assert report.earlier == 0
    assert {(b.node, b.stage.value) for b in report.bars if b.outcome is Outcome.FAILED} == {
        ("node2", "certify"), ("node4", "nvlink"), ("node6", "infiniband"),
    }  # fmt: skip


def test_every_digest_of_the_evidence_is_in_the_store(report, lab):
    """A reader can look each of them up."""
    with open_ledger(lab.settings) as ledger:
        for row in report.evidence:
            ledger.artifacts.verify(row.digest)
    assert {row.node for row in report.evidence} >= {"node1", "node2", "node3"}


def test_every_chart_has_words_for_who_does_not_see_it_and_a_table(page):
    """A role, a label with its figures, a table with headers below it; headings leave out no level; ids are unique."""
    found = _Page(page)
    charts = [attrs for attrs in found.of("svg") if "aria-hidden" not in attrs]
    assert len(charts) >= 10
    assert all(attrs.get("role") == "img" and len(attrs.get("aria-label", "")) > 20 for attrs in charts)
    assert len(found.of("details")) >= len(charts)
    assert all(attrs.get("scope") == "col" for attrs in found.of("th"))
    levels = [int(tag[1]) for tag, _ in found.found if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in found.found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert found.of("html")[0]["lang"] == "en"


def spoilt(value):
    """The same report with hostile words in place of every text."""
    if type(value) is str:
        return HOSTILE
    if isinstance(value, tuple):
        return tuple(spoilt(one) for one in value)
    if is_dataclass(value):
        kept = {"rack", "metric"}  # the operator's own, checked by schemas
        return replace(value, **{f.name: spoilt(getattr(value, f.name)) for f in fields(value) if f.name not in kept})
    return value


def loads_and_runs(page):
    """Elements that are none of a report's, and attributes that load or run something."""
    found = _Page(page)
    strange = {tag for tag, _ in found.found} & {
        "script",
        "img",
        "iframe",
        "a",
        "form",
        "link",
        "object",
        "use",
        "image",
    }
    names = {name for _, attrs in found.found for name in attrs}
    return strange, {n for n in names if n in ("src", "href", "action", "xlink:href") or n.startswith("on")}


def test_nothing_that_a_node_said_is_markup(report, page):
    """Every text of the report is hostile: serials, details, codes, ends of cables, digests."""
    spoiled = report_page(spoilt(report))
    for text in (page, spoiled):
        assert loads_and_runs(text) == (set(), set())
        assert "default-src 'none'" in text
        assert not {"\x1b", "\u202e"} & set(text)
    assert "&lt;script&gt;" in spoiled
    assert "{{7*7}}" in spoiled
    assert len(_Page(spoiled).of("svg")) == len(_Page(page).of("svg"))


@needs_chromium
def test_a_browser_runs_nothing_of_it(report, tmp_path):
    """The title is the report's own, and what was text is text."""
    dom = looked_at(report_page(spoilt(report)), tmp_path)
    assert "<title>demo: FAIL</title>" in dom
    assert loads_and_runs(dom) == (set(), set())


@needs_chromium
def test_it_prints_on_a4(page, tmp_path):
    """On some pages, none of them another size."""
    pages, *size = printed(page, tmp_path)
    assert 2 <= pages <= 8
    assert tuple(size) == A4_POINTS


def test_what_was_measured_before_a_repair_counts_no_more(lab):
    """The board may be another: its numbers are gone from the charts until it is measured again."""
    with open_ledger(lab.settings) as ledger:
        ledger.move("demo", "node2", Change(NodeState.QUARANTINED, Move.REPAIR), "GPU 3 was replaced")
    after = gathered(lab.settings, lab.rack)
    ecc = series(after, "hbm_corrected_errors_delta")
    assert {p.value for p in ecc.points if p.subject.node == "node2"} == {None}
    assert all(p.answer is not Answer.FAIL for p in ecc.points)


def test_a_trace_on_record_is_drawn_and_one_that_is_gone_is_told(lab, page):
    """Power and temperature over the burn-in, where the node kept them."""
    assert "No node kept a trace of its last burn-in" in page
    head = "at,gpu,power_mw,gpu_celsius,hbm_celsius\n"
    times = [f"2026-11-23T12:{second // 60:02d}:{second % 60:02d}+00:00" for second in range(121)]
    rows = [f"{at},{g},{n}000,{40 + n // 4},70\n" for n, at in enumerate(times) for g in range(8)]
    with open_ledger(lab.settings) as ledger:
        kept = {"node1": ledger.artifacts.put((head + "".join(rows)).encode()), "node3": "cd" * 32}
        for node, digest in kept.items():
            told = ledger.find("demo", node, EventKind.OBSERVED, "burnin").body["details"]
            ledger.observed("demo", node, "burnin", {**told, "artifacts": {"nvml_samples.csv": digest}})
    found = gathered(lab.settings, lab.rack)
    drawn, gone = found.traces
    assert [(c.title, c.span) for c in drawn.curves] == [
        ("power of all GPUs", (0.0, 960.0)), ("hottest GPU", (40.0, 70.0)), ("hottest HBM", (70.0, 70.0)),
    ]  # fmt: skip
    assert (gone.curves, "is not in" in gone.problem) == ((), True)
    text = report_page(found)
    assert 'aria-label="node1, power of all GPUs: 0 to 960 W over 2 min 00 s"' in text
    assert f'd="{drawn.curves[0].path}"' in text  # whole: no number is cut off


def test_a_rack_that_nobody_worked_on_is_undecided_and_says_so(tmp_path):
    """No zero, no pass, no empty chart."""
    settings = load({"RACKPROOF_HOME": str(tmp_path)})
    rack = load_rack("gb200-nvl72", settings.inventory)
    found = gathered(settings, rack)
    text = report_page(found)
    assert (found.answer, found.certificates, found.evidence) == (Answer.INCONCLUSIVE, (), ())
    for words in ("No certificate is in force", "Nothing has run on this rack", "Nobody has looked at the cables"):
        assert words in text or not found.cables
    assert "0 of 18 nodes certified" in text


@pytest.fixture
def run(lab, monkeypatch, capsys, tmp_path):
    """Runs the verb in a folder of its own."""

    def start(*words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("RACKPROOF_HOME", str(lab.settings.home))
        monkeypatch.setattr(sys, "argv", ["rackproof", "report", *map(str, words)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        return status, said.out, said.err

    return start


def test_the_verb_writes_one_file_and_tells_where(run, tmp_path):
    """By the rack's name, or where it is told; with the ceilings of physics beside the gates."""
    status, out, err = run("demo")
    assert (status, err) == (0, "written: demo.html\n")
    first, last = out.splitlines()
    assert first.startswith("demo: FAIL; certificates vouch for 2 of 6 nodes") and last.startswith(
        "next: service GPU 3"
    )
    text = (tmp_path / "demo.html").read_text()
    assert "ceiling NVLS 700" in text
    assert "NCCL_BUSBW_LOW ≥ 440" in text
    assert run("demo", "-o", tmp_path / "there" / "x.html")[0] == 0
    assert (tmp_path / "there" / "x.html").exists()


def test_the_verb_gives_json_and_no_file(run, tmp_path):
    """Its schema's name, and every value with its evidence."""
    status, out, _ = run("demo", "--json")
    found = json.loads(out)
    assert (status, found["schema"], found["rack"]) == (0, "rackproof.dev/rack-report/v1", "demo")
    assert list(tmp_path.iterdir()) == []
    values = [p for s in found["series"] for p in s["points"] if p["value"] is not None]
    assert values
    assert all(len(p["evidence"]) == 64 for p in values)


def test_a_place_that_cannot_be_written_is_told(run, tmp_path):
    """Exit 2, and what to do."""
    (tmp_path / "file").write_text("")
    status, _, err = run("demo", "-o", tmp_path / "file" / "x.html")
    assert (status, "cannot be written" in err, "-o" in err) == (2, True, True)


def test_json_holds_all_that_the_page_shows(report):
    """Of every part of it."""
    body = report_json(report)
    assert set(body) == {f.name for f in fields(report)} | {"schema"}
    assert report.made_at - now() < timedelta(minutes=1)

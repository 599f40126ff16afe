"""Each format read back by a reader that is not ours: the same cases, the same answers, and nothing escapes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from jsonschema import Draft7Validator, FormatChecker
from junitparser import Error, Failure, JUnitXml, Skipped
from ocptv_reader import Reader

from toolkit.cli import rackproof
from toolkit.export.ctrf import ctrf
from toolkit.export.events import events
from toolkit.export.junit import junit
from toolkit.export.ocptv import ocptv
from toolkit.export.results import Answered
from toolkit.export.table import COLUMNS, table

PASSED, FAILED, ERROR, SKIPPED = Answered
CTRF = Draft7Validator(
    json.loads((Path(__file__).parent / "ctrf" / "ctrf-schema-0.0.json").read_text()), format_checker=FormatChecker()
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\ud800-\udfff]")


def strings(told):
    """Every text of a JSON document, keys too."""
    if isinstance(told, dict):
        return [text for key, value in told.items() for text in (key, *strings(value))]
    if isinstance(told, list):
        return [text for one in told for text in strings(one)]
    return [told] if isinstance(told, str) else []


def counted(results):
    return {answer: results.count(answer) for answer in Answered}


@pytest.fixture(params=["found", "hostile"])
def either(request):
    """The results of a bringup, and hostile ones."""
    return request.getfixturevalue(request.param)


def test_junit_is_what_junitparser_reads(either):
    """Suites, cases and the three kinds of no pass; an ERROR is an error and never a failure."""
    read = JUnitXml.fromstring(junit(either))
    cases = [case for suite in read for case in suite]
    kinds = {Failure: FAILED, Error: ERROR, Skipped: SKIPPED}
    told = Counter(kinds[type(case.result[0])] if case.result else PASSED for case in cases)
    assert dict(told) == {a: n for a, n in counted(either).items() if n}
    assert (read.tests, read.failures, read.errors, read.skipped) == (
        len(cases), told[FAILED], told[ERROR], told[SKIPPED],
    )  # fmt: skip
    assert [suite.tests for suite in read] == [len(suite.cases) for suite in either.suites]
    assert all(len(case.result) <= 1 for case in cases)


def test_junit_of_a_failure_has_its_code_part_and_next_command(found):
    """What a person needs from a red line; a gate has no time of its own and none is made up."""
    read = JUnitXml.fromstring(junit(found))
    (failed,) = [c for suite in read for c in suite if c.result and c.name.startswith("HBM_ECC_CORRECTED node2/gpu3")]
    (result,) = failed.result
    assert result.type == "HBM_ECC_CORRECTED"
    assert "part: GPU 3 (16500000203" in result.text
    assert "next: rackproof explain HBM_ECC_CORRECTED" in result.text
    assert failed.time is None
    element = ElementTree.fromstring(junit(found)).find(f".//testcase[@name='{failed.name}']")  # noqa: S314 - our own
    properties = {p.get("name"): p.get("value") for p in element.iter("property")}
    assert (properties["limit"], properties["operator"], properties["unit"]) == ("0", "at_most", "count")
    assert float(properties["value"]) > 0


def test_no_format_holds_control_characters(hostile):
    """Nothing that moves a cursor, hides text or ends a document; markup is text."""
    for write in (junit, table):
        assert not CONTROL.search(write(hostile).decode()), write
    documents = [ctrf(hostile), events(hostile), *ocptv(hostile).splitlines()]
    said = [text for document in documents for text in strings(json.loads(document))]
    assert len(said) > 100
    assert [text for text in said if CONTROL.search(text)] == []
    tree = ElementTree.fromstring(junit(hostile))  # noqa: S314 - our own
    assert {e.tag for e in tree.iter()} == {
        "testsuites", "testsuite", "testcase", "properties", "property", "failure", "error", "skipped",
    }  # fmt: skip
    assert "<script>" in (tree.find(".//failure").get("message") or "")


def test_csv_has_a_row_for_each_case_and_every_row_every_column(either):
    """Read by the csv module, quotes, commas and line breaks of nodes included."""
    rows = list(csv.DictReader(io.StringIO(table(either).decode()), strict=True))
    assert list(rows[0]) == list(COLUMNS)
    assert all(None not in row and None not in row.values() for row in rows)
    assert [(r["case"], r["answer"]) for r in rows] == [(c.name, c.answer.value) for _, c in either.cases()]


def test_no_cell_is_a_formula_and_numbers_stay_numbers(hostile):
    """A spreadsheet runs what begins with = + - @; a negative value of ours is still a number."""
    rows = list(csv.reader(io.StringIO(table(hostile).decode())))[1:]
    cells = [cell for row in rows for cell in row]
    values = {row[COLUMNS.index("value")] for row in rows}
    assert "-3.5" in values
    assert not [c for c in cells if c.lstrip().startswith(("=", "+", "-", "@")) and c != "-3.5"]
    assert sum(c.startswith("'=HYPERLINK") for c in cells) > 10


def test_ctrf_is_valid_and_an_error_is_never_passed(either):
    """By the schema of its own package; ERROR is `other`, with our word beside it."""
    told = json.loads(ctrf(either))
    assert [error.message for error in CTRF.iter_errors(told)] == []
    statuses = {PASSED: "passed", FAILED: "failed", ERROR: "other", SKIPPED: "skipped"}
    tests, summary = told["results"]["tests"], told["results"]["summary"]
    cases = [case for _, case in either.cases()]
    assert [(t["status"], t["rawStatus"]) for t in tests] == [(statuses[c.answer], c.answer) for c in cases]
    assert summary["tests"] == len(tests)
    assert {s: summary[s] for s in statuses.values()} == {statuses[a]: n for a, n in counted(either).items()}
    assert all(t["extra"]["durationKnown"] == (c.seconds is not None) for t, c in zip(tests, cases, strict=True))


def test_the_ctrf_schema_refuses_what_is_not_ctrf(found):
    """The check above can fail."""
    told = json.loads(ctrf(found))
    told["results"]["tests"][0]["status"] = "error"
    assert list(CTRF.iter_errors(told))


def test_ocp_lines_are_what_the_ocptv_package_reads_and_writes(either):
    """Every line becomes its objects, with every field known and of its type, and comes back the same."""
    lines = ocptv(either).decode().splitlines()
    read = Reader()
    for number, line in enumerate(lines):
        root = read.line(line)
        assert root.sequence_number == number
    assert read.kinds["SchemaVersion"] == read.kinds["RunStart"] == read.kinds["RunEnd"] == 1
    assert read.kinds["StepStart"] == read.kinds["StepEnd"] == len(either.suites)
    told = counted(either)
    assert read.diagnoses == {
        name: told[a] for name, a in (("PASS", PASSED), ("FAIL", FAILED), ("UNKNOWN", ERROR)) if told[a]
    }
    assert (read.kinds["Error"], read.kinds["Log"]) == (told[ERROR], told[SKIPPED])


def test_the_ocp_reader_refuses_what_is_not_ocp():
    """An unknown field, a wrong type, a word that is none of the specification's."""
    step = {"sequenceNumber": 3, "timestamp": "2026-11-23T08:30:00Z", "testStepArtifact": {"testStepId": "0"}}
    for bad in (
        {"diagnosis": {"verdict": "x", "type": "MAYBE"}},
        {"diagnosis": {"verdict": 3, "type": "PASS"}},
        {"diagnosis": {"verdict": "x", "type": "PASS", "colour": "red"}},
        {"opinion": {}},
    ):
        with pytest.raises((TypeError, ValueError, KeyError)):
            Reader().line(json.dumps(step | {"testStepArtifact": {"testStepId": "0", **bad}}))


def test_ocp_names_the_hardware_and_how_it_was_validated(found):
    """The GPU by its serial, the limit as a validator, the run as failed."""
    lines = [json.loads(line) for line in ocptv(found).decode().splitlines()]
    hardware = lines[1]["testRunArtifact"]["testRunStart"]["dutInfo"]["hardwareInfos"]
    serials = {h["hardwareInfoId"]: h.get("serialNumber") for h in hardware}
    assert serials["node2/gpu3"] == "16500000203"
    steps = [line["testStepArtifact"] for line in lines if "testStepArtifact" in line]
    (bad,) = [s["diagnosis"] for s in steps if s.get("diagnosis", {}).get("hardwareInfoId") == "node2/gpu3"
              and s["diagnosis"]["type"] == "FAIL"]  # fmt: skip
    assert bad["verdict"] == "HBM_ECC_CORRECTED"
    measured = [s["measurement"] for s in steps if "measurement" in s]
    (mine,) = [m for m in measured if m["name"] == "hbm_corrected_errors_delta" and m["hardwareInfoId"] == "node2/gpu3"]
    assert mine["validators"] == [{"name": "HBM_ECC_CORRECTED", "type": "LESS_THAN_OR_EQUAL", "value": 0}]
    link = next(m for m in measured if m["name"] == "nvlink_active")
    assert link["subcomponent"] == {"type": "BUS", "name": "nvlink0"}
    assert lines[-1]["testRunArtifact"]["testRunEnd"] == {"status": "COMPLETE", "result": "FAIL"}


def test_a_set_of_words_validates_as_a_pattern(hostile):
    """What the gate takes the pattern takes, and nothing else: dots and bars are themselves."""
    lines = [json.loads(line) for line in ocptv(hostile).decode().splitlines()]
    steps = [line["testStepArtifact"] for line in lines if "testStepArtifact" in line]
    (only,) = [
        s["measurement"]["validators"][0] for s in steps if s.get("measurement", {}).get("name") == "fabric_state"
    ]
    assert only["type"] == "REGEX_MATCH"
    assert [word for word in ("a.b", "c|d", "axb", "c", "a.b\n") if re.match(only["value"] + r"(?!\n)", word)] == [
        "a.b",
        "c|d",
    ]


@pytest.fixture
def installation(lab, monkeypatch):
    """The installation that a command line finds."""
    monkeypatch.setenv("RACKPROOF_HOME", str(lab.settings.home))
    monkeypatch.delenv("RACKPROOF_LEDGER", raising=False)


@pytest.mark.parametrize("form", ["ocptv", "junit", "csv", "ctrf", "events"])
def test_the_verb_writes_a_file_or_stdout(installation, tmp_path, form):
    """The same bytes but for the time; the line says how much of what.

    By the rack file its rails are tested, and these were not: two errors.
    """
    target = tmp_path / f"out.{form}"
    done = CliRunner().invoke(rackproof, ["export", "demo-small", "--format", form, "-o", str(target)])
    assert done.exit_code == 0
    assert re.search(r"demo-small: \d+ passed, 3 failed, 2 error, \d+ skipped; all of it: FAILED", done.output)
    shown = CliRunner().invoke(rackproof, ["export", "demo-small", "--format", form])
    assert len(shown.stdout_bytes) == pytest.approx(target.stat().st_size, abs=200)


def test_json_tells_of_the_file(installation, tmp_path):
    """What was written where, and how many cases of each answer."""
    words = ["export", "demo-small", "--format", "csv", "-o", str(tmp_path / "out.csv"), "--json"]
    told = json.loads(CliRunner().invoke(rackproof, words).stdout)
    assert (told["answer"], told["file"], told["cases"]["failed"]) == ("FAILED", f"{tmp_path}/out.csv", 3)


def test_json_without_a_file_is_a_usage_error(installation):
    """Two results on one stdout are none."""
    failed = CliRunner().invoke(rackproof, ["export", "demo-small", "--format", "csv", "--json"])
    assert failed.exception.exit_code == 2

"""A contract's page: one A4 page whatever the annex holds, nothing on it runs, its digest is the signed one."""

import hashlib
import io
import json
from html.parser import HTMLParser

import pytest
from chromium import A4_POINTS, looked_at, needs_chromium, printed
from rich.console import Console

from toolkit.certificate.canonical import canonical
from toolkit.judge.verdict import Answer
from toolkit.rack.contract import MAX_CRITERIA, MAX_CRITERION_TEXT
from toolkit.report.contract import contract_page, contract_view, limit_of, report_digest
from toolkit.report.contract_document import ContractReport, GateLine

DIGEST = "ab" * 32
AT = "2026-11-23T12:00:00Z"
HOSTILE = '"><script>document.title="owned"</script><img src=x onerror=alert(1)>{{7*7}}\x1b[2J\u202e'
GATE = {
    "name": "NCCL_BUSBW_LOW", "metric": "nccl_busbw_gb_per_s", "scope": "node", "operator": "at_least",
    "limit": 470.0, "unit": "GB/s", "stated_by": "contract", "ours": 440.0, "against_ours": "stricter",
    "answer": "PASS", "passed": 2, "failed": 0, "inconclusive": 0,
}  # fmt: skip
WORST = {
    "subject": "node2", "metric": "nccl_busbw_gb_per_s", "value": 478.25, "unit": "GB/s", "answer": "PASS",
    "detail": "well", "evidence": DIGEST,
}  # fmt: skip
CRITERION = {
    "id": "B-5", "clause": "B 3.2", "text": "all_reduce reaches 470 GB/s.", "answer": "PASS", "subjects": {"node": 2},
    "passed": 2, "failed": 0, "inconclusive": 0, "gates": [GATE], "unasked": [], "worst": WORST, "evidence": [DIGEST],
}  # fmt: skip
REPORT = {
    "schema": "rackproof.dev/contract-report/v1", "tool_version": "0.1", "made_at": AT, "contract": "Contract 7",
    "annex": "a1", "annex_sha256": DIGEST, "rack": "demo", "site": "virtual", "sku": "Virtual DGXH100",
    "profile": "virtual-dgx-h100", "topology": DIGEST, "answer": "PASS", "nodes": ["node1", "node2"], "left_out": [],
    "certificates": [
        {"sha256": DIGEST, "keyid": "cd" * 32, "issued_at": AT, "expires_at": "2026-12-23T12:00:00Z",
         "nodes": ["node1", "node2"]},
    ],
    "criteria": [CRITERION], "not_verified": [{"kind": "rehearsal", "what": "the burn-in was a rehearsal"}],
}  # fmt: skip


def report(**more):
    """A report with these fields in place of the usual ones."""
    return ContractReport.model_validate(REPORT | more)


def fullest(words, criteria=MAX_CRITERIA):
    """As much on the page as an annex and a ledger can put there, all of it these words."""
    long = (words * 100)[:MAX_CRITERION_TEXT]
    gates = [GATE | {"name": f"{n}{(words * 9)[:63]}", "answer": "FAIL"} for n in range(32)]
    worst = WORST | {"subject": (words * 99)[:200], "detail": (words * 99)[:2000], "answer": "FAIL"}
    line = CRITERION | {
        "id": "B-12.3.4567", "clause": (words * 9)[:24], "text": long, "answer": "FAIL", "gates": gates, "worst": worst,
        "subjects": {"gpu": 300, "node": 248}, "passed": 1, "failed": 500, "inconclusive": 47,
        "evidence": [f"{n:064x}" for n in range(500)],
    }  # fmt: skip
    away = [{"node": f"node{n}", "reason": (words * 99)[:2000]} for n in range(40)]
    unproven = [{"kind": "cables", "what": (words * 99)[:2000]} for _ in range(60)]
    held = [REPORT["certificates"][0] | {"sha256": f"{n:064x}", "nodes": [f"n{n}"]} for n in range(40)]
    return report(
        answer="FAIL", criteria=[line] * criteria, left_out=away, not_verified=unproven, certificates=held,
        nodes=[f"n{n}" for n in range(40)], contract=(words * 99)[:120], sku=(words * 99)[:400],
    )  # fmt: skip


class _Page(HTMLParser):
    """Elements, and attributes that could load or run something."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.loads = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        loading = ("src", "href", "action", "style")
        self.loads += [name for name, _ in attrs if name in loading or name.startswith("on")]


@needs_chromium
@pytest.mark.parametrize(
    "found",
    [report(), fullest("Ünprovën words and more "), *(fullest("W", count) for count in (8, 12, MAX_CRITERIA))],
    ids=["one", "full of words", "8 of W", "12 of W", "full of W"],
)
def test_a_browser_prints_it_on_one_page_of_a4(found, tmp_path):
    """With one criterion, and with as many and as long ones as an annex may have, unbreakable words among them."""
    assert printed(contract_page(found), tmp_path) == (1, *A4_POINTS)


@needs_chromium
def test_nothing_that_a_node_said_runs_in_a_browser(tmp_path):
    """A script, an image that fails and a template in every text: all of it is text, and loads nothing."""
    page = contract_page(fullest(HOSTILE))
    dom = looked_at(page, tmp_path)
    assert "<title>demo: acceptance by contract</title>" in dom
    for text in (page, dom):
        found = _Page(text)
        assert not {"script", "img", "iframe", "a", "form", "link"} & set(found.tags)
        assert found.loads == []
    assert "default-src 'none'" in page
    assert "{{7*7}}" in page
    assert not {"\x1b", "\u202e"} & set(page)


def test_the_page_shows_the_digest_of_the_signed_text():
    """Whoever holds paper and file can tell that they are one report."""
    found = report()
    digest = hashlib.sha256(canonical(found.document())).hexdigest()
    assert report_digest(found) == digest
    assert digest in contract_page(found)
    assert report_digest(report(rack="other")) != digest


def test_the_page_says_what_is_not_certified_and_not_verified():
    """Four lines of each, then a count; in the JSON are all."""
    found = fullest("word ")
    page = contract_page(found)
    assert page.count("<li>") == 12
    assert "and 37 more: see the JSON" in page
    assert len(found.document()["left_out"]) == 40


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"answer": "FAIL"}, "it says FAIL, and its criteria say PASS"),
        ({"criteria": [CRITERION | {"answer": "INCONCLUSIVE"}]}, "and its gates say PASS"),
        ({"criteria": [CRITERION | {"unasked": [{"name": "X", "why": "left out"}]}]}, "and its gates say INCONCLUSIVE"),
        ({"criteria": [CRITERION | {"passed": 1}]}, "counts are not those of its subjects"),
        ({"criteria": [CRITERION | {"passed": 1, "failed": 1}]}, "not all of its subjects do"),
        ({"criteria": []}, "at least 1 item"),
        ({"nodes": ["node1"]}, "its nodes are not those of its certificates"),
        ({"made_at": "2026-11-23T12:00:00"}, "a time without a zone"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_a_report_that_contradicts_itself_is_none(change, says):
    """Also where somebody with the key wrote it."""
    with pytest.raises(ValueError, match=says):
        report(**change)


def test_the_terminal_shows_answer_counts_worst_and_both_limits():
    """Within 80 columns, and hostile words do not move the cursor."""
    out = io.StringIO()
    console = Console(file=out, width=80, no_color=True, highlight=False, markup=False)
    console.print(contract_view(report(), "VALID"))
    text = out.getvalue()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    flat = " ".join(text.split())
    assert "demo: Contract 7 PASS" in flat
    assert "2 of 2 nodes" in flat
    assert "478.25" in flat
    console.print(contract_view(fullest(HOSTILE)))
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ({}, "≥ 470 GB/s (contract; ours 440)"),
        ({"stated_by": "profile", "ours": None}, "≥ 470 GB/s"),
        ({"ours": None}, "≥ 470 GB/s (contract)"),
        ({"operator": "equals", "limit": 1, "unit": "flag", "stated_by": "profile"}, "= true"),
        ({"operator": "one_of", "limit": ["a", "b"], "unit": "word", "stated_by": "profile"}, "one of a, b"),
        ({"operator": "peers", "limit": 0.04}, "no more than 4% below its peers"),
        ({"operator": "same_across", "limit": None}, "the same on all"),
        ({"limit": None, "stated_by": "profile"}, "no limit"),
    ],
)
def test_a_limit_is_told_in_words(gate, words):
    """Whose it is stands beside it where it is the contract's."""
    assert limit_of(GateLine.model_validate(GATE | gate)) == words


def test_the_document_survives_a_round_trip():
    """Of JSON, with its schema's name; answers are words."""
    found = fullest("x")
    again = ContractReport.model_validate(json.loads(json.dumps(found.document())))
    assert again == found
    assert found.document()["schema"] == "rackproof.dev/contract-report/v1"
    assert found.document()["answer"] == Answer.FAIL.value

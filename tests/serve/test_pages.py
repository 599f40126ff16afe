"""Pages over HTTP, of the program itself: what each shows, that it only reads, and that it keeps in step."""

import hashlib
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rehearsal import open_ledger
from serving import PROGRAM, serving, words

from toolkit.ledger import Change
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.report.codes import ERROR_CODES
from toolkit.report.runbook import runbook_codes

PATHS = (
    "/", "/racks/demo-small", "/racks/dgx-h100-su", "/racks/demo-small/nodes/node1", "/racks/demo-small/nodes/node2",
    "/racks/demo-small/nodes/node2?runs=all", "/racks/demo-small/report", "/certificates", "/queue", "/runbooks",
    "/runbooks/HBM_ECC_CORRECTED", "/metrics", "/find?q=node", "/login",
)  # fmt: skip


def test_the_fleet_counts_nodes_by_state_and_names_what_stands_against_them(server):
    """By letter and word beside colour; racks of the inventory that never began are plans, not nodes."""
    page = server.page("/")
    said = words(page)
    assert "racks 1 nodes 2 GPUs 16 failed on evidence 1 undecided 0 driven now 0" in said
    assert "1 admitted" in said and "1 quarantined" in said
    assert 'class="cell s-Q" href="/racks/demo-small/nodes/node2"' in page
    assert "node2 QUARANTINED, HBM_ECC_CORRECTED" in said
    assert "nothing on record: demo , dgx-h100-su" in said


def test_a_rack_has_its_elevation_and_the_failed_node_before_the_sound_one(server, serial):
    """The highest slot on top; the GPU that is to blame leads to its own page."""
    page = server.page("/racks/demo-small")
    said = words(page)
    elevation = said[said.index("Elevation") : said.index("Nodes, the worst first")]
    assert elevation.index("slot 2") < elevation.index("slot 1")
    nodes = page[page.index('id="nodes"') : page.index('id="findings"')]
    assert nodes.index(">node2<") < nodes.index(">node1<")
    assert f'class="gpu blamed" href="/parts/{serial}"' in nodes
    assert "certificate ends" in words(nodes)
    assert "FAIL HBM_ECC_CORRECTED on node2" in said


def test_a_node_says_why_what_was_measured_and_what_its_runs_came_to(server):
    """The failing value stands in its GPU's column with the gate's limit."""
    said = words(server.page("/racks/demo-small/nodes/node2"))
    assert "owner hardware technician" in said and "rackproof release node2" in said
    assert re.search(r"corrected HBM errors over the burn-in count 0 0 0 F \d+ 0 0 0 0 ≤ 0 HBM_ECC_CORRECTED", said)
    assert "TESTED to Q QUARANTINED HBM_ECC_CORRECTED" in said
    assert re.search(r"burnin 1 PASSED [\d.]+ s", said)
    sound = words(server.page("/racks/demo-small/nodes/node1"))
    assert "in force until" in sound and "Signature verified" in sound and "vbios" in sound


def test_a_part_is_found_by_its_serial_with_what_blamed_it(server, serial):
    """Where it is, which run failed for it, and what was read of it."""
    said = words(server.page(f"/parts/{serial}"))
    assert f"GPU {serial}" in said and "there by the last burn-in" in said
    assert "certify FAILED HBM_ECC_CORRECTED" in said
    assert re.search(r"corrected HBM errors over the burn-in F \d+ count HBM_ECC_CORRECTED: at most 0", said)


def test_a_tray_and_an_hca_have_pages_too(server, lab):
    """By the serial of the rack file, and by the GUID."""
    node = lab.rack.nodes[0]
    assert f"slot {node.slot}" in words(server.page(f"/parts/{node.serial}"))
    assert f"HCA {node.hcas[0].guid}" in words(server.page(f"/parts/{node.hcas[0].guid}"))


def test_a_certificate_verifies_on_its_own_page(server):
    """With the facts that it binds."""
    page = server.page("/certificates")
    (digest,) = set(re.findall(r"/certificates/([0-9a-f]{64})", page))
    assert "in force" in words(page)
    said = words(server.page(f"/certificates/{digest}"))
    assert "Its signature verifies" in said and digest in said and "Left out of it: node2" in said


def test_the_queue_says_what_waits_and_what_is_due(server):
    """The next command of every node in trouble; and when whose turn comes."""
    said = words(server.page("/queue"))
    assert "Nobody drives a rack." in said
    assert "node2 demo-small Q QUARANTINED HBM_ECC_CORRECTED" in said
    assert "next due: node1" in said


def test_every_code_has_a_page(server):
    """Those of gates with their runbook, those of ours with their words."""
    listed = set(re.findall(r'href="/runbooks/([A-Z0-9_]+)"', server.page("/runbooks")))
    assert listed == {*runbook_codes(), *ERROR_CODES}
    said = words(server.page("/runbooks/HBM_ECC_CORRECTED"))
    for heading in ("Means", "Confirm", "Fix", "Replace", "Sources", "Limits"):
        assert heading in said


@pytest.mark.parametrize(
    ("path", "words_of"),
    [
        ("/racks/nope", "no rack of that name"), ("/racks/demo-small/nodes/nope", "no node of that name"),
        ("/parts/NOPE-1", "no part of that serial"), ("/runbooks/NOPE", "no finding has that code"),
        ("/certificates/00", "no certificate of that sha256"), ("/static/../app.py", "Not Found"),
        ("/racks/..%2f..%2fetc", "Not Found"), ("/nope", "Not Found"), ("/find?q=nothing-of-that-name", "is called"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_not_there(server, path, words_of):
    """404, in words, in a page with the way back."""
    status, _, page = server.ask(path)
    assert status == 404 and words_of in page and 'href="/"' in page


def test_a_question_goes_to_what_it_names(server, serial):
    """One meaning is gone to at once; several are listed."""
    for asked, target in (
        ("node2", "/racks/demo-small/nodes/node2"), ("demo-small", "/racks/demo-small"), (serial, f"/parts/{serial}"),
        ("hbm_ecc_corrected", "/runbooks/HBM_ECC_CORRECTED"),
    ):  # fmt: skip
        status, headers, _ = server.ask(f"/find?q={asked}")
        assert (status, headers["location"]) == (303, target)


def test_reading_every_page_leaves_the_ledger_as_it_was(lab, server, serial):
    """Byte by byte: the pages have no way to write."""
    ledger = Path(lab.settings.ledger_url.removeprefix("sqlite://"))
    before = hashlib.sha256(ledger.read_bytes()).digest()
    for path in (*PATHS, f"/parts/{serial}"):
        server.ask(path)
        assert server.ask(path, "HEAD")[2] == ""
    assert hashlib.sha256(ledger.read_bytes()).digest() == before


def test_metrics_are_those_of_the_verb(lab, server):
    """Sample by sample, but for the moment of reading."""
    env = {"RACKPROOF_HOME": str(lab.settings.home), "PATH": "/usr/bin:/bin"}
    told = subprocess.run([PROGRAM, "metrics", "--json"], env=env, capture_output=True, check=True).stdout
    wanted = {s["name"] for s in json.loads(told)["samples"]}
    status, headers, text = server.ask("/metrics")
    assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[:1] != "#"} == wanted
    assert 'rackproof_node_state{node="node2",rack="demo-small",state="QUARANTINED"} 1.0' in text
    _, headers, text = server.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["content-type"].startswith("application/openmetrics-text") and text.endswith("# EOF\n")


def test_a_page_is_of_now(own_copy):
    """What another process puts on record is on the next page: states, and certificates that were revoked."""
    with serving(own_copy) as running:
        assert "1 admitted" in words(running.page("/"))
        with open_ledger(own_copy) as ledger:
            ledger.move("demo-small", "node1", Change(NodeState.ADMITTED, Move.QUARANTINE), "coolant <b>leaks</b>")
        said = words(running.page("/"))
        assert "2 quarantined" in said and "OPERATOR" in said
        assert "coolant &lt;b&gt;leaks&lt;/b&gt;" in running.page("/racks/demo-small/nodes/node1")
        assert "No certificate is in force." in words(running.page("/certificates"))


def test_a_rack_whose_file_is_gone_is_shown_as_it_is_on_record(own_copy, tmp_path):
    """Its states and codes are facts of the ledger; what only the file knew is said to be missing."""
    inventory = tmp_path / "inventory"
    (inventory / "racks").mkdir(parents=True)
    with serving(replace(own_copy, inventory=inventory)) as running:
        said = words(running.page("/"))
        assert "1 admitted" in said and "rack file: the inventory has no rack file of demo-small" in said
        said = words(running.page("/racks/demo-small"))
        assert "HBM_ECC_CORRECTED" in said and "Elevation" not in said
        assert "not in the rack file" in words(running.page("/racks/demo-small/nodes/node2"))
        assert running.ask("/racks/demo-small/report")[0] == 404


def test_a_ledger_that_goes_away_is_said_to_be_away(own_copy):
    """503 with what to do, no stale page; and the server lives."""
    ledger = Path(own_copy.ledger_url.removeprefix("sqlite://"))
    with serving(own_copy) as running:
        running.page("/")
        ledger.write_bytes(b"not a database " * 1_000)
        for name in ("-wal", "-shm"):
            ledger.with_name(ledger.name + name).unlink(missing_ok=True)
        status, _, page = running.ask("/")
        assert status == 503 and "The ledger does not answer" in page
        assert running.process.poll() is None

"""`rackproof verify`: what it says of a certificate alone, against its rack, and by the ledger."""

import json
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from admitting import Admitting, certified

from tests.certificate.test_independent import read_by_others
from tests.certificate.test_timestamp import made
from toolkit.bringup import bringup
from toolkit.certificate.sign import load_or_create, sign
from toolkit.cli import main, wiring
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.plan import make_plan
from toolkit.report.standing import standings, status_of
from toolkit.stages.context import Context
from toolkit.virtual.faults import Fault, FaultKind

RACK = "demo-small"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """Two certified nodes, made once."""
    return certified(tmp_path_factory.mktemp("proven"), RACK)


@pytest.fixture
def rack(proven, tmp_path):
    """A copy of them."""
    return Admitting(proven, tmp_path / "rack")


@pytest.fixture
def file(rack):
    """Their certificate, as it is given away."""
    kept = rack.lab.settings.home.parent / "given.dsse.json"
    kept.write_bytes(rack.lab.settings.certificate(RACK).read_bytes())
    return kept


@pytest.fixture
def run(rack, monkeypatch, capsys):
    """Runs the verb over the rack of files; answers status, stdout and stderr."""

    @contextmanager
    def files(found):
        lab, time = rack.lab, rack.time
        with rack.ledger() as ledger:
            yield Context(
                replace(found, units=lab.rack.units, links=lab.rack.links, digest=lab.rack.digest)
                if found.name == lab.rack.name else found,
                lab.settings, ledger, lab, time.clock, time.sleep, lambda p: None,
            )  # fmt: skip

    def start(*words):
        monkeypatch.setattr(wiring, "context_of", files)
        monkeypatch.setattr(wiring, "now", rack.time.clock)
        monkeypatch.setenv("RACKPROOF_HOME", str(rack.lab.settings.home))
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setattr(sys, "argv", ["rackproof", "verify", *map(str, words)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        assert status == 0 or not re.search(r"\bVALID\b", said.out + said.err)
        return status, said.out, said.err

    return start


def swap_gpu(rack, node="node2"):
    """Another board in slot 0."""
    rack.lab.serials[node] = "16500009999"


def move(rack, move, node="node2"):
    with rack.ledger() as ledger:
        before = ledger.node_states(RACK)[node].state
        ledger.move(RACK, node, Change(before, move), "by hand")


def certify_again(rack):
    """Bringup to CERTIFIED once more; answers where every node stands."""
    with rack.ledger() as ledger:
        lab, time = rack.lab, rack.time
        context = Context(lab.rack, lab.settings, ledger, lab, time.clock, time.sleep, lambda p: None)
        bringup(context, make_plan(lab.rack, status_of(ledger, lab.rack), NodeState.CERTIFIED))
        return {s.node: s for s in standings(ledger, lab.rack)}


def issued(rack):
    """sha256 of every certificate on record, and what each supersedes."""
    with rack.ledger() as ledger:
        return [(e.what, e.body["supersedes"]) for e in ledger.events(RACK, kind=EventKind.CERTIFICATE_ISSUED)]


def artifact(rack, digest):
    return rack.lab.settings.artifacts / digest[:2] / digest


def test_offline_it_says_how_much_of_the_rack_and_what_nobody_looked_at(run, file):
    """The first line is the answer; what came later no file can know."""
    status, out, _ = run(file)
    assert status == 0
    assert " ".join(out.splitlines()[0].split()) == "certificate VALID whole rack, all 2 nodes of demo-small"
    for words in ("superseded it", "revoked since", "still what was certified", "evidence that it names"):
        assert words in out
    assert "30 days: as of the DGX H100" in out


def test_others_read_the_certificate_of_a_rack(rack, file):
    """By sigstore's DSSE, libsodium and the in-toto project's protobufs, with the public key and nothing of ours."""
    result = read_by_others(file.read_bytes(), (rack.lab.settings.keys / "certificate.pub").read_bytes())
    assert result.result == "PASSED"
    assert "NCCL_BUSBW_LOW" in result.passed_tests and not result.failed_tests


def test_a_partial_certificate_says_so_in_its_first_line(rack, run):
    """How many of how many, and who was left out."""
    rack.lab.faults.append(Fault(FaultKind.NVLINK_LANE_DOWN, "node2", gpu=5, link=7))
    move(rack, Move.LAPSE, "node1")
    move(rack, Move.QUARANTINE, "node2")
    certify_again(rack)
    status, out, _ = run(rack.lab.settings.certificate(RACK))
    assert status == 0
    assert "VALID  named partial, 1 of the 2 nodes of demo-small" in out.splitlines()[0]
    assert "left out  node2: QUARANTINED" in out


def test_against_a_rack_that_is_what_was_certified_it_is_valid(run, file):
    """Every node was read."""
    status, out, _ = run(file, "--against", RACK)
    assert status == 0
    assert "demo-small: 2 of 2 nodes are what was certified" in out
    assert "still what was certified" not in out


def test_a_swapped_board_is_named_with_node_field_was_and_is(rack, run, file):
    """Exit 1; as text and as JSON."""
    swap_gpu(rack)
    status, out, _ = run(file, "--against", RACK)
    assert status == 1
    assert out.splitlines()[0].split()[:2] == ["certificate", "DRIFTED"]
    assert "drifted  node2: GPU 16500000200 is gone" in out
    assert "node2: GPU 16500009999 is new" in out
    assert "1 of 2 nodes are what was certified" in out
    assert "rackproof revoke node2 --reason drifted; what to test again" in out
    status, out, _ = run(file, "--against", RACK, "--json")
    told = json.loads(out)
    assert (status, told["answer"]) == (1, "DRIFTED")
    assert told["drifted"] == [
        {"node": "node2", "field": "GPU", "was": "16500000200", "now": ""},
        {"node": "node2", "field": "GPU", "was": "", "now": "16500009999"},
    ]
    assert run(file)[0] == 0, "offline nobody can know"


def test_a_node_that_does_not_answer_is_undecided_and_no_drift(rack, run, file):
    """Exit 3 with the reason; and what another node shows is told all the same."""
    with rack.lab.changing("node1") as machine:
        machine.power = "Off"
    status, out, _ = run(file, "--against", RACK)
    assert status == 3
    assert out.splitlines()[0].split()[:2] == ["certificate", "UNDECIDED"]
    assert "not read  node1: no route to host" in out
    assert "1 of 2 nodes are what was certified" in out
    swap_gpu(rack)
    status, out, _ = run(file, "--against", RACK)
    assert status == 1
    assert "node2: GPU 16500000200 is gone" in out and "not read  node1" in out


def test_a_bmc_that_is_dead_hides_nothing_that_the_node_shows(rack, run, file):
    """Its versions are not read: undecided. A board that was swapped is drift whether or not it answers."""
    rack.lab.faults.append(Fault(FaultKind.BMC_DEAD, "node2"))
    status, out, _ = run(file, "--against", RACK)
    assert status == 3
    assert "BMC of node2 does not answer" in out and "drifted" not in out
    swap_gpu(rack)
    status, out, _ = run(file, "--against", RACK)
    assert status == 1
    assert "node2: GPU 16500009999 is new" in out and "BMC of node2 does not answer" in out


def test_a_rack_file_that_was_changed_since_is_drift_too(rack, run, file):
    """A leaf with another serial: by name, and the topology's digest."""
    units = tuple(replace(u, serial="LF999") if u.name == "leaf1" else u for u in rack.lab.rack.units)
    rack.lab.rack = replace(rack.lab.rack, units=units, digest="0" * 64)
    status, out, _ = run(file, "--against", RACK)
    assert status == 1
    assert "rack file of demo-small: unit leaf1" in out and "is now LF999" in out
    assert "rack file of demo-small: topology" in out


def test_a_certificate_of_another_rack_proves_nothing_of_this_one(run, file):
    """Replayed: refused by name, before any machine is asked."""
    status, out, err = run(file, "--against", "demo")
    assert (status, out) == (1, "")
    assert "CERTIFICATE_OTHER_RACK: it is of 'demo-small', and proves nothing of demo" in err
    status, out, _ = run(file, "--against", "demo", "--json")
    assert (status, json.loads(out)["code"]) == (1, "CERTIFICATE_OTHER_RACK")


def test_one_that_was_revoked_on_record_is_revoked(rack, run, file):
    """For one node is enough: it names two."""
    ((digest, _),) = issued(rack)
    body = {"certificate": digest, "nodes": ["node2"], "reason": "tray swapped"}
    with rack.ledger() as ledger:
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, RACK, body=body, what=digest))
    for words in (("--evidence",), ("--against", RACK)):
        status, out, _ = run(file, *words)
        assert status == 1
        assert out.splitlines()[0].split()[:2] == ["certificate", "REVOKED"]
        assert "revoked for  node2: tray swapped" in out


def test_a_node_that_was_set_aside_since_is_not_what_the_certificate_says(rack, run, file):
    """The ledger says where it stands."""
    move(rack, Move.QUARANTINE)
    status, out, _ = run(file, "--against", RACK)
    assert status == 1
    assert out.splitlines()[0].split()[:2] == ["certificate", "LAPSED"]
    assert "lapsed  node2: it is QUARANTINED on record since" in out


def test_a_later_certificate_supersedes_it_and_each_says_so(rack, run, file):
    """The new one names the old one's sha256; the old one is told as superseded where the ledger is asked."""
    move(rack, Move.LAPSE)
    certify_again(rack)
    (first, of_first), (second, of_second) = issued(rack)
    assert (of_first, of_second) == ("", first)
    status, out, _ = run(rack.lab.settings.certificate(RACK), "--against", RACK)
    assert status == 0
    assert f"supersedes  {first[:16]}, for the nodes that both name" in out
    status, out, _ = run(file, "--against", RACK)
    assert status == 0
    assert "VALID, superseded  whole rack" in out.splitlines()[0]
    assert f"superseded  for node1, node2 by {second[:16]} of" in out
    assert "superseded" not in run(file)[1].splitlines()[0]


def test_all_evidence_is_there_byte_for_byte(run, file):
    """Every digest that the certificate names resolves in the ledger."""
    status, out, _ = run(file, "--evidence")
    assert status == 0
    assert "artifacts are there, byte for byte" in out
    found = json.loads(run(file, "--evidence", "--json")[1])["evidence_found"]
    assert found["named"] > 10 and found["lost"] == []


def test_evidence_that_is_lost_damaged_or_closed_is_named_with_what_rests_on_it(rack, run, file):
    """Exit 3, and never VALID: what nobody can look at proves nothing."""
    evidence = json.loads(run(file, "--json")[1])["evidence"]
    (lost, codes), (spoilt, _) = evidence[:2]
    artifact(rack, lost).unlink()
    artifact(rack, spoilt).chmod(0o600)
    artifact(rack, spoilt).write_bytes(b"something else")
    status, out, _ = run(file, "--evidence")
    assert status == 3
    assert out.splitlines()[0].split()[:2] == ["certificate", "UNPROVEN"]
    words = "".join(out.split())
    assert f"artifact{lost}isnotin" in words and f"onitrest:{','.join(codes)}" in words
    assert f"{spoilt}isdamaged" in words
    told = json.loads(run(file, "--evidence", "--against", RACK, "--json")[1])
    assert {one["digest"] for one in told["evidence_found"]["lost"]} == {lost, spoilt}
    assert run(file)[0] == 0, "offline the evidence is not asked for, and the output says so"


def test_one_that_this_ledger_did_not_issue_has_no_evidence_here(rack, run, file):
    """The same key, a statement that nobody put on record: forged with a stolen key, or of another installation."""
    settings = rack.lab.settings
    statement = json.loads(run(file, "--json")[1])["statement"]
    statement["predicate"]["rackproof.dev/certificate"]["toolVersion"] = "9"
    file.write_bytes(sign(statement, load_or_create(settings.keys)))
    assert run(file)[0] == 0
    status, out, _ = run(file, "--evidence")
    assert status == 3
    assert "not on record here" in out
    status, out, _ = run(file, "--against", RACK)
    assert status == 0
    assert "this ledger did not issue it" in out


@pytest.mark.parametrize(("passed", "code"), [(-HOUR, "CERTIFICATE_NOT_YET_VALID"), (31 * DAY, "CERTIFICATE_EXPIRED")])
def test_a_clock_that_jumped_is_told_and_nothing_is_valid_by_it(rack, run, file, passed, code):
    """Backwards before the issue, forwards beyond the end; as text and as JSON."""
    rack.time.now += passed
    status, out, err = run(file)
    assert (status, out) == (1, "")
    assert code in err and "now is" in err
    status, out, _ = run(file, "--json")
    assert (status, json.loads(out)["answer"], json.loads(out)["code"]) == (1, "REFUSED", code)


def issue_later(rack, by):
    """A certificate of both nodes on record, by a clock that ran ahead; its sha256."""
    digest = "c" * 64
    rack.time.now += by
    with rack.ledger() as ledger:
        body = {"artifact": digest, "nodes": ["node1", "node2"], "expires": str(rack.time.now + DAY), "supersedes": ""}
        ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, RACK, body=body, what=digest))
    rack.time.now -= by
    return digest


def test_a_clock_that_stands_before_the_ledger_decides_nothing(rack, run, file):
    """Within its time a file alone looks good; the ledger knows of a later moment, so one of the clocks is wrong."""
    issue_later(rack, 10 * DAY)
    assert run(file)[0] == 0
    for words in (("--evidence",), ("--against", RACK)):
        status, out, err = run(file, *words)
        assert (status, out) == (3, "")
        assert "one of the two clocks is wrong" in err
    status, out, _ = run(file, "--evidence", "--json")
    assert (status, json.loads(out)["answer"], json.loads(out)["code"]) == (3, "UNDECIDED", "UNDECIDED")


def test_no_certificate_is_issued_by_a_clock_that_went_back(rack):
    """It would be older than the one it supersedes; where the other clock was the wrong one, that one is revoked."""
    digest = issue_later(rack, HOUR)
    move(rack, Move.LAPSE)
    found = certify_again(rack)["node2"]
    assert (found.state, found.code) == (NodeState.TESTED, "UNDECIDED")
    assert "one of the two clocks is wrong" in found.message
    assert f"rackproof revoke {RACK}" in found.next
    assert len(issued(rack)) == 2
    body = {"certificate": digest, "nodes": ["node1", "node2"], "reason": "the clock ran ahead"}
    with rack.ledger() as ledger:
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, RACK, body=body, what=digest))
    assert certify_again(rack)["node2"].state is NodeState.CERTIFIED
    assert [of for _, of in issued(rack)] == ["", "", digest]


def test_a_signer_that_fails_costs_no_burn_in(rack, monkeypatch, tmp_path):
    """What was measured waits: the node stays TESTED with the signer's own words, and goes on when it signs."""
    program = tmp_path / "signer"
    program.write_text("#!/bin/sh\necho 'no token in the slot' >&2\nexit 1\n")
    program.chmod(0o755)
    move(rack, Move.LAPSE)
    monkeypatch.setenv("RACKPROOF_SIGNER", f"command:{program}")
    monkeypatch.setenv("RACKPROOF_SIGNER_KEY", str(rack.lab.settings.keys / "certificate.pub"))
    found = certify_again(rack)["node2"]
    assert (found.state, found.code) == (NodeState.TESTED, "UNDECIDED")
    assert "no token in the slot" in found.message
    burnins = rack.lab.burnins("node2")
    monkeypatch.delenv("RACKPROOF_SIGNER")
    assert certify_again(rack)["node2"].state is NodeState.CERTIFIED
    assert rack.lab.burnins("node2") == burnins


def test_a_certificate_is_stamped_where_the_site_has_a_timestamper(rack, run, monkeypatch, tmp_path):
    """It lies beside the certificate and is on record; where it fails nothing is issued; else none lies there."""
    authority = made(tmp_path)
    move(rack, Move.LAPSE)
    monkeypatch.setenv("RACKPROOF_TIMESTAMPER", "command:/bin/false")
    found = certify_again(rack)["node2"]
    assert found.state is NodeState.TESTED and "/bin/false gave no timestamp" in found.message
    monkeypatch.setenv("RACKPROOF_TIMESTAMPER", f"command:{authority}/stamper")
    assert certify_again(rack)["node2"].state is NodeState.CERTIFIED
    file = rack.lab.settings.certificate(RACK)
    beside = file.with_name(f"{file.name}.tsr")
    status, out, _ = run(file, "--timestamp", beside, "--tsa", authority / "root.pem")
    assert status == 0 and "timestamp  it was there at 20" in out
    assert run(file, "--timestamp", beside)[0] == 2, "whom does the reader believe?"
    with rack.ledger() as ledger:
        newest = ledger.events(RACK, kind=EventKind.CERTIFICATE_ISSUED)[-1]
        assert ledger.artifacts.get(newest.body["timestamp"]) == beside.read_bytes()
    move(rack, Move.LAPSE)
    monkeypatch.delenv("RACKPROOF_TIMESTAMPER")
    certify_again(rack)
    assert len(issued(rack)) == 3 and not beside.exists()
    assert run(file, "--timestamp", beside, "--tsa", authority / "root.pem")[0] == 2

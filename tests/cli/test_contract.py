"""`rackproof contract` over a certified rack: judged, printed, signed, read back; and every way to be no pass."""

import base64
import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from admitting import certified
from rehearsal import folder, open_ledger

from toolkit.certificate.canonical import canonical
from toolkit.certificate.envelope import sealed, unsealed
from toolkit.certificate.public_key import trusted_keys
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import PUBLIC, load_or_create
from toolkit.certificate.trust import Revocation, Trust
from toolkit.cli import main
from toolkit.ledger import Change, EventKind, NewEvent
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.report.contract_seal import PAYLOAD_TYPE, unseal

RACK = "demo-small"
ANNEX = """annex: a1
contract: Contract 7, annex B
criteria:
  - {id: B-1, clause: B 1, text: Memory returns what was written., gates: [{code: HBM_MISCOMPARE}, {code: HBM_COVERAGE_LOW}]}
  - {id: B-2, clause: B 2, text: all_reduce is quick., gates: [{code: NCCL_BUSBW_LOW, limit: %s, unit: GB/s}]}
  - {id: B-3, clause: B 3, text: Products agree., gates: [{code: GEMM_DIGEST_DIFFERS}, {code: NVLINK_LINK_DOWN}]}
  - {id: B-4, clause: B 4, text: Cables are right., gates: [{code: HCA_LINK_FAULTY}, {code: DRIVER_VERSION_WRONG}]}
  - {id: B-5, clause: B 5, text: All GPUs together are quick., gates: [{code: UNIT_BUSBW_LOW}]}
"""  # noqa: E501 - a line a criterion


@pytest.fixture(scope="module")
def rack(tmp_path_factory):
    """Two nodes, certified; made once."""
    with folder(tmp_path_factory.mktemp("rack") / "made") as made:
        yield certified(made, RACK)


@pytest.fixture
def home(rack, tmp_path):
    """A copy of the installation, for each test to spoil."""
    target = tmp_path / "home"
    shutil.copytree(rack.settings.home, target)
    return target


@pytest.fixture
def ledger(rack, home):
    """The copy's ledger."""
    with open_ledger(replace(rack.settings, home=home, ledger_url=f"sqlite:///{home}/ledger.db")) as opened:
        yield opened


@pytest.fixture
def run(home, tmp_path, monkeypatch, capsys):
    """Runs the verb on an annex; answers the status and what it says on stdout."""

    def start(*words, limit="470", annex=ANNEX):
        file = tmp_path / "annex.yml"
        file.write_text(annex % limit if "%s" in annex else annex)
        told = words or (RACK, "--annex", str(file), "--json")
        monkeypatch.setenv("RACKPROOF_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["rackproof", "contract", *(str(w).replace("ANNEX", str(file)) for w in told)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        said = capsys.readouterr()
        return status, said.out if status in (0, 1, 3) and said.out else said.err

    return start


@pytest.fixture
def report(run):
    """The report as JSON, with its status."""

    def made(**more):
        status, out = run(**more)
        return status, json.loads(out)

    return made


def answers(found):
    """id -> answer."""
    return {line["id"]: line["answer"] for line in found["criteria"]}


def test_a_certified_rack_passes_with_counts_worst_values_and_digests(report, ledger):
    """Every planned subject is counted; each digest is an artifact or an event of the ledger."""
    status, found = report()
    assert (status, found["answer"], found["nodes"]) == (0, "PASS", ["node1", "node2"])
    assert set(answers(found).values()) == {"PASS"}
    memory, busbw, products, _, unit = found["criteria"]
    assert (memory["passed"], memory["subjects"]) == (16, {"gpu": 16})
    assert (busbw["gates"][0]["limit"], busbw["gates"][0]["ours"], busbw["gates"][0]["against_ours"]) == (
        470, 440, "stricter",
    )  # fmt: skip
    assert 470 <= busbw["worst"]["value"] < 500
    assert products["subjects"] == {"gpu": 16, "link": 288}
    assert unit["subjects"] == {"rack": 1}
    for line in found["criteria"]:
        for origin in line["evidence"]:
            if origin.startswith("event "):
                assert ledger.events(RACK, after=int(origin[6:]) - 1, limit=1)[0].kind is EventKind.JUDGED
            else:
                ledger.artifacts.verify(origin)
    assert "as_designed" in {line["kind"] for line in found["not_verified"]}
    assert found["certificates"][0]["sha256"] == ledger.events(RACK, kind=EventKind.CERTIFICATE_ISSUED)[0].what


def test_a_stricter_limit_of_the_contract_fails_though_our_gate_passed(report):
    """490 is under the ceiling and over what was measured."""
    status, found = report(limit="490")
    assert (status, answers(found)["B-2"], found["answer"]) == (1, "FAIL", "FAIL")


def test_what_was_not_asked_is_undecided(report):
    """A gate that the profile leaves out, one of another platform, one that had no siblings, rails that did not run."""
    gates = ("HBM_BANDWIDTH_LOW", "IMEX_DOMAIN_NOT_UP", "NCCL_BUSBW_BELOW_PEERS", "RAIL_BUSBW_LOW", "LEAF_BUSBW_LOW")
    head = "annex: a1\ncontract: C\ncriteria:\n"
    lines = (f"  - {{id: '{n}', clause: c, text: t, gates: [{{code: {gate}}}]}}\n" for n, gate in enumerate(gates))
    status, found = report(annex=head + "".join(lines))
    assert (status, set(answers(found).values())) == (3, {"INCONCLUSIVE"})


@pytest.mark.parametrize("spoil", ["quarantine", "revoke", "artifact", "certificate", "key"])
def test_nothing_passes_without_a_certificate_in_force(report, ledger, home, spoil):
    """Set aside, revoked, its evidence deleted, its bytes altered, signed by a key that is not ours."""
    _, found = report()
    digest = found["certificates"][0]["sha256"]
    if spoil == "quarantine":
        ledger.move(RACK, "node2", Change(NodeState.CERTIFIED, Move.QUARANTINE), "smoke")
    elif spoil == "revoke":
        body = {"certificate": digest, "nodes": ["node2"], "reason": "recall"}
        ledger.append(NewEvent(EventKind.CERTIFICATE_REVOKED, RACK, body=body, what=digest))
    elif spoil == "artifact":
        for line in found["criteria"]:
            for origin in {o for o in line["evidence"] if " " not in o}:
                ledger.artifacts.path(origin).unlink(missing_ok=True)
    elif spoil == "certificate":
        path = ledger.artifacts.path(digest)
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-2] + b"x}")
    else:
        for name in ("certificate.key", "certificate.pub"):
            (home / "keys" / name).unlink()
        load_or_create(home / "keys")
    status, after = report()
    assert (status, after["answer"]) == (3, "INCONCLUSIVE")
    assert "PASS" not in {answers(after)["B-1"], answers(after)["B-2"]}
    words = {"quarantine": "QUARANTINED", "revoke": "revoked: recall", "certificate": "damaged", "key": "UNTRUSTED"}
    if spoil in words:
        assert any(words[spoil] in line["reason"] for line in after["left_out"])
    else:
        assert "is not in" in after["criteria"][0]["worst"]["detail"]


def test_a_page_and_a_signed_report_are_written_and_read_back_offline(run, tmp_path, home):
    """By the key alone, in an installation that has neither ledger nor rack; the page comes out the same."""
    page = tmp_path / "out" / "acceptance.html"
    status, text = run(RACK, "--annex", "ANNEX", "-o", page, "--sign")
    assert (status, "B-2 all_reduce is quick." in text) == (0, True)
    envelope = page.with_suffix(".dsse.json")
    key = tmp_path / "certificate.pub"
    shutil.copy(home / "keys" / "certificate.pub", key)
    shutil.rmtree(home)
    again = tmp_path / "again.html"
    status, out = run("--verify", envelope, "--key", key, "-o", again, "--json")
    found = json.loads(out)
    assert (status, found["answer"], found["doubt"]) == (0, "PASS", "")
    assert again.read_bytes() == page.read_bytes()
    assert not home.joinpath("ledger.db").exists()
    status, text = run("--verify", envelope, "--key", key)
    assert (status, "VALID, by key" in text) == (0, True)


@pytest.fixture
def signed(run, tmp_path, home):
    """A signed report and its trusted key."""
    page = tmp_path / "acceptance.html"
    assert run(RACK, "--annex", "ANNEX", "-o", page, "--sign")[0] == 0
    return json.loads(page.with_suffix(".dsse.json").read_text()), home / "keys"


def test_an_altered_report_is_refused_wherever_it_was_altered(signed, run, tmp_path):
    """A bit of the payload, of the signature, another type, another key, no JSON: exit 1 and a name for it."""
    envelope, _ = signed
    payload = base64.b64decode(envelope["payload"])
    body = json.loads(payload)
    cases = {
        Refusal.ALTERED: envelope | {"payload": base64.b64encode(payload.replace(b"PASS", b"FAIL", 1)).decode()},
        Refusal.WRONG_PAYLOAD_TYPE: envelope | {"payloadType": "application/vnd.in-toto+json"},
        Refusal.MALFORMED: {"payloadType": envelope["payloadType"], "payload": envelope["payload"]},
        Refusal.UNTRUSTED: json.loads(sealed(body, PAYLOAD_TYPE, load_or_create(tmp_path / "other"))),
        Refusal.NOT_JSON: "x",
    }
    for refusal, content in cases.items():
        file = tmp_path / "case.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        status, err = run("--verify", file)
        assert (status, refusal.value in err) == (1, True), err


def test_a_report_that_was_signed_and_is_wrong_is_refused_too(signed, run, tmp_path, home):
    """One that contradicts itself, of another version, or of tomorrow."""
    envelope, keys = signed
    body = json.loads(base64.b64decode(envelope["payload"]))
    worse = [body["criteria"][0] | {"answer": "FAIL"}, *body["criteria"][1:]]
    later = datetime.now(UTC).replace(microsecond=0).replace(year=datetime.now(UTC).year + 1).isoformat()
    cases = {
        "CERTIFICATE_MALFORMED": body | {"criteria": worse},
        "CERTIFICATE_UNKNOWN_PREDICATE": body | {"schema": "rackproof.dev/contract-report/v9"},
        "CERTIFICATE_NOT_YET_VALID": body | {"made_at": later},
    }
    for refusal, content in cases.items():
        file = tmp_path / "case.json"
        file.write_bytes(sealed(content, PAYLOAD_TYPE, load_or_create(keys)))
        status, err = run("--verify", file)
        assert (status, refusal in err) == (1, True), err
    assert canonical(body) == base64.b64decode(envelope["payload"])


@pytest.mark.parametrize("of", ["report", "certificate", "a node of the certificate"])
def test_a_revoked_report_stays_so_however_its_file_is_written(signed, of):
    """Other white space makes no other report of it; and none rests on a certificate that was revoked."""
    envelope, keys = signed
    trust = Trust.of(trusted_keys((keys / PUBLIC,)))
    now = datetime.now(UTC)
    body = json.loads(base64.b64decode(envelope["payload"]))
    name = unsealed(json.dumps(envelope).encode(), PAYLOAD_TYPE, tuple(k.key for k in trust.keys)).digest
    certificate = body["certificates"][0]
    digest = name if of == "report" else certificate["sha256"]
    nodes = tuple(certificate["nodes"][:1]) if of == "a node of the certificate" else ()
    revoked = replace(trust, revocations=(Revocation(digest, nodes, "recall", now),))
    for indent in (None, 4):
        file = json.dumps(envelope, indent=indent).encode()
        assert unseal(file, trust, now).keyid
        with pytest.raises(CertificateRefusedError) as refused:
            unseal(file, revoked, now)
        assert refused.value.refusal is Refusal.REVOKED


def test_a_report_whose_certificate_expired_is_undecided_and_says_so(signed, run, tmp_path):
    """It is genuine, and speaks of then."""
    envelope, keys = signed
    body = json.loads(base64.b64decode(envelope["payload"]))
    old = [c | {"expires_at": "2026-01-01T00:00:00Z"} for c in body["certificates"]]
    file = tmp_path / "case.json"
    file.write_bytes(sealed(body | {"certificates": old}, PAYLOAD_TYPE, load_or_create(keys)))
    status, out = run("--verify", file)
    assert (status, "expired at 2026-01-01T00:00:00Z" in " ".join(out.split())) == (3, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((RACK,), "a rack and its annex are needed"),
        (("--annex", "ANNEX"), "a rack and its annex are needed"),
        ((RACK, "--annex", "ANNEX", "--sign"), "--sign needs to know where the page goes"),
        ((RACK, "--annex", "ANNEX", "--key", "k.pub"), "go with --verify"),
        ((RACK, "--verify", "f"), "--verify was given with a rack"),
        (("--verify", "nothing.json"), "cannot be read"),
    ],
)
def test_words_that_do_not_go_together_are_told(run, words, says):
    """Exit 2, before anything is written."""
    status, err = run(*words)
    assert (status, says in err) == (2, True), err


def test_a_wrong_annex_ends_with_its_line(run):
    """File, line and column, exit 2."""
    status, err = run(annex=ANNEX.replace("HBM_MISCOMPARE", "HBM_MISCOMPAR") % "470")
    assert (status, "annex.yml:4:" in err, "did you mean HBM_MISCOMPARE?" in err) == (2, True, True)

"""What a certificate says, and when there is none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.certificate.canonical import canonical
from toolkit.certificate.statement import EXTENSION, Grounds, issue
from toolkit.errors import EvidenceError, RackproofError
from toolkit.judge.evidence import Subject
from toolkit.judge.verdict import Answer
from toolkit.rack.gate import Scope

MONTH = timedelta(days=30)
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def issued(grounds: Grounds, now: datetime) -> dict[str, Any]:
    return issue(grounds, now, MONTH, "1.2.3")


def extension(grounds: Grounds, now: datetime) -> dict[str, Any]:
    found: dict[str, Any] = issued(grounds, now)["predicate"][EXTENSION]
    return found


def test_it_is_an_in_toto_test_result(grounds: Grounds, now: datetime) -> None:
    """Readers of the plain predicate find what they know."""
    statement = issued(grounds, now)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert [s["name"] for s in statement["subject"]] == ["demo", "demo/node1", "demo/node2"]
    assert all(len(s["digest"]["sha256"]) == 64 for s in statement["subject"])
    predicate = statement["predicate"]
    assert predicate["result"] == "PASSED"
    assert predicate["passedTests"] == ["HBM_ERRORS", "HCA_RATE", "NCCL_BUSBW_LOW", "NVLINK_DOWN", "WARM"]
    assert (predicate["warnedTests"], predicate["failedTests"]) == ([], [])
    assert [c["name"] for c in predicate["configuration"]] == ["rack", "profile", "plan"]
    assert predicate["configuration"][0]["digest"] == {"sha256": "ab" * 32}


def test_some_of_a_rack_is_a_named_partial(grounds: Grounds, whole: Grounds, now: datetime) -> None:
    """Nobody takes it for the whole."""
    partial = extension(grounds, now)
    assert partial["coverage"] == "named partial"
    assert partial["nodes"] == ["node1", "node2"]
    assert partial["leftOut"] == [{"node": "node3", "reason": "QUARANTINED: HBM_ERRORS GPU 1"}]
    assert extension(whole, now)["coverage"] == "whole"


def test_a_gate_is_listed_with_limit_source_and_evidence(grounds: Grounds, now: datetime) -> None:
    """A reader can check the number against its source and its raw evidence."""
    by_code = {gate["code"]: gate for gate in extension(grounds, now)["gates"]}
    gate = by_code["HBM_ERRORS"]
    assert (gate["limit"], gate["unit"], gate["source"]) == (1.0, "GB/s", "a source")
    assert (gate["asked"], gate["passed"], gate["seen"]) == (4, 4, {"lowest": 2.5, "highest": 2.5})
    assert len(gate["evidence"]) == 4


def test_it_says_when_by_what_and_until(grounds: Grounds, now: datetime) -> None:
    """Times in UTC, to the second."""
    found = extension(grounds, now)
    assert (found["issuedAt"], found["expiresAt"]) == ("2026-11-23T08:00:00Z", "2026-12-23T08:00:00Z")
    assert (found["toolVersion"], found["version"], found["profile"]) == ("1.2.3", 3, "small")


def test_it_says_what_was_not_verified(grounds: Grounds, now: datetime) -> None:
    """Ours, the caller's, and what optional gates could not answer."""
    doubt = replace(grounds.findings[-1], answer=Answer.INCONCLUSIVE, value=None, detail="was not measured")
    assert doubt.code == "WARM"
    statement = issued(replace(grounds, findings=(*grounds.findings[:-1], doubt)), now)
    lines = statement["predicate"][EXTENSION]["notVerified"]
    assert lines[0] == {"kind": "levels", "what": "no collective over more than one node was measured"}
    assert lines[1]["kind"] == "as_designed" and "not read back" in lines[1]["what"]
    assert lines[2] == {"kind": "optional", "what": "WARM on 1 subjects: was not measured"}
    assert "WARM" not in statement["predicate"]["passedTests"]


def test_an_optional_gate_that_fails_is_a_warning(grounds: Grounds, now: datetime) -> None:
    """It stands in the certificate, by name and subject."""
    warm = replace(grounds.findings[-1], answer=Answer.FAIL, detail="too warm")
    predicate = issued(replace(grounds, findings=(*grounds.findings[:-1], warm)), now)["predicate"]
    assert (predicate["result"], predicate["warnedTests"]) == ("WARNED", ["WARM"])
    assert predicate[EXTENSION]["warnings"] == ["WARM on node2: too warm"]


def required(grounds: Grounds) -> list[int]:
    return [i for i, f in enumerate(grounds.findings) if f.gate.required]


@settings(deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_without_any_one_required_answer_there_is_none(grounds: Grounds, now: datetime, data: st.DataObject) -> None:
    """Removed, failed, undecided, without evidence, by another limit, or of another part."""
    index = data.draw(st.sampled_from(required(grounds)))
    one = grounds.findings[index]
    instead = data.draw(
        st.sampled_from(
            [
                (),
                (replace(one, answer=Answer.FAIL),),
                (replace(one, answer=Answer.INCONCLUSIVE),),
                (replace(one, origin=""),),
                (replace(one, gate=replace(one.gate, limit=0.1)),),
                (replace(one, subject=replace(one.subject, gpu=7)),),
            ]
        )
    )
    findings = (*grounds.findings[:index], *instead, *grounds.findings[index + 1 :])
    with pytest.raises(EvidenceError, match="demo cannot be certified: "):
        issued(replace(grounds, findings=findings), now)


@settings(deadline=None, suppress_health_check=SHARED)
@given(data=st.data())
def test_any_other_evidence_is_another_statement(grounds: Grounds, now: datetime, data: st.DataObject) -> None:
    """No digest can be dropped or exchanged without the signature's notice."""
    before = canonical(issued(grounds, now))
    index = data.draw(st.integers(0, len(grounds.findings) - 1))
    one = grounds.findings[index]
    origin = "0" * 64 if one.gate.required else ""
    findings = (*grounds.findings[:index], replace(one, origin=origin), *grounds.findings[index + 1 :])
    after = canonical(issued(replace(grounds, findings=findings), now))
    assert after != before
    assert one.origin.encode() not in after


def test_a_required_gate_of_the_rack_must_be_answered(grounds: Grounds, now: datetime) -> None:
    """A certificate of nodes is not one of what they do together."""
    gate = replace(grounds.rack.profile.gates[0], code="RACK_BUSBW", scope=Scope.RACK)
    profile = replace(grounds.rack.profile, gates=(*grounds.rack.profile.gates, gate))
    asked = replace(grounds, rack=replace(grounds.rack, profile=profile))
    with pytest.raises(EvidenceError, match="RACK_BUSBW has no answer on the rack"):
        issued(asked, now)
    answer = replace(grounds.findings[0], gate=gate, subject=Subject(Scope.RACK))
    assert "RACK_BUSBW" in issued(replace(asked, findings=(*asked.findings, answer)), now)["predicate"]["passedTests"]


def test_planned_certified_and_left_out_are_compared(grounds: Grounds, now: datetime) -> None:
    """A node forgotten, named twice, or a stranger's finding is a defect, not a certificate."""
    for left_out in ((), (("node1", "both"),), (("node3", "x"), ("node9", "x"))):
        with pytest.raises(RackproofError, match=r"are not the planned|have"):
            issued(replace(grounds, left_out=left_out), now)
    with pytest.raises(RackproofError, match=r"findings on \['node2'\]"):
        issued(replace(grounds, nodes=grounds.nodes[:1], left_out=(("node2", "x"), ("node3", "x"))), now)
    with pytest.raises(EvidenceError, match="nothing to certify"):
        issued(replace(grounds, nodes=(), findings=()), now)


def test_a_profile_without_required_gates_certifies_nothing(grounds: Grounds, now: datetime) -> None:
    """Nothing asked, nothing proven."""
    profile = replace(grounds.rack.profile, gates=())
    with pytest.raises(EvidenceError, match="no required gate"):
        issued(replace(grounds, rack=replace(grounds.rack, profile=profile), findings=()), now)


def test_a_certificate_of_no_time_is_a_defect(grounds: Grounds, now: datetime) -> None:
    """Naive times and lifetimes that are none."""
    with pytest.raises(RackproofError):
        issue(grounds, now, timedelta(), "1")
    with pytest.raises(RackproofError):
        issue(grounds, now.replace(tzinfo=None), MONTH, "1")


def test_it_is_plain_json(grounds: Grounds, now: datetime) -> None:
    """What is signed is what any JSON reader reads."""
    statement = issued(grounds, now)
    assert json.loads(canonical(statement)) == json.loads(json.dumps(statement))

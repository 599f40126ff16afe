"""The rule: only a certificate in force, of this node, as it is now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.certificate.fingerprint import Fingerprint, NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.pool.admission import may_admit

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
NODE = NodeFacts("node1", "SN1", ("G0", "G1"), ("0x1",), "580.95.05", (("vbios", "96"),))
CERTIFICATE = Verified(
    rack="demo",
    digest="ab" * 32,
    keyid="k",
    result="PASSED",
    issued_at=NOW,
    expires_at=NOW + timedelta(days=30),
    fingerprint=Fingerprint("demo", "cd" * 32, (NODE,), (), ()),
    left_out=(("node2", "QUARANTINED: HBM_ERRORS GPU 1"),),
    not_verified=(),
    statement={},
)


def test_the_node_that_was_certified_is_admitted() -> None:
    """Its GPUs may be read in another order."""
    answer = may_admit(CERTIFICATE, replace(NODE, gpus=("G1", "G0")), NOW + timedelta(days=1))
    assert answer.allowed
    assert answer.reason == "certificate abababababab is in force until 2026-12-23T08:00:00+00:00"


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (timedelta(days=30), "expired at 2026-12-23"),
        (timedelta(minutes=-6), "valid from 2026-11-23T08:00:00"),
    ],
)
def test_out_of_its_time_it_admits_nobody(later: timedelta, reason: str) -> None:
    """To the second at the end; five minutes of clock skew at the beginning."""
    answer = may_admit(CERTIFICATE, NODE, NOW + later)
    assert not answer.allowed
    assert reason in answer.reason
    assert may_admit(CERTIFICATE, NODE, NOW - timedelta(minutes=4)).allowed


@pytest.mark.parametrize(
    ("node", "reason"), [("node2", "QUARANTINED: HBM_ERRORS GPU 1"), ("node9", "it is not one of its rack")]
)
def test_a_node_it_does_not_name_is_told_why(node: str, reason: str) -> None:
    """Left out, or never there."""
    answer = may_admit(CERTIFICATE, replace(NODE, node=node), NOW)
    assert not answer.allowed
    assert reason in answer.reason


WORD = st.text(min_size=0, max_size=6)


@settings(deadline=None)
@given(data=st.data())
def test_any_changed_fact_keeps_the_node_out(data: st.DataObject) -> None:
    """Serial, GPU, HCA, driver or firmware, changed or missing; the reason names it."""
    field = data.draw(st.sampled_from(["serial", "gpus", "hcas", "driver", "firmware"]))
    values = {
        "serial": WORD,
        "driver": WORD,
        "gpus": st.lists(WORD, max_size=3).map(tuple),
        "hcas": st.lists(WORD, max_size=2).map(tuple),
        "firmware": st.dictionaries(WORD, WORD, max_size=2).map(lambda d: tuple(d.items())),
    }
    now = replace(NODE, **{field: data.draw(values[field])})
    answer = may_admit(CERTIFICATE, now, NOW)
    assert answer.allowed == (now.digest == NODE.digest)
    assert answer.allowed or "is not as certificate abababababab certified it" in answer.reason


def test_a_certificate_that_a_signed_list_revokes_for_a_node_admits_it_no_more() -> None:
    """For that node alone; the ledger's word counts beside the list's."""
    listed = replace(CERTIFICATE, revoked=(("node1", "GPU recalled"),))
    answer = may_admit(listed, NODE, NOW)
    assert not answer.allowed
    assert "is revoked for node1: GPU recalled" in answer.reason
    assert may_admit(replace(CERTIFICATE, revoked=(("node2", "x"),)), NODE, NOW).allowed
    on_record = {(CERTIFICATE.digest, "node1"): "drained", ("ff" * 32, "node1"): "another certificate"}
    assert "is revoked for node1: drained" in may_admit(CERTIFICATE, NODE, NOW, on_record).reason

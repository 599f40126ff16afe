"""Whether a node is in the pool by right: what it claims, held against what the ledger vouches for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from toolkit.pool.door import (
    CERTIFICATE,
    CERTIFIED,
    CONDITION,
    CORDONED,
    EXEMPT,
    EXPIRES,
    MACHINE,
    RACK,
    TAINT,
    rfc3339,
)
from toolkit.pool.node_object import Condition, NodeObject, read_node
from toolkit.pool.vouched import Known, Vouched, is_guarded, is_stranger, wrong

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(days=30)
DIGEST, OTHER, FORGED = "ab" * 32, "cd" * 32, "ef" * 32
KNOWN = Known(
    racks={"gpu-1": "demo", "gpu-2": "demo"},
    issued={
        (DIGEST, "gpu-1"): Vouched("demo", UNTIL),
        (OTHER, "far-9"): Vouched("far", UNTIL),
    },
    begun={(DIGEST, "gpu-1"): NOW - timedelta(days=1)},
)
MARKS = {CERTIFICATE: DIGEST, EXPIRES: rfc3339(UNTIL), MACHINE: "m-1"}
OPEN = NodeObject(
    "gpu-1",
    labels={CERTIFIED: "true", RACK: "demo"},
    annotations=MARKS,
    conditions=(Condition(CONDITION, "True"),),
    machine="m-1",
    gpus=(8, 8),
)


def revoked(known: Known, why: str) -> Known:
    """The same ledger after a revocation."""
    return replace(known, issued=known.issued | {(DIGEST, "gpu-1"): Vouched("demo", UNTIL, why)})


def test_a_node_that_was_let_in_stays_in() -> None:
    """To the second before its certificate ends; a cordon by others is theirs."""
    assert wrong(OPEN, KNOWN, NOW) == ""
    assert wrong(OPEN, KNOWN, UNTIL - timedelta(seconds=1)) == ""
    assert wrong(replace(OPEN, unschedulable=True), KNOWN, NOW) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"annotations": {}}, "its taint was off, and it names no certificate"),
        ({"annotations": MARKS | {CERTIFICATE: FORGED}}, "is not on record: forged, or of another installation"),
        ({"annotations": MARKS | {CERTIFICATE: OTHER}}, "is of far and does not name gpu-1"),
        ({"annotations": MARKS | {CERTIFICATE: "\x1b[2J"}}, "is not on record"),
        ({"annotations": MARKS | {EXPIRES: rfc3339(UNTIL + timedelta(days=365))}}, "was edited: 2027-12"),
        ({"annotations": MARKS | {EXPIRES: "never"}}, "was edited: never"),
        ({"labels": {CERTIFIED: "true", RACK: "other"}}, "is of demo; its label says other"),
        ({"labels": {RACK: "demo"}}, "certified is missing"),
        ({"conditions": ()}, "the condition RackCertified is missing"),
        ({"conditions": (Condition(CONDITION, "Unknown"),)}, "the condition RackCertified is Unknown"),
        ({"machine": "m-2"}, "another machine took its name: system UUID m-2"),
        ({"machine": ""}, "another machine took its name: system UUID unknown"),
    ],
)
def test_a_node_that_was_changed_by_hand_is_told_how(change: dict[str, object], why: str) -> None:
    """Each mark by itself is enough, and the reason is fit for a terminal."""
    told = wrong(replace(OPEN, **change), KNOWN, NOW)  # type: ignore[arg-type]
    assert why in told
    assert told.isprintable()


def test_certificates_end() -> None:
    """By the clock to the second, by a revocation at once, by the ledger's state of the node."""
    assert "expired at 2026-12-23T12:00:00Z" in wrong(OPEN, KNOWN, UNTIL)
    assert "is revoked: bad cable" in wrong(OPEN, revoked(KNOWN, "bad cable"), NOW)
    barred = replace(KNOWN, barred={"gpu-1": "it is QUARANTINED on record"})
    assert wrong(OPEN, barred, NOW) == "its taint was off, but it is QUARANTINED on record"


def test_nobody_is_in_whom_nobody_let_in() -> None:
    """A good certificate on a node whose taint somebody else lifted: no admission was begun."""
    assert wrong(OPEN, replace(KNOWN, begun={}), NOW) == "its taint was off, but no admission is on record"


def test_a_shut_node_is_left_alone_unless_it_is_marked_as_certified() -> None:
    """An admission writes its marks first and lifts the taint last: for a minute that is no fault."""
    shut = replace(OPEN, taints=(TAINT,))
    just_begun = replace(KNOWN, begun={(DIGEST, "gpu-1"): NOW - timedelta(seconds=5)})
    assert wrong(replace(shut, labels={}, conditions=()), KNOWN, NOW) == ""
    assert wrong(shut, just_begun, NOW) == ""
    assert "marked as certified while its taint is on" in wrong(shut, KNOWN, NOW)


def test_whose_business_a_node_is() -> None:
    """Ours by mark or by name; a GPU node of nobody's is told of; an exempt one is not even that."""
    bare = NodeObject("lab-7", gpus=(8, 8))
    assert (is_guarded(bare, KNOWN), is_stranger(bare, KNOWN)) == (False, True)
    assert (is_guarded(replace(bare, name="gpu-2"), KNOWN), wrong(bare, KNOWN, NOW)) == (True, "")
    assert is_guarded(replace(bare, taints=(TAINT,)), KNOWN)
    exempt = replace(bare, labels={EXEMPT: "true"})
    assert (is_guarded(exempt, KNOWN), is_stranger(exempt, KNOWN)) == (False, False)
    assert not is_stranger(NodeObject("cpu-1"), KNOWN)
    assert "names no certificate" in wrong(replace(bare, name="gpu-2"), KNOWN, NOW)


def test_an_object_of_the_wrong_shape_reads_as_a_node_that_is_shut_out() -> None:
    """Nothing raises, nothing opens."""
    odd = {"metadata": {"name": 7, "labels": [], "annotations": {"rackproof.dev/certificate": 5}},
           "spec": {"taints": "none"}, "status": {"conditions": [{"type": CONDITION, "status": True}], "capacity": 3,
           "nodeInfo": None, "allocatable": {"nvidia.com/gpu": "1e9"}}}  # fmt: skip
    node = read_node(odd)
    assert node == NodeObject("", labels={}, annotations={}, conditions=(Condition(CONDITION, ""),))
    assert wrong(replace(node, name="gpu-1"), KNOWN, NOW).startswith("its taint was off, and it names no certificate")
    assert CORDONED not in (node.annotations or {})

"""The one word said of a certificate: the worst of all that was found, and VALID only where nothing was."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import product

import pytest
from rich.console import Console

from toolkit.certificate.drifted import Drifted
from toolkit.certificate.fingerprint import Fingerprint, NodeFacts
from toolkit.certificate.reading import Verified
from toolkit.certificate.refusal import Refusal
from toolkit.report.certificate_record import Evidence, Lost, OnRecord, Superseded
from toolkit.report.codes import ERROR_CODES
from toolkit.report.proof import Proof, ProofAnswer, proof_document, proof_view

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
NODES = tuple(NodeFacts(f"node{n}", f"SN{n}", (f"G{n}",), (), "580.95.05", (("bios", "1"),)) for n in (1, 2))
CERTIFICATE = Verified(
    "demo", "ab" * 32, "cd" * 32, "PASSED", NOW, NOW + timedelta(days=30),
    Fingerprint("demo", "ef" * 32, NODES, (), ()), (), (), {}, version=3, supersedes="",
)  # fmt: skip
RECORD = OnRecord(NOW)
LATER = Superseded("node1", "99" * 32, NOW)

# What may be found, in the order of how bad it is, with the answer it comes to.
FOUND = {
    ProofAnswer.REVOKED: lambda p: replace(p, record=replace(p.record, revoked=(("node1", "why"),))),
    ProofAnswer.DRIFTED: lambda p: replace(p, drifted=(Drifted("node1", "driver", "1", "2"),)),
    ProofAnswer.LAPSED: lambda p: replace(p, record=replace(p.record, lapsed=(("node1", "QUARANTINED"),))),
    ProofAnswer.UNPROVEN: lambda p: replace(p, evidence=Evidence(2, (Lost("aa" * 32, "gone", ("X",)),))),
    ProofAnswer.UNDECIDED: lambda p: replace(p, unread=(("node2", "no route to host"),)),
}
WHOLE = Proof(CERTIFICATE, "demo", record=RECORD, evidence=Evidence(2, ()))


def lines(proof, width=110):
    """The view as an operator reads it."""
    written = StringIO()
    Console(width=width, file=written).print(proof_view(proof))
    return written.getvalue()


@pytest.mark.parametrize("found", list(product((False, True), repeat=len(FOUND))))
def test_the_answer_is_the_worst_of_what_was_found(found):
    """Every combination; VALID and exit 0 only for none of them."""
    proof = WHOLE
    there = [answer for answer, is_there in zip(FOUND, found, strict=True) if is_there]
    for answer in there:
        proof = FOUND[answer](proof)
    assert proof.answer is (there[0] if there else ProofAnswer.VALID)
    assert proof.exit_code == (0 if not there else 1 if there[0] in list(FOUND)[:3] else 3)
    assert bool(proof.next) is bool(there)
    assert proof_document(proof)["answer"] == proof.answer
    assert (proof.code in ERROR_CODES) is bool(there)


def test_evidence_of_a_certificate_that_is_not_on_record_proves_nothing():
    """Though every artifact happens to be there."""
    assert replace(WHOLE, record=OnRecord(None)).answer is ProofAnswer.UNPROVEN


def test_revoked_for_some_by_a_list_alone_it_holds_for_the_others_and_for_the_ledger_it_does_not():
    """The first line says how many; where more was asked than the file, all it names must hold."""
    listed = replace(CERTIFICATE, revoked=(("node1", "tray swapped"),))
    alone = Proof(listed, listed_until=NOW)
    assert (alone.answer, alone.coverage) == (
        ProofAnswer.VALID,
        "whole rack, all 2 nodes of demo; revoked for 1 of them",
    )
    assert replace(WHOLE, certificate=listed).answer is ProofAnswer.REVOKED


@pytest.mark.parametrize(
    ("superseded", "words"),
    [
        ((), "VALID  whole"),
        ((LATER,), "VALID, superseded in part"),
        ((LATER, replace(LATER, node="node2")), "VALID, superseded  "),
    ],
)
def test_superseded_is_said_in_the_first_line_and_is_no_fault(superseded, words):
    """What it says was measured, and it is in force."""
    proof = replace(WHOLE, record=OnRecord(NOW, superseded))
    assert proof.exit_code == 0
    assert words in lines(proof).splitlines()[0]


def test_what_nobody_looked_at_is_said():
    """Offline four things; with everything asked, none."""
    assert len(Proof(CERTIFICATE).limits()) == 4
    assert len(Proof(CERTIFICATE, listed_until=NOW).limits()) == 3
    assert WHOLE.limits() == ()
    assert replace(WHOLE, record=OnRecord(None)).limits() == (
        "whether it was superseded or revoked: this ledger did not issue it",
    )


@pytest.mark.parametrize(
    ("drifted", "command"),
    [
        (Drifted("node1", "driver", "1", "2"), "--after 'update driver node1'"),
        (Drifted("node1", "firmware gpu3 vbios", "1", "2"), "--after 'update firmware node1:gpu3'"),
        (Drifted("node1", "GPU", "A", ""), "--after 'swap node1'"),
        (Drifted("", "unit leaf1", "A", "B"), "--after 'swap leaf1'"),
        (Drifted("", "topology", "A", "B"), "--after CHANGE"),
    ],
)
def test_the_next_command_speaks_of_what_drifted(drifted, command):
    """As `recert plan` takes it."""
    proof = replace(WHOLE, drifted=(drifted,))
    assert command in proof.next
    assert ("rackproof revoke node1" in proof.next) is bool(drifted.node)


def test_what_a_node_says_moves_no_cursor():
    """A serial may be anything."""
    shown = lines(replace(WHOLE, drifted=(Drifted("node1", "serial", "SN1", "\x1b[2J\x1b[31mVALID" + "9" * 5000),)))
    assert "node1: serial SN1 is now" in shown and "\x1b" not in shown
    assert len(shown) < 5000


@pytest.mark.parametrize("refusal", Refusal)
def test_every_refusal_can_be_explained(refusal):
    """`rackproof explain` knows the word that stands in the message."""
    assert len(ERROR_CODES[refusal].split()) > 5

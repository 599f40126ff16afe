"""What a certificate proves, by all that was looked at: the answer, its reasons, and what nobody looked at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.certificate.drifted import Drifted
from toolkit.certificate.reading import Verified
from toolkit.errors import EvidenceError, UndecidedError
from toolkit.report.certificate_record import Evidence, OnRecord
from toolkit.report.text import printable

if TYPE_CHECKING:
    from datetime import datetime

_SHORT = 16
_SHOWN_CHANGES = 4
_BAD, _DOUBT, _GOOD = "bold red", "bold yellow", "bold green"


class ProofAnswer(StrEnum):
    """The first word that is said of a certificate. Only VALID is exit code 0."""

    VALID = "VALID"
    REVOKED = "REVOKED"  # for nodes it names, by the ledger
    DRIFTED = "DRIFTED"  # facts that it binds are others now
    LAPSED = "LAPSED"  # nodes it names are neither certified nor admitted any more
    UNPROVEN = "UNPROVEN"  # evidence that it rests on is not in the ledger, or damaged
    UNDECIDED = "UNDECIDED"  # nodes did not tell what they are now


_EXIT = {
    ProofAnswer.VALID: 0,
    ProofAnswer.REVOKED: EvidenceError.exit_code,
    ProofAnswer.DRIFTED: EvidenceError.exit_code,
    ProofAnswer.LAPSED: EvidenceError.exit_code,
    ProofAnswer.UNPROVEN: UndecidedError.exit_code,
    ProofAnswer.UNDECIDED: UndecidedError.exit_code,
}
_CODES = {
    answer: f"CERTIFICATE_{answer.value}"
    for answer in (ProofAnswer.REVOKED, ProofAnswer.DRIFTED, ProofAnswer.LAPSED, ProofAnswer.UNPROVEN)
}
_STYLE = {0: _GOOD, EvidenceError.exit_code: _BAD, UndecidedError.exit_code: _DOUBT}


@dataclass(frozen=True, slots=True)
class Proof:
    """A certificate whose signature and times are good, and what else was looked at.

    against   the rack it was held against; empty: no machine was asked
    drifted   facts that are no longer what was certified
    unread    (node, why) of nodes that did not tell what they are
    record    what the ledger has on it; None: the ledger was not asked
    evidence  what of its evidence is there; None: nobody looked
    listed_until  until when the list of revocations holds that was given; None: none was given
    """

    certificate: Verified
    against: str = ""
    drifted: tuple[Drifted, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    record: OnRecord | None = None
    evidence: Evidence | None = None
    listed_until: datetime | None = None

    @property
    def answer(self) -> ProofAnswer:
        """The worst that was found.

        By a list of revocations alone, a certificate revoked for some nodes holds for the others. Where the ledger was
        asked, or the rack, it must hold for every node it names. That a later one superseded it makes it none the
        worse: what it says was measured, and it is in force; the view says so in its first line.
        """
        record = self.record
        if record is not None and (record.revoked or self.certificate.revoked):
            return ProofAnswer.REVOKED
        if self.drifted:
            return ProofAnswer.DRIFTED
        if record is not None and record.lapsed:
            return ProofAnswer.LAPSED
        if self.evidence is not None and (self.evidence.lost or record is None or record.issued is None):
            return ProofAnswer.UNPROVEN
        return ProofAnswer.UNDECIDED if self.unread else ProofAnswer.VALID

    @property
    def code(self) -> str:
        """The name that `rackproof explain` knows the answer by; empty for VALID."""
        return "" if self.answer is ProofAnswer.VALID else _CODES.get(self.answer, "UNDECIDED")

    @property
    def exit_code(self) -> int:
        """0 only for VALID; 1 where the evidence says no; 3 where it does not say."""
        return _EXIT[self.answer]

    @property
    def coverage(self) -> str:
        """How much of its rack it certifies, in words."""
        named, left_out = len(self.certificate.nodes), len(self.certificate.left_out)
        nodes = f"{named + left_out} nodes of {self.certificate.rack}"
        words = f"named partial, {named} of the {nodes}" if left_out else f"whole rack, all {nodes}"
        gone = len(dict(self.certificate.revoked))
        return f"{words}; revoked for {gone} of them" if gone else words

    @property
    def superseded(self) -> str:
        """Whether a later certificate took its place, as far as the ledger was asked; for the first line."""
        nodes = len(self.record.superseded) if self.record else 0
        if not nodes:
            return ""
        return ", superseded" if nodes == len(self.certificate.nodes) else ", superseded in part"

    @property
    def about(self) -> str:
        """Which nodes the answer is about, where it is not VALID."""
        record = self.record
        told: dict[ProofAnswer, Iterable[str]] = {
            ProofAnswer.REVOKED: [n for n, _ in (*self.certificate.revoked, *(record.revoked if record else ()))],
            ProofAnswer.DRIFTED: [one.node or "the rack file" for one in self.drifted],
            ProofAnswer.LAPSED: [node for node, _ in record.lapsed] if record else (),
            ProofAnswer.UNDECIDED: [node for node, _ in self.unread],
        }
        return ", ".join(dict.fromkeys(told.get(self.answer, ())))

    @property
    def next(self) -> str:
        """What to do about an answer that is not VALID; empty where nothing is."""
        rack, about = self.certificate.rack, self.about
        nodes = [name for name in self.certificate.nodes if name in about.split(", ")]
        drifted = f"no new jobs on them: rackproof revoke {' '.join(nodes)} --reason drifted; " if nodes else ""
        after = " ".join(f"--after '{change}'" for change in self._changes()) or "--after CHANGE"
        return {
            ProofAnswer.VALID: "",
            ProofAnswer.REVOKED: f"test them again: rackproof bringup {rack}",
            ProofAnswer.DRIFTED: f"{drifted}what to test again: rackproof recert plan {rack} {after}",
            ProofAnswer.LAPSED: f"rackproof why {nodes[0] if nodes else rack}",
            ProofAnswer.UNPROVEN: "restore the artifacts from a copy; what is gone for good must be measured again",
            ProofAnswer.UNDECIDED: f"rackproof facts {nodes[0] if nodes else rack}; then the same command again",
        }[self.answer]

    def _changes(self) -> tuple[str, ...]:
        """What most likely was done to the nodes, as `recert plan` takes it."""
        found = []
        for one in self.drifted:
            kind, _, at = one.field.partition(" ")
            if one.node and kind == "firmware":
                found.append(f"update firmware {one.node}:{at.split()[0]}")
            elif one.node:
                found.append(f"update driver {one.node}" if kind == "driver" else f"swap {one.node}")
            elif kind == "unit":
                found.append(f"swap {at}")
        return tuple(dict.fromkeys(found))[:_SHOWN_CHANGES]

    def limits(self) -> tuple[str, ...]:
        """What was not looked at, each with the way to look."""
        return tuple(self._limits())

    def _limits(self) -> Iterator[str]:
        here = f"rackproof verify FILE --against {self.certificate.rack}"
        if self.record is None:
            yield f"whether a later certificate superseded it: only the ledger where it was issued knows: {here}"
            if self.listed_until is None:
                yield f"whether it was revoked since: no list of revocations was given: --trust FILE, or {here}"
        elif self.record.issued is None:
            yield "whether it was superseded or revoked: this ledger did not issue it"
        if not self.against:
            yield f"whether the machines are still what was certified: {here}"
        if self.evidence is None:
            yield "whether the evidence that it names is still there: --evidence, where it was issued"


def proof_document(proof: Proof) -> dict[str, object]:
    """As JSON: all of the certificate's own fields, and what was found beside them."""
    return asdict(proof.certificate) | {
        "answer": proof.answer.value,
        "code": proof.code,
        "coverage": "named partial" if proof.certificate.partial else "whole",
        "against": proof.against,
        "drifted": [asdict(one) for one in proof.drifted],
        "unread": [{"node": node, "why": why} for node, why in proof.unread],
        "record": None if proof.record is None else asdict(proof.record),
        "evidence_found": None if proof.evidence is None else asdict(proof.evidence),
        "limits": list(proof.limits()),
        "next": proof.next,
    }


def refused_document(code: str, message: str, hint: str) -> dict[str, object]:
    """The JSON of a file of which nothing is proven. Without a code it was not refused: nobody can say."""
    return {"answer": "REFUSED" if code else "UNDECIDED", "code": code or "UNDECIDED", "message": message, "next": hint}


def proof_view(proof: Proof) -> RenderableType:
    """What it proves and what it does not; the answer and how much of the rack it is about come first."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right")
    table.add_column(overflow="fold")
    before = ""
    for name, text, style in (*_head(proof), *_found(proof), *_body(proof)):
        table.add_row(name if name != before else "", Text(printable(text, 1000), style))
        before = name
    return table


Row = tuple[str, str, str]


def _head(proof: Proof) -> Iterator[Row]:
    certificate = proof.certificate
    style = _DOUBT if proof.superseded and not proof.exit_code else _STYLE[proof.exit_code]
    about = f" for {proof.about}" if proof.about else ""
    yield "certificate", f"{proof.answer}{about}{proof.superseded}  {proof.coverage}", style
    yield "sha256", certificate.digest, ""
    yield "result", certificate.result, "" if certificate.result == "PASSED" else _DOUBT
    if certificate.stamped_at:
        yield (
            "timestamp",
            f"it was there at {certificate.stamped_at:%Y-%m-%d %H:%M:%S}Z, by the authority you trust",
            "",
        )
    days = (certificate.expires_at - certificate.issued_at).total_seconds() / 86400
    yield "issued", f"{certificate.issued_at:%Y-%m-%d %H:%M}Z, expires {certificate.expires_at:%Y-%m-%d %H:%M}Z", ""
    yield "", f"{days:g} days: {certificate.lifetime_source or 'its policy gives no source'}", "dim"
    if certificate.supersedes:
        yield "supersedes", f"{certificate.supersedes[:_SHORT]}, for the nodes that both name", ""
    elif certificate.supersedes is None:
        yield "supersedes", f"version {certificate.version} of the statement does not say", "dim"


def _found(proof: Proof) -> Iterator[Row]:
    """Reasons, worst first, then what was good, then what to do."""
    record = proof.record or OnRecord(None)
    for node, reason in dict((*proof.certificate.revoked, *record.revoked)).items():
        yield "revoked for", f"{node}: {reason}", _BAD
    for one in proof.drifted:
        place = one.node or f"rack file of {proof.certificate.rack}"
        yield "drifted", f"{place}: {one}", _BAD
    for node, why in record.lapsed:
        yield "lapsed", f"{node}: {why}", _BAD
    yield from _evidence(proof)
    for node, why in proof.unread:
        yield "not read", why if node in why else f"{node}: {why}", _DOUBT
    for certificate, of in _superseded(record).items():
        yield "superseded", f"for {', '.join(of)} by {certificate}: that one holds for them now", _DOUBT
    if proof.against:
        nodes = proof.certificate.nodes
        same = set(nodes) - {one.node for one in proof.drifted} - {node for node, _ in proof.unread}
        yield "against", f"{proof.against}: {len(same)} of {len(nodes)} nodes are what was certified", ""
    if proof.next:
        yield "next", proof.next, "bold"


def _evidence(proof: Proof) -> Iterator[Row]:
    if proof.evidence is None:
        return
    for lost in proof.evidence.lost:
        yield "no evidence", f"{lost.why}; on it rest: {', '.join(lost.rests)}", _DOUBT
    if proof.record is None or proof.record.issued is None:
        yield "no evidence", "the certificate is not on record here: ask the ledger where it was issued", _DOUBT
    if not proof.evidence.lost:
        yield "evidence", f"all {proof.evidence.named} artifacts are there, byte for byte", ""


def _superseded(record: OnRecord) -> dict[str, list[str]]:
    """Nodes by the later certificate that names them."""
    found: dict[str, list[str]] = {}
    for later in record.superseded:
        found.setdefault(f"{later.certificate[:_SHORT]} of {later.at:%Y-%m-%d %H:%M}Z", []).append(later.node)
    return found


def _body(proof: Proof) -> Iterator[Row]:
    certificate = proof.certificate
    for facts in certificate.fingerprint.nodes:
        yield "certified", f"{facts.node}  {facts.serial}  {len(facts.gpus)} GPUs, driver {facts.driver}", ""
    for node, reason in certificate.left_out:
        yield "left out", f"{node}: {reason}", "yellow"
    for warning in certificate.warnings:
        yield "warning", warning, "yellow"
    for line in certificate.not_verified:
        yield "not verified", line.what, "dim"
    for limit in proof.limits():
        yield "not looked at", limit, "dim"
    yield "signed by", certificate.keyid[:_SHORT], ""

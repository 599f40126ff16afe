"""A contract report signed and read back offline: a DSSE envelope over its JSON, by the keys of certificates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NoReturn

from toolkit.certificate.envelope import sealed, unsealed
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import SigningKey
from toolkit.certificate.trust import Trust
from toolkit.judge.verdict import CLOCK_SKEW, Answer

if TYPE_CHECKING:
    from toolkit.report.contract_document import ContractReport

PAYLOAD_TYPE = "application/vnd.rackproof.contract-report+json"


@dataclass(frozen=True, slots=True)
class SealedReport:
    """A report that a trusted key signed.

    doubt  why it no longer speaks of the rack as it is: a certificate of its that expired; empty: none did
    """

    report: ContractReport
    keyid: str
    doubt: str

    @property
    def answer(self) -> Answer:
        """The report's, and never a PASS that no certificate stands behind any more."""
        lapsed = self.doubt and self.report.answer is Answer.PASS
        return Answer.INCONCLUSIVE if lapsed else Answer(self.report.answer)


def seal(report: ContractReport, key: SigningKey) -> bytes:
    """The envelope's bytes, ready to be written to a file."""
    return sealed(report.document(), PAYLOAD_TYPE, key)


def unseal(envelope: bytes, trust: Trust, now: datetime) -> SealedReport:
    """The report, if a trusted key signed exactly these bytes, they agree with themselves and nothing was revoked.

    Raises CertificateRefusedError; UndecidedError where the trust's list of revocations is too old to say.
    """
    from pydantic import ValidationError

    from toolkit.report.contract_document import SCHEMA, ContractReport

    found = unsealed(envelope, PAYLOAD_TYPE, tuple(known.key for known in trust.keys))
    body, keyid = found.body, found.keyid
    if body.get("schema") != SCHEMA:
        _refuse(Refusal.UNKNOWN_PREDICATE, f"it is a contract report of version {ascii(body.get('schema'))[:60]}")
    try:
        report = ContractReport.model_validate(body)
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        words = ".".join(map(str, first["loc"])) + ": " + first["msg"]
        _refuse(Refusal.MALFORMED, f"it is signed, but {ascii(words)[:200]}")
    made = datetime.fromisoformat(report.made_at)
    if made > now + CLOCK_SKEW:
        _refuse(Refusal.NOT_YET_VALID, f"it was made at {report.made_at}; now is {now.isoformat()}")
    for name in (*sorted(found.digests), *(c.sha256 for c in report.certificates)):
        trust.refusal_of(keyid, name, made, now)
    for certificate in report.certificates:
        gone = {node for node, _ in trust.revoked_nodes(certificate.sha256)} & set(certificate.nodes)
        if gone:
            names = ", ".join(sorted(gone))
            _refuse(Refusal.REVOKED, f"the certificate {certificate.sha256[:12]} it rests on is revoked for {names}")
    ended = [c for c in report.certificates if datetime.fromisoformat(c.expires_at) <= now]
    doubt = f"certificate {ended[0].sha256[:12]} expired at {ended[0].expires_at}" if ended else ""
    return SealedReport(report, keyid, doubt)


def _refuse(refusal: Refusal, detail: str) -> NoReturn:
    raise CertificateRefusedError(refusal, detail)

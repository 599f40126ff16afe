"""admit: let certified nodes take jobs. Their certificate is verified again and their facts are read again, now."""

from __future__ import annotations

from toolkit.certificate.reading import Verified
from toolkit.certificate.sign import PUBLIC
from toolkit.certificate.verify import trusted_keys, verify
from toolkit.errors import EvidenceError, UndecidedError
from toolkit.ledger import EventKind, NewEvent
from toolkit.pool.admission import may_admit
from toolkit.rack.lifecycle import Move, Outcome
from toolkit.rack.model import Unit
from toolkit.stages.context import Context, Result, Work, passed
from toolkit.stages.identity import IDENTITY_PROBES, identity_of
from toolkit.stages.readback import take


def run(context: Context, work: Work) -> None:
    """One node after the other: admission is a door, not a gate for crowds."""
    trusted = trusted_keys((context.settings.keys / PUBLIC,))

    def certificate_of(node: Unit) -> Verified:
        issued = context.ledger.events(context.rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=100_000)
        for event in reversed(issued):
            named = event.body.get("nodes")
            if isinstance(named, list) and node.name in named:
                return verify(context.ledger.artifacts.get(event.what), trusted, context.clock())
        raise UndecidedError(f"no certificate on record names {node.name}", f"rackproof bringup {context.rack.name}")

    def one(node: Unit) -> Result:
        try:
            certificate = certificate_of(node)
        except EvidenceError as refused:
            return _refused(context, refused.message)
        now = identity_of(context, node, take(context, work.runs[node.name], node, IDENTITY_PROBES))
        answer = may_admit(certificate, now, context.clock())
        if not answer.allowed:
            return _refused(context, answer.reason)
        body = {"certificate": certificate.digest, "expires": certificate.expires_at.isoformat()}
        context.ledger.intent(context.rack.name, node.name, "admit", body)
        context.hands.pool.admit(node.name, certificate.digest, certificate.expires_at, _labels(context, node))
        context.ledger.append(NewEvent(EventKind.ADMISSION, context.rack.name, node.name, body, "admitted"))
        return passed(answer.reason)

    for node in work.nodes:
        work.each((node,), one)


def _refused(context: Context, reason: str) -> Result:
    """The certificate no longer fits: back to JOINED, where new evidence can be taken."""
    again = f"rackproof bringup {context.rack.name}"
    return Result(Outcome.ERROR, "CERTIFICATE_REFUSED", reason, next=again, move=Move.LAPSE)


def _labels(context: Context, node: Unit) -> dict[str, str]:
    """What the scheduler places by. NVLink domains and leaves are for the stages that measure them."""
    return {"rackproof.dev/rack": context.rack.name, "rackproof.dev/slot": str(node.slot)}

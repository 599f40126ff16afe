"""What the ledger has on a certificate: was it issued here, what came after it, is its evidence still there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.certificate.reading import Verified
from toolkit.certificate.statement import SHA256
from toolkit.errors import UndecidedError
from toolkit.judge.verdict import CLOCK_SKEW
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger
from toolkit.pool.admission import revocations
from toolkit.rack.lifecycle import NodeState

_MAX_EVENTS = 100_000
_IN_FORCE = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})


@dataclass(frozen=True, slots=True)
class Superseded:
    """A later certificate that names a node of this one, and holds for it instead."""

    node: str
    certificate: str
    at: datetime


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What the ledger says of a certificate.

    issued      when it was put on record; None: it was not issued here, and all the rest is empty
    revoked     (node, reason)
    lapsed      (node, why) of nodes that are neither certified nor admitted any more, whatever the certificate says
    """

    issued: datetime | None
    superseded: tuple[Superseded, ...] = ()
    revoked: tuple[tuple[str, str], ...] = ()
    lapsed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """Evidence that the certificate names and nobody can look at any more. `rests`: codes of the gates on it."""

    digest: str
    why: str
    rests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much of what a certificate names is in the artifact store, read to the last byte."""

    named: int
    lost: tuple[Lost, ...]


def last_issued(ledger: Ledger, rack: str) -> Event | None:
    """The newest certificate on record for the rack: `what` is its sha256."""
    return next(reversed(_issued(ledger, rack)), None)


def last_naming(ledger: Ledger, rack: str, node: str) -> Event | None:
    """The newest certificate on record that names the node: `what` is its sha256."""
    return next((e for e in reversed(_issued(ledger, rack)) if node in (e.body.get("nodes") or ())), None)


def on_record(ledger: Ledger, certificate: Verified, now: datetime) -> OnRecord:
    """Raises UndecidedError where the clock stands before what is on record: in force or not, nobody can say then."""
    check_clock(ledger, certificate.rack, now)
    issued, why = _issued(ledger, certificate.rack), _revoked(ledger, certificate.rack)
    mine = next((event for event in issued if event.what == certificate.digest), None)
    if mine is None:
        return OnRecord(None)
    gone = [(node, why[certificate.digest, node]) for node in certificate.nodes if (certificate.digest, node) in why]
    later = {node: event for event in issued if event.id > mine.id for node in event.body.get("nodes") or ()}
    return OnRecord(
        mine.at,
        tuple(Superseded(node, later[node].what, later[node].at) for node in certificate.nodes if node in later),
        tuple(gone),
        _lapsed(ledger, certificate),
    )


def check_clock(ledger: Ledger, rack: str, now: datetime) -> None:
    """UndecidedError for a clock that stands before the newest certificate of the rack that was not revoked."""
    why = _revoked(ledger, rack)
    for event in _issued(ledger, rack):
        if event.at > now + CLOCK_SKEW and any((event.what, str(n)) not in why for n in event.body.get("nodes") or ()):
            raise UndecidedError(
                f"this machine's clock says {now.isoformat()}, and certificate {event.what[:12]} was issued at "
                f"{event.at.isoformat()}: one of the two clocks is wrong",
                "look at this one (timedatectl; chronyc tracking) and run the same command again; if it was the other, "
                f"that certificate is worth nothing: rackproof revoke {rack} --reason ...",
            )


def _issued(ledger: Ledger, rack: str) -> tuple[Event, ...]:
    return ledger.events(rack, kind=EventKind.CERTIFICATE_ISSUED, limit=_MAX_EVENTS)


def _revoked(ledger: Ledger, rack: str) -> dict[tuple[str, str], str]:
    events = ledger.events(rack, kind=EventKind.CERTIFICATE_REVOKED, limit=_MAX_EVENTS)
    return revocations(event.body for event in events)


def _lapsed(ledger: Ledger, certificate: Verified) -> tuple[tuple[str, str], ...]:
    states = ledger.node_states(certificate.rack)
    found = []
    for node in certificate.nodes:
        row = states.get(node)
        if row is not None and row.state not in _IN_FORCE:
            found.append((node, f"it is {row.state} on record since {row.since:%Y-%m-%d %H:%M}Z"))
    return tuple(found)


def evidence_of(ledger: Ledger, certificate: Verified) -> Evidence:
    """Reads every artifact that the certificate names; the bytes must be those of their name."""
    lost = []
    for digest, rests in certificate.evidence:
        if not SHA256.fullmatch(digest):
            lost.append(Lost(digest, f"{ascii(digest)[:80]} is the sha256 of nothing: nobody can look it up", rests))
            continue
        try:
            ledger.artifacts.verify(digest)
        except ArtifactError as failure:
            lost.append(Lost(digest, failure.message, rests))
        except OSError as failure:
            lost.append(Lost(digest, f"artifact {digest} cannot be read: {failure.strerror}", rests))
    return Evidence(len(certificate.evidence), tuple(lost))

"""The certificates' page: which end when, which were revoked or superseded; and one certificate, verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from toolkit.certificate.reading import Verified
from toolkit.rack.lifecycle import NodeState
from toolkit.serve.certified import Record
from toolkit.serve.site import Site

_IN_FORCE = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})
MOST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate on record.

    live      nodes that rest on it now
    revoked, superseded  of its nodes
    standing  in one word: in force, partly, expired, revoked, superseded, lapsed
    """

    record: Record
    live: tuple[str, ...]
    revoked: Mapping[str, str]
    superseded: tuple[str, ...]
    standing: str


@dataclass(frozen=True, slots=True)
class CertificatesPage:
    """Those in force first, the soonest to end on top; then the others, the newest on top. `more`: not shown."""

    live: tuple[Row, ...]
    past: tuple[Row, ...]
    more: int


@dataclass(frozen=True, slots=True)
class CertificatePage:
    """One certificate: as it is on record, and as it verifies."""

    row: Row
    proof: Verified | str


def certificates_page(site: Site, rack: str) -> CertificatesPage:
    """All certificates on record; `rack`: of that one, empty: of all."""
    states = _states(site)
    records = [r for r in site.board.certified.records() if not rack or r.rack == rack]
    rows = [_row(site, record, states, site.clock()) for record in records]
    live = sorted((r for r in rows if r.live), key=lambda r: (r.record.expires or r.record.issued, r.record.rack))
    past = [r for r in rows if not r.live]
    return CertificatesPage(tuple(live), tuple(past[:MOST_SHOWN]), max(0, len(past) - MOST_SHOWN))


def certificate_page(site: Site, digest: str) -> CertificatePage | None:
    """The certificate of that sha256; None where none of that name is on record."""
    states = _states(site)  # also brings the board up to date
    record = site.board.certified.record(digest)
    return CertificatePage(_row(site, record, states, site.clock()), site.proof(digest)) if record else None


def _states(site: Site) -> dict[tuple[str, str], NodeState]:
    return {(rack.name, node.name): node.state for rack in site.board.fleet() for node in rack.nodes}


def _row(site: Site, record: Record, states: Mapping[tuple[str, str], NodeState], now: datetime) -> Row:
    certified = site.board.certified
    revoked, superseded = certified.revoked(record), certified.superseded(record)
    expired = record.expires is None or record.expires <= now
    live = tuple(
        node for node in record.nodes
        if node not in revoked and node not in superseded and states.get((record.rack, node)) in _IN_FORCE
    )  # fmt: skip
    return Row(
        record, () if expired else live, revoked, superseded, _standing(record, live, revoked, superseded, expired)
    )


def _standing(
    record: Record, live: tuple[str, ...], revoked: Mapping[str, str], superseded: tuple[str, ...], expired: bool
) -> str:
    if expired:
        return "expired"
    if live:
        return "in force" if len(live) == len(record.nodes) else "in part"
    return "revoked" if revoked else "superseded" if superseded else "lapsed"

"""Which certificates are on record, which node rests on which, and what became of them. By the ledger alone: signatures
are verified where one certificate, or one rack, is shown.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.ledger import Event, EventKind, Ledger

_BATCH, _ALL = 1_000, 1_000_000
MOST = 20_000  # records kept to be listed; which one names a node last is known of all


@dataclass(frozen=True, slots=True)
class Record:
    """A certificate as it was put on record. `expires` None: the record does not say, and nothing rests on it."""

    digest: str
    rack: str
    issued: datetime
    expires: datetime | None
    nodes: tuple[str, ...]
    left_out: tuple[str, ...]
    event: int


@dataclass(frozen=True, slots=True)
class OfNode:
    """The newest certificate that names a node. `revoked`: why it no longer holds for it; empty where it does."""

    digest: str
    issued: datetime
    expires: datetime | None
    revoked: str = ""


@dataclass(slots=True)
class Certified:
    """All of them, read event by event. Its caller sees to it that one thread reads at a time."""

    ledger: Ledger
    _records: OrderedDict[str, Record] = field(default_factory=OrderedDict)
    _newest: dict[tuple[str, str], OfNode] = field(default_factory=dict)
    _revoked: dict[tuple[str, str], str] = field(default_factory=dict)
    _issued_to: int = 0
    _revoked_to: int = 0

    def follow(self, newest: int) -> None:
        """Takes in what was put on record up to that event."""
        for event in self._events(EventKind.CERTIFICATE_ISSUED, self._issued_to):
            self._take(event)
        for event in self._events(EventKind.CERTIFICATE_REVOKED, self._revoked_to):
            for node in _names(event.body, "nodes"):
                self._revoked[str(event.body.get("certificate", "")), node] = str(event.body.get("reason", ""))
        self._issued_to = self._revoked_to = max(newest, self._issued_to)

    def of_node(self, rack: str, node: str) -> OfNode | None:
        """The newest certificate that names it; None where none ever did."""
        found = self._newest.get((rack, node))
        why = self._revoked.get((found.digest, node)) if found else None
        if found is None or why is None:
            return found
        return OfNode(found.digest, found.issued, found.expires, why or "no reason is on record")

    def record(self, digest: str) -> Record | None:
        """The certificate of that sha256."""
        return self._records.get(digest)

    def records(self) -> tuple[Record, ...]:
        """The newest first."""
        return tuple(reversed(self._records.values()))

    def revoked(self, record: Record) -> dict[str, str]:
        """Why it was revoked, by node."""
        return {n: self._revoked[record.digest, n] for n in record.nodes if (record.digest, n) in self._revoked}

    def superseded(self, record: Record) -> tuple[str, ...]:
        """Nodes that a later certificate names."""
        newest = ((node, self._newest.get((record.rack, node))) for node in record.nodes)
        return tuple(node for node, of in newest if of is not None and of.digest != record.digest)

    def _events(self, kind: EventKind, after: int) -> Iterator[Event]:
        if not after:  # the journal is indexed by rack: reading it from its beginning would take in all of it
            racks = self.ledger.racks()
            found = [e for rack in racks for e in self.ledger.events(rack, kind=kind, limit=_ALL)]
            yield from sorted(found, key=lambda event: event.id)
            return
        while True:
            new = self.ledger.events(kind=kind, after=after, limit=_BATCH)
            yield from new
            if len(new) < _BATCH:
                return
            after = new[-1].id

    def _take(self, event: Event) -> None:
        nodes = _names(event.body, "nodes")
        expires = _time(event.body.get("expires"))
        left_out = _names(event.body, "left_out")
        self._records[event.what] = Record(event.what, event.rack, event.at, expires, nodes, left_out, event.id)
        self._records.move_to_end(event.what)
        if len(self._records) > MOST:
            self._records.popitem(last=False)
        for node in nodes:
            self._newest[event.rack, node] = OfNode(event.what, event.at, expires)


def _names(body: Mapping[str, object], key: str) -> tuple[str, ...]:
    found = body.get(key)
    return tuple(map(str, found)) if isinstance(found, list | dict) else ()


def _time(text: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None

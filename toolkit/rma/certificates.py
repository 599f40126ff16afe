"""The certificates that ever named a serial, as the ledger issued and revoked them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.certificate.statement import EXTENSION
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger
from toolkit.pool.admission import revocations

_MOST_EVENTS = 100_000
_MOST_READ = 5_000  # the newest: of more, the oldest are left unread and said to be


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate that named the serial in a node. `driver`, `firmware`: of the node, as it was certified.

    event  its place in the ledger, which tells before and after where times are too coarse to
    """

    event: int
    certificate: str
    rack: str
    node: str
    issued: str
    expires: str
    revoked: str
    driver: str
    firmware: Mapping[str, str]


def certificates_of(ledger: Ledger, serials: Collection[str]) -> tuple[Certified, ...]:
    """Oldest first. What cannot be read any more is left out: it proves nothing of the serial."""
    issued = ledger.events(kind=EventKind.CERTIFICATE_ISSUED, limit=_MOST_EVENTS)[-_MOST_READ:]
    void = revocations(e.body for e in ledger.events(kind=EventKind.CERTIFICATE_REVOKED, limit=_MOST_EVENTS))
    return tuple(one for event in issued for one in _named(ledger, event, serials, void))


def _named(
    ledger: Ledger, event: Event, serials: Collection[str], void: Mapping[tuple[str, str], str]
) -> Iterator[Certified]:
    extension = _extension(ledger, event)
    nodes = (extension.get("fingerprint") or {}).get("nodes") or {}
    for name, facts in sorted(nodes.items()):
        if set(serials) & {facts.get("serial"), *facts.get("gpus", ()), *facts.get("hcas", ())}:
            yield Certified(
                event.id, event.what, event.rack, name,
                str(extension.get("issuedAt", "")), str(extension.get("expiresAt", "")),
                void.get((event.what, name), ""), str(facts.get("driver", "")), dict(facts.get("firmware") or {}),
            )  # fmt: skip


def _extension(ledger: Ledger, event: Event) -> Mapping[str, Any]:
    """What is ours of the statement; nothing where the envelope cannot be read."""
    try:
        envelope = json.loads(ledger.artifacts.get(str(event.body["artifact"])))
        found = json.loads(base64.b64decode(envelope["payload"]))["predicate"][EXTENSION]
    except (ArtifactError, ValueError, KeyError, TypeError, binascii.Error):
        return {}
    return found if isinstance(found, dict) else {}

"""The ledger as the doorkeeper reads it: certificates issued and revoked, admissions begun. Reads only what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from toolkit.ledger import Event, EventKind, Ledger
from toolkit.pool.admission import revocations
from toolkit.pool.lapsing import MAY_BE_IN
from toolkit.pool.node_object import moment
from toolkit.pool.vouched import Known, Vouched
from toolkit.rack.lifecycle import NodeState

_AT_ONCE = 1000
_ADMIT = "admit"  # the intent that an admission writes before its first act


class DoorRecord:
    """What is on record of all racks, as of the last `refresh`."""

    def __init__(self, ledger: Ledger, racks: Mapping[str, str]) -> None:
        """`racks`: rack of each node of the site, by the node's name."""
        self._ledger = ledger
        self._racks = dict(racks)
        self._seen = dict.fromkeys((EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REVOKED, EventKind.INTENT), 0)
        self._issued: dict[tuple[str, str], Vouched] = {}
        self._revoked: dict[tuple[str, str], str] = {}
        self._begun: dict[tuple[str, str], datetime] = {}

    def refresh(self) -> Known:
        """What is known now."""
        for event in self._new(EventKind.CERTIFICATE_ISSUED):
            expires = moment(str(event.body.get("expires", "")))
            for node in event.body.get("nodes") or ():
                if expires is not None:
                    self._issued[event.what, str(node)] = Vouched(event.rack, expires)
        self._revoked |= revocations(event.body for event in self._new(EventKind.CERTIFICATE_REVOKED))
        for event in self._new(EventKind.INTENT, _ADMIT):
            digest = str((event.body.get("details") or {}).get("certificate", ""))
            self._begun[digest, event.node] = event.at
        for key, why in self._revoked.items():
            if key in self._issued and not self._issued[key].revoked:
                self._issued[key] = replace(self._issued[key], revoked=why or "no reason given")
        return Known(self._racks, self._issued, self._begun, self._barred())

    def _barred(self) -> dict[str, str]:
        found = {}
        for rack in sorted(set(self._racks.values())):
            states = {node: row.state for node, row in self._ledger.node_states(rack).items()}
            for node in (n for n, of in self._racks.items() if of == rack):
                state = states.get(node, NodeState.PLANNED)
                if state not in MAY_BE_IN:
                    found[node] = f"it is {state} on record"
        return found

    def _new(self, kind: EventKind, what: str | None = None) -> Iterator[Event]:
        while True:
            found = self._ledger.events(kind=kind, what=what, after=self._seen[kind], limit=_AT_ONCE)
            yield from found
            if found:
                self._seen[kind] = found[-1].id
            if len(found) < _AT_ONCE:
                return

"""The first half of a wave: each node by its certificate, once, and who may be in without our having seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from toolkit.errors import RackproofError, UnreachableError
from toolkit.ledger import EventKind, NewEvent
from toolkit.pool.desk import Desk, Entry, Site
from toolkit.pool.model import PoolNode
from toolkit.pool.patience import Patience
from toolkit.pool.wave_log import WaveRecord


class LettingIn:
    """Lets a wave's nodes in side by side.

    entries  who is in, and by what
    refused  whom the pool would not let in, and why; each may be in all the same
    """

    def __init__(
        self, site: Site, desk: Desk, patience: Patience, wave: WaveRecord, inside: Mapping[str, PoolNode]
    ) -> None:
        self._site = site
        self._desk = desk
        self._patience = patience
        self._wave = wave
        self._inside = inside
        self._attempted = set[str]()
        self.entries: dict[str, Entry] = {}
        self.refused: dict[str, RackproofError] = {}

    def all(self, nodes: Sequence[str]) -> None:
        """Every node, or every node once more."""
        for node in nodes:
            self.refused.pop(node, None)
        self._desk.each(nodes, self._one)

    def worth_again(self) -> tuple[str, ...]:
        """Who was refused by a pool that answers: it may have been for the lead, lost in a silence nobody else met."""
        return tuple(node for node, why in sorted(self.refused.items()) if not isinstance(why, UnreachableError))

    def doubtful(self) -> dict[str, str]:
        """Who may be in the pool and must not stay, each with the reason."""
        reasons = {}
        for node in sorted((self._inside.keys() | self._attempted) - self.entries.keys()):
            failure = self.refused.get(node)
            reasons[node] = f"not admitted: {failure.message}"[:300] if failure else "its certificate does not admit it"
        return reasons

    def _one(self, node: str) -> None:
        entry = self._desk.entry(node)
        if entry is None:
            return
        now = self._inside.get(node)
        if now is not None and now.certificate == entry.certificate:
            self.entries[node] = entry  # let in before we were cut off: not twice
            return
        body = {"certificate": entry.certificate, "expires": entry.expires.isoformat(), "wave": self._wave.id}
        self._site.ledger.intent(self._site.rack, node, "admit", body)
        self._attempted.add(node)
        self._desk.tell(node, f"wave {self._wave.number}: let in")
        try:
            self._patience.ask(lambda: self._site.pool.admit(node, entry.certificate, entry.expires, entry.labels))
        except RackproofError as failure:
            self.refused[node] = failure
            return
        self._site.ledger.append(NewEvent(EventKind.ADMISSION, self._site.rack, node, body, "admitted"))
        self.entries[node] = entry

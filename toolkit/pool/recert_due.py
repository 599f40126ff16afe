"""What is due to be measured again, whatever it pays: evidence that is too old, certificates that are about to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.judge.recert.choose import overdue
from toolkit.ledger import EventKind, Ledger
from toolkit.pool.admission import revocations
from toolkit.pool.recert_candidates import Known
from toolkit.pool.recert_file import Beliefs
from toolkit.rack.model import Rack, Suite

_ALL = 100_000


@dataclass(frozen=True, slots=True)
class Due:
    """A node whose turn it is. `whole`: rails and levels too, for its certificate ends; else its suite alone."""

    node: str
    suite: Suite
    why: str
    whole: bool


def due(rack: Rack, found: Known, ends: Mapping[str, datetime], beliefs: Beliefs, now: datetime) -> tuple[Due, ...]:
    """The most urgent first: certificates by their end, then evidence by its age. Each node once.

    ends  when each node's certificate does
    """
    margin = timedelta(hours=beliefs.margin_hours.value)
    serving = {c.node for c in found.candidates}
    soon = sorted((at, node) for node, at in ends.items() if node in serving and at - now <= margin)
    renew = [
        Due(node, rack.profile.suite, f"its certificate ends {at:%Y-%m-%d %H:%M}Z", whole=True) for at, node in soon
    ]
    named = {one.node for one in renew}
    turns = sorted(overdue(found.candidates, found.trials, beliefs.oldest_hours.value))
    old = [Due(node, Suite(trial), f"its evidence is {-age:,.1f} h old", whole=False)
           for age, node, trial in turns if node not in named]  # fmt: skip
    return (*renew, *old)


def certificate_ends(ledger: Ledger, rack: Rack) -> dict[str, datetime]:
    """When the newest certificate that names each node ends; nodes whose own was revoked are left out."""
    issued = ledger.events(rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=_ALL)
    revoked = revocations(e.body for e in ledger.events(rack.name, kind=EventKind.CERTIFICATE_REVOKED, limit=_ALL))
    newest = {str(node): event for event in issued for node in event.body.get("nodes") or ()}
    return {
        node: datetime.fromisoformat(str(event.body["expires"]))
        for node, event in newest.items()
        if (event.what, node) not in revoked
    }


def next_due(found: Known, ends: Mapping[str, datetime], beliefs: Beliefs, now: datetime) -> str:
    """Which node is due next and when, in words; empty where no node is in service."""
    oldest, margin = beliefs.oldest_hours.value, timedelta(hours=beliefs.margin_hours.value)
    turns = [(now + timedelta(hours=oldest - c.age(t.name)), c.node, f"suite {t.name} is {oldest:g} h old")
             for c in found.candidates for t in found.trials]  # fmt: skip
    serving = {c.node for c in found.candidates}
    turns += [(at - margin, node, "its certificate is about to end") for node, at in ends.items() if node in serving]
    if not turns:
        return ""
    at, node, why = min(turns)
    when = "now" if at <= now else f"{at:%Y-%m-%d %H:%M}Z"
    return f"next due: {node}, {when}: {why}"

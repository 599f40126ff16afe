"""The fleet's page: racks, the worst first, who is driven, what expires soon, what happened last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.ledger import EventKind
from toolkit.rack.lifecycle import NodeState
from toolkit.serve.activity import Happened, happened
from toolkit.serve.board import Summary
from toolkit.serve.site import Site

SOON = timedelta(days=3)
_IN_FORCE = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})
_TOLD = frozenset(
    {
        EventKind.NODE_MOVED, EventKind.CERTIFICATE_ISSUED, EventKind.CERTIFICATE_REVOKED, EventKind.LEASE_TAKEN,
        EventKind.LEASE_RELEASED,
    }
)  # fmt: skip
_HAPPENED = 9
MOST_ENDING = 8


@dataclass(frozen=True, slots=True)
class Ending:
    """Nodes of a rack whose certificate ends then, or has ended."""

    rack: str
    digest: str
    expires: datetime
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RackHappened:
    """A line of what happened, with its rack."""

    rack: str
    line: Happened


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of it. `states`: of all nodes; `unbegun`: racks of the inventory that nothing is on record of."""

    racks: tuple[Summary, ...]
    unbegun: tuple[Summary, ...]
    states: dict[NodeState, int]
    nodes: int
    gpus: int
    failed: int
    doubtful: int
    ending: tuple[Ending, ...]
    happened: tuple[RackHappened, ...]

    @property
    def driven(self) -> tuple[Summary, ...]:
        """Racks that somebody drives now."""
        return tuple(rack for rack in self.racks if rack.driver)


def fleet_page(site: Site) -> Fleet:
    """The fleet as the ledger has it now. Racks that nothing is on record of are counted apart: they are plans."""
    every = sorted(site.board.fleet(), key=lambda rack: rack.badness)
    racks = tuple(rack for rack in every if rack.begun or rack.driver)
    states = dict.fromkeys(NodeState, 0)
    for rack in racks:
        for state, count in rack.counts.items():
            states[state] += count
    events = site.ledger.recent(_TOLD, limit=_HAPPENED)
    return Fleet(
        racks,
        tuple(sorted((r for r in every if r not in racks), key=lambda r: r.name)),
        {state: count for state, count in states.items() if count},
        sum(len(rack.nodes) for rack in racks),
        sum(len(rack.nodes) * rack.design.profile.gpus_per_node for rack in racks if rack.design),
        sum(node.failed for rack in racks for node in rack.nodes),
        sum(node.doubtful for rack in racks for node in rack.nodes),
        ending(racks, site.clock(), SOON),
        tuple(RackHappened(event.rack.removeprefix("rack/"), happened(event)) for event in reversed(events)),
    )


def ending(racks: Sequence[Summary], now: datetime, within: timedelta) -> tuple[Ending, ...]:
    """Certificates in force that end within that time or have ended, the soonest first."""
    found: dict[tuple[str, str, datetime], list[str]] = {}
    for rack in racks:
        for node in rack.nodes:
            of = node.certificate
            live = node.state in _IN_FORCE and of is not None and not of.revoked
            if live and of is not None and of.expires is not None and of.expires - now <= within:
                found.setdefault((rack.name, of.digest, of.expires), []).append(node.name)
    endings = (Ending(rack, digest, expires, tuple(names)) for (rack, digest, expires), names in found.items())
    return tuple(sorted(endings, key=lambda one: (one.expires, one.rack)))

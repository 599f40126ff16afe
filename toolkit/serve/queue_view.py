"""The queue's page: what runs now and who drives it, what is due to be measured again, what waits for hands.

What is due is said by the same rules as `recert plan` and `recert run --due`. It takes the past of every node in
service: so it is worked out rack by rack, kept until the rack has a new event or the hour is over, and a page shows
what there is so far.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.errors import UsageError
from toolkit.ledger import Lease
from toolkit.pool.policy_file import load_policy
from toolkit.pool.recert_candidates import Budget, known
from toolkit.pool.recert_due import Due, certificate_ends, due, next_due
from toolkit.pool.recert_file import Beliefs
from toolkit.rack.claim import Sku
from toolkit.rack.claims import load_skus
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.model import Rack
from toolkit.rack.nodeset import fold
from toolkit.serve.board import Node, Summary
from toolkit.serve.rack_view import StageNow, stages_now
from toolkit.serve.site import Site

_IN_SERVICE = frozenset({NodeState.TESTED, NodeState.CERTIFIED, NodeState.ADMITTED})
_MOST_S = 1.5  # a page waits no longer for racks that were not worked out yet
_MOST_WAITING = 200


@dataclass(frozen=True, slots=True)
class Running:
    """A rack that is driven now: by whom, until when at least, and what runs."""

    rack: str
    driver: Lease
    stages: tuple[StageNow, ...]


@dataclass(frozen=True, slots=True)
class Turns:
    """Nodes that are due for one reason, folded as `node[01-04]`."""

    nodes: str
    count: int
    suite: str
    whole: bool
    why: str


@dataclass(frozen=True, slots=True)
class DueRack:
    """What is due on a rack. `ahead`: what is due next, in words; `problem`: why nobody can say."""

    rack: str
    due: tuple[Due, ...]
    ahead: str
    problem: str = ""

    @property
    def turns(self) -> tuple[Turns, ...]:
        """The same, nodes with one reason together."""
        groups: dict[tuple[str, bool, str], list[str]] = {}
        for one in self.due:
            groups.setdefault((one.suite, one.whole, one.why), []).append(one.node)
        return tuple(Turns(fold(nodes), len(nodes), *key) for key, nodes in groups.items())


@dataclass(frozen=True, slots=True)
class Waiting:
    """A node that waits for somebody, with what comes next."""

    rack: str
    node: Node


@dataclass(frozen=True, slots=True)
class QueuePage:
    """All of it. `unread`: racks whose due work is not worked out yet; `more`: nodes waiting that are not shown."""

    running: tuple[Running, ...]
    due: tuple[DueRack, ...]
    unread: tuple[str, ...]
    waiting: tuple[Waiting, ...]
    more: int


@dataclass(slots=True)
class Dues:
    """What is due, by rack, as it was worked out last."""

    _known: dict[str, tuple[tuple[int, str], DueRack]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, site: Site, racks: Iterable[Summary]) -> tuple[tuple[DueRack, ...], tuple[str, ...]]:
        """(what is known now, racks that take another look)."""
        began = time.monotonic()
        beliefs, now = site.beliefs(), site.clock()
        found, unread = [], []
        with self._lock:
            for rack in racks:
                key = rack.last_event, f"{now:%Y-%m-%dT%H}"
                held = self._known.get(rack.name)
                if held is None or held[0] != key:
                    if time.monotonic() - began > _MOST_S:
                        unread.append(rack.name)
                        continue
                    held = self._known[rack.name] = (key, _due(site, rack, beliefs, now))
                found.append(held[1])
        return tuple(found), tuple(unread)


def queue_page(site: Site, dues: Dues) -> QueuePage:
    """The queue as the ledger has it now."""
    racks = site.board.fleet()
    running = tuple(
        Running(rack.name, rack.driver, stages_now(site.ledger.newest_runs(rack.name), rack.driver))
        for rack in racks if rack.driver
    )  # fmt: skip
    serving = [rack for rack in racks if rack.design and any(node.state in _IN_SERVICE for node in rack.nodes)]
    found, unread = dues.of(site, serving)
    waiting = [Waiting(r.name, n) for r in sorted(racks, key=lambda r: r.badness) for n in r.nodes if n.code]
    waiting.sort(key=lambda one: not one.node.failed)
    return QueuePage(running, found, unread, tuple(waiting[:_MOST_WAITING]), max(0, len(waiting) - _MOST_WAITING))


def _due(site: Site, rack: Summary, beliefs: Beliefs | None, now: datetime) -> DueRack:
    design = rack.design
    if beliefs is None or design is None:
        return DueRack(rack.name, (), "", "the site's recert.yml does not read: rackproof recert plan says why")
    try:
        floor = load_policy(site.settings, design.site).regulation.floor
        found = known(site.ledger, design, _pool(site, design), beliefs, floor, _skus(site), Budget(None, None), now)
    except UsageError as wrong:
        return DueRack(rack.name, (), "", wrong.message)
    ends = certificate_ends(site.ledger, design)
    return DueRack(rack.name, due(design, found, ends, beliefs, now), next_due(found, ends, beliefs, now))


def _pool(site: Site, rack: Rack) -> tuple[Rack, ...]:
    """The racks of its pool: of its site, in the inventory."""
    others = (site.designs.rack(name) for name in site.designs.names() if name != rack.name)
    return (rack, *(other for other in others if other and other.site == rack.site))


def _skus(site: Site) -> tuple[Sku, ...]:
    inventory = site.settings.inventory
    return load_skus(inventory) if (inventory / "skus.yml").exists() else ()

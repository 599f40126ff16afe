"""Where every rack stands, kept in memory and in step with the ledger: a rack is read again when it has a new event.

So the fleet's page costs what happened since it was last looked at, not what the ledger holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from toolkit.ledger import Lease, Ledger, NodeRow, Run
from toolkit.ledger.holder import is_gone
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.model import Rack
from toolkit.report.metrics_snapshot import OPERATOR
from toolkit.report.standing import Standing, set_aside, standings
from toolkit.serve.certified import Certified, OfNode
from toolkit.serve.designs import Designs

_BATCH = 500
_JUMP = 5_000  # more new events than this are not read one by one: every rack is read again
_RACK = "rack/"
INTERRUPTED = "INTERRUPTED"  # of `standings`: a run that is open; it goes on where the rack is driven


@dataclass(frozen=True, slots=True)
class Node:
    """A node at a glance.

    stood    its state and last word, as `status` has it
    since    when it moved to its state; None: never
    running  the stage that runs on it now; None: none does
    """

    stood: Standing
    since: datetime | None
    running: Stage | None
    certificate: OfNode | None

    @property
    def name(self) -> str:
        """The node's."""
        return self.stood.node

    @property
    def state(self) -> NodeState:
        """Where it rests."""
        return self.stood.state

    @property
    def code(self) -> str:
        """What stands against it; empty where nothing does, or its run goes on."""
        return "" if self.running else self.stood.code

    @property
    def failed(self) -> bool:
        """On evidence about the hardware, or set aside by hand."""
        return self.state is NodeState.QUARANTINED

    @property
    def doubtful(self) -> bool:
        """Something stands against it that is no failed evidence: ours to settle."""
        return bool(self.code) and not self.failed


@dataclass(frozen=True, slots=True)
class Summary:
    """A rack at a glance. `design` None: its file does not read, see `problem`; `driver`: who drives it now."""

    name: str
    design: Rack | None
    problem: str
    nodes: tuple[Node, ...]
    driver: Lease | None
    last_event: int

    @property
    def counts(self) -> dict[NodeState, int]:
        """How many nodes rest in each state, those that have any, in the order of the lifecycle."""
        found = dict.fromkeys(NodeState, 0)
        for node in self.nodes:
            found[node.state] += 1
        return {state: count for state, count in found.items() if count}

    @property
    def begun(self) -> bool:
        """Whether anything of it is on record."""
        return any(node.state is not NodeState.PLANNED or node.stood.stage or node.since for node in self.nodes)

    @property
    def badness(self) -> tuple[int, int, int, str]:
        """For sorting, the worst first: failed nodes, nodes in doubt, nodes not in the pool; racks never begun last."""
        failed = sum(node.failed for node in self.nodes)
        doubtful = sum(node.doubtful for node in self.nodes)
        out = sum(node.state is not NodeState.ADMITTED for node in self.nodes)
        return (-failed, -doubtful, -out if self.begun else 1, self.name)


@dataclass(slots=True)
class Board:
    """All racks. Safe for threads; one of them reads at a time.

    certified  which certificates there are, kept in step with it
    """

    ledger: Ledger
    designs: Designs
    clock: Callable[[], datetime]
    certified: Certified = field(init=False)
    _racks: dict[str, Summary] = field(default_factory=dict)
    _dirty: set[str] = field(default_factory=set)
    _last: int = -1
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.certified = Certified(self.ledger)

    @property
    def last_event(self) -> int:
        """The newest event that is in what was answered last."""
        return max(self._last, 0)

    def fleet(self, on_rack: Callable[[int, int], None] = lambda done, of: None) -> tuple[Summary, ...]:
        """Every rack on record or in the inventory, by name. Raises what the ledger raises: half a fleet is none.

        on_rack  told (racks read, racks to be read) while many are
        """
        with self._lock:
            self._follow()
            names = {*self.ledger.racks(), *self.designs.names()}
            leases = self.driven()
            stale = [name for name in sorted(names) if self._is_stale(name)]
            for done, name in enumerate(stale):
                on_rack(done, len(stale))
                self._racks[name] = self._read(name)
            self._dirty.clear()
            return tuple(_with_driver(self._racks[name], leases.get(name)) for name in sorted(names))

    def rack(self, name: str) -> Summary | None:
        """One rack; None where neither the ledger nor the inventory has it."""
        with self._lock:
            self._follow()
            if name not in self._racks and name not in {*self.ledger.racks(), *self.designs.names()}:
                return None
            if self._is_stale(name):
                self._racks[name] = self._read(name)
                self._dirty.discard(name)
            return _with_driver(self._racks[name], self.driven().get(name))

    def driven(self) -> dict[str, Lease]:
        """Who drives which rack now: leases that have not ended and whose holder is not known to be gone."""
        now = self.clock()
        held = (one for one in self.ledger.leases() if one.name.startswith(_RACK))
        return {one.name.removeprefix(_RACK): one for one in held if one.expires > now and not is_gone(one.holder)}

    def _is_stale(self, name: str) -> bool:
        known = self._racks.get(name)
        return known is None or name in self._dirty or known.design is not self.designs.rack(name)

    def _follow(self) -> None:
        """Takes in which racks have new events."""
        newest = self.ledger.last_event()
        if self._last < 0 or newest - self._last > _JUMP:
            self._dirty.update(self._racks)
            self._last = newest
        while self._last < newest:
            events = self.ledger.events(after=self._last, limit=_BATCH)
            self._dirty.update(event.rack.removeprefix(_RACK) for event in events)
            self._last = events[-1].id if events else newest
        self.certified.follow(newest)

    def _read(self, name: str) -> Summary:
        design = self.designs.design(name)
        states = self.ledger.node_states(name)
        open_runs = {run.node: run.stage for run in self.ledger.newest_runs(name) if run.outcome is None}
        stood = standings(self.ledger, design.rack) if design.rack else self._on_record(name, states)
        nodes = tuple(
            Node(
                one, states[one.node].since if one.node in states else None, open_runs.get(one.node),
                self.certified.of_node(name, one.node),
            )
            for one in stood
        )  # fmt: skip
        return Summary(name, design.rack, design.problem, nodes, None, self._last)

    def _on_record(self, rack: str, states: Mapping[str, NodeRow]) -> Iterable[Standing]:
        """Of a rack without a file: the nodes that the ledger has, with their last word."""
        runs: dict[str, Run] = {run.node: run for run in self.ledger.newest_runs(rack) if run.node}
        for node in sorted({*states, *runs}):
            row, last = states.get(node), runs.get(node)
            state = row.state if row else NodeState.PLANNED
            if row and set_aside(row, last):
                yield Standing(node, state, None, None, OPERATOR)
            elif last is None:
                yield Standing(node, state)
            elif last.outcome is None:
                yield Standing(node, state, None, last.stage, INTERRUPTED, "", "the run did not end")
            elif last.outcome is Outcome.PASSED:
                yield Standing(node, state, last.outcome, last.stage)
            else:
                yield Standing(node, state, last.outcome, last.stage, last.code, last.part, last.message, last.next)


def _with_driver(rack: Summary, driver: Lease | None) -> Summary:
    """An open run runs only where somebody drives the rack; else its process died."""
    nodes = rack.nodes
    if driver is None:
        nodes = tuple(Node(n.stood, n.since, None, n.certificate) if n.running else n for n in nodes)
    return Summary(rack.name, rack.design, rack.problem, nodes, driver, rack.last_event)

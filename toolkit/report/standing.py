"""Where every node stands, by the ledger: for the plan, for the operator and for the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.ledger import Ledger, NodeRow, Run
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.model import Rack, Unit
from toolkit.rack.plan import NodeStatus

# One letter a state, all different, so that it reads without colour.
LETTERS: Mapping[NodeState, str] = {
    NodeState.PLANNED: "P", NodeState.IMAGED: "I", NodeState.CONFIGURED: "G", NodeState.CONNECTED: "N",
    NodeState.JOINED: "J", NodeState.TESTED: "T", NodeState.CERTIFIED: "C", NodeState.ADMITTED: "A",
    NodeState.QUARANTINED: "Q", NodeState.RETIRED: "R",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """A node's state and its last word: if that is not a pass, what failed, the part, and what comes next."""

    node: str
    state: NodeState
    outcome: Outcome | None = None
    stage: Stage | None = None
    code: str = ""
    part: str = ""
    message: str = ""
    next: str = ""

    @property
    def trouble(self) -> bool:
        """Whether the last word is a failure, a doubt or an interruption."""
        return bool(self.code)


def standings(ledger: Ledger, rack: Rack) -> tuple[Standing, ...]:
    """Every node of the rack as designed, also those the ledger has never seen."""
    states = ledger.node_states(rack.name)
    return tuple(_standing(ledger, rack.name, node, states.get(node.name)) for node in rack.nodes)


def first_state(node: Unit) -> NodeState:
    """Where a node stands that the ledger has never seen: a rented one, without a BMC, comes with its image."""
    return NodeState.PLANNED if node.bmc else NodeState.IMAGED


def set_aside(row: NodeRow, last: Run | None) -> bool:
    """Whether an operator put the node into quarantine: the run that failed ends in the moment that it moves."""
    by_run = last is not None and last.finished is not None and last.finished >= row.since
    return row.state is NodeState.QUARANTINED and not by_run


def _standing(ledger: Ledger, rack: str, unit: Unit, row: NodeRow | None) -> Standing:
    node = unit.name
    last = ledger.last_run(rack, node)
    state = row.state if row else first_state(unit)
    if row and set_aside(row, last):
        (moved,) = ledger.events(rack, node, after=row.event - 1, limit=1)
        reason = str(moved.body.get("reason", ""))
        return Standing(node, state, None, None, "OPERATOR", "", reason, f"rackproof release {node}")
    if last is None:
        return Standing(node, state)
    if last.outcome is None:
        again = f"rackproof bringup {rack}"
        return Standing(node, state, None, last.stage, "INTERRUPTED", "", "the run did not end", again)
    if last.outcome is Outcome.PASSED:
        return Standing(node, state, last.outcome, last.stage)
    return Standing(node, state, last.outcome, last.stage, last.code, last.part, last.message, last.next)


def status_of(ledger: Ledger, rack: Rack) -> dict[str, NodeStatus]:
    """What the ledger says of the rack's nodes, in the plan's words."""
    states = ledger.node_states(rack.name)
    status = {}
    for standing in standings(ledger, rack):
        row = states.get(standing.node)
        if row is None:
            status[standing.node] = NodeStatus(standing.state)
            continue
        since = [r for r in ledger.runs(rack.name, standing.node) if r.event > row.event]
        passed = frozenset(r.stage for r in since if r.outcome is Outcome.PASSED)
        reason = f"{standing.code} {standing.part}".strip()
        status[standing.node] = NodeStatus(row.state, passed, reason)
    return status

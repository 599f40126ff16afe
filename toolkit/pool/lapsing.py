"""What is out of the pool on record: a node that was shut is neither certified nor admitted any more."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.ledger import Change, Ledger, StaleMoveError
from toolkit.rack.lifecycle import Move, NodeState

# States in which a node may be in the pool: it becomes ADMITTED when its wave counts.
MAY_BE_IN = frozenset({NodeState.CERTIFIED, NodeState.ADMITTED})


def lapse(ledger: Ledger, rack: str, nodes: Iterable[str], reason: str) -> None:
    """Moves those of the rack's nodes back that may still be in by the ledger. Raises LedgerError."""
    states = ledger.node_states(rack)
    for node in nodes:
        row = states.get(node)
        if row is None or row.state not in MAY_BE_IN:
            continue
        try:
            ledger.move(rack, node, Change(row.state, Move.LAPSE), reason)
        except StaleMoveError:
            continue  # somebody else moved it in this moment, and knows

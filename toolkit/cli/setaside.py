"""`quarantine` and `release`: an operator moves a node by hand, with a reason on record."""

from __future__ import annotations

import click

from toolkit import settings as installed
from toolkit.cli.look import node_named
from toolkit.cli.output import emit, json_option
from toolkit.cli.wiring import ledger_of, pool_of
from toolkit.errors import UsageError
from toolkit.ledger import Change
from toolkit.rack.lifecycle import Move, NodeState

rack_option = click.option("--rack", "rack_name", help="The rack of NODE, where several have one of that name.")


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--reason", required=True, help="Why; it is kept in the ledger and shown by `why`.")
@rack_option
@json_option
def quarantine(node: str, reason: str, rack_name: str | None, as_json: bool) -> None:
    """Set NODE aside and take it out of the pool. Evidence gathered so far no longer counts."""
    _move(node, rack_name, Move.QUARANTINE, reason, as_json)


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--reason", default="repaired", show_default=True, help="What was done; it is kept in the ledger.")
@rack_option
@json_option
def release(node: str, reason: str, rack_name: str | None, as_json: bool) -> None:
    """Let a repaired NODE start again from PLANNED: it is imaged, tested and certified anew."""
    _move(node, rack_name, Move.REPAIR, reason, as_json)


def _move(name: str, rack_name: str | None, move: Move, reason: str, as_json: bool) -> None:
    from rich.text import Text

    settings = installed.load()
    rack, node = node_named(settings, name, rack_name)
    with ledger_of(settings) as ledger:
        row = ledger.node_states(rack.name).get(node)
        before = row.state if row else NodeState.PLANNED
        if (before is NodeState.QUARANTINED) is not (move is Move.REPAIR):
            raise UsageError(f"{node} is {before}: there is nothing to {move}", f"rackproof why {node}")
        if move is Move.QUARANTINE:
            # Out of the pool first: a node that could not be evicted is not yet set aside.
            pool_of(settings, rack).evict(node, f"OPERATOR: {reason}")
        ledger.move(rack.name, node, Change(before, move), reason)
        after = ledger.node_states(rack.name)[node].state
    result = {"rack": rack.name, "node": node, "before": before, "after": after, "reason": reason}
    emit(result, as_json, lambda: Text(f"{node}: {before} -> {after}"))

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
    _set_aside(node, rack_name, reason, as_json)


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--reason", default="repaired", show_default=True, help="What was done; it is kept in the ledger.")
@rack_option
@json_option
def release(node: str, reason: str, rack_name: str | None, as_json: bool) -> None:
    """Let a repaired NODE start again from PLANNED: it is imaged, tested and certified anew.

    A rented one, which nobody images here, from IMAGED. Nothing that was measured before counts any more.
    """
    _release(node, rack_name, reason, as_json)


def _release(name: str, rack_name: str | None, reason: str, as_json: bool) -> None:
    from toolkit.repair import release as let_go

    settings = installed.load()
    rack, node = node_named(settings, name, rack_name)
    with ledger_of(settings) as ledger:
        before, after = let_go(ledger, rack, rack.unit(node), reason)
    _told(rack.name, node, (before, after), reason, as_json)


def _set_aside(name: str, rack_name: str | None, reason: str, as_json: bool) -> None:
    settings = installed.load()
    rack, node = node_named(settings, name, rack_name)
    with ledger_of(settings) as ledger:
        row = ledger.node_states(rack.name).get(node)
        before = row.state if row else NodeState.PLANNED
        if before is NodeState.QUARANTINED:
            raise UsageError(f"{node} is {before}: there is nothing to {Move.QUARANTINE}", f"rackproof why {node}")
        # Out of the pool first: a node that could not be evicted is not yet set aside.
        pool_of(settings, rack).evict(node, f"OPERATOR: {reason}")
        after = ledger.move(rack.name, node, Change(before, Move.QUARANTINE), reason).state
    _told(rack.name, node, (before, after), reason, as_json)


def _told(rack: str, node: str, states: tuple[NodeState, NodeState], reason: str, as_json: bool) -> None:
    from rich.text import Text

    before, after = states
    result = {"rack": rack, "node": node, "before": before, "after": after, "reason": reason}
    emit(result, as_json, lambda: Text(f"{node}: {before} -> {after}"))

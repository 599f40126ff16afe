"""Taking admitted nodes out of the pool to measure them, and giving them back. Nobody that was taken is forgotten.

The intent is on record before the door is touched, and has its end on record only when the node is back, or has gone
another way (quarantined, lapsed). A process that was killed leaves an open intent: the next one goes on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from toolkit.errors import RackproofError
from toolkit.ledger import Change, Event, EventKind
from toolkit.netboot.probe import DhcpServer
from toolkit.nvue.client import NvueClient
from toolkit.pool.join import Joins
from toolkit.pool.model import Pool
from toolkit.pool.policy import PoolPolicy
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.model import Unit
from toolkit.redfish import BmcClient
from toolkit.runners.carrier import Carrier
from toolkit.runners.play import PlaybookRunner
from toolkit.runners.shell import Shell
from toolkit.stages.burnin_records import PIPELINE
from toolkit.stages.burnin_run import stop_run
from toolkit.stages.context import Context, Hands
from toolkit.stages.provisioning import ImageSite

ASIDE = "aside"
_EVERYBODY = 100_000


@dataclass(frozen=True, slots=True)
class Aside:
    """A node that was taken out. `details`: what for, as it was said then."""

    node: str
    intent: int
    details: Mapping[str, Any]


def open_ones(context: Context) -> tuple[Aside, ...]:
    """Nodes that were taken out and whose end is not on record, in slot order."""
    rack, found = context.rack, []
    for node in rack.nodes:
        begun = context.ledger.find(rack.name, node.name, EventKind.INTENT, ASIDE)
        ended = context.ledger.find(rack.name, node.name, EventKind.OBSERVED, ASIDE)
        if begun is not None and (ended is None or ended.id < begun.id):
            found.append(Aside(node.name, begun.id, _details(begun)))
    return tuple(found)


def take(context: Context, node: str, reason: str, details: Mapping[str, object]) -> None:
    """Shuts an admitted node's door and moves it to CERTIFIED: its certificate stands. Goes on where it was cut off.

    Raises UndecidedError where the pool does not answer: the intent stays open then.
    """
    rack, ledger = context.rack.name, context.ledger
    if not any(one.node == node for one in open_ones(context)):
        ledger.intent(rack, node, ASIDE, {**details, "reason": reason})
    context.hands.pool.register(node, reason)
    if ledger.node_states(rack)[node].state is NodeState.ADMITTED:
        ledger.move(rack, node, Change(NodeState.ADMITTED, Move.ASIDE), reason)


def is_back(context: Context, aside: Aside) -> bool:
    """Whether the node is where nothing more is to be done for it: back in the pool, or gone another way."""
    row = context.ledger.node_states(context.rack.name).get(aside.node)
    if row is None or row.state is NodeState.ADMITTED:
        return row is None or row.event > aside.intent  # else it was cut off before the node was moved
    return row.state not in (NodeState.CERTIFIED, NodeState.TESTED)


def is_measured(context: Context, aside: Aside) -> bool:
    """Whether what it was taken out for is done: it was certified since, or its evidence was found wanting."""
    moves = context.ledger.events(
        context.rack.name, aside.node, kind=EventKind.NODE_MOVED, after=aside.intent, limit=_EVERYBODY
    )
    return any(event.body["move"] in (Move.CERTIFY, Move.KEEP) for event in moves)


def close(context: Context) -> None:
    """Puts the end of those on record that are back."""
    states = context.ledger.node_states(context.rack.name)
    for aside in open_ones(context):
        if is_back(context, aside):
            row = states.get(aside.node)
            told = {"intent": aside.intent, "end": row.state if row else NodeState.PLANNED}
            context.ledger.observed(context.rack.name, aside.node, ASIDE, told)


def let_go(context: Context) -> frozenset[str]:
    """For a use case that lets certified nodes in by itself: what may still load a node that was taken out is stopped,
    and the node is no longer ours to give back. Answers those on which it may still run: they must not be let in.
    """
    held = set()
    for aside in open_ones(context):
        if is_back(context, aside):
            continue
        node = context.rack.unit(aside.node)
        try:
            end_load(context, aside)
        except RackproofError:
            held.add(node.name)
            continue
        if context.ledger.node_states(context.rack.name)[node.name].state is NodeState.ADMITTED:  # cut off before it
            reason = str(aside.details.get("reason", ""))
            context.ledger.move(context.rack.name, node.name, Change(NodeState.ADMITTED, Move.ASIDE), reason)
        told = {"intent": aside.intent, "end": "left to the next bringup or admission"}
        context.ledger.observed(context.rack.name, node.name, ASIDE, told)
    close(context)
    return frozenset(held)


def end_load(context: Context, aside: Aside) -> None:
    """Sees that no burn-in of ours loads the node any more. UndecidedError where one may: it must not be let in."""
    node = context.rack.unit(aside.node)
    begun = context.ledger.find(context.rack.name, node.name, EventKind.INTENT, PIPELINE)
    if begun is not None and begun.id > aside.intent:
        identity = str(_details(begun)["id"])
        if context.hands.carrier(node).is_active(node, identity):
            stop_run(context, node, identity)


def _details(event: Event) -> Mapping[str, Any]:
    details = event.body["details"]
    return details if isinstance(details, dict) else {}


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The same hands, but nodes are let in all at once and are not watched: they were in a moment ago."""

    hands: Hands

    @property
    def policy(self) -> PoolPolicy:
        """The site's, without canary, waves, soak and smoke collective."""
        told = self.hands.policy
        regulation = replace(
            told.regulation, canary=_EVERYBODY, growth=float(_EVERYBODY), most=None, soak_s=0.0, smoke=False
        )
        return replace(told, regulation=regulation)

    @property
    def playbooks(self) -> PlaybookRunner:
        """The same."""
        return self.hands.playbooks

    @property
    def shell(self) -> Shell:
        """The same."""
        return self.hands.shell

    @property
    def site(self) -> ImageSite:
        """The same."""
        return self.hands.site

    @property
    def pool(self) -> Pool:
        """The same."""
        return self.hands.pool

    @property
    def joins(self) -> Joins | None:
        """The same."""
        return self.hands.joins

    def carrier(self, node: Unit) -> Carrier:
        """The same."""
        return self.hands.carrier(node)

    def bmc(self, node: Unit) -> BmcClient:
        """The same."""
        return self.hands.bmc(node)

    def strangers(self, node: Unit) -> tuple[DhcpServer, ...]:
        """The same."""
        return self.hands.strangers(node)

    def nvue(self, tray: Unit) -> NvueClient:
        """The same."""
        return self.hands.nvue(tray)

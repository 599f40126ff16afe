"""After a failure: the use case "recover" climbs the ladder, one rung after another, and moves nobody; "release" does.

The pipeline itself only resets GPUs, on a node that is in its burn-in and takes no jobs. What takes a machine down is
an operator's, with the node's name typed: it costs minutes, it can take a link of others with it, and by then the node
is set aside, where the pipeline does not touch it. What a rung leaves is no evidence: only `release` and everything
measured anew is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from toolkit.driving import driving
from toolkit.errors import EvidenceError, UndecidedError, UnreachableError, UsageError
from toolkit.judge.ladder import DISRUPTIVE, Ladder, Rung, ladder
from toolkit.ledger import Change, Ledger
from toolkit.pool.clearing import Counting
from toolkit.pool.policy import PoolKind
from toolkit.rack.lifecycle import Move, NodeState
from toolkit.rack.model import MNNVL, Rack, Unit
from toolkit.report.standing import first_state
from toolkit.stages.context import Context
from toolkit.stages.failure import Failure, failure_of, rungs_on_record, unfinished
from toolkit.stages.rungs import Climbed, End, climb


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks. `rung`: this one alone; `confirmed`: the node's name was typed."""

    rung: Rung | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of it.

    climbed  rungs of this call, in order
    left     what the ladder has left after them
    remark   what nobody could tell, and the operator has to know
    """

    rack: str
    node: str
    state: NodeState
    failure: Failure
    climbed: tuple[Climbed, ...]
    left: Ladder
    remark: str = ""

    @property
    def exit_code(self) -> int:
        """0 nothing waits on the node any more, or only the plan was asked; 1 no rung mends it; 3 nobody can tell, or
        the next rung waits for its confirmation.
        """
        last = self.climbed[-1].end if self.climbed else None
        if last is End.SETTLED or (last is None and self.left.rungs):
            return 0
        if last in (End.UNKNOWN, End.REFUSED) or self.left.rungs:
            return UndecidedError.exit_code
        return EvidenceError.exit_code

    @property
    def next(self) -> str:
        """The command or deed that comes next."""
        again = f"rackproof recover {self.node} --confirm {self.node}"
        if self.climbed and self.climbed[-1].end is End.SETTLED:
            return _back(self)
        if self.left.rungs:
            return again if self.left.rungs[0][0] in DISRUPTIVE else f"rackproof recover {self.node}"
        if self.climbed and self.climbed[-1].end is End.UNKNOWN:
            return f"look at {self.node}'s console, then: rackproof recover {self.node}"
        return f"rackproof rma {self.node}; after the part is replaced: rackproof release {self.node}"


def _back(found: Recovered) -> str:
    """Everything is measured anew before anything counts."""
    if found.state is NodeState.QUARANTINED:
        return f"rackproof release {found.node}, then rackproof bringup {found.rack}: everything is measured anew"
    return f"rackproof bringup {found.rack}"


def plan(ledger: Ledger, rack: Rack, node: Unit) -> Recovered:
    """What could be tried now, and why. Reads the ledger alone. UsageError where no failure is on record."""
    state, failure = _known(ledger, rack, node)
    return Recovered(rack.name, node.name, state, failure, (), _ladder(ledger, node, failure), domain_remark(rack))


def recover(context: Context, name: str, order: Order) -> Recovered:
    """Climbs until nothing waits on the node any more, nothing is left to try, or a confirmation is.

    Raises UsageError where nothing failed, jobs may run there, the rung asked for cannot help or waits for its
    confirmation; UndecidedError where jobs still run there, or the node or its BMC does not answer: nothing was
    touched then. BusyError when somebody else drives the rack.
    """
    node = context.rack.unit(name)
    with driving(context) as driven:
        state, failure = _known(driven.ledger, context.rack, node)
        told = (_without_jobs(driven, node, state), domain_remark(context.rack))
        remark = "; ".join(words for words in told if words)
        climbed = tuple(_climb(driven, node, failure, order))
        left = _ladder(driven.ledger, node, failure)
    return Recovered(context.rack.name, name, state, failure, climbed, left, remark)


RENTED = "rented: who imaged it is not for us to say"


def release(ledger: Ledger, rack: Rack, node: Unit, reason: str) -> tuple[NodeState, NodeState]:
    """Lets a repaired node begin anew; answers where it was and where it is. UsageError for one that is not set aside.

    From PLANNED, and a rented node, which nobody images here, from IMAGED. Cut off between its two moves it is given
    again. Nothing that was measured before the repair is evidence after it.
    """
    row = ledger.node_states(rack.name).get(node.name)
    before = row.state if row else first_state(node)
    begun = row is not None and before is NodeState.PLANNED and node.bmc is None
    if before is not NodeState.QUARANTINED and not begun:
        raise UsageError(f"{node.name} is {before}: there is nothing to {Move.REPAIR}", f"rackproof why {node.name}")
    after = before
    if not begun:
        after = ledger.move(rack.name, node.name, Change(before, Move.REPAIR), reason).state
    if node.bmc is None:
        after = ledger.move(rack.name, node.name, Change(after, Move.IMAGE), RENTED).state
    return before, after


def _known(ledger: Ledger, rack: Rack, node: Unit) -> tuple[NodeState, Failure]:
    row = ledger.node_states(rack.name).get(node.name)
    state = row.state if row else first_state(node)
    failure = failure_of(ledger, rack, node)
    if failure is None:
        raise UsageError(
            f"{node.name} is {state}: no failure is on record that a rung could be for", f"rackproof why {node.name}"
        )
    return state, failure


def domain_remark(rack: Rack) -> str:
    """What a rung on one tray is to the others of an NVLink domain; empty where nodes share none."""
    if rack.profile.mode not in MNNVL:
        return ""
    return "while it is down the NVLink domain is without its GPUs, and IMEX shows the domain as DEGRADED on every tray"


def _ladder(ledger: Ledger, node: Unit, failure: Failure) -> Ladder:
    return ladder(failure.causes, rungs_on_record(ledger), failure.incident, _absent(node))


def _absent(node: Unit) -> Mapping[Rung, str]:
    """Rungs that this node does not have."""
    found: dict[Rung, str] = {}
    if node.host is None:
        found |= dict.fromkeys((Rung.GPU_RESET, Rung.REBOOT), "rackproof does not reach it over SSH")
    if node.bmc is None:
        found[Rung.POWER_CYCLE] = "it is rented: it has no BMC that we may use; ask its owner"
    return found


def _climb(context: Context, node: Unit, failure: Failure, order: Order) -> Iterator[Climbed]:
    """One rung after another. One that was cut off comes first: it may be in the middle of happening."""
    begun = unfinished(context.ledger, context.rack.name, node.name)
    waiting = begun is not None and begun.body["details"]["incident"] == failure.incident
    rung, why = (Rung(begun.body["details"]["rung"]), "it was begun and cut off") if begun and waiting else (None, "")
    climbed = False
    while True:
        if rung is None:
            rung, why = _chosen(node, _ladder(context.ledger, node, failure), order)
        if rung is None or (climbed and rung in DISRUPTIVE and not order.confirmed):
            return  # what was done is told first; the exit code and the next command say what waits
        _confirmed(node, rung, order, why)
        done = _one(context, node, failure, rung)
        yield done
        if _is_enough(done, order):
            return
        rung, climbed = None, True


def _one(context: Context, node: Unit, failure: Failure, rung: Rung) -> Climbed:
    """One rung. A node that does not answer is not cut off by itself: our network may be what is silent."""
    try:
        return climb(context, node, failure, rung)
    except UnreachableError as away:
        by_power = Rung.POWER_CYCLE in dict(_ladder(context.ledger, node, failure).rungs)
        if rung is Rung.POWER_CYCLE or not by_power:
            raise
        hint = f"if it hangs: rackproof recover {node.name} --rung {Rung.POWER_CYCLE} --confirm {node.name}"
        raise UnreachableError(f"{rung}: {away.message}", hint) from away


def _is_enough(done: Climbed, order: Order) -> bool:
    return order.rung is not None or done.end in (End.SETTLED, End.UNKNOWN)


def _chosen(node: Unit, left: Ladder, order: Order) -> tuple[Rung | None, str]:
    """The rung that is next, and the source that says that it can help; no rung where none is left."""
    if order.rung is None:
        return left.rungs[0] if left.rungs else (None, "")
    if order.rung in dict(left.rungs):
        return order.rung, dict(left.rungs)[order.rung]
    over = dict(left.passed_over).get(order.rung)
    may = ", ".join(rung for rung, _ in left.rungs) or left.why
    raise UsageError(
        f"{order.rung} of {node.name}: {over or 'it cannot help against this failure, or was tried for it'}",
        f"what can: {may}",
    )


def _confirmed(node: Unit, rung: Rung, order: Order, why: str) -> None:
    if rung in DISRUPTIVE and not order.confirmed:
        raise UsageError(
            f"the next rung takes {node.name} down: {rung} ({why})",
            f"rackproof recover {node.name} --confirm {node.name}",
        )


def _without_jobs(context: Context, node: Unit, state: NodeState) -> str:
    """Refuses a node that takes jobs or runs one; answers what the pool cannot tell."""
    drain = f"rackproof drain {node.name} --reason ..."
    member = context.hands.pool.nodes().get(node.name)
    if state is NodeState.ADMITTED or (member is not None and member.admitted):
        whose = (
            "it is ADMITTED" if state is NodeState.ADMITTED else f"it is {state}, and the pool still lets jobs on it"
        )
        raise UsageError(f"{node.name} takes no rung: {whose}", drain)
    pool = context.hands.pool
    if member is None:
        return ""
    if isinstance(pool, Counting):
        if node.name in pool.running([node.name]):
            raise UndecidedError(f"jobs still run on {node.name}, though it takes no more", drain)
        return ""
    if context.hands.policy.kind is PoolKind.FILE:
        return "the pool is a file and does not say what runs there: that nothing does is the operator's word"
    raise UndecidedError(f"the pool does not say what runs on {node.name}", drain)

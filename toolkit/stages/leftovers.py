"""Collectives that a killed controller left on nodes: found by the ledger, ended, and proved to be gone."""

from __future__ import annotations

from toolkit.errors import UndecidedError
from toolkit.ledger import EventKind
from toolkit.stages import collectives, mpi_command
from toolkit.stages.collective_result import Remains
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order


def end_leftovers(context: Context, filed: str, site: Site) -> tuple[Remains, ...]:
    """Ends what the last campaign that was `filed` so has started, and whose end is not on record.

    Its collectives have its number in their names. UndecidedError where something remains: two tests on one node would
    measure each other.
    """
    rack, ledger = context.rack, context.ledger
    begun = ledger.find(rack.name, "", EventKind.INTENT, filed)
    if begun is None:
        return ()
    prefix = f"collective {rack.name}-{filed}{begun.id}-"
    events = ledger.events(rack.name, after=begun.id, limit=100_000)
    said = [e for e in events if e.kind in (EventKind.INTENT, EventKind.OBSERVED)]
    over = {e.body.get("what") for e in said if e.kind is EventKind.OBSERVED}  # a fact that was read has none
    remains: list[Remains] = []
    for event in said:
        what = str(event.body.get("what"))
        if not what.startswith(prefix) or what in over:
            continue
        details = event.body["details"]
        names = details["nodes"] if isinstance(details, dict) else []
        order = Order(what.removeprefix("collective "), "all_reduce", tuple(rack.unit(str(n)) for n in names), 1, 60.0)
        remains += collectives.end(context, mpi_command.checked(order), site)
        ledger.observed(rack.name, order.nodes[0].name, what, {"how": "ended by the next one"})
    stuck = [f"{r.node}: {', '.join(r.alive) or r.problem}" for r in remains if r.alive or r.problem]
    if stuck:
        raise UndecidedError(f"an earlier test of the {filed} may still run: {'; '.join(stuck)[:300]}", "reboot it")
    return tuple(remains)

"""Tests that end as soon as somebody wants one of their nodes: what loads a node gives way to a job within seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate

from toolkit.errors import UndecidedError
from toolkit.judge.evidence import Measurement
from toolkit.ledger import Run
from toolkit.rack.model import Unit
from toolkit.stages import mpi_command
from toolkit.stages.burnin_run import WANTED_SECONDS, Order, Wanted, YieldedError, measured_again
from toolkit.stages.collective_result import Collected
from toolkit.stages.context import Context

Measures = Callable[Concatenate[Context, mpi_command.Order, ...], Collected]


def unless_wanted(measure: Measures, wanted: Wanted) -> Measures:
    """A collective among nodes that is not begun, and does not go on, while somebody wants one of them.

    Whoever waits for it sees UndecidedError, and every rank is stopped first: a test that told nothing.
    """

    def giving_way(context: Context, order: mpi_command.Order, *rest: Any) -> Collected:
        watch = _Watch(context, order.nodes, wanted)
        watch.look()
        return measure(replace(context, sleep=watch.sleep), order, *rest)

    return giving_way


def reading_unless_wanted(wanted: Wanted) -> Callable[[Context, Unit, Order, str, Run], Iterable[Measurement]]:
    """One workload on one node, measured again, with the same."""

    def read(context: Context, node: Unit, order: Order, identity: str, run: Run) -> Iterable[Measurement]:
        _Watch(context, (node,), wanted).look()
        return measured_again(context, node, replace(order, wanted=wanted), identity, run)

    return read


@dataclass(slots=True)
class _Watch:
    """Asks now and then, while somebody waits. A pool that does not answer gives the node to nobody meanwhile."""

    context: Context
    nodes: Sequence[Unit]
    wanted: Wanted
    asked: float = 0.0

    def sleep(self, seconds: float) -> None:
        """Raises YieldedError instead, once somebody wants a node."""
        self.context.sleep(seconds)
        if self.context.clock().timestamp() - self.asked >= WANTED_SECONDS:
            self.look()

    def look(self) -> None:
        """Raises YieldedError for the first node that somebody wants."""
        self.asked = self.context.clock().timestamp()
        for node in self.nodes:
            try:
                who = self.wanted(node.name)
            except UndecidedError:
                continue
            if who is not None:
                raise YieldedError(f"{node.name} was given back: {who}", "the next run measures it")

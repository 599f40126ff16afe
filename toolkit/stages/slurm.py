"""Slurm asked and told, on the node that launches: what it offers, which nodes take no job, and the proof of an end.

A killed srun leaves its step to Slurm, and a killed salloc its allocation until the time limit: both are cancelled by
the run's name, which is never used twice, and looked for until Slurm has neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from toolkit.errors import UndecidedError
from toolkit.rack.model import Slurm
from toolkit.stages import srun_command
from toolkit.stages.mpi_command import Order
from toolkit.stages.srun_command import Held, Seat

# Ranks are dead by then; a node that does not answer keeps its job COMPLETING for SlurmdTimeout (300 s, slurm.conf(5))
PROOF_LOOKS = 30
LOOK_SECONDS = 1.0
_FORMAT = "--format=%i|%j|%T|%N"
_STEP_FORMAT = "--format=%i|%j|STEP|%N"  # squeue(1): a step has no state of its own


class Ask(Protocol):
    """Runs a command on the launching node: its output, or UndecidedError in its own words."""

    def __call__(self, *argv: str) -> bytes:
        """See the class."""
        ...


def seat(ask: Ask, order: Order, slurm: Slurm) -> Seat:
    """Where the ranks can be started. UndecidedError: srun has no PMIx, or the job that is to hold the nodes is not
    running once.
    """
    srun_command.checked(order, slurm)
    plugin = srun_command.plugin(ask(*srun_command.ask(slurm, "srun", "--mpi=list")), order.nodes[0].name)
    if not slurm.allocation:
        return Seat(plugin)
    running = _queue(ask, slurm, f"--name={slurm.allocation}", "--states=RUNNING", _FORMAT)
    if len(running) != 1:
        raise UndecidedError(
            f"Slurm runs {len(running)} jobs named {slurm.allocation}, where one is to hold the nodes",
            srun_command.hold(order, slurm),
        )
    return Seat(plugin, int(running[0].identity))


def unfit(ask: Ask, order: Order, slurm: Slurm) -> tuple[str, ...]:
    """The order's nodes that take no job, each with Slurm's reason; empty where it cannot be asked."""
    nodes = ",".join(node.name for node in order.nodes)
    argv = srun_command.ask(slurm, "sinfo", "--Node", "--noheader", f"--nodes={nodes}", "--format=%N|%T|%E")
    try:
        return srun_command.unfit(ask(*argv))
    except UndecidedError:
        return ()


def cancel(ask: Ask, order: Order, slurm: Slurm) -> tuple[Held, ...]:
    """Cancels what Slurm has of the run, once; what that was."""
    found = _of(ask, order, slurm)
    if found:
        ask(*srun_command.ask(slurm, "scancel", "--quiet", *(held.identity for held in found)))
    return found


def left(ask: Ask, order: Order, slurm: Slurm, sleep: Callable[[float], None]) -> str:
    """Cancels until Slurm has nothing of the run; what it would not let go of, in words, or the empty string."""
    found: tuple[Held, ...] = ()
    for look in range(PROOF_LOOKS):
        if look:
            sleep(LOOK_SECONDS)
        found = cancel(ask, order, slurm)
        if not found:
            return ""
    return "; ".join(f"Slurm still has {held.identity} {held.state} on {held.nodes}" for held in found[:4])


def _of(ask: Ask, order: Order, slurm: Slurm) -> tuple[Held, ...]:
    """The run's jobs, or where another job holds the nodes, its steps."""
    if not slurm.allocation:
        return _queue(ask, slurm, f"--name={order.identity}", _FORMAT)
    steps = _queue(ask, slurm, "--steps", _STEP_FORMAT)
    return tuple(step for step in steps if step.name == order.identity)


def _queue(ask: Ask, slurm: Slurm, *arguments: str) -> tuple[Held, ...]:
    return srun_command.queue(ask(*srun_command.ask(slurm, "squeue", "--noheader", *arguments)))

"""Driving a rack: its lease held and renewed, runs that were cut off closed, the results of a stage taken in once.

What `bringup` and `recertify` have in common. One of the two places where any exception of a node's work is caught and
recorded as that node's ERROR (the other is the burn-in suite on the node).
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

from toolkit.errors import RackproofError, UnreachableError
from toolkit.ledger import Change, LeaseLostError, Ledger, LedgerError, Run
from toolkit.ledger.holder import this_process
from toolkit.rack.lifecycle import MOVE_AFTER, Move, NodeState, Outcome, Stage
from toolkit.rack.model import Rack, Unit
from toolkit.rack.plan import NodeStatus
from toolkit.report.progress import ProgressWriter, progress_file
from toolkit.report.standing import status_of
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, error, out_of_the_pool

LEASE = timedelta(seconds=60)
AT_ONCE = 32  # nodes worked on side by side within a rack; power and cooling domains bound it further on site

Moves = Callable[[Stage, Result], Move | None]
"""The move that a stage's result makes on a node; None: it stays where it rests."""


def onwards(stage: Stage, result: Result) -> Move | None:
    """The pipeline's: a pass is the stage's move, failed evidence quarantines."""
    if result.outcome is Outcome.PASSED:
        return result.move or MOVE_AFTER[stage]
    return out_only(stage, result)


def out_only(_: Stage, result: Result) -> Move | None:
    """An operator's own: a pass moves nothing, a node is only ever taken out."""
    return result.move or (Move.QUARANTINE if result.outcome is Outcome.FAILED else None)


@contextmanager
def driving(context: Context) -> Iterator[Context]:
    """The context whose every write carries the rack's lease, renewed from a thread. BusyError for another holder.

    Its progress is also told to other processes: see toolkit.report.progress.
    """
    ledger = context.ledger
    lease = ledger.acquire(f"rack/{context.rack.name}", this_process(), LEASE)
    stop = threading.Event()
    rack = context.rack.name
    writer = ProgressWriter(progress_file(context.settings, rack), rack, lease.holder, context.clock)

    def tell(progress: Progress) -> None:
        writer.say(progress.node, progress.stage, progress.text, progress.done, progress.gpu)
        context.progress(progress)

    def renew() -> None:
        while not stop.wait(LEASE.total_seconds() / 4):
            try:
                ledger.renew(lease, LEASE)
            except LedgerError:
                continue  # a full disk may pass; the next write of the run says so itself
            except LeaseLostError:
                return  # every further write is refused by its token: that is what ends the run

    thread = threading.Thread(target=renew, name=f"lease {context.rack.name}", daemon=True)
    thread.start()
    try:
        yield replace(context, ledger=ledger.under(lease), progress=tell)
    finally:
        writer.close()
        stop.set()
        thread.join()
        with suppress(LeaseLostError):
            ledger.release(lease)


def close_interrupted(ledger: Ledger, rack: Rack) -> None:
    """Runs whose process was killed get their end: ERROR INTERRUPTED. Nothing else is known of them."""
    for node in rack.nodes:
        for run in ledger.runs(rack.name, node.name):
            if run.outcome is None:
                ledger.finish_run(
                    run, Outcome.ERROR, code="INTERRUPTED", message="the run was cut off before it ended",
                    next=f"rackproof bringup {rack.name}",
                )  # fmt: skip


@dataclass(slots=True)
class Desk:
    """Takes in the results of one stage and writes each to the ledger, once."""

    context: Context
    stage: Stage
    runs: Mapping[str, Run]
    states: Mapping[str, NodeState]
    moves: Moves
    again: str  # the command that goes on with it
    ended: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, node: str, result: Result) -> None:
        """Ends the node's run and moves the node, in one transaction. A second result for a node is a defect."""
        with self.lock:
            if node in self.ended:
                raise RackproofError(f"{self.stage} gave {node} a second result", "this is a defect of rackproof")
            self.ended.add(node)
        move = self.moves(self.stage, result)
        if move is Move.QUARANTINE:
            result = out_of_the_pool(self.context, node, result)
        before = self.states[node]
        self.context.ledger.finish_run(
            self.runs[node], result.outcome, code=result.code, part=result.part, message=result.message,
            next=result.next, change=Change(before, move) if move else None,
        )  # fmt: skip
        self.context.progress(Progress(node, self.stage, result.code or result.outcome.lower(), 1.0))

    def each(self, nodes: Iterable[Unit], work: Callable[[Unit], Result | None]) -> None:
        """Runs `work` for the nodes side by side; what it raises becomes the node's ERROR."""
        chosen = tuple(nodes)
        if not chosen:
            return
        with ThreadPoolExecutor(min(len(chosen), AT_ONCE), thread_name_prefix=self.stage) as threads:
            for future in [threads.submit(self._one, node, work) for node in chosen]:
                future.result()

    def _one(self, node: Unit, work: Callable[[Unit], Result | None]) -> None:
        try:
            result = work(node)
        except (LeaseLostError, LedgerError):
            raise  # without the ledger nothing may go on
        except Exception as failure:  # noqa: BLE001 - the one place: a node's failure becomes a recorded result
            result = self.failure(f"{self.stage} on {node.name}", failure)
        if result is not None:
            self.finish(node.name, result)

    def failure(self, doing: str, failure: Exception) -> Result:
        """What went wrong, as an ERROR result; a defect of ours keeps its traceback as an artifact."""
        if isinstance(failure, UnreachableError):
            return error("NODE_UNREACHABLE", failure.message, failure.hint or self.again)
        if isinstance(failure, RackproofError):
            return error("UNDECIDED", failure.message, failure.hint or self.again)
        trace = "".join(traceback.format_exception(failure))
        digest = self.context.ledger.artifacts.put(trace.encode())
        where = f"{type(failure).__name__}: {failure}"
        return error("DEFECT", f"{doing}: {where}"[:500], f"report this with artifact {digest[:12]}")


def carry_out(
    context: Context,
    stage: Stage,
    nodes: tuple[Unit, ...],
    runner: StageRunner,
    moves: Moves = onwards,
    again: str = "",
) -> None:
    """Runs a stage on these nodes. Each gets a run and, whatever becomes of the stage, its result.

    again  the command that goes on with it; empty: bringup's
    Raises LedgerError and LeaseLostError alone.
    """
    status = status_of(context.ledger, context.rack)
    runs = {n.name: context.ledger.start_run(context.rack.name, n.name, stage) for n in nodes}
    states = {n.name: status.get(n.name, NodeStatus()).state for n in nodes}
    desk = Desk(context, stage, runs, states, moves, again or f"rackproof bringup {context.rack.name}")
    silent = error("STAGE_SILENT", f"{stage} gave no result", "this is a defect of rackproof")
    try:
        runner(context, Work(nodes, runs, desk.finish, desk.each))
    except (LeaseLostError, LedgerError):
        raise
    except Exception as failure:  # noqa: BLE001 - the same place for what a stage does for all its nodes at once
        silent = desk.failure(stage, failure)
    for node in nodes:
        if node.name not in desk.ended:
            desk.finish(node.name, silent)

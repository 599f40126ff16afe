"""The use cases "bring a rack up" (a plan, stage by stage) and "burn in by hand" (one stage, on nodes that are up).

Every step of them is recorded in the ledger.

Running it again is the resume: the plan is made anew from the ledger, so what passed is not repeated. One of the two
places where any exception of a node's work is caught and recorded as that node's ERROR (the other is the burn-in
suite on the node).
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from toolkit.errors import EvidenceError, RackproofError, UndecidedError, UnreachableError, UsageError
from toolkit.ledger import Change, Event, EventKind, LeaseLostError, Ledger, LedgerError, Run
from toolkit.ledger.holder import this_process
from toolkit.rack.lifecycle import MOVE_AFTER, Move, NodeState, Outcome, Stage, reached
from toolkit.rack.model import Rack, Suite, Unit
from toolkit.rack.plan import NodeStatus, Plan, Step, due, make_plan
from toolkit.report.standing import Standing, first_state, standings, status_of
from toolkit.stages import admit, base, burnin, certify, image, infiniband, kubernetes, nvlink, rails
from toolkit.stages.burnin import Burned
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, error

STAGES: Mapping[Stage, StageRunner] = {
    Stage.IMAGE: image.run,
    Stage.BASE: base.run,
    Stage.NVLINK: nvlink.run,
    Stage.INFINIBAND: infiniband.run,
    Stage.KUBERNETES: kubernetes.run,
    Stage.BURNIN: rails.after(burnin.run),
    Stage.CERTIFY: certify.run,
    Stage.ADMIT: admit.run,
}
LEASE = timedelta(seconds=60)
AT_ONCE = 32  # nodes worked on side by side within a rack; power and cooling domains bound it further on site


@dataclass(frozen=True, slots=True)
class Summary:
    """What a bringup came to. `seconds` is the wall time of each stage that ran."""

    rack: str
    goal: NodeState
    nodes: tuple[Standing, ...]
    seconds: tuple[tuple[Stage, float], ...]
    certificate: Path | None

    @property
    def exit_code(self) -> int:
        """0 all at the goal or past it, 1 some failed on evidence, 3 undecided; a rack without nodes proved nothing."""
        away = [e for e in self.nodes if not reached(e.state, self.goal)]
        if self.nodes and not away:
            return 0
        return 1 if any(e.state is NodeState.QUARANTINED for e in away) else UndecidedError.exit_code


def bringup(
    context: Context,
    plan: Plan,
    stages: Mapping[Stage, StageRunner] = STAGES,
    on_step: Callable[[Step, tuple[str, ...]], None] = lambda step, nodes: None,
) -> Summary:
    """Carries out `plan`, which the caller has shown and confirmed.

    Raises BusyError when somebody else drives the rack, UndecidedError when the rack is no longer as the plan
    found it. A node's failure raises nothing: it is in the summary and in the ledger.
    """
    rack = context.rack
    seconds: list[tuple[Stage, float]] = []
    with _driving(context) as driving:
        ledger = driving.ledger
        _close_interrupted(ledger, rack)
        if make_plan(rack, status_of(ledger, rack), plan.goal).digest != plan.digest:
            raise UndecidedError(
                f"{rack.name} changed since this plan was made", f"look again: rackproof plan {rack.name}"
            )
        ledger.store_plan(rack.name, plan.digest, plan.canonical())
        _enter_rented(ledger, rack)
        for step in plan.steps:
            began = context.clock()
            ready = _ready(ledger, rack, step)
            if not ready:
                continue
            on_step(step, tuple(n.name for n in ready))
            _carry_out(driving, step.stage, ready, stages[step.stage])
            seconds.append((step.stage, (context.clock() - began).total_seconds()))
    certificate = context.settings.certificate(rack.name)
    return Summary(
        rack.name, plan.goal, standings(ledger, rack), tuple(seconds), certificate if certificate.exists() else None
    )


# A burn-in by hand takes nodes whose driver stands and that no job runs on.
FREE = (NodeState.CONFIGURED, NodeState.CONNECTED, NodeState.JOINED, NodeState.TESTED, NodeState.CERTIFIED)


@dataclass(frozen=True, slots=True)
class Examined:
    """What a burn-in by hand came to: the run of each node, and what was measured of those that were reached."""

    rack: str
    suite: Suite
    runs: tuple[Run, ...]
    burned: Mapping[str, Burned]

    @property
    def exit_code(self) -> int:
        """0 all passed their gates, 1 some failed on evidence, 3 undecided."""
        outcomes = {run.outcome for run in self.runs}
        if Outcome.FAILED in outcomes:
            return EvidenceError.exit_code
        return 0 if outcomes == {Outcome.PASSED} else UndecidedError.exit_code


def burn_in(context: Context, nodes: Sequence[str], suite: Suite, *, step: bool = False) -> Examined:
    """Burns in nodes that are up and free, and judges them by the profile's gates. Admits nothing.

    step  all GPUs take up their load at the same time
    Raises UsageError for a node that is not free, BusyError when somebody else drives the rack.
    """
    rack = context.rack
    with _driving(context) as driving:
        _close_interrupted(driving.ledger, rack)
        states = driving.ledger.node_states(rack.name)
        for node in nodes:
            refuse_unless_free(rack, node, states[node].state if node in states else NodeState.PLANNED)
        burned: dict[str, Burned] = {}
        units = tuple(rack.unit(name) for name in nodes)
        _carry_out(driving, Stage.BURNIN, units, burnin.examine(suite, step, burned), by_hand=True)
        runs = [driving.ledger.last_run(rack.name, name, Stage.BURNIN) for name in nodes]
    return Examined(rack.name, suite, tuple(run for run in runs if run), burned)


def refuse_unless_free(rack: Rack, node: str, state: NodeState) -> None:
    """UsageError for a node that a burn-in must not touch now, with the way to where it may."""
    if state is NodeState.ADMITTED:
        hint = f"rackproof quarantine {node} --reason ..., rackproof release {node}, then rackproof bringup {rack.name}"
        raise UsageError(f"{node} is ADMITTED: jobs may run on it", hint)
    if state is NodeState.QUARANTINED:
        hint = f"after the repair: rackproof release {node}, then rackproof bringup {rack.name}"
        raise UsageError(f"{node} is QUARANTINED: its burn-in comes after its repair", hint)
    if state not in FREE:
        hint = f"rackproof bringup {rack.name} --to {NodeState.CONFIGURED}"
        raise UsageError(f"{node} is {state}: it is not up", hint)


def lapse_expired(context: Context) -> tuple[str, ...]:
    """Sends nodes whose certificate has expired back to JOINED, out of the pool first. Answers their names."""
    with _driving(context) as driving:
        ledger, rack = driving.ledger, driving.rack
        issued = ledger.events(rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=100_000)
        expires = {node: str(event.body["expires"]) for event in issued for node in _named(event)}
        lapsed = []
        for node, row in ledger.node_states(rack.name).items():
            live = row.state in (NodeState.CERTIFIED, NodeState.ADMITTED)
            if live and datetime.fromisoformat(expires[node]) <= driving.clock():
                reason = f"certificate expired {expires[node]}"
                driving.hands.pool.register(node, reason)
                ledger.move(rack.name, node, Change(row.state, Move.LAPSE), reason)
                lapsed.append(node)
        return tuple(lapsed)


def _named(event: Event) -> list[str]:
    nodes = event.body["nodes"]
    return nodes if isinstance(nodes, list) else []


@contextmanager
def _driving(context: Context) -> Iterator[Context]:
    """The context whose every write carries the rack's lease, renewed from a thread. BusyError for another holder."""
    ledger = context.ledger
    lease = ledger.acquire(f"rack/{context.rack.name}", this_process(), LEASE)
    stop = threading.Event()

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
        yield replace(context, ledger=ledger.under(lease))
    finally:
        stop.set()
        thread.join()
        with suppress(LeaseLostError):
            ledger.release(lease)


def _close_interrupted(ledger: Ledger, rack: Rack) -> None:
    """Runs whose process was killed get their end: ERROR INTERRUPTED. Nothing else is known of them."""
    for node in rack.nodes:
        for run in ledger.runs(rack.name, node.name):
            if run.outcome is None:
                ledger.finish_run(
                    run, Outcome.ERROR, code="INTERRUPTED", message="the run was cut off before it ended",
                    next=f"rackproof bringup {rack.name}",
                )  # fmt: skip


def _enter_rented(ledger: Ledger, rack: Rack) -> None:
    """Nodes without a BMC enter at IMAGED: who imaged them is not for us to say, and the certificate tells so."""
    known = ledger.node_states(rack.name)
    rented = {n.name: first_state(n) for n in rack.nodes if n.bmc is None and n.name not in known}
    if rented:
        ledger.enter(rack.name, rented, "rented: it has no BMC that we may use")


def _ready(ledger: Ledger, rack: Rack, step: Step) -> tuple[Unit, ...]:
    """Targets that earlier steps brought to where this step begins; the others have dropped out on the way."""
    status = status_of(ledger, rack)
    ready = []
    for target in step.targets:
        now = status.get(target.node, NodeStatus())
        if due(now)[:1] == (step.stage,):
            ready.append(rack.unit(target.node))
    return tuple(ready)


@dataclass(slots=True)
class _Desk:
    """Takes in the results of one stage and writes each to the ledger, once."""

    context: Context
    stage: Stage
    runs: Mapping[str, Run]
    states: Mapping[str, NodeState]
    by_hand: bool  # then a pass moves nothing: a node is only ever taken out
    ended: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, node: str, result: Result) -> None:
        """Ends the node's run and moves the node, in one transaction. A second result for a node is a defect."""
        with self.lock:
            if node in self.ended:
                raise RackproofError(f"{self.stage} gave {node} a second result", "this is a defect of rackproof")
            self.ended.add(node)
        move = result.move or self._implied(result.outcome)
        if move is Move.QUARANTINE:
            result = self._out_of_the_pool(node, result)
        before = self.states[node]
        self.context.ledger.finish_run(
            self.runs[node], result.outcome, code=result.code, part=result.part, message=result.message,
            next=result.next, change=Change(before, move) if move else None,
        )  # fmt: skip
        self.context.progress(Progress(node, self.stage, result.code or result.outcome.lower(), 1.0))

    def _out_of_the_pool(self, node: str, result: Result) -> Result:
        """A node that failed takes no more jobs. If the pool does not answer, the node's last word says so."""
        try:
            self.context.hands.pool.evict(node, f"{result.code} {result.part}".strip())
        except RackproofError as failure:
            return replace(result, message=f"{result.message}; NOT taken out of the pool: {failure.message}")
        return result

    def _implied(self, outcome: Outcome) -> Move | None:
        if outcome is Outcome.PASSED:
            return None if self.by_hand else MOVE_AFTER[self.stage]
        return Move.QUARANTINE if outcome is Outcome.FAILED else None

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
        again = f"rackproof bringup {self.context.rack.name}"
        if isinstance(failure, UnreachableError):
            return error("NODE_UNREACHABLE", failure.message, failure.hint or again)
        if isinstance(failure, RackproofError):
            return error("UNDECIDED", failure.message, failure.hint or again)
        trace = "".join(traceback.format_exception(failure))
        digest = self.context.ledger.artifacts.put(trace.encode())
        where = f"{type(failure).__name__}: {failure}"
        return error("DEFECT", f"{doing}: {where}"[:500], f"report this with artifact {digest[:12]}")


def _carry_out(
    context: Context, stage: Stage, nodes: tuple[Unit, ...], runner: StageRunner, *, by_hand: bool = False
) -> None:
    status = status_of(context.ledger, context.rack)
    runs = {n.name: context.ledger.start_run(context.rack.name, n.name, stage) for n in nodes}
    states = {n.name: status.get(n.name, NodeStatus()).state for n in nodes}
    desk = _Desk(context, stage, runs, states, by_hand)
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

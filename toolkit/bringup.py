"""The use cases "bring a rack up" (a plan, stage by stage) and "burn in by hand" (one stage, on nodes that are up).

Every step of them is recorded in the ledger.

Running it again is the resume: the plan is made anew from the ledger, so what passed is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from toolkit.driving import carry_out, close_interrupted, driving, out_only
from toolkit.errors import EvidenceError, UndecidedError, UsageError
from toolkit.ledger import Change, Event, EventKind, Ledger, Run
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage, reached
from toolkit.rack.model import Rack, Suite, Unit
from toolkit.rack.plan import NodeStatus, Plan, Step, Target, due, make_plan
from toolkit.report.standing import Standing, first_state, standings, status_of
from toolkit.stages import (
    admit,
    aside,
    base,
    burnin,
    certify,
    image,
    infiniband,
    kubernetes,
    levels,
    nvlink,
    peers,
    rails,
)
from toolkit.stages.burnin import Burned
from toolkit.stages.context import Context, StageRunner

STAGES: Mapping[Stage, StageRunner] = {
    Stage.IMAGE: image.run,
    Stage.BASE: base.run,
    Stage.NVLINK: nvlink.run,
    Stage.INFINIBAND: infiniband.run,
    Stage.KUBERNETES: kubernetes.run,
    Stage.BURNIN: levels.after(rails.after(peers.after(burnin.run))),
    Stage.CERTIFY: certify.run,
    Stage.ADMIT: admit.run,
}


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
    with driving(context) as driven:
        ledger = driven.ledger
        close_interrupted(ledger, rack)
        if make_plan(rack, status_of(ledger, rack), plan.goal).digest != plan.digest:
            raise UndecidedError(
                f"{rack.name} changed since this plan was made", f"look again: rackproof plan {rack.name}"
            )
        ledger.store_plan(rack.name, plan.digest, plan.canonical())
        _enter_rented(ledger, rack)
        held = aside.let_go(driven)
        for step in plan.steps:
            began = context.clock()
            ready = _ready(ledger, rack, step)
            ready = tuple(n for n in ready if step.stage is not Stage.ADMIT or n.name not in held)
            if not ready:
                continue
            on_step(step, tuple(n.name for n in ready))
            carry_out(driven, step.stage, ready, stages[step.stage])
            seconds.append((step.stage, (context.clock() - began).total_seconds()))
    certificate = context.settings.certificate(rack.name)
    return Summary(
        rack.name, plan.goal, standings(ledger, rack), tuple(seconds), certificate if certificate.exists() else None
    )


def admit_certified(
    context: Context,
    stage: StageRunner = admit.run,
    on_step: Callable[[Step, tuple[str, ...]], None] = lambda step, nodes: None,
) -> Summary:
    """The last step alone: every certified node of the rack, by the site's waves; none: what there is, is told.

    Raises BusyError when somebody else drives the rack.
    """
    rack, seconds = context.rack, list[tuple[Stage, float]]()
    with driving(context) as driven:
        close_interrupted(driven.ledger, rack)
        held = aside.let_go(driven)
        states = driven.ledger.node_states(rack.name)
        ready = tuple(n for n in rack.nodes if n.name in states and states[n.name].state is NodeState.CERTIFIED)
        ready = tuple(n for n in ready if n.name not in held)
        if ready:
            began = context.clock()
            targets = tuple(Target(n.name, f"is {NodeState.CERTIFIED}") for n in ready)
            on_step(Step(Stage.ADMIT, targets, destructive=False), tuple(n.name for n in ready))
            carry_out(driven, Stage.ADMIT, ready, stage)
            seconds.append((Stage.ADMIT, (context.clock() - began).total_seconds()))
        found = standings(driven.ledger, rack)
    certificate = context.settings.certificate(rack.name)
    return Summary(rack.name, NodeState.ADMITTED, found, tuple(seconds), certificate if certificate.exists() else None)


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

    With the profile's own suite, several nodes are then measured together, as far as the profile asks for it.
    step  all GPUs take up their load at the same time
    Raises UsageError for a node that is not free, BusyError when somebody else drives the rack.
    """
    rack = context.rack
    with driving(context) as driven:
        close_interrupted(driven.ledger, rack)
        states = driven.ledger.node_states(rack.name)
        for node in nodes:
            refuse_unless_free(rack, node, states[node].state if node in states else NodeState.PLANNED)
        burned: dict[str, Burned] = {}
        units = tuple(rack.unit(name) for name in nodes)
        runner = burnin.examine(suite, step, burned, peers.by_hand)
        reached = all(unit.host for unit in units)  # collectives among nodes go by SSH, whoever carries the burn-in
        if len(units) > 1 and suite is rack.profile.suite and reached:  # and rest on the profile's own suite
            runner = levels.after(rails.after(runner))
        carry_out(driven, Stage.BURNIN, units, runner, out_only)
        runs = [driven.ledger.last_run(rack.name, name, Stage.BURNIN) for name in nodes]
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
    with driving(context) as driven:
        ledger, rack = driven.ledger, driven.rack
        issued = ledger.events(rack.name, kind=EventKind.CERTIFICATE_ISSUED, limit=100_000)
        expires = {node: str(event.body["expires"]) for event in issued for node in _named(event)}
        lapsed = []
        for node, row in ledger.node_states(rack.name).items():
            live = row.state in (NodeState.CERTIFIED, NodeState.ADMITTED)
            if live and datetime.fromisoformat(expires[node]) <= driven.clock():
                reason = f"certificate expired {expires[node]}"
                driven.hands.pool.register(node, reason)
                ledger.move(rack.name, node, Change(row.state, Move.LAPSE), reason)
                lapsed.append(node)
        return tuple(lapsed)


def _named(event: Event) -> list[str]:
    nodes = event.body["nodes"]
    return nodes if isinstance(nodes, list) else []


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

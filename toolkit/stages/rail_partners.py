"""Partners on the rails: nodes that passed before, for a node whose rails have nobody to be measured against.

A partner is a yardstick: its state stays and its evidence stays, unless the search proves one of its own rails bad.
Jobs must not run on it: TESTED and CERTIFIED nodes take none, an ADMITTED one is asked only where the pool says that it
takes no jobs any more. It must answer, and its facts must be as planned now; whoever is left out is named with why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from toolkit.errors import InputError, UndecidedError
from toolkit.facts.measure import measurements_of
from toolkit.facts.probe import PROBES, read
from toolkit.judge.evidence import Measurement
from toolkit.judge.fabric.design import designed
from toolkit.judge.locate.measured import FEWEST
from toolkit.judge.subjects import planned_subjects
from toolkit.judge.verdict import Answer, Verdict, judge
from toolkit.ledger import Change
from toolkit.rack.lifecycle import Move, NodeState, Outcome, Stage
from toolkit.rack.model import Unit
from toolkit.report.standing import status_of
from toolkit.stages import fabric, fabric_look
from toolkit.stages.burnin import shipper
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.burnin_records import last_burnin
from toolkit.stages.context import Context, Progress, Result, error, out_of_the_pool
from toolkit.stages.rail_search import leaves_of
from toolkit.stages.readback import judge_node, undecided

# Three whose rails are well tell a fourth's from their own in one round, whoever of them is slow.
AT_LEAST = 4
_PASSED = (NodeState.TESTED, NodeState.CERTIFIED)
_FACTS = tuple(s for s in Stage if s is not Stage.BURNIN)


@dataclass(frozen=True, slots=True)
class Partners:
    """Who is measured against. `left_out`: nodes that passed before and may not or cannot take part, with why."""

    nodes: tuple[Unit, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def enough(rails: int) -> int:
    """Nodes a search wants: AT_LEAST, and so many that a round of pairs says what is healthy on so many rails."""
    return max(AT_LEAST, 2 * -(-FEWEST // max(1, rails)))


def partners(context: Context, wanted: Sequence[Unit]) -> Partners:
    """As many as the nodes `wanted` lack to be enough, of those that share most rails with them."""
    states = {name: status.state for name, status in status_of(context.ledger, context.rack).items()}
    names = {node.name for node in wanted}
    rails = leaves_of(context.rack, names)
    passed = [n for n in context.rack.nodes if n.name not in names and states[n.name] in (*_PASSED, NodeState.ADMITTED)]
    passed.sort(key=lambda node: -len(leaves_of(context.rack, {node.name}) & rails))  # stable: then by slot
    lacking = enough(context.rack.profile.hcas_per_node) - len(wanted)
    chosen: list[Unit] = []
    left_out: list[tuple[str, str]] = []
    while passed and len(chosen) < lacking:
        asked, passed = passed[: lacking - len(chosen)], passed[lacking - len(chosen) :]
        why = {node.name: _refusal(context, node, states[node.name]) for node in asked}
        sound = [node for node in asked if not why[node.name]]
        why |= _faulty_cables(context, sound)
        left_out += [(node.name, why[node.name]) for node in asked if why[node.name]]
        chosen += [node for node in asked if not why[node.name]]
    return Partners(tuple(chosen), tuple(left_out))


def alone(context: Context, node: str, left_out: Iterable[tuple[str, str]]) -> Result:
    """No partner: the deed that gets one."""
    words = "; ".join(f"{name}: {why}" for name, why in left_out) or "no other node of the rack has passed its burn-in"
    text = f"the rails of {node} need another node that is free and well, and there is none: {words}"
    return error("RAIL_UNDECIDED", text[:500], _next(context, node))


def conclude(
    context: Context, node: Unit, result: Result | None, measured: Callable[[str], Sequence[Measurement]]
) -> None:
    """Puts on record what the search says against a partner: a run of its own; nothing where nothing is said.

    A conviction is evidence that failed, and quarantines; a doubt moves nothing. `measured`: the readings of a run.
    """
    if result is None:
        return
    ledger, rack = context.ledger, context.rack.name
    state = status_of(ledger, context.rack)[node.name].state
    run = ledger.start_run(rack, node.name, Stage.BURNIN)
    ledger.record_measurements(run, measured(run.id))
    convicted = result.outcome is Outcome.FAILED
    if convicted:
        result = out_of_the_pool(context, node.name, result)
    ledger.finish_run(
        run, result.outcome, code=result.code, part=result.part, message=result.message, next=result.next,
        change=Change(state, Move.QUARANTINE) if convicted else None,
    )  # fmt: skip
    context.progress(Progress(node.name, Stage.BURNIN, result.code, 1.0))


def _refusal(context: Context, node: Unit, state: NodeState) -> str:
    """Why the node may not or cannot be a partner by its own word; empty where nothing stands against it."""
    context.progress(Progress(node.name, Stage.BURNIN, "asked to be a partner on the rails"))
    try:
        if state is NodeState.ADMITTED and not _drained(context, node):
            return "it is ADMITTED: jobs may run on it"
        shipper(context)(node)
        facts = [read(context.hands.shell, node, probe, context.clock) for probe in PROBES]
    except (UndecidedError, InputError) as problem:
        return problem.message[:200]
    told = [m for fact in facts if fact.problem is None for m in measurements_of(fact, node, "", "")]
    of_facts = judge_node(context, node, _FACTS, told, frozenset({fabric.METRIC}))
    of_burnin = judge_burnin(context, node, measured_last(context, node), context.rack.profile.suite)
    # Old evidence of a burn-in is no reproach: what the search needs is that nothing of it failed.
    return _against(of_facts, of_burnin)


def _faulty_cables(context: Context, nodes: Sequence[Unit]) -> dict[str, str]:
    """By node, what the fabric shows against its cables now, or why it does not tell; empty where they are as planned.

    The look is on record; it is no run's evidence.
    """
    rack = context.rack
    gates = [g for g in rack.profile.gates if g.metric == fabric.METRIC]
    if not (nodes and gates and designed(rack).links):
        return {}
    told = fabric.look_and_judge(context, nodes, fabric_look.earlier(context.ledger, rack))
    now, age = context.clock(), rack.profile.evidence_max_age
    return {
        node.name: _against(judge(gates, planned_subjects(node, rack.profile), told.measured(node, ""), now, age))
        for node in nodes
    }


def _against(verdict: Verdict, *others: Verdict) -> str:
    """What stands against a node: the first failure of any verdict, else the doubts of the first."""
    bad = [f for v in (verdict, *others) for f in v.of(Answer.FAIL)]
    if bad:
        return f"{bad[0].code} on {bad[0].subject}: {bad[0].detail}"
    return "" if verdict.answer is Answer.PASS else undecided(verdict)[:200]


def measured_last(context: Context, node: Unit) -> Sequence[Measurement]:
    """What the burn-in measured that made the node TESTED; nothing where none did."""
    burnin = last_burnin(context, node)
    return context.ledger.measurements(context.rack.name, node.name, burnin.id) if burnin else ()


def _drained(context: Context, node: Unit) -> bool:
    member = context.hands.pool.nodes().get(node.name)
    return member is not None and not member.admitted


def _next(context: Context, node: str) -> str:
    """How a partner is got: of the nodes that jobs run on, the one that shares most rails."""
    rack, states = context.rack, status_of(context.ledger, context.rack)
    rails = leaves_of(rack, {node})
    others = sorted((n.name for n in rack.nodes if n.name != node), key=lambda n: -len(leaves_of(rack, {n}) & rails))
    again = f"rackproof bringup {rack.name}"
    for name in others:
        if states[name].state is NodeState.ADMITTED:
            return f"rackproof quarantine {name} --reason 'partner for {node}', rackproof release {name}, then {again}"
    for name in others:
        if states[name].state is NodeState.QUARANTINED:
            return f"after the repair of {name}: rackproof release {name}, then {again}"
    return f"{again}, when another node of the rack is free"

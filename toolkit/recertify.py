"""The use case "recertify": measures nodes in service again, wave by wave, and gives each back at once.

Only idle nodes are taken, never so many of a leaf or domain that it hurts, never below the capacity floor; all three
are asked of the pool before each wave. A node that somebody wants is given back within seconds, by the certificate that
it had. What is taken out is on record before its door is shut: killed at any instant, the next run gives it back or
goes on with it first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolkit.driving import Moves, carry_out, close_interrupted, driving, onwards
from toolkit.errors import EvidenceError, RackproofError, UndecidedError
from toolkit.judge.recert.differential import Differential
from toolkit.judge.recert.touch import Proof
from toolkit.ledger import Change, EventKind
from toolkit.pool.clearing import Counting
from toolkit.pool.floor import Capacity, may_evict
from toolkit.pool.recert_candidates import capacity_on_record
from toolkit.pool.wave_log import WaveLog
from toolkit.rack.lifecycle import Move, NodeState, Stage
from toolkit.rack.model import Rack, Suite, Unit
from toolkit.report.recert_run import End, Turn
from toolkit.stages import admit, aside, burnin, carried, certify, collectives, levels, peers, rails
from toolkit.stages.as_certified import as_certified
from toolkit.stages.burnin import Terms
from toolkit.stages.context import Context, Result, StageRunner
from toolkit.stages.differential_steps import fresh_of, steps
from toolkit.stages.giving_way import reading_unless_wanted, unless_wanted
from toolkit.stages.recert_turn import (
    Bounds,
    Task,
    alike,
    at_best,
    by_hand,
    came_to,
    is_later,
    require_up,
    task_of,
    turn_of,
)

AFTER = "measured after a change"  # the intent's key
# What a node was taken out for, in its intent; a partner is only given back.
TEST, CHANGED, PARTNER = "test", "changed", "partner"


@dataclass(frozen=True, slots=True)
class Recertified:
    """What a run came to, in the order of its turns."""

    rack: str
    turns: tuple[Turn, ...]

    @property
    def exit_code(self) -> int:
        """0 everything was renewed, or there was nothing; 1 a node failed on evidence; 3 the next run tries again."""
        ends = {turn.end for turn in self.turns}
        if End.FAILED in ends:
            return EvidenceError.exit_code
        return 0 if ends <= {End.RENEWED} else UndecidedError.exit_code


OnWave = Callable[[int, Sequence[Task]], None]


def recertify(
    context: Context, tasks: Sequence[Task], bounds: Bounds, on_wave: OnWave = lambda number, tasks: None
) -> Recertified:
    """Takes up what an earlier run left, then carries out these tasks, in this order.

    Raises BusyError when somebody else drives the rack, UndecidedError where an admission was cut off.
    """
    with driving(context) as driven:
        close_interrupted(driven.ledger, context.rack)
        run = _Run(driven, bounds, on_wave)
        run.take_up()
        run.carry_out([t for t in tasks if (t.node, t.suite, t.whole) not in run.took_up])
        return Recertified(context.rack.name, tuple(run.turns))


def recertify_after(
    context: Context, made: Differential, bounds: Bounds, on_wave: OnWave = lambda number, tasks: None
) -> Recertified:
    """After a change: exactly the steps of the plan, then a certificate for the nodes whose evidence it touched.

    Nodes that the steps need and that serve are taken out of the pool, if they are idle, and given back at the end.
    Raises UndecidedError before anything is touched: a node that is not up, one that is in use, the capacity floor.
    """
    with driving(context) as driven:
        close_interrupted(driven.ledger, context.rack)
        run = _Run(driven, bounds, on_wave)
        run.take_up()
        run.carry_out_steps(made)
        return Recertified(context.rack.name, tuple(run.turns))


@dataclass(slots=True)
class _Run:
    context: Context
    bounds: Bounds
    on_wave: OnWave
    turns: list[Turn] = field(default_factory=list)
    took_up: set[tuple[str, Suite, bool]] = field(default_factory=set)
    waves: int = 0

    @property
    def _again(self) -> str:
        return f"rackproof recert run {self.context.rack.name} --due"

    def _states(self) -> dict[str, NodeState]:
        return {node: row.state for node, row in self.context.ledger.node_states(self.context.rack.name).items()}

    # What an earlier run left

    def take_up(self) -> None:
        """Nodes whose door an earlier run shut: those it measured are gone on with, the others are given back."""
        if self._is_rollout_ours({one.node for one in aside.open_ones(self.context)}):
            self._let_in(())  # it lacks its end alone, or goes on with the nodes below
        aside.close(self.context)
        left = aside.open_ones(self.context)
        for one in left:  # cut off between the intent and the move
            if self._states().get(one.node) is NodeState.ADMITTED:
                aside.take(self.context, one.node, str(one.details.get("reason", "")), {})
        tests = [one for one in left if one.details.get("role") == TEST]
        others = [one.node for one in left if one.details.get("role") != TEST]
        if others:
            rails.end_earlier(self.context)
            levels.end_earlier(self.context)
            changed = [one.node for one in left if one.details.get("role") == CHANGED]
            self._certify(changed, onwards)
            self._lapse_unproven(changed)
            self._give_back(others)
        for some in alike([task_of(one) for one in tests]):
            self.took_up |= {(t.node, t.suite, t.whole) for t in some}
            self._wave(some, {})

    # Waves

    def carry_out(self, tasks: Sequence[Task]) -> None:
        """Wave after wave, each as large as leaf, domain and floor allow when it begins."""
        waiting = list(tasks)
        while waiting:
            wave, why = self._next(waiting)
            if not wave:
                self.turns += [turn_of(t, End.NOT_BEGUN, message=why, next=self._again) for t in waiting]
                return
            waiting = [t for t in waiting if t not in wave]
            self._wave(*self._take(wave))

    def _next(self, waiting: Sequence[Task]) -> tuple[list[Task], str]:
        """The first tasks that may run together now; none, and why not even one."""
        states = self._states()
        admitted = [t for t in waiting if states.get(t.node) is NodeState.ADMITTED]
        answer = may_evict(_capacity(self.context, self.bounds.site), len(admitted), self.bounds.floor)
        out = [one.node for one in aside.open_ones(self.context)]
        near = Counter(place for node in out for place in self.bounds.near.get(node, ()))
        wave: list[Task] = []
        may = answer.may
        for task in waiting:
            places = self.bounds.near.get(task.node, ())
            alike = not wave or (task.suite, task.whole) == (wave[0].suite, wave[0].whole)
            if not alike or any(near[p] >= self.bounds.at_once for p in places) or task.node in {t.node for t in wave}:
                continue
            if states.get(task.node) is NodeState.ADMITTED:
                if not may:
                    continue
                may -= 1
            near.update(places)
            wave.append(task)
        full = f"{self.bounds.at_once} nodes of its leaf or domain are out already: {', '.join(out)}" if out else ""
        return wave, answer.reason or full

    def _take(self, wave: Sequence[Task]) -> tuple[list[Task], dict[str, Turn]]:
        """Shuts the doors of those that are idle. Answers who is to be measured, and the turns of the others."""
        taken, done = list[Task](), dict[str, Turn]()
        for task in wave:
            turn = self._take_one(task)
            if turn is None:
                taken.append(task)
            else:
                done[task.node] = turn
        return taken, done

    def _take_one(self, task: Task) -> Turn | None:
        """None: it is ours to measure. Somebody may have come between the question and the shut door: he goes first."""
        state, pool = self._states().get(task.node), self.context.hands.pool
        if state not in (NodeState.CERTIFIED, NodeState.ADMITTED):
            words = f"it is {state or NodeState.PLANNED} now"
            return turn_of(task, End.UNDECIDED, message=words, next=f"rackproof bringup {self.context.rack.name}")
        try:
            who = pool.wanted(task.node)
            if who is None and state is NodeState.ADMITTED:
                details = {"role": TEST, "suite": task.suite, "whole": task.whole, "why": task.why}
                aside.take(self.context, task.node, f"measured again: {task.why}"[:300], details)
                who = pool.wanted(task.node)
                if who is not None:
                    self._give_back([task.node])
        except RackproofError as silent:
            if any(one.node == task.node for one in aside.open_ones(self.context)):
                self._give_back([task.node])
            return turn_of(task, End.IN_USE, message=silent.message, next=silent.hint or self._again)
        return None if who is None else turn_of(task, End.IN_USE, message=who, next=self._again)

    def _wave(self, tasks: Sequence[Task], done: Mapping[str, Turn]) -> None:
        """Measures, certifies and gives back."""
        self.turns += done.values()
        if not tasks:
            return
        self.waves += 1
        self.on_wave(self.waves, tasks)
        rack, ledger = self.context.rack, self.context.ledger
        names = [t.node for t in tasks]
        known = {run.id for run in ledger.runs(rack.name)}
        before = carried.Ends.of(self.context, names)
        self._measure(tasks)
        self._certify(names)
        self._give_back(names)
        after, states = carried.Ends.of(self.context, names), self._states()
        fresh = [run for run in ledger.runs(rack.name) if run.id not in known]
        out = {one.node for one in aside.open_ones(self.context)}
        for task in tasks:
            mine = [run for run in fresh if run.node == task.node]
            turn = came_to(task, states.get(task.node), mine, self._again)
            renewed = after.at.get(task.node) != before.at.get(task.node)
            if turn.end is End.RENEWED and task.whole and not is_later(after, before, task.node):
                words = "not all of it was measured: its certificate ends when the one before does"
                turn = replace(turn, end=End.KEPT, message=words, next=by_hand(rack, task.node))
            if turn.end is End.RENEWED and not mine and not renewed:
                turn = replace(turn, end=End.UNDECIDED, message="nothing was measured", next=self._again)
            if task.node in out:
                turn = replace(turn, end=at_best(turn.end), next=turn.next or self._again,
                               message=f"NOT back in the pool: {turn.message or 'its door is shut'}")  # fmt: skip
            self.turns.append(replace(turn, until=after.at.get(task.node)))

    def _measure(self, tasks: Sequence[Task]) -> None:
        """The burn-in of those that are not measured yet: a pass moves them to TESTED."""
        context, states = self.context, self._states()
        done = {one.node for one in aside.open_ones(context) if aside.is_measured(context, one)}
        nodes = [t.node for t in tasks if states.get(t.node) is NodeState.CERTIFIED and t.node not in done]
        if not nodes:
            return
        first = tasks[0]
        whole = first.whole and len(nodes) > 1  # one node alone has nobody to be measured against
        units = tuple(context.rack.unit(name) for name in nodes)
        over = context if whole else replace(context, rack=carried.without_wide(context.rack))
        runner = self._runner(first.suite, units, whole=whole)
        carry_out(over, Stage.BURNIN, units, runner, again=self._again)

    def _runner(self, suite: Suite, nodes: Sequence[Unit], *, whole: bool) -> StageRunner:
        wanted = self.context.hands.pool.wanted
        burn_in = burnin.again(suite, Terms(take_over_s=self.bounds.take_over_s, wanted=wanted))
        runner = peers.after(burn_in, reading_unless_wanted(wanted), suite)
        proofs = frozenset({Proof.FACTS, Proof.SUITE, Proof.COLLECTIVES})
        if whole:
            runner = rails.after(runner, unless_wanted(rails.over_nics, wanted))
            runner = levels.after(runner, unless_wanted(collectives.measure, wanted))
            proofs = carried.WHOLE
        fresh = carried.Fresh(proofs, suite)
        return as_certified(carried.after(runner, {n.name: fresh for n in nodes}), check=not whole)

    # After a change

    def carry_out_steps(self, made: Differential) -> None:
        """All in one go: its nodes are few."""
        rack, ledger = self.context.rack, self.context.ledger
        changed = [n.name for n in rack.nodes if n.name in fresh_of(made, rack.profile.suite)]
        words = "; ".join(change.words for change in made.touch.changes)
        others = sorted({n for step in made.steps for n in step.partners} - set(changed))
        tasks = [Task(n, rack.profile.suite, words) for n in changed]
        require_up(rack, self._states(), [n for n in changed if not self._is_tested_after(n, words)])
        self._take_all([*changed, *others], set(changed), words)
        if not tasks:
            return
        self.on_wave(1, tasks)
        known = {run.id for run in ledger.runs(rack.name)}
        before = self._states()
        for node in changed:
            ledger.intent(rack.name, node, AFTER, {"words": words})
        try:
            units = tuple(rack.unit(n) for n in changed if before[n] is not NodeState.TESTED)
            wanted = self.context.hands.pool.wanted
            runner = steps(made, self.bounds.take_over_s, wanted)
            if units:
                carry_out(self.context, Stage.BURNIN, units, runner, again=self._again)
            self._certify(changed, onwards)
        finally:
            self._lapse_unproven(changed)
            self._give_back([*changed, *others])
        after, states = carried.Ends.of(self.context, changed), self._states()
        fresh = [run for run in ledger.runs(rack.name) if run.id not in known]
        for task in tasks:
            mine = [run for run in fresh if run.node == task.node]
            turn = came_to(task, states.get(task.node), mine, self._again)
            if turn.end is End.RENEWED and states.get(task.node) is not NodeState.ADMITTED:
                turn = replace(turn, next=f"rackproof admit {rack.name}")
            self.turns.append(replace(turn, until=after.at.get(task.node)))

    def _is_tested_after(self, node: str, words: str) -> bool:
        """Whether it was measured after this very change already, by a run that was cut off before its certificate."""
        begun = self.context.ledger.find(self.context.rack.name, node, EventKind.INTENT, AFTER)
        row = self.context.ledger.node_states(self.context.rack.name).get(node)
        same = begun is not None and begun.body["details"].get("words") == words
        return same and begun is not None and row is not None and row.state is NodeState.TESTED and row.event > begun.id

    def _take_all(self, names: Sequence[str], changed: set[str], words: str) -> None:
        """Every node that serves, or none: one that is in use, or the floor, and all stay where they are."""
        states, pool = self._states(), self.context.hands.pool
        serving = [n for n in names if states.get(n) is NodeState.ADMITTED]
        answer = may_evict(_capacity(self.context, self.bounds.site), len(serving), self.bounds.floor)
        if answer.may < len(serving):
            raise UndecidedError(
                f"{', '.join(serving)} would have to be taken out of the pool, {answer.may} may be: {answer.reason}",
                "admit others first; or lower the floor in the site's pool file",
            )
        for taken in (False, True):
            for node in serving:
                if taken:
                    role = CHANGED if node in changed else PARTNER
                    aside.take(self.context, node, f"{role}: {words}"[:300], {"role": role, "why": words})
            used = {n: who for n in serving if (who := pool.wanted(n)) is not None}
            if used:
                self._give_back(serving)
                told = "; ".join(f"{n}: {who}" for n, who in used.items())
                hint = f"rackproof drain {next(iter(used))} --reason ..., then the same command again"
                raise UndecidedError(f"nodes that the tests need are in use: {told}", hint)

    def _certify(self, names: Iterable[str], moves: Moves | None = None) -> None:
        """Those that were tested. Undecided, the certificate before stands: whether it is in force, the door sees."""
        states = self._states()
        units = tuple(self.context.rack.unit(n) for n in names if states.get(n) is NodeState.TESTED)
        if units:
            over = carried.certifying(self.context, units)
            carry_out(over, Stage.CERTIFY, units, certify.run, moves or _or_keeps, self._again)

    def _give_back(self, names: Iterable[str]) -> None:
        """Back into the pool at once, by whatever certificate is in force; by none, and they lapse."""
        states, asked = self._states(), set(names)
        ours = [one for one in aside.open_ones(self.context) if one.node in asked]
        at_rest = [one for one in ours if states.get(one.node) is NodeState.CERTIFIED]
        units = tuple(self.context.rack.unit(one.node) for one in at_rest if self._is_unloaded(one))
        if units:
            self._let_in(units)
        aside.close(self.context)

    def _lapse_unproven(self, changed: Sequence[str]) -> None:
        """A change took the ground from these nodes' certificates: without a new one they do not come back."""
        states, rack = self._states(), self.context.rack.name
        for one in aside.open_ones(self.context):
            shut = one.node in changed and states.get(one.node) is NodeState.CERTIFIED
            if shut and not aside.is_measured(self.context, one):
                reason = f"not certified anew: {one.details.get('reason', '')}"[:300]
                self.context.ledger.move(rack, one.node, Change(NodeState.CERTIFIED, Move.LAPSE), reason)

    def _is_unloaded(self, one: aside.Aside) -> bool:
        """Its door stays shut while a burn-in may run there: its intent stays open, and the next run sees to it."""
        try:
            aside.end_load(self.context, one)
        except RackproofError:
            return False
        return True

    def _let_in(self, units: tuple[Unit, ...]) -> None:
        at_once = replace(self.context, hands=aside.AtOnce(self.context.hands))
        carry_out(at_once, Stage.ADMIT, units, admit.run, again=self._again)

    def _is_rollout_ours(self, ours: set[str]) -> bool:
        """Whether a wave of an admission has no end because a run of ours was cut off.

        UndecidedError for anybody else's: one that was being watched is gone on with by its own rules.
        """
        cut = WaveLog(self.context.ledger, self.context.rack.name).rollout(self.context.clock()).open
        if cut is None:
            return False
        states = self._states()
        others = [n for n in cut.nodes if n not in ours and states.get(n) is not NodeState.ADMITTED]
        if others:
            raise UndecidedError(
                f"an admission of {', '.join(others[:8])} was cut off and has no end",
                f"first: rackproof admit {self.context.rack.name}; then the same command again",
            )
        return all(states.get(n) is NodeState.ADMITTED for n in cut.nodes)


def _or_keeps(stage: Stage, result: Result) -> Move | None:
    move = onwards(stage, result)
    return Move.KEEP if move is Move.RETEST else move


def _capacity(context: Context, site: Sequence[Rack]) -> Capacity:
    """As the pool counts now; one that does not count is known by what is on record."""
    pool = context.hands.pool
    return pool.capacity() if isinstance(pool, Counting) else capacity_on_record(context.ledger, site)

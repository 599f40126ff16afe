"""Carries out the steps of a differential re-certification on nodes that are up and free: these, and no others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from toolkit.judge.evidence import Measurement
from toolkit.judge.recert.differential import Differential, Step, with_rails
from toolkit.judge.recert.touch import Proof
from toolkit.judge.verdict import Answer
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.metric import COLLECTIVES
from toolkit.rack.model import Suite, Unit, WideLevel
from toolkit.stages import burnin, carried, collectives, levels, peers, rails
from toolkit.stages.burnin import Terms
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.burnin_run import Wanted
from toolkit.stages.context import Context, Result, StageRunner, Work, holding, passed
from toolkit.stages.giving_way import reading_unless_wanted, unless_wanted
from toolkit.stages.level_records import LEFT_OUT
from toolkit.stages.peer_records import comparisons
from toolkit.stages.rail_partners import measured_last
from toolkit.stages.rail_results import in_record, judged, measured, results

_LEVELS = {Proof.DOMAIN: WideLevel.DOMAIN, Proof.LEAF: WideLevel.LEAF, Proof.UNIT: WideLevel.UNIT}


def fresh_of(made: Differential, suite: Suite) -> dict[str, carried.Fresh]:
    """By node whose evidence changed, what these steps measure of it."""
    nodes = {node for touched in made.touch.touched for node in touched.through}
    hcas = frozenset(t.evidence.subject for t in made.touch.of(Proof.RAILS))
    found = {}
    for node in nodes:
        proofs = {step.proof for step in made.steps if node in step.changed} | {Proof.FACTS}
        proofs |= {Proof.COLLECTIVES} if Proof.SUITE in proofs else set()
        found[node] = carried.Fresh(frozenset(proofs), suite, hcas)
    return found


def steps(made: Differential, take_over_s: float, wanted: Wanted) -> StageRunner:
    """The stage over the nodes whose evidence changed; what is not measured of them is carried."""

    def runner(context: Context, work: Work) -> None:
        suite = context.rack.profile.suite
        inner = _Steps(made, Terms(take_over_s=take_over_s, wanted=wanted), wanted)
        carried.after(inner.run, fresh_of(made, suite))(context, work)

    return runner


@dataclass(slots=True)
class _Steps:
    made: Differential
    terms: Terms
    wanted: Wanted
    ended: dict[str, Result] = field(default_factory=dict)

    def run(self, context: Context, work: Work) -> None:
        """Suites first; what is not well by its own takes no part in what is measured among many."""
        waiting, held = holding(work)
        self._own(context, waiting)
        for step in self.made.steps:
            if step.proof is Proof.RAILS:
                self._rails(context, work, step, held)
        last = [step for step in self.made.steps if step.proof in _LEVELS]
        for step in last:
            self._level(context, work, step, held, is_last=step is last[-1])
        for name in held:
            work.finish(name, self.ended.get(name) or held[name])

    def _own(self, context: Context, work: Work) -> None:
        """Each node's own suite, its collectives alone, or nothing."""
        whole = {n for step in self.made.steps if step.proof is Proof.SUITE for n in step.nodes}
        some = {n for step in self.made.steps if step.proof is Proof.COLLECTIVES for n in step.nodes}
        suite = context.rack.profile.suite
        runner = burnin.again(suite, self.terms)
        asked = tuple(n for n in work.nodes if n.name in whole)
        if asked:
            compared = peers.after(runner, reading_unless_wanted(self.wanted))
            compared(context, replace(work, nodes=asked))
        asked = tuple(n for n in work.nodes if n.name in some)
        if asked:
            only = {n.name: tuple(f"nccl_{kind}" for kind in COLLECTIVES) for n in asked}
            burnin.again(suite, replace(self.terms, only=only))(context, replace(work, nodes=asked))
        for node in work.nodes:
            if node.name not in whole | some:
                work.finish(node.name, passed("its own suite was not touched"))

    def _there(self, context: Context, work: Work, step: Step, held: Mapping[str, Result]) -> tuple[Unit, ...]:
        """Who takes part: none where no node whose evidence changed is well."""
        well = {n.name for n in work.nodes if n.name in held and n.name not in self.ended}
        well -= {n for n in well if _fails(context, work, context.rack.unit(n))}
        if not well & set(step.changed):
            return ()
        changed = {n for s in self.made.steps for n in s.changed} | {n.name for n in work.nodes}
        return tuple(context.rack.unit(n) for n in step.nodes if n in well or n not in changed)

    def _rails(self, context: Context, work: Work, step: Step, held: Mapping[str, Result]) -> None:
        nodes = self._there(context, work, step, held)
        if not nodes:
            return
        over = _over(context, step)
        told = {n.name: measured_last(context, n) for n in nodes}
        mine = {n.name for n in work.nodes}
        told |= {n: context.ledger.measurements(context.rack.name, n, work.runs[n].id) for n in told if n in mine}
        measure = unless_wanted(rails.over_nics, self.wanted)
        found = rails.Campaign(over, nodes, measure, (), told).run()
        origin = context.ledger.artifacts.put(json.dumps(in_record(found), indent=1).encode())
        said = results(over.rack, nodes, found)
        for name in sorted(said):
            context.ledger.append(judged(context.rack.name, name, said[name], found, origin))
        for node in (n for n in nodes if n.name in mine):
            run = work.runs[node.name]
            numbers = measured(found, node.name, run.id, context.clock(), origin)
            context.ledger.record_measurements(run, numbers)
        self.ended |= {name: ended for name, ended in said.items() if name in mine and _is_bad(ended)}

    def _level(self, context: Context, work: Work, step: Step, held: Mapping[str, Result], *, is_last: bool) -> None:
        nodes = self._there(context, work, step, held)
        if not nodes:
            return
        over = _over(context, step)
        profile = replace(over.rack.profile, levels=(_LEVELS[step.proof],))
        over = replace(over, rack=replace(over.rack, profile=profile))
        measure = unless_wanted(collectives.measure, self.wanted)
        found = levels.Campaign(over, tuple(n.name for n in nodes), measure).run()
        origin = context.ledger.artifacts.put(json.dumps(levels.in_record(found), indent=1).encode())
        for node in (n for n in work.nodes if n in nodes):
            run = work.runs[node.name]
            numbers = levels.measured(found, node.name, run.id, context.clock(), origin)
            numbers = tuple(m for m in numbers if is_last or m.metric != LEFT_OUT)
            context.ledger.record_measurements(run, numbers)
            ended = found.results.get(node.name)
            if ended is not None:
                self.ended.setdefault(node.name, ended)


def _is_bad(ended: Result) -> bool:
    return ended.outcome is not Outcome.PASSED


def _over(context: Context, step: Step) -> Context:
    """Over the rails that the step is of."""
    if not step.rails:
        return context
    return replace(context, rack=with_rails(context.rack, frozenset(step.rails)))


def _fails(context: Context, work: Work, node: Unit) -> bool:
    """Whether its own suite has found something wrong: then certify has the word, whatever its rails are."""
    run = work.runs[node.name]
    told: Sequence[Measurement] = context.ledger.measurements(context.rack.name, node.name, run.id)
    stood = comparisons(context, node, run) or None
    return judge_burnin(context, node, told, context.rack.profile.suite, compared=stood).answer is Answer.FAIL

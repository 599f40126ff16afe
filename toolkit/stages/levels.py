"""levels: nodes that passed their own suite, and their rails, are measured together: domain, leaf, scalable unit.

It follows the burn-in and the rails, where the rack's profile names `levels`. A wide test that is bad names nobody:
it is run again, and then among fewer and fewer nodes, until those are left that it is bad with. They are an ERROR with
what was measured, never a verdict on their hardware; the others go on once they were well without them.

A test's name is on record before it is started and is never used again. A controller that was killed leaves tests on
the nodes: the next one ends what is left of them and measures anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from toolkit.errors import UndecidedError
from toolkit.facts.nccl_path import Fabric
from toolkit.judge.evidence import Measurement
from toolkit.judge.levels import Communicator, WideTest, among, wide
from toolkit.judge.lint import sku_named
from toolkit.judge.narrow import Narrowed, Nodes, narrow
from toolkit.judge.verdict import Answer
from toolkit.rack.claim import Sku
from toolkit.rack.claims import load_skus
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Unit, WideLevel
from toolkit.stages import collectives
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.collective_result import Collected
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, error, holding
from toolkit.stages.leftovers import end_leftovers
from toolkit.stages.level_records import left_out
from toolkit.stages.level_tests import Reading, code_of, fabric_of, measurements, order_of, reading
from toolkit.stages.mpi_command import Order, UnpinnedError
from toolkit.stages.peer_records import comparisons

FILED = "levels"
NARROWING_TIME = timedelta(minutes=30)
# A virtual node's HCAs tell in its hardware folder what an HCA of metal tells in sysfs.
VIRTUAL = Site(infiniband="/run/hardware/infiniband")

Measure = Callable[[Context, Order, Fabric, Site], Collected]


def after(before: StageRunner, measure: Measure = collectives.measure) -> StageRunner:
    """The stage with the levels behind it, where the profile names some: nodes that it passed wait for these."""

    def runner(context: Context, work: Work) -> None:
        if not context.rack.profile.levels:
            before(context, work)
            return
        waiting, held = holding(work)
        before(context, waiting)
        nodes = tuple(n for n in work.nodes if n.name in held)
        for name, ended in _concluded(context, work, nodes, measure).items():
            work.finish(name, ended or held[name])

    return runner


def end_earlier(context: Context) -> None:
    """Ends what an earlier burn-in left among nodes. UndecidedError where something may still run."""
    end_leftovers(context, FILED, VIRTUAL if context.rack.profile.virtual else Site())


def _concluded(context: Context, work: Work, nodes: Sequence[Unit], measure: Measure) -> Mapping[str, Result | None]:
    """Each node's result; None: the one it had. What is not well by its own suite takes no part: certify judges it."""
    well = tuple(n for n in nodes if _is_well(context, work, n))
    ended: dict[str, Result | None] = dict.fromkeys((n.name for n in nodes), None)
    if not well:
        return ended
    found = Campaign(context, tuple(n.name for n in well), measure).run()
    origin = context.ledger.artifacts.put(json.dumps(in_record(found), indent=1).encode())
    for node in well:
        run = work.runs[node.name]
        context.ledger.record_measurements(run, measured(found, node.name, run.id, context.clock(), origin))
    return ended | found.results


def _is_well(context: Context, work: Work, node: Unit) -> bool:
    told = context.ledger.measurements(context.rack.name, node.name, run=work.runs[node.name].id)
    stood = comparisons(context, node, work.runs[node.name]) or None
    return judge_burnin(context, node, told, context.rack.profile.suite, compared=stood).answer is Answer.PASS


@dataclass(slots=True)
class Found:
    """What the levels came to.

    ran      every test, in order
    results  of nodes that do not go on
    absent   levels that these nodes cannot have, and why
    """

    ran: list[Reading] = field(default_factory=list)
    results: dict[str, Result | None] = field(default_factory=dict)
    absent: dict[WideLevel, str] = field(default_factory=dict)
    narrowed: list[tuple[Reading, Narrowed]] = field(default_factory=list)

    @property
    def away(self) -> frozenset[str]:
        """Nodes that do not go on."""
        return frozenset(self.results)


def measured(found: Found, node: str, run: str, at: datetime, origin: str) -> tuple[Measurement, ...]:
    """What was measured of the levels with this node, by its last test of each: without those that were left behind.

    Of a leaf with several rails, the slowest.
    """
    last: dict[tuple[object, ...], Reading] = {}
    for one in found.ran:
        if node in one.among.nodes and one.numbers:
            last[one.test.level, one.test.kind, one.among.of, one.among.rail] = one
    worst: dict[tuple[object, ...], Reading] = {}
    for (level, kind, of, _), one in last.items():
        other = worst.setdefault((level, kind, of), one)
        if (one.gb_per_s or 0.0) < (other.gb_per_s or 0.0):
            worst[level, kind, of] = one
    of_nodes = tuple(m for one in worst.values() for m in measurements(one, run, at, origin))
    return (*of_nodes, left_out(node, found.absent.items(), run, at, origin))


@dataclass(slots=True)
class Campaign:
    """The levels of a burn-in over nodes, on record. `number` is of its entry in the ledger: no other has it."""

    context: Context
    nodes: Nodes
    measure: Measure
    site: Site = field(init=False)
    number: int = field(init=False)
    count: int = 0
    found: Found = field(default_factory=Found)

    def __post_init__(self) -> None:
        self.site = VIRTUAL if self.context.rack.profile.virtual else Site()

    def run(self) -> Found:
        """Ends what an earlier one left, measures level by level, and puts the answer on record."""
        rack, ledger = self.context.rack, self.context.ledger
        end_leftovers(self.context, FILED, self.site)
        self.number = ledger.intent(
            rack.name, "", FILED, {"nodes": list(self.nodes), "levels": list(rack.profile.levels)}
        ).id
        sku = self._sku()
        for level in WideLevel:
            if level not in rack.profile.levels:
                continue
            here = tuple(n for n in self.nodes if n not in self.found.away)
            tests = wide(rack, here, rack.profile.suite, sku)[level]
            if isinstance(tests, str):
                self.found.absent[level] = tests
                continue
            for test in tests:
                self._level_test(test)
        ledger.observed(rack.name, "", FILED, {"intent": self.number, **in_record(self.found)})
        return self.found

    def _sku(self) -> Sku | None:
        inventory = self.context.settings.inventory
        skus = load_skus(inventory) if (inventory / "skus.yml").exists() else ()
        return sku_named(self.context.rack.profile.sku, skus)

    def _level_test(self, test: WideTest) -> None:
        """All its communicators; whatever is not well is looked into one after another."""
        here = [n for n in self.nodes if n not in self.found.away]
        for wave in among(test, here).waves:
            self._say(f"{test.level}: {test.kind} among {_count(wave)}")
            readings = self._side_by_side(test, wave)
            for one in readings:
                if one.bad is not False:
                    self._look_into(one)

    def _look_into(self, first: Reading) -> None:
        """What was bad, or told nothing, is run again; then it is narrowed, or its nodes are left in doubt.

        Without nodes that another test has left behind by now: if it is well without them, that was it.
        """
        left = self._left(first.among, first.named)
        if len(left.nodes) < 2:
            self._leave(first, first.named)
            return
        (again,) = self._side_by_side(first.test, (left,))
        if again.bad is None:
            self._leave(again, first.named)
        elif first.bad and not again.bad and again.among.nodes == first.among.nodes:
            self._leave(replace(again, code=code_of(again.test.level, "UNDECIDED"), words=_unsteady(first, again)), ())
        elif again.bad:
            self._narrow(again)
        if not again.bad and first.named:
            self._behind(first, first.named, "; the others are well without it")

    def _left(self, communicator: Communicator, without: Iterable[str]) -> Communicator:
        """Without nodes that are named as gone or silent, or are left behind by now."""
        gone = {*without, *self.found.away}
        return replace(communicator, nodes=tuple(n for n in communicator.nodes if n not in gone))

    def _narrow(self, bad: Reading) -> None:
        until = self.context.clock() + NARROWING_TIME
        test = bad.test

        def round_of(groups: Sequence[Nodes]) -> list[bool | None]:
            self._say(f"{test.level}: {bad.code}, {test.kind} among {' and '.join(str(len(g)) for g in groups)} nodes")
            readings = self._side_by_side(test, [replace(bad.among, nodes=group) for group in groups])
            return [one.bad for one in readings]

        found = narrow(bad.among.nodes, round_of, lambda: self.context.clock() > until)
        self.found.narrowed.append((bad, found))
        share = f"among {len(found.suspects)} of {len(bad.among.nodes)} nodes" if found.cleared else "among all of them"
        self._behind(bad, found.suspects, f". After {found.rounds} more rounds: {found.why}, {share}")

    def _leave(self, doubt: Reading, named: Iterable[str]) -> None:
        """Nobody can say: all that took part stay where they are."""
        self._behind(doubt, dict.fromkeys([*doubt.among.nodes, *named]), "")

    def _behind(self, why: Reading, nodes: Iterable[str], more: str) -> None:
        chosen = tuple(nodes)
        shown = ", ".join(chosen[:6]) + (f" and {len(chosen) - 6} more" if len(chosen) > 6 else "")
        for node in chosen:
            message = f"{why.words}{more}: {shown}" if more else why.words
            ended = error(why.code, message[:600], _settled_by(self.context.rack.name, why, chosen))
            self.found.results.setdefault(node, ended)

    def _side_by_side(self, test: WideTest, communicators: Sequence[Communicator]) -> list[Reading]:
        """Each under a name of its own; they may run on the same nodes, where their GPUs and HCAs differ."""
        prefix = f"{self.context.rack.name}-{FILED}{self.number}-"
        names = [f"{prefix}{test.level}.{self.count + n}" for n in range(len(communicators))]
        self.count += len(communicators)
        with ThreadPoolExecutor(max(1, len(communicators))) as pool:
            readings = list(pool.map(lambda c, name: self._once(test, c, name, prefix), communicators, names))
        self.found.ran += readings
        return readings

    def _once(self, test: WideTest, communicator: Communicator, name: str, beside: str) -> Reading:
        try:
            order = replace(order_of(self.context.rack, test, communicator, name), beside=beside)
            collected = self.measure(self.context, order, fabric_of(test), self.site)
        except UnpinnedError as problem:
            words = f"{test.kind} among {communicator.name}: {problem.message}; {problem.hint}"
            undecided = code_of(test.level, "UNDECIDED")
            return Reading(test, communicator, undecided, words, lost=True, named=problem.nodes)
        except UndecidedError as problem:
            words = f"{test.kind} among {communicator.name}: {problem.message}"
            return Reading(test, communicator, code_of(test.level, "UNDECIDED"), words, lost=True)
        return reading(self.context, test, communicator, collected)

    def _say(self, text: str) -> None:
        for node in self.nodes:
            self.context.progress(Progress(node, Stage.BURNIN, text))


def _unsteady(first: Reading, again: Reading) -> str:
    return f"{first.words}; and once more: {again.words}: it comes and goes"


def _settled_by(rack: str, why: Reading, nodes: Sequence[str]) -> str:
    again = f"rackproof bringup {rack}"
    if why.lost or len(nodes) == len(why.among.nodes):
        return f"rackproof explain {why.code}, then: {again}"
    where = f" at {why.among.of}" if why.among.of else ""
    return f"compare the error counters and cables of {', '.join(nodes[:4])}{where} with the others', then: {again}"


def _count(wave: Sequence[Communicator]) -> str:
    return wave[0].name if len(wave) == 1 else f"{len(wave)} groups side by side"


def in_record(found: Found) -> dict[str, object]:
    """For the ledger: every test with what it said, and what they come to."""
    return {
        "tests": [
            {
                "level": one.test.level,
                "collective": one.test.kind,
                "of": one.among.name,
                "nodes": list(one.among.nodes),
                "code": one.code,
                "lost": one.lost,
                "gb_per_s": one.gb_per_s,
                "words": one.words[:300],
            }
            for one in found.ran
        ],
        "narrowed": [
            {"code": bad.code, "suspects": list(n.suspects), "cleared": list(n.cleared), "why": n.why}
            for bad, n in found.narrowed
        ],
        "absent": {str(level): why for level, why in found.absent.items()},
        "left_behind": sorted(found.results),
    }

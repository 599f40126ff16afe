"""rails: nodes that passed their own suite are measured against one another, rail by rail, until the bad part is named.

It follows the burn-in of the nodes, where the rack's profile says `rail_test`. All tests are of one GPU and one HCA a
node, so that a number is of one rail; a node takes part in one test at a time, so that its HCAs' counters are that
test's. What could not be launched or took another way is run once more and is never taken for a reading.

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
from toolkit.facts.nccl_run import Outcome as Ended
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.locate import Fabric, Measured, Outcome, Suspect, Test
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome as RunOutcome
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Rack, Unit
from toolkit.stages import collectives, mpi_command
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.collective_result import Collected, Remains, cause, result
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, error
from toolkit.stages.mpi_command import Order
from toolkit.stages.rail_search import (
    Found,
    Lost,
    Ran,
    bounds_of,
    code_of,
    doubtful,
    named,
    node_of,
    rails_of,
    search,
    shares,
)

COLLECTIVE = "all_reduce"
GIB = 1 << 30
SMALLEST_BYTES, LARGEST_BYTES = GIB, 4 * GIB
ITERATIONS = 20
# 7 GiB, out of place and in place, 21 times each at a tenth of an NDR rail's rate take 65 s; the rest is for launching.
TEST_SECONDS = 90.0
SEARCH_TIME = timedelta(minutes=30)
MOST_AT_ONCE = 16
FILED = "rails"
# One GPU and one HCA a node. No way may be left that is not the rail: not even where an NVLink domain spans nodes.
ALONE = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0"}
# A virtual node's HCAs tell in its hardware folder what an HCA of metal tells in sysfs.
VIRTUAL = Site(infiniband="/run/hardware/infiniband")

Measure = Callable[[Context, Order, Site], Collected]


def over_nics(context: Context, order: Order, site: Site) -> Collected:
    """The measurement on a rack."""
    return collectives.measure(context, order, site=site)


def after(burn_in: StageRunner, measure: Measure = over_nics) -> StageRunner:
    """The burn-in with the rails behind it, where the profile says so: nodes it passed wait for these."""

    def runner(context: Context, work: Work) -> None:
        if not context.rack.profile.rail_test:
            burn_in(context, work)
            return
        held: dict[str, Result] = {}

        def hold(do: Callable[[Unit], Result | None]) -> Callable[[Unit], Result | None]:
            def one(node: Unit) -> Result | None:
                ended = do(node)
                if ended is None or ended.outcome is not RunOutcome.PASSED:
                    return ended
                held[node.name] = ended
                return None

            return one

        burn_in(context, replace(work, each=lambda nodes, do: work.each(nodes, hold(do))))
        nodes = tuple(n for n in work.nodes if n.name in held)
        for name, ended in _concluded(context, work, nodes, held, measure).items():
            work.finish(name, ended)

    return runner


def _concluded(
    context: Context, work: Work, nodes: Sequence[Unit], held: Mapping[str, Result], measure: Measure
) -> Mapping[str, Result]:
    """Each node's result. What is not well by its own suite takes no part: certify has the word on it."""
    well = tuple(n for n in nodes if not _not_well(context, work, n))
    ended = {n.name: held[n.name] for n in nodes if n not in well}
    if len(well) < 2:
        again = f"rackproof bringup {context.rack.name}, when another node of the rack is free"
        alone = error("RAIL_UNDECIDED", "its rails need another node that is free and well, and there is none", again)
        return ended | {n.name: alone for n in well}
    found = Campaign(context, well, measure).run()
    origin = context.ledger.artifacts.put(json.dumps(in_record(found), indent=1).encode())
    for node in well:
        run = work.runs[node.name]
        context.ledger.record_measurements(run, measured(found, node, run.id, context.clock(), origin))
    return ended | results(context.rack, well, held, found)


def _not_well(context: Context, work: Work, node: Unit) -> bool:
    told = context.ledger.measurements(context.rack.name, node.name, run=work.runs[node.name].id)
    return judge_burnin(context, node, told, context.rack.profile.suite).answer is not Answer.PASS


def measured(found: Found, node: Unit, run: str, at: datetime, origin: str) -> tuple[Measurement, ...]:
    """Of each HCA, the best bandwidth of a test it took part in: with a slow partner it is the partner's."""
    best: dict[str, float] = {}
    for ran in (r for tests in found.ran for r in tests):
        if isinstance(ran, Measured) and ran.gb_per_s is not None:
            for seat in (s for s in found.fabric.seats(ran.test) if s.node == node.name):
                best[seat.hca] = max(best.get(seat.hca, 0.0), ran.gb_per_s)
    name = "rail_busbw_gb_per_s"
    return tuple(
        Measurement(name, METRICS[name].unit, value, Subject(Scope.HCA, node.name, hca=hca), at, run, origin)
        for hca, value in sorted(best.items())
    )


def results(rack: Rack, nodes: Iterable[Unit], held: Mapping[str, Result], found: Found) -> dict[str, Result]:
    """A node with a convicted part leaves with it; one in doubt is an ERROR with what would settle it."""
    doubts = doubtful(found)
    blamed: dict[str, list[Suspect]] = {}
    for suspect in found.localisation.convicted:
        blamed.setdefault(node_of(found.fabric, suspect.segment), []).append(suspect)
    ended = {}
    for node in nodes:
        if node.name in blamed:
            ended[node.name] = _convicted(node, blamed[node.name])
        elif node.name in doubts or found.unsure:
            why = "; ".join(w for w in (found.unsure, doubts.get(node.name, "")) if w)
            words = f"rails of {node.name} after {len(found.ran)} rounds: {why}"
            ended[node.name] = error("RAIL_UNDECIDED", words[:500], f"rackproof bringup {rack.name}")
        else:
            ended[node.name] = held[node.name]
    return ended


def _convicted(node: Unit, suspects: Sequence[Suspect]) -> Result:
    first = suspects[0]
    parts = ", ".join(named(s) for s in suspects)
    why = "; ".join(first.why[:2])
    words = f"{first.segment.name}: {first.shows} ({first.probability:.1%}): {why}. In question: {shares(first)}"
    deed = f"service {parts} ({first.settled_by}), then: rackproof release {node.name}"
    return Result(RunOutcome.FAILED, code_of(first), words[:600], parts, deed)


@dataclass(slots=True)
class Campaign:
    """One search over the rails between nodes, on record. `number` is of its entry in the ledger: no other has it."""

    context: Context
    nodes: Sequence[Unit]
    measure: Measure
    site: Site = field(init=False)
    fabric: Fabric = field(init=False)
    number: int = field(init=False)
    until: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.site = VIRTUAL if self.context.rack.profile.virtual else Site()
        self.fabric = rails_of(self.context.rack, self.nodes)
        self.until = self.context.clock() + SEARCH_TIME

    def run(self) -> Found:
        """Ends what an earlier one left, measures, and puts the answer on record."""
        rack, ledger = self.context.rack, self.context.ledger
        end_leftovers(self.context, self.site)
        told = {"nodes": [n.name for n in self.nodes], "rails": len(self.fabric.blocks)}
        self.number = ledger.intent(rack.name, "", FILED, told).id
        found = search(self.fabric, bounds_of(rack), self._round, lambda: self.context.clock() > self.until)
        ledger.observed(rack.name, "", FILED, {"intent": self.number, **in_record(found)})
        return found

    def _round(self, number: int, tests: Sequence[Test]) -> list[Ran]:
        told: dict[Test, Ran] = {}
        prefix = f"{self.context.rack.name}-rails{self.number}-{number}"
        for wave in waves(self.fabric, tests):
            self._say(f"rails, round {number}: {len(told)} of {len(tests)} tests")
            with ThreadPoolExecutor(min(MOST_AT_ONCE, len(wave))) as pool:
                names = [f"{prefix}.{len(told) + n}" for n in range(len(wave))]
                told |= dict(zip(wave, pool.map(self._once_more, wave, names), strict=True))
        return [told[test] for test in tests]

    def _once_more(self, test: Test, name: str) -> Ran:
        """A test that told nothing is run again, once, under another name."""
        ran = self._test(test, name)
        return self._test(test, f"{name}.again") if isinstance(ran, Lost) else ran

    def _test(self, test: Test, name: str) -> Ran:
        order = order_of(self.context.rack, self.fabric, test, name)
        try:
            return reading(test, self.measure(self.context, order, self.site))
        except UndecidedError as problem:
            return Lost(test, problem.message)

    def _say(self, text: str) -> None:
        for node in self.nodes:
            self.context.progress(Progress(node.name, Stage.BURNIN, text))


def order_of(rack: Rack, fabric: Fabric, test: Test, identity: str) -> Order:
    """The test as a collective: a rank on each node, on the GPU and over the HCA of that rail alone."""
    seats = fabric.seats(test)
    hcas, gpus = {s.hca for s in seats}, {s.index for s in seats}
    if len(hcas) != 1 or len(gpus) != 1 or "" in hcas:
        raise UndecidedError(
            f"{fabric.describe(test)}: its HCAs are {', '.join(sorted(hcas))}, and mpirun gives all ranks the same",
            "name the HCAs of a rail alike on all nodes (udev), and so in the rack file",
        )
    environment = ALONE | {"NCCL_IB_HCA": f"={hcas.pop()}", "CUDA_VISIBLE_DEVICES": str(gpus.pop())}
    nodes = tuple(rack.unit(s.node) for s in seats)
    return Order(identity, COLLECTIVE, nodes, 1, TEST_SECONDS, SMALLEST_BYTES, LARGEST_BYTES, ITERATIONS, environment)


def reading(test: Test, collected: Collected) -> Ran:
    """What a collective says of its rail. A hang counts once all ranks were there: before, it was the launcher's."""
    ended = result(collected)
    there = collected.run.ranks == collected.order.ranks
    settled = not collected.problem and not any(r.problem or r.alive for r in collected.remains)
    if collected.how == "deadline" and there and settled:
        return Measured(test, Outcome.HANG)
    if ended.outcome is not RunOutcome.PASSED:
        return Lost(test, f"{collected.order.identity}: {ended.message}")
    if collected.outcome is Ended.DATA_ERROR:
        return Measured(test, Outcome.DATA_ERROR)
    if collected.run.busbw is None:
        return Lost(test, f"{collected.order.identity} gave no bandwidth: {cause(collected)}")
    return Measured(test, Outcome.COMPLETED, collected.run.busbw[0])


def waves(fabric: Fabric, tests: Sequence[Test]) -> list[list[Test]]:
    """The tests one wave after another, no node in two tests of a wave."""
    found: list[tuple[set[int], list[Test]]] = []
    for test in tests:
        nodes = {fabric.node[e] for e in test.members}
        free = next((w for w in found if not w[0] & nodes), None)
        if free is None:
            found.append(free := (set(), []))
        free[0].update(nodes)
        free[1].append(test)
    return [wave for _, wave in found]


def end_leftovers(context: Context, site: Site) -> tuple[Remains, ...]:
    """Ends on the nodes what was started, and whose end is not on record. UndecidedError where something remains."""
    rack, ledger = context.rack, context.ledger
    begun = ledger.find(rack.name, "", EventKind.INTENT, FILED)
    if begun is None:
        return ()
    prefix = f"collective {rack.name}-rails{begun.id}-"
    events = ledger.events(rack.name, after=begun.id, limit=100_000)
    said = [e for e in events if e.kind in (EventKind.INTENT, EventKind.OBSERVED)]
    over = {e.body.get("what") for e in said if e.kind is EventKind.OBSERVED}  # a fact that was read has none
    left = [e for e in said if str(e.body.get("what")).startswith(prefix) and e.body.get("what") not in over]
    remains: list[Remains] = []
    for event in left:
        details = event.body["details"]
        names = details["nodes"] if isinstance(details, dict) else []
        identity = str(event.body["what"]).removeprefix("collective ")
        order = Order(identity, COLLECTIVE, tuple(rack.unit(str(n)) for n in names), 1, TEST_SECONDS)
        remains += collectives.end(context, mpi_command.checked(order), site)
        ledger.observed(rack.name, order.nodes[0].name, f"collective {identity}", {"how": "ended by the next one"})
    stuck = [f"{r.node}: {', '.join(r.alive) or r.problem}" for r in remains if r.alive or r.problem]
    if stuck:
        raise UndecidedError(f"an earlier test of the rails may still run: {'; '.join(stuck)[:300]}", "reboot the node")
    return tuple(remains)


def in_record(found: Found) -> dict[str, object]:
    """For the ledger: every test with its reading, and what they come to."""

    def test(ran: Ran) -> dict[str, object]:
        seats = [f"{s.node}:{s.hca}" for s in found.fabric.seats(ran.test)]
        if isinstance(ran, Lost):
            return {"over": seats, "lost": ran.why[:300]}
        return {"over": seats, "outcome": ran.outcome, "gb_per_s": ran.gb_per_s}

    return {
        "rounds": [[test(r) for r in ran] for ran in found.ran],
        "unsure": found.unsure,
        "suspects": [
            {
                "segment": s.segment.name,
                "convicted": s.convicted,
                "probability": round(s.probability, 4),
                "shows": s.shows,
                "parts": {str(part): round(share, 4) for part, share in s.parts},
                "why": list(s.why),
                "settled_by": s.settled_by,
            }
            for s in found.localisation.suspects
        ],
    }

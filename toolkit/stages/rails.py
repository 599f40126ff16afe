"""rails: nodes that passed their own suite are measured against one another, rail by rail, until the bad part is named.

It follows the burn-in of the nodes, where the rack's profile says `rail_test`. All tests are of one GPU and one HCA a
node, so that a number is of one rail; a round's tests share no HCA and no GPU and run side by side. Nodes too few to be
told apart take partners that passed before. What could not be launched is run once more and is never taken for a
reading; what took another way is the configuration's, and no part is judged by it.

A test's name is on record before it is started and is never used again. A controller that was killed leaves tests on
the nodes: the next one ends what is left of them and measures anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from toolkit.errors import UndecidedError, UsageError
from toolkit.facts.nccl_counters import OF_THE_LINK, PASSED_ON
from toolkit.facts.nccl_path import Answer as Proven
from toolkit.facts.nccl_run import Outcome as Ended
from toolkit.judge.evidence import Measurement
from toolkit.judge.locate import Counter, Fabric, Measured, Outcome, Seat, Test
from toolkit.judge.verdict import Answer
from toolkit.rack.burnin_plan import rail_readings
from toolkit.rack.lifecycle import Outcome as RunOutcome
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Rack, Unit
from toolkit.stages import collectives
from toolkit.stages.burnin_collectives import judge_burnin
from toolkit.stages.collective_result import Collected, cause, result
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Progress, Result, StageRunner, Work, holding
from toolkit.stages.leftovers import end_leftovers
from toolkit.stages.level_tests import missing
from toolkit.stages.mpi_command import Order, UnpinnedError
from toolkit.stages.peer_records import comparisons
from toolkit.stages.rail_partners import Partners, alone, conclude, measured_last, partners
from toolkit.stages.rail_results import in_record, judged, measured, results
from toolkit.stages.rail_search import Found, Lost, Ran, bounds_of, leaves_of, own_suites, rails_of, search

COLLECTIVE = "all_reduce"
GIB = 1 << 30
SMALLEST_BYTES, LARGEST_BYTES = GIB, 4 * GIB
ITERATIONS = 20
# 7 GiB, out of place and in place, 21 times each at a tenth of an NDR rail's rate take 65 s; the rest is for launching.
TEST_SECONDS = 90.0
LEAST_SECONDS = 20.0  # a test with less time than this is not begun: launching alone may take as long
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
        waiting, held = holding(work)
        burn_in(context, waiting)
        nodes = tuple(n for n in work.nodes if n.name in held)
        for name, ended in _concluded(context, work, nodes, held, measure).items():
            work.finish(name, ended)

    return runner


def end_earlier(context: Context) -> None:
    """Ends what an earlier search left on nodes. UndecidedError where something may still run."""
    end_leftovers(context, FILED, VIRTUAL if context.rack.profile.virtual else Site())


def _concluded(
    context: Context, work: Work, nodes: Sequence[Unit], held: Mapping[str, Result], measure: Measure
) -> Mapping[str, Result]:
    """Each node's result. Of what is not well by its own suite certify has the word, whatever its rails are."""
    well = tuple(n for n in nodes if not _not_well(context, work, n))
    if not well:
        return held
    asked = _beside(context, well, tuple(n for n in nodes if n not in well))
    if len(well) + len(asked.nodes) < 2:
        return dict(held) | {n.name: alone(context, n.name, asked.left_out) for n in well}
    told = {n.name: _measured(context, work, n) for n in well}
    told |= {n.name: measured_last(context, n) for n in asked.nodes if n.name not in held}
    found = Campaign(context, (*well, *asked.nodes), measure, asked.left_out, told).run()
    origin = context.ledger.artifacts.put(json.dumps(in_record(found), indent=1).encode())
    said = results(context.rack, (*well, *asked.nodes), found)
    for name in sorted(said):
        context.ledger.append(judged(context.rack.name, name, said[name], found, origin))
    for node in (n for n in asked.nodes if n.name not in held):
        conclude(
            context, node, said.get(node.name),
            lambda run, name=node.name: measured(found, name, run, context.clock(), origin),  # type: ignore[misc]
        )  # fmt: skip
    for node in well:
        run = work.runs[node.name]
        context.ledger.record_measurements(run, measured(found, node.name, run.id, context.clock(), origin))
    return dict(held) | {n.name: said[n.name] for n in well if n.name in said}


def _beside(context: Context, well: Sequence[Unit], others: Sequence[Unit]) -> Partners:
    """Partners that passed before; where there is nobody else, nodes that their own suite found something wrong with:
    a rail that runs at its rate is well at both ends, whatever else ails the node at the other.
    """
    asked = partners(context, well)
    if len(well) + len(asked.nodes) > 1:
        return asked
    rails = leaves_of(context.rack, {n.name for n in well})
    last = [n for n in others if leaves_of(context.rack, {n.name}) & rails]
    return replace(asked, nodes=(*asked.nodes, *last))


def _not_well(context: Context, work: Work, node: Unit) -> bool:
    told = _measured(context, work, node)
    stood = comparisons(context, node, work.runs[node.name]) or None
    return judge_burnin(context, node, told, context.rack.profile.suite, compared=stood).answer is not Answer.PASS


def _measured(context: Context, work: Work, node: Unit) -> Sequence[Measurement]:
    return context.ledger.measurements(context.rack.name, node.name, run=work.runs[node.name].id)


@dataclass(slots=True)
class Campaign:
    """One search over the rails between nodes, on record.

    left_out  nodes that might have taken part, and why they do not
    told      what the own suites of nodes that are well measured, by node
    number    of its entry in the ledger: no other has it
    """

    context: Context
    nodes: Sequence[Unit]
    measure: Measure
    left_out: Sequence[tuple[str, str]] = ()
    told: Mapping[str, Sequence[Measurement]] = field(default_factory=dict)
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
        end_leftovers(self.context, FILED, self.site)
        told = {
            "nodes": [n.name for n in self.nodes], "rails": len(self.fabric.blocks), "left_out": dict(self.left_out),
        }  # fmt: skip
        self.number = ledger.intent(rack.name, "", FILED, told).id
        known = own_suites(self.fabric, self.told)
        out_of_time, soak = lambda: self._seconds() < LEAST_SECONDS, rail_readings(rack.profile.suite)
        found = search(self.fabric, bounds_of(rack), self._round, out_of_time, known, soak)
        ledger.observed(rack.name, "", FILED, {"intent": self.number, **in_record(found)})
        return found

    def _seconds(self) -> float:
        """Left to the search."""
        return (self.until - self.context.clock()).total_seconds()

    def _round(self, number: int, tests: Sequence[Test]) -> list[Ran]:
        """All tests of a round, which share no HCA: as many at once as a controller can follow."""
        told: dict[Test, Ran] = {}
        for wave in waves(self.context.rack, self.fabric, tests):
            self._say(f"rails, round {number}: {len(told)} of {len(tests)} tests")
            names = [f"{self._prefix}{number}.{len(told) + n}" for n in range(len(wave))]
            with ThreadPoolExecutor(min(MOST_AT_ONCE, len(wave))) as pool:
                told |= dict(zip(wave, pool.map(self._once_more, wave, names), strict=True))
        return [told[test] for test in tests]

    @property
    def _prefix(self) -> str:
        """What the names of all its tests begin with: they may be on a node side by side, and no other's may."""
        return f"{self.context.rack.name}-{FILED}{self.number}-"

    def _once_more(self, test: Test, name: str) -> Ran:
        """A test that told nothing is run again, once, under another name."""
        ran = self._test(test, name)
        return self._test(test, f"{name}.again") if isinstance(ran, Lost) and self._seconds() > LEAST_SECONDS else ran

    def _test(self, test: Test, name: str) -> Ran:
        seconds = self._seconds()
        if seconds < LEAST_SECONDS:
            return Lost(test, f"{name} was not begun: the search's time was up")
        try:
            order = order_of(self.context.rack, self.fabric, test, name)
            order = replace(order, deadline_s=min(order.deadline_s, seconds), beside=self._prefix)
            return reading(self.context, self.fabric, test, self.measure(self.context, order, self.site))
        except UnpinnedError as problem:
            return Measured(test, Outcome.OFF_PATH, words=f"{problem.message}; {problem.hint}", absent=problem.nodes)
        except (UndecidedError, UsageError) as problem:
            return Lost(test, problem.message)

    def _say(self, text: str) -> None:
        for node in self.nodes:
            self.context.progress(Progress(node.name, Stage.BURNIN, text))


def waves(rack: Rack, fabric: Fabric, tests: Sequence[Test]) -> list[list[Test]]:
    """The tests one wave after another, no GPU in two of a wave: one, unless nodes have more HCAs than GPUs."""
    found: list[tuple[set[tuple[str, int]], list[Test]]] = []
    for test in tests:
        gpus = {(seat.node, gpu_of(rack, seat)) for seat in fabric.seats(test)}
        free = next((w for w in found if not w[0] & gpus), None)
        if free is None:
            found.append(free := (set(), []))
        free[0].update(gpus)
        free[1].append(test)
    return [wave for _, wave in found]


def gpu_of(rack: Rack, seat: Seat) -> int:
    """The GPU next to the seat's HCA: by order, several HCAs to a GPU where there are more (two ports a ConnectX-8)."""
    gpus, hcas = rack.profile.gpus_per_node, rack.profile.hcas_per_node
    return seat.index * gpus // hcas if hcas > gpus else seat.index


def order_of(rack: Rack, fabric: Fabric, test: Test, identity: str) -> Order:
    """The test as a collective: a rank on each node, on the GPU and over the HCA of that rail alone."""
    seats = fabric.seats(test)
    hcas, gpus = {s.hca for s in seats}, {gpu_of(rack, s) for s in seats}
    if len(hcas) != 1 or len(gpus) != 1 or "" in hcas:
        raise UndecidedError(
            f"{fabric.describe(test)}: its HCAs are {', '.join(sorted(hcas))}, and mpirun gives all ranks the same",
            "name the HCAs of a rail alike on all nodes (udev), and so in the rack file",
        )
    environment = ALONE | {"NCCL_IB_HCA": f"={hcas.pop()}", "CUDA_VISIBLE_DEVICES": str(gpus.pop())}
    nodes = tuple(rack.unit(s.node) for s in seats)
    return Order(identity, COLLECTIVE, nodes, 1, TEST_SECONDS, SMALLEST_BYTES, LARGEST_BYTES, ITERATIONS, environment)


def reading(context: Context, fabric: Fabric, test: Test, collected: Collected) -> Ran:
    """What a collective says of its rail. A hang counts once all ranks came to NCCL, by its own log of each node:
    before, it was the launcher's or the node's; and not where the search's own end cut the test's time short.
    """
    ended = result(collected)
    counted = counters(fabric, test, collected)
    settled = not collected.problem and not any(r.problem or r.alive for r in collected.remains)
    if settled and _arrives_nowhere(collected):
        return _hang(context, test, collected, counted)
    if collected.proof.answer is not Proven.PROVEN and ended.code in ("WRONG_FABRIC", "FABRIC_UNPROVEN"):
        return Measured(test, Outcome.OFF_PATH, words=collected.proof.text)
    if ended.outcome is not RunOutcome.PASSED:
        return Lost(test, f"{collected.order.identity}: {ended.message}")
    if collected.outcome is Ended.DATA_ERROR:
        return Measured(test, Outcome.DATA_ERROR, counters=counted)
    if collected.run.busbw is None:
        return Lost(test, f"{collected.order.identity} gave no bandwidth: {cause(collected)}")
    return Measured(test, Outcome.COMPLETED, collected.run.busbw[0], counted)


def _hang(context: Context, test: Test, collected: Collected, counted: tuple[Counter, ...]) -> Ran:
    """The rail's where every node's ranks came; no test of it where some did not. Without any log nobody can tell."""
    late = missing(context, collected)
    if not late:
        return Measured(test, Outcome.HANG, counters=counted)
    if len(late) == len(collected.order.nodes):
        return Lost(test, f"{collected.order.identity}: no log of NCCL says that ranks came; {cause(collected)}")
    words = f"ranks of {', '.join(late)} never came to NCCL's bootstrap: {cause(collected)}"
    return Measured(test, Outcome.OFF_PATH, words=words, absent=tuple(late))


def _arrives_nowhere(collected: Collected) -> bool:
    """Whether nothing got through: to the deadline, or until an HCA had sent it as often as it may.

    A rank that died answers no more either: then it is not the rail's doing.
    """
    there = collected.run.ranks == collected.order.ranks
    whole = collected.order.deadline_s >= TEST_SECONDS
    died = "exited on signal" in collected.output or any(f.kind != "NCCL" for f in collected.run.failures)
    return there and ((collected.how == "deadline" and whole) or (collected.retries_spent and not died))


def counters(fabric: Fabric, test: Test, collected: Collected) -> tuple[Counter, ...]:
    """Errors that the HCAs of the test counted. Not all of its way is read: a leaf's ports count what HCAs send.

    What a port received wrong is the cable's doing, the leaf port's or its own: it is put down to all of them alike.
    What another port had marked bad already convicts nobody. A counter that could not be read twice counts neither way:
    what stands on the others convicts, and that nothing does acquits nobody (`counters_read` is never set).
    """
    told = {(c.node, hca): errors for c in collected.carried for hca, errors in c.errors.items()}
    found: list[Counter] = []
    for endpoint, seat in zip(test.members, fabric.seats(test), strict=True):
        errors = told.get((seat.node, seat.hca), {})
        own, passed_on = sum(errors[name] for name in OF_THE_LINK if name in errors), errors.get(PASSED_ON)
        parts = fabric.segments[fabric.attachment[endpoint]].parts
        found += [Counter(part, own) for part in parts if own]
        found += [Counter(parts[0], passed_on, originator=False)] if passed_on else []
    return tuple(found)

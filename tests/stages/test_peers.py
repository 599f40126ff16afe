"""Comparing a batch and measuring suspects again: what is read, what is on record, what a second controller repeats."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from rehearsal import context_over, in_process, now, open_ledger

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.judge.compared import Standing
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Change, EventKind
from toolkit.rack.again import Again
from toolkit.rack.gate import Operator, Scope, WithoutPeers
from toolkit.rack.lifecycle import Move, NodeState, Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Suite
from toolkit.report.why import drifting
from toolkit.stages.peer_records import comparisons
from toolkit.stages.peers import Batch
from toolkit.virtual.in_process_burnin import Noise

HBM, PCIE, NCCL = "hbm_sweep_gb_per_s_median", "h2d_gb_per_s", "nccl_busbw_gb_per_s"
HEALTHY = {HBM: 2900.0, PCIE: 54.8, NCCL: 478.0}
SUITES = {Again.HBM: HBM, Again.PCIE: PCIE, Again.ALL_REDUCE: NCCL}


class Cut(BaseException):
    """The controller is gone."""


@dataclass
class Machines:
    """Nodes that measure what `levels` say of them; `reads` counts each node's runs by suite."""

    rack: object
    levels: dict
    noise: Noise = field(default_factory=lambda: Noise(0.002, 7))
    dead: set = field(default_factory=set)
    dies_after: int | None = None
    reads: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def value(self, metric, subject, run):
        """One reading."""
        level = self.levels.get((metric, subject), 1.0)
        return HEALTHY[metric] * level * self.noise.factor(run, str(subject), metric)

    def of_node(self, node, metric, run, origin):
        """All subjects of the metric on a node."""
        gpus = range(8) if METRICS[metric].scope is Scope.GPU else (None,)
        subjects = [Subject(Scope.NODE, node) if g is None else Subject(Scope.GPU, node, gpu=g) for g in gpus]
        unit = METRICS[metric].unit
        return [Measurement(metric, unit, self.value(metric, s, origin), s, now(), run, origin) for s in subjects]

    def read(self, context, node, order, identity, run):
        """A suite of one workload."""
        with self.lock:
            if self.dies_after is not None and len(self.reads) >= self.dies_after:
                raise Cut
            self.reads.append((order.suite, node.name, identity))
        if node.name in self.dead:
            raise UnreachableError(f"{node.name}: no route to host", "is it powered on?")
        return self.of_node(node.name, SUITES[order.suite], run.id, identity)


def relative(profile, **limits):
    """The profile with gates relative to peers on these metrics alone, and one that always passes."""
    free = next(g for g in profile.gates if g.code == "GPU_LOST")
    of = {"hbm": HBM, "pcie": PCIE, "nccl": NCCL}
    gates = [
        replace(
            free, code=f"{name.upper()}_BELOW_PEERS", metric=of[name], unit=METRICS[of[name]].unit.value,
            scope=METRICS[of[name]].scope, operator=Operator.PEERS, limit=limit,
            part="tray" if name == "nccl" else "gpu", without_peers=WithoutPeers.NOT_ASKED,
        )
        for name, limit in limits.items()
    ]  # fmt: skip
    return replace(profile, gates=(free, *gates))


@pytest.fixture
def bench(tmp_path):
    """A ledger and six nodes after a burn-in; `compare(machines)` compares them as the stage does."""
    lab = in_process(tmp_path, "demo")
    rack = replace(lab.rack, profile=relative(lab.rack.profile, hbm=0.04, pcie=0.15, nccl=0.05))
    with open_ledger(lab.settings) as ledger:
        context = replace(context_over(lab, ledger), rack=rack)
        yield Bench(context)


@dataclass
class Bench:
    """Six nodes whose burn-ins are on record under `origin`."""

    context: object

    def compare(self, machines, nodes=None, origin="first", suite=Suite.STANDARD, lost=()):
        """One comparison of a batch; answers it and the standings by metric and subject."""
        ledger, rack = self.context.ledger, self.context.rack
        batch = [n for n in rack.nodes if nodes is None or n.name in nodes]
        runs = {n.name: ledger.start_run(rack.name, n.name, Stage.BURNIN) for n in batch}
        told = {}
        for n in batch:
            seats = {str(g): [f"S{n.name}-{g}", ""] for g in range(8)}
            details = {"id": origin, "artifacts": {}, "complete": True, "gpus": seats}
            ledger.observed(rack.name, n.name, "burnin", details)
            run, of = runs[n.name].id, f"{origin} {n.name}"
            measured = [m for metric in HEALTHY for m in machines.of_node(n.name, metric, run, of)]
            gone = Measurement("gpus_lost", "count", int(n.name in lost), Subject(Scope.NODE, n.name), now(), run, of)
            path = Measurement("nccl_path", "word", "proven", Subject(Scope.NODE, n.name), now(), run, of)
            told[n.name] = [*measured, gone, path]
            ledger.record_measurements(runs[n.name], told[n.name])
        found = Batch(self.context, batch, runs, told, suite, machines.read, history=True).compare({})
        for n in batch:
            assert comparisons(self.context, n, runs[n.name]) == found[n.name]
        return {(c.metric, c.subject): c for compared in found.values() for c in compared}

    def machines(self, levels=None, **more):
        """The nodes."""
        return Machines(self.context.rack, levels or {}, **more)


GPU = Subject(Scope.GPU, "node3", gpu=2)


def worse(found):
    """Who was found worse, and by what."""
    return {key for key, c in found.items() if c.standing is Standing.WORSE}


def test_a_slow_part_is_read_again_beside_its_siblings_and_found_worse(bench):
    """Only the workload that yields the metric is run; every round and its readings are on record."""
    machines = bench.machines({(HBM, GPU): 0.9})
    found = bench.compare(machines)
    assert worse(found) == {(HBM, GPU)}
    assert {suite for suite, _, _ in machines.reads} == {Again.HBM}
    assert Counter(c.standing for c in found.values()) == {Standing.WORSE: 1, Standing.ALIKE: 6 * 17 - 1}
    told = found[HBM, GPU]
    assert told.shift == pytest.approx(-0.1, abs=0.01)
    assert "fresh readings beside" in told.why
    events = bench.context.ledger.events("demo", "", EventKind.OBSERVED, limit=1000)
    rounds = [e.body["details"] for e in events if e.what.startswith("peers ")]
    assert len(rounds) >= 2
    assert all(r["readings"] and r["shifts"][0]["shift"] < -0.08 for r in rounds)
    (end,) = [e.body["details"] for e in events if e.what == "peers"]
    assert [s["decision"] for s in end["settled"]] == ["worse"]


def test_identities_are_on_record_before_a_round_is_started_and_never_used_twice(bench):
    """A node's run can be found again by its name alone."""
    machines = bench.machines({(HBM, GPU): 0.9, (PCIE, GPU): 0.7})
    bench.compare(machines)
    intents = bench.context.ledger.events("demo", "", EventKind.INTENT, limit=1000)
    planned = [i for e in intents if e.what != "peers" for i in e.body["details"]["nodes"].values()]
    used = [identity for _, _, identity in machines.reads]
    assert sorted(planned) == sorted(used)
    assert len(set(used)) == len(used)


def test_what_is_worse_is_not_measured_any_further(bench):
    """The GPU is condemned by its memory; neither its copies nor its node's collectives are read again."""
    node = Subject(Scope.NODE, "node3")
    machines = bench.machines({(HBM, GPU): 0.9, (PCIE, GPU): 0.7, (NCCL, node): 0.9})
    found = bench.compare(machines)
    assert worse(found) == {(HBM, GPU)}
    assert {suite for suite, _, _ in machines.reads} == {Again.HBM}
    assert found[PCIE, GPU].standing is Standing.UNSETTLED
    assert f"{HBM} of node3/gpu2 is worse" in found[NCCL, node].why


def test_a_suspect_that_was_unlucky_once_is_cleared_and_recorded_so(bench):
    """Its first reading was low, its fresh ones are not."""
    machines = bench.machines({(HBM, GPU): 0.94})
    unlucky = machines.of_node

    def only_at_first(node, metric, run, origin):
        machines.levels = {(HBM, GPU): 0.94} if origin.startswith("first") else {}
        return unlucky(node, metric, run, origin)

    machines.of_node = only_at_first
    found = bench.compare(machines)
    assert found[HBM, GPU].standing is Standing.CLEARED
    assert "clears" in found[HBM, GPU].why
    assert worse(found) == set()


def test_nodes_that_give_no_reading_leave_a_suspect_unsettled(bench):
    """Three rounds without its reading; nobody is passed or blamed for it."""
    machines = bench.machines({(HBM, GPU): 0.9}, dead={"node3"})
    found = bench.compare(machines)
    assert found[HBM, GPU].standing is Standing.UNSETTLED
    assert "no route to host" in found[HBM, GPU].why
    assert sum(name == "node3" for _, name, _ in machines.reads) == 3


def test_a_control_that_dies_is_replaced_by_others(bench):
    """The test goes on without its node."""
    machines = bench.machines({(HBM, GPU): 0.9}, dead={"node1"})
    assert worse(bench.compare(machines)) == {(HBM, GPU)}
    assert sum(name == "node1" for _, name, _ in machines.reads) == 1


def test_a_node_on_which_a_part_has_failed_already_is_not_loaded_again(bench):
    """Neither as a suspect nor as a control."""
    machines = bench.machines({(HBM, GPU): 0.9})
    found = bench.compare(machines, lost=("node3",))
    assert machines.reads == []
    assert found[HBM, GPU].standing is Standing.UNSETTLED
    machines = bench.machines({(HBM, GPU): 0.9})
    bench.compare(machines, origin="second", lost=("node5",))
    assert "node5" not in {name for _, name, _ in machines.reads}


def test_a_lone_node_compares_its_own_gpus_and_says_that_it_has_no_sibling(bench):
    """Eight GPUs are enough; one node is not."""
    found = bench.compare(bench.machines(), nodes=("node3",))
    assert found[NCCL, Subject(Scope.NODE, "node3")].standing is Standing.TOO_FEW
    assert found[HBM, GPU].standing is Standing.ALIKE
    slow = bench.compare(bench.machines({(HBM, GPU): 0.8}), nodes=("node3",), origin="second")
    assert worse(slow) == {(HBM, GPU)}


def test_nobody_is_measured_again_where_nobody_stands_apart(bench):
    """No round, and no entry of one in the ledger."""
    machines = bench.machines()
    assert {c.standing for c in bench.compare(machines).values()} == {Standing.ALIKE}
    assert machines.reads == []
    assert bench.context.ledger.find("demo", "", EventKind.INTENT, "peers") is None


def test_an_error_of_the_ledger_ends_the_comparison(bench):
    """Without the ledger nothing may go on: it is not a node's lost reading."""
    from toolkit.ledger import LedgerError

    def refuse(*_):
        raise LedgerError("no room")

    machines = bench.machines({(HBM, GPU): 0.9})
    machines.read = refuse
    with pytest.raises(LedgerError):
        bench.compare(machines)


@pytest.mark.parametrize("dies_after", range(0, 22, 3))
def test_a_controller_that_was_cut_off_goes_on_where_it_was(bench, dies_after):
    """Wherever it was: the same end, the same rounds, and nothing read again but the round it was in."""
    levels = {(HBM, GPU): 0.9, (PCIE, Subject(Scope.GPU, "node5", gpu=1)): 0.8}
    undisturbed = bench.machines(levels)
    expected = worse(bench.compare(undisturbed, origin="other"))
    first = bench.machines(levels, dies_after=dies_after)
    with pytest.raises(Cut):
        bench.compare(first)
    second = bench.machines(levels)
    assert worse(bench.compare(second)) == expected
    both = [*first.reads, *second.reads]
    again = [one for one, times in Counter(both).items() if times > 1]
    assert len({identity.rsplit("-", 1)[1] for _, _, identity in again}) <= 1, "one round at most is met again"
    assert len(set(both)) == len(undisturbed.reads)


def test_decided_suspects_are_not_read_again_by_a_later_comparison_of_the_same_burn_in(bench):
    """The campaign ended, and the controller was killed before it could say so of the nodes."""
    machines = bench.machines({(HBM, GPU): 0.9})
    first = bench.compare(machines)
    count = len(machines.reads)
    second = bench.compare(machines)
    assert len(machines.reads) == count
    assert second[HBM, GPU].why == first[HBM, GPU].why
    bench.compare(machines, origin="a new burn-in")
    assert len(machines.reads) > count


def test_a_board_that_gets_worse_is_told_by_its_serial_and_read_again(bench):
    """Half a percent each time, never far enough to stand apart: a warning, and fresh readings that clear it."""
    ledger, seen = bench.context.ledger, []
    for n in range(12):
        machines = bench.machines({(HBM, GPU): 1 - 0.0015 * n}, noise=Noise(0.002, 100 + n))
        found = bench.compare(machines, origin=f"burn-in {n}")
        seen.append(bool(found[HBM, GPU].drift))
        assert found[HBM, GPU].standing in (Standing.ALIKE, Standing.CLEARED)
    assert not any(seen[:3])
    assert seen[-1]
    assert {c.drift for key, c in found.items() if key != (HBM, GPU)} == {""}
    (line,) = drifting(ledger.find("demo", "node3", EventKind.OBSERVED, "trend"))
    assert line.startswith(f"{HBM} of node3/gpu2 (Snode3-2): ")
    assert "alarmed at certification" in line


def test_a_suite_that_differs_has_a_history_of_its_own(bench):
    """A quick burn-in's rates are not those of a long one."""
    for n in range(6):
        bench.compare(bench.machines({(HBM, GPU): 1 - 0.01 * n}), origin=f"{n}", suite=(Suite.QUICK, Suite.LONG)[n % 2])
    events = bench.context.ledger.events("demo", "node3", EventKind.OBSERVED, what="trend")
    (point,) = [p for p in events[-1].body["details"]["points"] if (p["metric"], p["subject"]) == (HBM, str(GPU))]
    assert point["trend"] == "undecided", "three of the one suite, and three of the other"


def test_an_undecided_error_is_the_only_thing_that_costs_a_reading(bench):
    """A node that is busy gave no reading; a defect of ours is not one."""
    machines = bench.machines({(HBM, GPU): 0.9})

    def broken(*_):
        raise ZeroDivisionError

    machines.read = broken
    with pytest.raises(ZeroDivisionError):
        bench.compare(machines)
    assert issubclass(UnreachableError, UndecidedError)


def test_a_board_that_stayed_through_the_repair_begins_anew_and_one_that_was_moved_does_not(bench):
    """What it was before is no evidence of what it is now; a board that another node got takes its history along."""
    ledger = bench.context.ledger

    def again_after_repair_of(node):
        for before, move in ((NodeState.PLANNED, Move.QUARANTINE), (NodeState.QUARANTINED, Move.REPAIR)):
            ledger.move("demo", node, Change(before, move), "cleaned")
        bench.compare(bench.machines({(HBM, GPU): 0.98}, noise=Noise(0.002, 200)), origin=f"after {node}")
        told = ledger.events("demo", "node3", EventKind.OBSERVED, what="trend")[-1].body["details"]["points"]
        return next(p["trend"] for p in told if (p["metric"], p["subject"]) == (HBM, str(GPU)))

    for n in range(9):
        machines = bench.machines({(HBM, GPU): 1 - 0.002 * n}, noise=Noise(0.002, 100 + n))
        bench.compare(machines, origin=f"burn-in {n}")
    assert again_after_repair_of("node1") == "drifting"
    assert again_after_repair_of("node3") == "undecided"

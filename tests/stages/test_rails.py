"""The search for a slow rail behind the nodes' own burn-in: the real search and ledger, a stand-in for mpirun alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError
from toolkit.facts import nccl_tests
from toolkit.facts.nccl_path import Answer, Proof
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.locate import Plane, Test
from toolkit.ledger import EventKind, Ledger, NewEvent, Run
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack, Unit
from toolkit.runners.shell import CommandResult
from toolkit.settings import Settings, load
from toolkit.stages import rail_search, rails
from toolkit.stages.collective_result import Collected, Remains
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Result, Work, passed
from toolkit.stages.mpi_command import Order, environment

INVENTORY = Path(__file__).parents[2] / "inventory"
HEALTHY_GB_PER_S = 47.5
CABLE = "cable node4:mlx5_3 - leaf4:4"
SLOW_PORT = ("node4", "mlx5_3")
# The one gate of the nodes' own suite here.
STOPPED = Gate(
    "SAFETY_STOP", "safety_stop", "word", Scope.NODE, Operator.EQUALS, "none", "burnin", True, "tray", "w", "s", "d"
)


def now() -> datetime:
    """Wall clock."""
    return datetime.now(UTC)


class KilledError(BaseException):
    """The controller is killed: no code of ours may catch it."""


@dataclass
class Nodes:
    """Answers what is asked of nodes when leftovers are ended; keeps who was asked to end what."""

    stopped: list[tuple[str, str]] = field(default_factory=list)
    alive: tuple[str, ...] = ()

    @property
    def shell(self) -> Nodes:
        """Itself."""
        return self

    def run(self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = 0) -> CommandResult:
        """`guest stop` answers as the node's program does; everything else succeeds."""
        if argv[-2] == "stop" and argv[0] != "systemctl":
            self.stopped.append((node.name, argv[-1].rpartition("/")[2]))
            alive = ", ".join(f'"{words}"' for words in self.alive)
            return CommandResult(0, f'{{"found": 1, "alive": [{alive}]}}'.encode(), b"")
        return CommandResult(0, b"", b"")


@dataclass
class Mpirun:
    """Stands for mpirun between nodes: what it is told of ports is what a test over them says.

    share         of the bandwidth that a port (node, HCA) leaves
    ends          how tests over a port end: "deadline", "wrong", "data"
    refuses       names of tests that cannot be launched
    killed_after  the controller dies in the middle of this test
    """

    share: dict[tuple[str, str], float] = field(default_factory=dict)
    ends: dict[tuple[str, str], str] = field(default_factory=dict)
    refuses: Callable[[Order], bool] = lambda order: False
    killed_after: int | None = None
    orders: list[Order] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def __call__(self, context: Context, order: Order, site: Site) -> Collected:
        """As `collectives.measure`, with what it leaves on record."""
        self.orders.append(order)
        first = order.nodes[0].name
        told = {"nodes": [n.name for n in order.nodes]}
        context.ledger.intent(context.rack.name, first, f"collective {order.identity}", told)
        if self.killed_after is not None and len(self.orders) > self.killed_after:
            self.cut.append(order.identity)
            raise KilledError
        if self.refuses(order):
            raise UndecidedError(f"ssh to {first} was refused", "again")
        hca = order.environment["NCCL_IB_HCA"].removeprefix("=")
        ports = [(n.name, hca) for n in order.nodes]
        share = min(self.share.get(p, 1.0) for p in ports)
        how = next((self.ends[p] for p in ports if p in self.ends), "")
        output = table(order, HEALTHY_GB_PER_S * share * self.rng.gauss(1, 0.004), how)
        wrong = Proof(Answer.WRONG, "measured the wrong fabric: NET/Socket between ranks 0 and 1", {})
        proof = wrong if how == "wrong" else Proof(Answer.PROVEN, "NET/IB", {"HCAs": 1.0})
        remains = tuple(Remains(n.name) for n in order.nodes)
        ended = "deadline" if how == "deadline" else "exited"
        context.ledger.observed(context.rack.name, first, f"collective {order.identity}", {"how": ended})
        return Collected(order, nccl_tests.parse(output), proof, ended, 0, 3.0, output, remains)


def table(order: Order, gb_per_s: float, how: str) -> str:
    """What nccl-tests prints of such a run."""
    ranks = [
        f"#  Rank {r:2d} Group  0 Pid {500 + r:6d} on {n.name:>10} device  3 [0000:61:00] NVIDIA H100 80GB HBM3"
        for r, n in enumerate(order.nodes)
    ]
    head = "# nccl-tests version 2.17.9 nccl-headers=22809 nccl-library=22809\n# Using devices\n" + "\n".join(ranks)
    titles = "\n#\n#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    if how == "deadline":
        return head + titles
    wrong = 3 if how == "data" else 0
    half = f" {1000.0:9.1f} {gb_per_s:7.2f} {gb_per_s:7.2f} {wrong:6d}"
    rows = [f"{size:12d} {size // 4:12d}     float     sum      -1{half}{half}" for size in (1 << 30, 1 << 31, 1 << 32)]
    bounds = f"# Out of bounds values : {wrong * 6} {'FAILED' if wrong else 'OK'}"
    return head + titles + "\n".join([*rows, bounds, f"# Avg bus bandwidth    : {gb_per_s:.4f}", "#", ""])


@dataclass
class Bench:
    """A rack whose nodes have been burnt in, and what became of them."""

    settings: Settings
    nodes: Nodes = field(default_factory=Nodes)
    ended: dict[str, Result] = field(default_factory=dict)

    def run(
        self, measure: Mpirun, names: Sequence[str] = (), *, on: bool = True, bad: Sequence[str] = ()
    ) -> dict[str, Result]:
        """The burn-in stage over nodes, those in `bad` not well by their own suite."""
        plain = load_rack("demo", INVENTORY)
        rack = replace(plain, profile=replace(plain.profile, gates=(STOPPED,), rail_test=on))
        self.ended = {}
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now) as ledger:
            context = Context(rack, self.settings, ledger, self.nodes, now, lambda s: None, lambda p: None)  # type: ignore[arg-type]
            chosen = tuple(n for n in rack.nodes if not names or n.name in names)
            runs = {n.name: ledger.start_run(rack.name, n.name, Stage.BURNIN) for n in chosen}
            stage = rails.after(_burn_in(runs, bad), measure)
            stage(context, Work(chosen, runs, self.ended.__setitem__, self._each))
        return self.ended

    def _each(self, nodes: Iterable[Unit], do: Callable[[Unit], Result | None]) -> None:
        for node in nodes:
            result = do(node)
            if result is not None:
                self.ended[node.name] = result

    def carried(self, node: str, hca: str) -> float:
        """The port's measurement."""
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now) as ledger:
            found = ledger.measurements("demo", node, metric="rail_busbw_gb_per_s")
        (value,) = [m.value for m in found if m.subject.hca == hca]
        return float(value)

    def searches(self) -> list[dict[str, object]]:
        """What is on record of each search that came to its end."""
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now) as ledger:
            events = ledger.events("demo", kind=EventKind.OBSERVED, limit=10_000)
        return [e.body["details"] for e in events if e.body.get("what") == rails.FILED]


def _burn_in(runs: dict[str, Run], bad: Sequence[str]) -> Callable[[Context, Work], None]:
    def stage(context: Context, work: Work) -> None:
        def one(node: Unit) -> Result:
            run, word = runs[node.name], "too hot" if node.name in bad else "none"
            subject = Subject(Scope.NODE, node.name)
            origin = context.ledger.artifacts.put(b"records")
            told = Measurement("safety_stop", "word", word, subject, now(), run.id, origin)
            context.ledger.record_measurements(run, (told,))
            context.ledger.append(NewEvent(EventKind.OBSERVED, "demo", node.name, {"artifact": origin}, "fact x"))
            return passed("burnt in")

        work.each(work.nodes, one)

    return stage


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Six nodes with eight rails."""
    yield Bench(load({"RACKPROOF_HOME": str(tmp_path / "home")}))


def demo() -> Rack:
    """As it is in the inventory."""
    return load_rack("demo", INVENTORY)


def test_a_slow_rail_ends_with_its_cable_and_both_its_ends(bench: Bench) -> None:
    """The node leaves with it; the five others go on with the result of their own suite."""
    measure = Mpirun(share={SLOW_PORT: 0.5})
    ended = bench.run(measure)
    bad = ended.pop("node4")
    assert (bad.outcome, bad.code, bad.part) == (Outcome.FAILED, "RAIL_SLOW", CABLE)
    assert "about 50% of its bandwidth" in bad.message and "HCA node4:mlx5_3" in bad.message
    assert "rackproof release node4" in bad.next and "swap the cable" in bad.next
    assert {r.message for r in ended.values()} == {"burnt in"} and len(ended) == 5
    first = [o for o in measure.orders if "-1." in o.identity]
    assert len(first) == 24 and all(len(o.nodes) == 2 for o in first), "all rails in pairs at first"
    assert len({o.identity for o in measure.orders}) == len(measure.orders)
    assert 23 < bench.carried(*SLOW_PORT) < 24.5 and bench.carried("node3", "mlx5_3") > 45
    (told,) = bench.searches()
    assert told["suspects"][0]["convicted"] and told["unsure"] == ""  # type: ignore[index]


def test_rails_that_are_well_blame_nobody(bench: Bench) -> None:
    """All six go on."""
    ended = bench.run(Mpirun())
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED} and len(ended) == 6


def test_two_slow_rails_are_both_named(bench: Bench) -> None:
    """Of two nodes; nobody else is."""
    ended = bench.run(Mpirun(share={SLOW_PORT: 0.5, ("node1", "mlx5_6"): 0.75}))
    assert {n: r.part for n, r in ended.items() if r.part} == {
        "node4": CABLE,
        "node1": "cable node1:mlx5_6 - leaf7:1",
    }


@pytest.mark.parametrize(("how", "code"), [("deadline", "RAIL_HANGS"), ("data", "RAIL_CORRUPTS_DATA")])
def test_a_rail_that_hangs_or_corrupts_is_found_as_well(bench: Bench, how: str, code: str) -> None:
    """No number is needed for it. That it was the GPU's or the HCA's end of the rail, bandwidth does not tell."""
    ended = bench.run(Mpirun(ends={SLOW_PORT: how}))
    guilty = {n: r for n, r in ended.items() if r.outcome is not Outcome.PASSED}
    assert set(guilty) == {"node4"}, guilty
    assert guilty["node4"].code in (code, "RAIL_UNDECIDED")


def test_what_was_not_measured_is_run_once_more_and_condemns_nobody(bench: Bench) -> None:
    """Sockets of one node: an ERROR that says so, for none of it is a reading of the rail."""
    measure = Mpirun(ends={("node2", f"mlx5_{k}"): "wrong" for k in range(8)})
    ended = bench.run(measure)
    assert Outcome.FAILED not in {r.outcome for r in ended.values()}
    assert (ended["node2"].outcome, ended["node2"].code) == (Outcome.ERROR, "RAIL_UNDECIDED")
    assert "NET/Socket" in ended["node2"].message
    again = [o.identity for o in measure.orders if o.identity.endswith(".again")]
    assert len(again) == 2 * 8, "each of the two rounds' eight tests, once more"
    assert {i.removesuffix(".again") for i in again} <= {o.identity for o in measure.orders}


def test_a_launch_that_fails_once_costs_nothing(bench: Bench) -> None:
    """Under another name it is measured."""
    measure = Mpirun(refuses=lambda order: not order.identity.endswith(".again") and "-1.1" in order.identity)
    ended = bench.run(measure)
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}
    assert any(o.identity.endswith(".again") for o in measure.orders)


def test_two_nodes_cannot_settle_whose_end_it_is(bench: Bench) -> None:
    """An ERROR of both, with what would tell."""
    ended = bench.run(Mpirun(share={SLOW_PORT: 0.5}), ["node3", "node4"])
    assert {r.code for r in ended.values()} == {"RAIL_UNDECIDED"} and len(ended) == 2
    assert "to settle it: a test of" in ended["node4"].message


def test_a_node_that_is_not_well_by_itself_takes_no_part(bench: Bench) -> None:
    """Certify has the word on it; the others are measured without it."""
    measure = Mpirun()
    ended = bench.run(measure, bad=["node6"])
    assert all(n.name != "node6" for o in measure.orders for n in o.nodes)
    assert {r.outcome for r in ended.values()} == {Outcome.PASSED}


def test_a_node_alone_has_no_partner(bench: Bench) -> None:
    """Nothing is measured and nothing is green."""
    measure = Mpirun()
    ended = bench.run(measure, ["node3"])
    assert ended["node3"].code == "RAIL_UNDECIDED" and measure.orders == []


def test_without_the_profiles_word_nothing_is_measured(bench: Bench) -> None:
    """The burn-in is what it was."""
    measure = Mpirun(share={SLOW_PORT: 0.5})
    ended = bench.run(measure, on=False)
    assert {r.message for r in ended.values()} == {"burnt in"} and measure.orders == []
    assert demo().profile.rail_test is False


def test_a_killed_controller_is_followed_by_one_that_ends_what_is_left(bench: Bench) -> None:
    """Tests without an end on record are stopped on their nodes; new ones have new names."""
    killed = Mpirun(killed_after=5)
    with pytest.raises(KilledError):
        bench.run(killed)
    measure = Mpirun(share={SLOW_PORT: 0.5})
    assert bench.run(measure)["node4"].part == CABLE
    assert {identity for _, identity in bench.nodes.stopped} == set(killed.cut)
    assert len(bench.nodes.stopped) == 2 * len(killed.cut), "on both nodes of each"
    assert {o.identity for o in measure.orders}.isdisjoint({o.identity for o in killed.orders})
    bench.nodes.stopped.clear()
    bench.run(Mpirun())
    assert bench.nodes.stopped == [], "what was ended is on record as ended"


def test_what_does_not_die_stops_the_next_search(bench: Bench) -> None:
    """Two tests on one node would measure each other."""
    with pytest.raises(KilledError):
        bench.run(Mpirun(killed_after=5))
    bench.nodes.alive = ("571 all_reduce_perf",)
    measure = Mpirun()
    with pytest.raises(UndecidedError, match="571 all_reduce_perf"):
        bench.run(measure)
    assert measure.orders == []


def test_a_test_is_of_one_rail_and_no_other_way() -> None:
    """One GPU and one HCA a node; the environment is one that may be set."""
    rack = demo()
    order = rails.order_of(rack, rail_search.rails_of(rack, rack.nodes), Test(Plane.RAIL, (3, 27)), "t1")
    assert ([n.name for n in order.nodes], order.ranks) == (["node1", "node4"], 2)
    told = environment(order, "/x")
    assert (told["NCCL_IB_HCA"], told["CUDA_VISIBLE_DEVICES"], told["NCCL_SHM_DISABLE"]) == ("=mlx5_3", "3", "1")


def test_a_node_is_in_one_test_at_a_time() -> None:
    """All tests are run, in as few waves as pairs allow."""
    rack = demo()
    tests = [Test(Plane.RAIL, (a * 8 + k, (a + 1) * 8 + k)) for k in range(8) for a in (0, 2, 4)]
    waves = rails.waves(rail_search.rails_of(rack, rack.nodes), tests)
    assert sorted(t for wave in waves for t in wave) == sorted(tests) and len(waves) == 8
    for wave in waves:
        nodes = [m // 8 for t in wave for m in t.members]
        assert len(nodes) == len(set(nodes))

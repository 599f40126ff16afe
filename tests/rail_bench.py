"""A rack whose rails are searched: the real search and ledger, a stand-in for mpirun alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from burnt_in import INVENTORY, STOPPED, KilledError, Nodes, now

from toolkit.errors import UndecidedError
from toolkit.facts import nccl_tests
from toolkit.facts.nccl_counters import Carried
from toolkit.facts.nccl_path import Answer, Proof
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, Ledger, NewEvent, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import Rack, Unit
from toolkit.settings import Settings, load
from toolkit.stages import rails
from toolkit.stages.collective_result import Collected, Remains
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Result, Work, passed
from toolkit.stages.mpi_command import Order, UnpinnedError

HEALTHY_GB_PER_S = 47.5
CABLE = "cable node4:mlx5_3 - leaf4:4"
SLOW_PORT = ("node4", "mlx5_3")


@dataclass
class Mpirun:
    """Stands for mpirun between nodes: what it is told of ports is what a test over them says.

    share         of the bandwidth that a port (node, HCA) leaves
    ends          how tests over a port end: "deadline", "wrong", "data"
    errors        what a port's counters grow by in each test
    seconds       that a test takes
    refuses       names of tests that cannot be launched
    killed_after  the controller dies in the middle of this test
    absent        nodes whose ranks never come to NCCL's bootstrap; those that came wait to the deadline
    unpinned      nodes whose host key nobody pinned
    """

    share: dict[tuple[str, str], float] = field(default_factory=dict)
    ends: dict[tuple[str, str], str] = field(default_factory=dict)
    refuses: Callable[[Order], bool] = lambda order: False
    errors: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    killed_after: int | None = None
    absent: tuple[str, ...] = ()
    unpinned: tuple[str, ...] = ()
    clock: list[float] = field(default_factory=lambda: [0.0])
    orders: list[Order] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)

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
        if gone := tuple(n.name for n in order.nodes if n.name in self.unpinned):
            raise UnpinnedError(order.identity, gone)
        hca = order.environment["NCCL_IB_HCA"].removeprefix("=")
        ports = [(n.name, hca) for n in order.nodes]
        share = min(self.share.get(p, 1.0) for p in ports)
        how = next((self.ends[p] for p in ports if p in self.ends), "")
        how = "deadline" if any(n.name in self.absent for n in order.nodes) else how
        self.clock[0] += self.seconds
        output = table(order, HEALTHY_GB_PER_S * share * noise(order), how)
        wrong = Proof(Answer.WRONG, "measured the wrong fabric: NET/Socket between ranks 0 and 1", {})
        proof = wrong if how == "wrong" else Proof(Answer.PROVEN, "NET/IB", {"HCAs": 1.0})
        remains = tuple(Remains(n.name) for n in order.nodes)
        ended = "deadline" if how == "deadline" else "exited"
        carried = tuple(Carried(n, errors={h: dict(self.errors.get((n, h), {}))}) for n, h in ports)
        context.ledger.observed(context.rack.name, first, f"collective {order.identity}", {"how": ended})
        run, spent = nccl_tests.parse(output), how in ("retries", "died")
        kept = {f"nccl.{n.name}.txt": self.log(context, order, r) for r, n in enumerate(order.nodes)}
        return Collected(
            order, run, proof, ended, 0, 3.0, output, remains, artifacts=kept, carried=carried, retries_spent=spent
        )

    def log(self, context: Context, order: Order, rank: int) -> str:
        """NCCL's log of a rank, from the moment it comes to the bootstrap."""
        name = order.nodes[rank].name
        line = f"{name}:4711:4720 [0] NCCL INFO ncclCommInitRankConfig comm 0x5 rank {rank} nranks 2 cudaDev 0"
        return context.ledger.artifacts.put(f"{line} - Init START\n".encode() if name not in self.absent else b"")


def noise(order: Order) -> float:
    """The same for a test whenever it is run: tests of a round begin in any order."""
    names = " ".join(n.name for n in order.nodes)
    return random.Random(f"7 {names} {order.environment['NCCL_IB_HCA']}").gauss(1, 0.004)


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
    if how in ("retries", "died"):
        failure = "node4: Test NCCL failure common.cu:401 'remote process exited or there was a network error'\n"
        gone = "mpirun noticed that process rank 1 with PID 501 on node node4 exited on signal 9 (Killed).\n"
        return head + titles + failure + (gone if how == "died" else "")
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
    seconds: float = 0.0

    def run(
        self, measure: Mpirun, names: Sequence[str] = (), *, on: bool = True, bad: Sequence[str] = ()
    ) -> dict[str, Result]:
        """The burn-in stage over nodes, those in `bad` not well by their own suite."""
        plain = load_rack("demo", INVENTORY)
        rack = replace(plain, profile=replace(plain.profile, gates=(STOPPED,), rail_test=on))
        self.ended = {}
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now) as ledger:
            began = now()

            def clock() -> datetime:
                return began + timedelta(seconds=measure.clock[0])

            context = Context(rack, self.settings, ledger, self.nodes, clock, lambda s: None, lambda p: None)  # type: ignore[arg-type]
            chosen = tuple(n for n in rack.nodes if not names or n.name in names)
            runs = {n.name: ledger.start_run(rack.name, n.name, Stage.BURNIN) for n in chosen}
            stage = rails.after(_burn_in(runs, bad), measure)
            stage(context, Work(chosen, runs, self.ended.__setitem__, self._each))
            self.seconds = measure.clock[0]
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

    def findings(self, node: str) -> list[str]:
        """What `why` would show of the node's last verdict."""
        with Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now) as ledger:
            events = ledger.events("demo", node, kind=EventKind.JUDGED, limit=10_000)
        return [f"{f['code']} {f['subject']} {f['detail']}" for f in events[-1].body["findings"]] if events else []

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
            told = [Measurement("safety_stop", "word", word, subject, now(), run.id, origin)]
            for collective in COLLECTIVES:
                metric = collective_metric(collective, "busbw_gb_per_s")
                told.append(Measurement(metric, "GB/s", 478.0, subject, now(), run.id, origin))
            context.ledger.record_measurements(run, told)
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

"""A rack whose levels are measured: the real campaign, gates and ledger, a stand-in for mpirun alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from burnt_in import INVENTORY, STOPPED, KilledError, Nodes, now

from toolkit.errors import UndecidedError
from toolkit.facts import nccl_tests
from toolkit.facts.nccl_counters import Carried
from toolkit.facts.nccl_path import Answer, Fabric, Proof
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import EventKind, Ledger, NewEvent, Run
from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack, Unit, WideLevel
from toolkit.settings import Settings, load
from toolkit.stages import levels
from toolkit.stages.collective_result import Collected, Remains
from toolkit.stages.collectives import Site
from toolkit.stages.context import Context, Progress, Result, Work, error, passed
from toolkit.stages.mpi_command import Order, UnpinnedError


def floor(code: str, metric: str, scope: Scope, limit: float | None, required: bool = True) -> Gate:
    """A gate on a bandwidth."""
    return Gate(code, metric, "GB/s", scope, Operator.AT_LEAST, limit, "burnin", required, "evidence", "w", "s", "d")


GATES = (
    STOPPED,
    floor("LEAF_BUSBW_LOW", "leaf_nccl_all_reduce_busbw_gb_per_s", Scope.LEAF, 43),
    floor("UNIT_BUSBW_LOW", "rack_nccl_all_reduce_busbw_gb_per_s", Scope.RACK, 300),
    floor("DOMAIN_BUSBW_LOW", "domain_nccl_all_reduce_busbw_gb_per_s", Scope.DOMAIN, 600),
)
BOTH = (WideLevel.LEAF, WideLevel.UNIT)
HEALTHY = {8: 445.0, 4: 840.0, 1: 47.2}  # by GPUs a node: unit, NVLink domain, leaf
How = str | float
"""`wrong`, `data`, `hang`, `late`, `gone`, `unpinned`, or the share of the bandwidth."""


@dataclass
class Mpirun:
    """Stands for mpirun among nodes.

    how           what a collective among these nodes, on that HCA or on all (""), comes to; None: it is well
    killed_after  the controller dies in the middle of this test
    """

    how: Callable[[frozenset[str], str], How | None] = lambda nodes, hca: None
    killed_after: int | None = None
    orders: list[Order] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, context: Context, order: Order, fabric: Fabric, site: Site) -> Collected:
        """As `collectives.measure`, with what it leaves on record."""
        first, names = order.nodes[0].name, frozenset(n.name for n in order.nodes)
        told = {"nodes": [n.name for n in order.nodes]}
        with self.lock:
            self.orders.append(order)
            context.ledger.intent(context.rack.name, first, f"collective {order.identity}", told)
            if self.killed_after is not None and len(self.orders) > self.killed_after:
                self.cut.append(order.identity)
                raise KilledError
        hcas = order.environment.get("NCCL_IB_HCA", "=").removeprefix("=").split(",")
        how = self.how(names, hcas[0] if len(hcas) == 1 else "")
        if how == "refused":
            raise UndecidedError(f"ssh to {first} was refused", "again")
        if how == "unpinned":
            raise UnpinnedError(order.identity, ("node5",))
        collected = self._collected(context, order, fabric, hcas, how)
        with self.lock:
            context.ledger.observed(context.rack.name, first, f"collective {order.identity}", {"how": collected.how})
        return collected

    def _collected(
        self, context: Context, order: Order, fabric: Fabric, hcas: Sequence[str], how: How | None
    ) -> Collected:
        share = how if isinstance(how, float) else 1.0
        rate = HEALTHY[order.gpus_per_node] * share
        if order.collective == "alltoall":
            rate /= order.gpus_per_node
        output = table(order, rate, str(how))
        wrong = Proof(Answer.WRONG, "measured the wrong fabric: NET/Socket between ranks 0 and 1", {})
        proof = wrong if how == "wrong" else Proof(Answer.PROVEN, f"proven over {fabric}", {"HCAs": 1.0})
        late = order.nodes[-1].name if how == "late" else ""
        logs = {n.name: "" if n.name == late else log(order, number) for number, n in enumerate(order.nodes)}
        keep = context.ledger.artifacts.put
        remains = [Remains(n.name, problem="no route to host" if how == "gone" and n.name == "node5" else "")
                   for n in order.nodes]  # fmt: skip
        idle = order.nodes[0].name if how == "idle" else ""
        carried = [Carried(n.name, hcas={h: 0 if n.name == idle and h == hcas[-1] else 1 << 40 for h in hcas})
                   for n in order.nodes]  # fmt: skip
        return Collected(
            order, nccl_tests.parse(output), proof, "deadline" if how in ("hang", "late", "gone") else "exited", 0, 3.0,
            output, tuple(remains), artifacts={f"nccl.{n}.txt": keep(text.encode()) for n, text in logs.items()},
            carried=tuple(carried),
        )  # fmt: skip


def log(order: Order, number: int) -> str:
    """NCCL's lines of a node's ranks."""
    per, name = order.gpus_per_node, order.nodes[number].name
    ranks = range(number * per, (number + 1) * per)
    return "".join(
        f"{name}:4711:{r} [0] NCCL INFO ncclCommInitRank comm 0x1 rank {r} nranks {order.ranks} - Init START\n"
        for r in ranks
    )


def table(order: Order, gb_per_s: float, how: str) -> str:
    """What nccl-tests prints of such a run."""
    if how in ("late", "gone"):
        return "# nccl-tests version 2.17.9 nccl-headers=22809 nccl-library=22809\n# Using devices\n"
    ranks = [
        f"#  Rank {r:2d} Group  0 Pid {500 + r:6d} on {order.nodes[r // order.gpus_per_node].name:>10} "
        "device  3 [0000:61:00] NVIDIA H100 80GB HBM3"
        for r in range(order.ranks)
    ]
    head = "# nccl-tests version 2.17.9 nccl-headers=22809 nccl-library=22809\n# Using devices\n" + "\n".join(ranks)
    titles = "\n#\n#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    if how == "hang":
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
    said: list[str] = field(default_factory=list)

    def run(
        self, measure: Mpirun, names: Sequence[str] = (), *, wanted: Sequence[WideLevel] = BOTH,
        bad: Sequence[str] = (), broken: Sequence[str] = (), gates: tuple[Gate, ...] = GATES, name: str = "demo",
    ) -> dict[str, Result]:  # fmt: skip
        """The burn-in stage over nodes: those in `bad` are not well by their own suite, those in `broken` an ERROR."""
        plain = load_rack(name, INVENTORY)
        rack = replace(plain, profile=replace(plain.profile, gates=gates, levels=tuple(wanted), rail_test=False))
        self.ended = {}
        with self.ledger() as ledger:
            context = Context(rack, self.settings, ledger, self.nodes, now, lambda s: None, self._say)  # type: ignore[arg-type]
            chosen = tuple(n for n in rack.nodes if not names or n.name in names)
            runs = {n.name: ledger.start_run(rack.name, n.name, Stage.BURNIN) for n in chosen}
            stage = levels.after(_burn_in(rack, runs, bad, broken), measure)
            stage(context, Work(chosen, runs, self.ended.__setitem__, self._each))
        return self.ended

    def _say(self, told: Progress) -> None:
        self.said.append(told.text)

    def _each(self, nodes: Iterable[Unit], do: Callable[[Unit], Result | None]) -> None:
        for node in nodes:
            result = do(node)
            if result is not None:
                self.ended[node.name] = result

    def ledger(self) -> Ledger:
        """The installation's."""
        return Ledger.open(self.settings.ledger_url, self.settings.artifacts, "test", now)

    def measured(self, subject: Subject, metric: str, rack: str = "demo") -> list[float | int | str]:
        """What is on record of it, run by run."""
        with self.ledger() as ledger:
            return [m.value for m in ledger.measurements(rack, metric=metric) if m.subject == subject]

    def campaign(self) -> dict[str, object]:
        """What is on record of the last campaign."""
        with self.ledger() as ledger:
            event = ledger.find("demo", "", EventKind.OBSERVED, levels.FILED)
        assert event is not None
        details = event.body["details"]
        assert isinstance(details, dict)
        return details


def _burn_in(
    rack: Rack, runs: dict[str, Run], bad: Sequence[str], broken: Sequence[str]
) -> Callable[[Context, Work], None]:
    def stage(context: Context, work: Work) -> None:
        def one(node: Unit) -> Result:
            if node.name in broken:
                return error("BURNIN_CUT", "it died", "again")
            run, word = runs[node.name], "too hot" if node.name in bad else "none"
            subject = Subject(Scope.NODE, node.name)
            origin = context.ledger.artifacts.put(b"records")
            context.ledger.record_measurements(
                run, (Measurement("safety_stop", "word", word, subject, now(), run.id, origin),)
            )
            context.ledger.append(NewEvent(EventKind.OBSERVED, rack.name, node.name, {"artifact": origin}, "fact x"))
            return passed("burnt in")

        work.each(work.nodes, one)

    return stage


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Six nodes with eight rails, each on its leaf."""
    yield Bench(load({"RACKPROOF_HOME": str(tmp_path / "home")}))


def having(
    *names: str, how: How, fewest: int = 2, hca: str | None = None
) -> Callable[[frozenset[str], str], How | None]:
    """Any collective with all of these nodes in it, of so many nodes at least, and on that HCA."""
    return lambda nodes, on: how if {*names} <= nodes and len(nodes) >= fewest and hca in (None, on) else None


def outcomes(ended: dict[str, Result]) -> dict[str, str]:
    """Codes by node, of those that did not pass."""
    assert Outcome.FAILED not in {r.outcome for r in ended.values()}, "a wide test is no evidence about one node"
    return {name: r.code for name, r in ended.items() if r.outcome is not Outcome.PASSED}

"""One collective among many nodes, from its order to what it says: numbers, or why it says nothing.

What is not of the fabric that was meant is never taken for a reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.errors import UndecidedError
from toolkit.facts import nccl_transport
from toolkit.facts.nccl_path import LEAST_RAIL_SHARE, Fabric
from toolkit.facts.nccl_run import Outcome as Ended
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.levels import Communicator, WideTest
from toolkit.judge.verdict import Answer, Finding, judge
from toolkit.rack.claim import Span
from toolkit.rack.gate import Gate, Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.metric import METRICS, wide_metric
from toolkit.rack.model import Profile, Rack, WideLevel
from toolkit.stages import collective_result
from toolkit.stages.collective_result import Collected, cause, result
from toolkit.stages.context import Context
from toolkit.stages.mpi_command import Order

_FABRICS = {Span.DOMAIN: Fabric.NVLINK, Span.FABRIC: Fabric.NIC}
_OF = {WideLevel.DOMAIN: "DOMAIN", WideLevel.LEAF: "LEAF", WideLevel.UNIT: "UNIT"}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a collective among these nodes said.

    code       of what is wrong; empty: it is well
    words      the number, or what is wrong, for an operator
    lost       it told nothing of the fabric: the launcher, the way it took, a node that is gone
    named      nodes that an outcome of ours speaks of (gone, ranks that never came): for no verdict on their hardware
    numbers    (metric, unit, value) of its subject
    """

    test: WideTest
    among: Communicator
    code: str
    words: str
    lost: bool = False
    named: tuple[str, ...] = ()
    numbers: tuple[tuple[str, str, float | str], ...] = ()
    gb_per_s: float | None = None

    @property
    def bad(self) -> bool | None:
        """Whether something is wrong with what was measured; None: nothing was."""
        return None if self.lost else bool(self.code)

    @property
    def subject(self) -> Subject:
        """Of the leaf by its name, or of the rack."""
        return Subject(self.test.scope, self.among.of)


def code_of(level: WideLevel, what: str) -> str:
    """UNIT_HANGS, LEAF_UNDECIDED, ..."""
    return f"{_OF[level]}_{what}"


def fabric_of(test: WideTest) -> Fabric:
    """What is to carry it."""
    return _FABRICS[test.span]


def order_of(rack: Rack, test: WideTest, among: Communicator, identity: str) -> Order:
    """The collective as it is started. UndecidedError where its nodes cannot take part in one."""
    if among.problem:
        hint = "name the HCAs of a rail alike on all nodes (udev), and so in the rack file"
        raise UndecidedError(f"{among.name}: {among.problem}", hint)
    nodes = tuple(rack.unit(name) for name in among.nodes)
    environment = dict(test.environment)
    if test.span is Span.FABRIC:
        # The rails by name: a node has other HCAs (storage, management), and NCCL would take them too.
        hcas = [among.hca] if among.hca else list(dict.fromkeys(hca.name for node in nodes for hca in node.hcas))
        environment["NCCL_IB_HCA"] = f"={','.join(hcas)}"
    if among.gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(among.gpu)
    asked = test.collective
    return Order(
        identity, test.kind, nodes, among.gpus_per_node, test.deadline_s,
        asked.smallest, asked.largest, asked.iterations, environment,
    )  # fmt: skip


def reading(context: Context, test: WideTest, among: Communicator, collected: Collected) -> Reading:
    """What the collective came to, judged by the gates of its level."""
    numbers = _numbers(test, collected)
    settled = not collected.problem and not any(r.problem or r.alive for r in collected.remains)
    if settled and _arrives_nowhere(collected):
        if 0 < len(missing(context, collected)) < len(among.nodes):
            return _lost(context, test, among, collected, cause(collected))
        words = f"{test.kind} among {among.name} does not end: {cause(collected)}"
        hung = (wide_metric(test.scope, test.kind, "hung"), "flag", 1)
        return Reading(test, among, code_of(test.level, "HANGS"), words, numbers=(*numbers, hung))
    ended = result(collected)
    if ended.outcome is not Outcome.PASSED:
        return _lost(context, test, among, collected, ended.message)
    if unseen := _idle_hcas(test, collected):
        return Reading(test, among, "WRONG_FABRIC", f"{test.kind} among {among.name}: {unseen}", lost=True)
    if collected.outcome is Ended.DATA_ERROR:
        words = f"{test.kind} among {among.name} returned wrong values: {collected.run.wrong_total or 'so it says'}"
        return Reading(test, among, code_of(test.level, "DATA_WRONG"), words, numbers=numbers)
    return _judged(context, test, among, collected, numbers)


def _arrives_nowhere(collected: Collected) -> bool:
    """Whether all ranks were there and nothing got through: to the deadline, or until an HCA had sent it as often as it
    may. A rank that died answers no more either: then it is no hang.
    """
    died = "exited on signal" in collected.output or any(f.kind != "NCCL" for f in collected.run.failures)
    there = collected.run.ranks == collected.order.ranks
    return there and (collected.how == "deadline" or (collected.retries_spent and not died))


def gates_of(profile: Profile, test: WideTest) -> list[Gate]:
    """The gates of the test's level that read its collective."""
    prefix = wide_metric(test.scope, test.kind, "")
    return [
        g for g in profile.gates if g.stage == Stage.BURNIN and g.scope is test.scope and g.metric.startswith(prefix)
    ]


def measurements(found: Reading, run: str, at: datetime, origin: str) -> tuple[Measurement, ...]:
    """The numbers, of the leaf, the domain or the rack."""
    return tuple(Measurement(m, unit, value, found.subject, at, run, origin) for m, unit, value in found.numbers)


def _judged(
    context: Context, test: WideTest, among: Communicator, collected: Collected,
    numbers: tuple[tuple[str, str, float | str], ...],
) -> Reading:  # fmt: skip
    busbw = collected.run.busbw
    if busbw is None:
        words = f"{test.kind} among {among.name} gave no bandwidth: {cause(collected)}"
        return Reading(test, among, code_of(test.level, "UNDECIDED"), words, lost=True)
    numbers = (*numbers, (wide_metric(test.scope, test.kind, "hung"), "flag", 0))
    profile, subject, now = context.rack.profile, Subject(test.scope, among.of), context.clock()
    told = [Measurement(m, unit, value, subject, now, "", "") for m, unit, value in numbers]
    verdict = judge(gates_of(profile, test), [subject], told, now, profile.evidence_max_age)
    plain = f"{test.kind} among {among.name}: {busbw[0]:.1f} GB/s"
    failed, doubts = verdict.of(Answer.FAIL), verdict.of(Answer.INCONCLUSIVE)
    if failed:
        return Reading(test, among, failed[0].code, f"{plain}; {_details(failed)}", numbers=numbers, gb_per_s=busbw[0])
    if doubts:
        return Reading(test, among, code_of(test.level, "UNDECIDED"), f"{plain}; {_details(doubts)}", lost=True)
    return Reading(test, among, "", plain, numbers=numbers, gb_per_s=busbw[0])


def _details(findings: tuple[Finding, ...]) -> str:
    return "; ".join(f.detail for f in findings[:3])


def _numbers(test: WideTest, collected: Collected) -> tuple[tuple[str, str, float | str], ...]:
    """Those of `collective_result.measured`, of the test's own scope."""
    prefix = wide_metric(Scope.RACK, test.kind, "")
    named = [(m.removeprefix(prefix), unit, value) for m, unit, value in collective_result.measured(collected)]
    names = [(wide_metric(test.scope, test.kind, what), unit, value) for what, unit, value in named]
    return tuple((metric, unit, value) for metric, unit, value in names if metric in METRICS)


def _lost(context: Context, test: WideTest, among: Communicator, collected: Collected, said: str) -> Reading:
    """Nothing of the fabric was measured. Who is gone, and whose ranks never came, is named."""
    gone = [r.node for r in collected.remains if r.problem or r.alive]
    late = {} if collected.outcome is Ended.LAUNCHER_ERROR else missing(context, collected)
    # Nobody's log: then nothing tells whose fault it is.
    away = list(late) if len(late) < len(among.nodes) else []
    words = f"{test.kind} among {among.name}: {said}"
    if away:
        shown = "; ".join(f"{node}: {_ranks(late[node])}" for node in away[:4])
        words = f"{words}. Ranks that never came: {shown}"
    code = collected_code(test, collected)
    return Reading(test, among, code, words, lost=True, named=tuple(dict.fromkeys([*gone, *away])))


def collected_code(test: WideTest, collected: Collected) -> str:
    """A collective's own code where it names a state of the nodes or of the way; else that the level is undecided."""
    code = result(collected).code
    return code if code in ("WRONG_FABRIC", "COLLECTIVE_ORPHANS") else code_of(test.level, "UNDECIDED")


def missing(context: Context, collected: Collected) -> dict[str, tuple[int, ...]]:
    """By node, the ranks that no line of NCCL's log of it speaks of. Of a node without a log, all."""
    found: dict[str, tuple[int, ...]] = {}
    per_node = collected.order.gpus_per_node
    for number, node in enumerate(collected.order.nodes):
        digest = collected.artifacts.get(f"nccl.{node.name}.txt")
        text = context.ledger.artifacts.get(digest).decode("utf-8", "replace") if digest else ""
        came = nccl_transport.parse([text]).hosts
        ranks = range(number * per_node, (number + 1) * per_node)
        if away := tuple(rank for rank in ranks if rank not in came):
            found[node.name] = away
    return found


def _ranks(ranks: tuple[int, ...]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"{len(ranks)} ranks from {ranks[0]} on"


def _idle_hcas(test: WideTest, collected: Collected) -> str:
    """Which HCAs of the design did not carry their share, or were not counted; empty where all did."""
    if test.span is not Span.FABRIC:
        return ""
    wanted = set(collected.order.environment["NCCL_IB_HCA"].removeprefix("=").split(","))
    counted = {node.node: node.hcas for node in collected.carried}
    for node in collected.order.nodes:
        designed = [hca.name for hca in node.hcas if hca.name in wanted]
        sent = {hca: counted.get(node.name, {}).get(hca) for hca in designed}
        silent = [hca for hca, count in sent.items() if count is None]
        if silent:
            return f"no byte counter of {node.name}: {', '.join(silent)}"
        fair = sum(count or 0 for count in sent.values()) / max(1, len(sent))
        idle = [hca for hca, count in sent.items() if (count or 0) < LEAST_RAIL_SHARE * fair or not count]
        if idle:
            return f"{node.name}: {', '.join(idle)} did not carry their share of the bytes"
    return ""

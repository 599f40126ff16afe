"""burnin: ship the burn-in to the node, run it detached, follow its records, fetch what it kept.

The run belongs to the node, not to this process: it is started under systemd, as a Kubernetes Job or as a Slurm job,
with an id that is on record before the start, so a controller that was killed finds it again and neither starts a
second one nor loses the first.

A GPU that replaced a faulty row is reset and everything is measured again, once: see `toolkit.judge.recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from toolkit.errors import UndecidedError
from toolkit.facts.kernel_events import measured as driver_events
from toolkit.judge.compared import Compared
from toolkit.judge.evidence import Measurement, Subject, Value
from toolkit.judge.part import GpuSeat, blames_hardware
from toolkit.judge.recovery import AGAIN, recovery, remaps_again
from toolkit.judge.verdict import Answer, Verdict
from toolkit.ledger import Event, EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Suite, Unit
from toolkit.rack.power import begins
from toolkit.runners.carrier import SHIPPING_SECONDS, Carrier
from toolkit.runners.systemd import SystemdCarrier
from toolkit.stages import context as ctx
from toolkit.stages.archive import build_archive
from toolkit.stages.burnin_collectives import (
    WRONG_FABRIC,
    judge_burnin,
    left_out,
    measured,
    not_asked,
    ways,
)
from toolkit.stages.burnin_records import KERNEL_LOG, PIPELINE, Followed, measurements_of, overheated
from toolkit.stages.burnin_run import Brought, Order, Wanted, YieldedError, brought, on_record
from toolkit.stages.context import Context, Result, Work, error, passed
from toolkit.stages.gpu_reset import BY_HAND, recover, spent
from toolkit.stages.readback import failed, record, undecided

_DIGEST_LENGTH = 64
YIELDED = "YIELDED"  # code of a node that somebody had a use for
# Time to ship the burn-in to every node before the first of them takes up its load.
SHIPPING = timedelta(seconds=SHIPPING_SECONDS)


@dataclass(frozen=True, slots=True)
class Burned:
    """A burn-in that was followed to wherever it came.

    result    PASSED where it measured what it planned, or measured enough to condemn a part
    verdict   of the profile's burn-in gates over `measurements`, as far as the suite can answer them
    wrong     collectives that measured another fabric
    """

    identity: str
    result: Result
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    seats: Mapping[int, GpuSeat]
    suite: Suite
    wrong: tuple[str, ...] = ()


Compare = Callable[[Context, Work, Suite, Mapping[str, Burned]], Mapping[str, Iterable[Compared]]]
"""Compares what nodes measured, and settles who is suspect; by node."""


def ordered(
    context: Context,
    nodes: Iterable[Unit],
    suite: Suite,
    *,
    step: bool = False,
    filed: str = PIPELINE,
    shipping: timedelta = SHIPPING,
) -> Order:
    """The order for these nodes: staggered by the profile's ramp, or (`step`) all at once."""
    names = [n.name for n in nodes]
    found = begins(names, context.rack.profile, step)
    together = len(names) > 1 and any(b.gpu_stagger_s for b in found.values())
    return Order(suite, filed, context.clock() + shipping if step or together else None, found)


def run(context: Context, work: Work) -> None:
    """Measures every node, side by side. Whether a node is good is certify's to say."""
    order = ordered(context, work.nodes, context.rack.profile.suite, shipping=_shipping(context, work.nodes))
    ship = shipper(context, context.hands.carrier)
    work.each(work.nodes, lambda node: _burn_in(context, node, work.runs[node.name], order, ship).result)


@dataclass(frozen=True, slots=True)
class Terms:
    """How nodes that are in service are burnt in again.

    only         by node, the workloads of the suite that are run there; a node that is not named runs them all
    take_over_s  how old workloads of a run that was cut may be that are not run again
    wanted       who wants a node back: its burn-in is stopped then
    """

    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    take_over_s: float = 0.0
    wanted: Wanted | None = None


def again(suite: Suite, terms: Terms) -> ctx.StageRunner:
    """The burn-in that the pipeline's evidence is renewed by, in that suite; a node that somebody wants is YIELDED."""

    def runner(context: Context, work: Work) -> None:
        order = ordered(context, work.nodes, suite, shipping=_shipping(context, work.nodes))
        order = replace(order, take_over_s=terms.take_over_s, wanted=terms.wanted)
        ship = shipper(context, context.hands.carrier)

        def one(node: Unit) -> Result:
            mine = replace(order, only=terms.only.get(node.name, ()))
            try:
                return _burn_in(context, node, work.runs[node.name], mine, ship).result
            except YieldedError as given:
                return error(YIELDED, given.message, given.hint)

        work.each(work.nodes, one)

    return runner


def examine(suite: Suite, step: bool, seen: dict[str, Burned], compare: Compare) -> ctx.StageRunner:
    """A burn-in that an operator asks for: measured, compared and judged by the profile's gates. Fills `seen`."""

    def runner(context: Context, work: Work) -> None:
        shipping = _shipping(context, work.nodes)
        order = ordered(context, work.nodes, suite, step=step, filed=f"burnin by hand, {suite}", shipping=shipping)
        ship = shipper(context, context.hands.carrier)

        def measure(node: Unit) -> Result | None:
            burned = seen[node.name] = _burn_in(context, node, work.runs[node.name], order, ship)
            return None if burned.result.outcome is Outcome.PASSED else burned.result

        work.each(work.nodes, measure)
        taken = {n.name: seen[n.name] for n in work.nodes if n.name in seen}
        taken = {name: burned for name, burned in taken.items() if burned.result.outcome is Outcome.PASSED}
        compared = compare(context, work, suite, taken)

        def judge(node: Unit) -> Result:
            burned = taken[node.name]
            verdict = judge_burnin(context, node, burned.measurements, suite, burned.wrong, compared.get(node.name, ()))
            burned = seen[node.name] = replace(burned, verdict=verdict)
            record(context, node, verdict)
            return _judged(context, node, burned, suite)

        work.each([n for n in work.nodes if n.name in taken], judge)

    return runner


def _judged(context: Context, node: Unit, burned: Burned, suite: Suite) -> Result:
    if burned.verdict.answer is Answer.PASS:
        idle = ", ".join(left_out(suite))
        unasked = f"; {len(not_asked(context.rack.profile, suite))} gates of {idle} were not asked" if idle else ""
        return passed(f"suite {suite}: {len(burned.verdict.findings)} findings, all as planned{unasked}")
    if burned.verdict.answer is Answer.FAIL:
        return failed(context, node, burned.verdict, burned.seats)
    again = f"rackproof burnin {node.name} --suite {suite}"
    return error("EVIDENCE_MISSING", f"burnin could not be judged: {undecided(burned.verdict)}", again)


def _shipping(context: Context, nodes: Iterable[Unit]) -> timedelta:
    """From the order to the load: what the slowest carrier of these nodes takes."""
    return max((SHIPPING, *(timedelta(seconds=context.hands.carrier(node).shipping_s) for node in nodes)))


def shipper(context: Context, carrier: Callable[[Unit], Carrier] | None = None) -> Callable[[Unit], None]:
    """What puts this burn-in where the node's `carrier` finds it (None: on the node by SSH, for what runs over SSH)."""
    archive = context.settings.cache / "burnin.pyz"
    digest = build_archive(archive)
    ssh = SystemdCarrier(context.hands.shell)
    among = context.rack.profile.rail_test or context.rack.profile.levels

    def ship(node: Unit) -> None:
        by = carrier(node) if carrier else ssh
        by.ship(node, archive, digest)
        if among and node.host and by.name != ssh.name:
            with suppress(UndecidedError):  # collectives among nodes go by SSH: they say themselves what they lack
                ssh.ship(node, archive, digest)

    return ship


def _burn_in(context: Context, node: Unit, run: Run, order: Order, ship: Callable[[Unit], None]) -> Burned:
    """One node: measured, and measured again after each recovery that is due. Its numbers are on record afterwards."""
    ship(node)
    identity = _identity(context, node, run, order)
    while True:
        burned = _measured(context, node, order, identity, run)
        due = recovery(burned.verdict.findings, burned.measurements, spent(context, node, identity))
        if burned.result.outcome is not Outcome.PASSED or due is None:
            break
        record(context, node, burned.verdict)  # what the reset is for; the rerun decides
        refused = recover(context, node, identity, due)
        if refused is not None:
            burned = replace(burned, result=refused)
            break
        identity, order = f"{identity}.again", replace(order, begin_at=None)
        _intend(context, node, run, order, identity)
    context.ledger.record_measurements(run, burned.measurements)
    return burned


def _identity(context: Context, node: Unit, run: Run, order: Order) -> str:
    """The id of the burn-in on the node: the one on record unless it came to its end, else a new one."""
    rack = context.rack.name
    begun = context.ledger.find(rack, node.name, EventKind.INTENT, order.filed)
    state = context.ledger.node_states(rack).get(node.name)
    since = state.event if state else 0
    goes_on = begun is not None and (
        (order.take_over_s > 0 and _was_cut(context, node, order, begun))
        or (begun.id > since and not _is_over(context, node, order, begun))
    )
    identity = str(_details(begun)["id"]) if begun is not None and goes_on else f"{rack}-{node.name}-{run.attempt}"
    _intend(context, node, run, order, identity)
    return identity


def _intend(context: Context, node: Unit, run: Run, order: Order, identity: str) -> None:
    details = {"id": identity, "suite": order.suite, "run": run.id, "only": list(order.only)}
    context.ledger.intent(context.rack.name, node.name, order.filed, details)


def _was_cut(context: Context, node: Unit, order: Order, begun: Event) -> bool:
    """Whether that run is worth going on with: of the same tests, young, and without an end. Only where its folder
    stays on the node; whether the node has changed since, its program sees for itself.
    """
    details, fetched = _details(begun), on_record(context, node, order, str(_details(begun)["id"]))
    same = (details.get("suite"), tuple(details.get("only") or ())) == (str(order.suite), order.only)
    young = (context.clock() - begun.at).total_seconds() <= order.take_over_s
    stays = context.hands.carrier(node).name == SystemdCarrier.name
    return same and young and stays and (fetched is None or fetched.get("ended") is False)


# Ends of a run that say nothing of the burn-in on the node: it may still run, or wait for its recovery.
_NOT_OVER = ("INTERRUPTED", "GPU_RESET_FAILED", "NODE_UNREACHABLE", "UNDECIDED", "DEFECT")


def _is_over(context: Context, node: Unit, order: Order, begun: Event) -> bool:
    """Whether a new burn-in is due. The pipeline goes on from one that measured everything: its stage did not end; but
    not from one that measured another fabric, or whose GPUs somebody else had to reset. An operator who asks again
    wants another, unless the last one was cut off from us.
    """
    rack, identity = context.rack.name, _details(begun)["id"]
    fetched = on_record(context, node, order, str(identity))
    if fetched is None:
        return False
    runs = {r.id: r for r in context.ledger.runs(rack, node.name, Stage.BURNIN)}
    taken = runs.get(str(_details(begun)["run"]))
    if order.filed == PIPELINE:
        return not fetched["complete"] or (taken is not None and taken.code in (WRONG_FABRIC, BY_HAND))
    return taken is not None and taken.outcome is not None and taken.code not in _NOT_OVER


def _details(event: Event) -> Mapping[str, Any]:
    details = event.body["details"]
    return details if isinstance(details, dict) else {}


def _measured(context: Context, node: Unit, order: Order, identity: str, run: Run) -> Burned:
    """Has the burn-in carried out unless it ran already, and judges what it measured."""
    evidence = brought(context, node, order, identity)
    followed, kept = evidence.followed, evidence.kept
    found = ways(context, node, kept)
    measurements = _measurements(context, node, run, identity, followed, kept)
    measurements += tuple(measured(context, node, run.id, found))
    suite = Suite(order.suite)
    verdict = judge_burnin(context, node, measurements, suite, found.wrong)
    result = _ended(_again(context, node, order), identity, evidence, verdict, found.complaint)
    return Burned(identity, result, measurements, verdict, followed.seats, suite, found.wrong)


def _measurements(
    context: Context, node: Unit, run: Run, identity: str, followed: Followed, kept: Mapping[str, str]
) -> tuple[Measurement, ...]:
    """What the node measured, and what only we can say: its kernel log read, and what came after a reset."""
    told = tuple(measurements_of(node, run.id, kept["records"], followed.last))
    gpus = range(context.rack.profile.gpus_per_node)

    def ours(metric: str, value: Value, gpu: int | None, origin: str) -> Measurement:
        subject = Subject(Scope.NODE, node.name) if gpu is None else Subject(Scope.GPU, node.name, gpu=gpu)
        return Measurement(metric, METRICS[metric].unit, value, subject, context.clock(), run.id, origin)

    again = remaps_again(told, gpus, spent(context, node, identity))
    found = [ours(AGAIN, value, gpu, kept["records"]) for gpu, value in again.items()]
    found += [ours("gpu_overheated", v, gpu, kept["records"]) for gpu, v in overheated(told, gpus).items()]
    log = next((kept[a.name] for a in followed.artifacts if a.workload == KERNEL_LOG), "")
    if len(log) == _DIGEST_LENGTH:
        text = context.ledger.artifacts.get(log).decode("utf-8", "replace")
        places = {seat.pci: gpu for gpu, seat in followed.seats.items() if seat.pci}
        driver = dict(context.rack.profile.expected).get("driver_version")
        events = driver_events(text, places, complete=followed.log_is_whole, driver=driver)
        found += [ours(metric, value, gpu, log) for metric, _, value, gpu in events]
    return told + tuple(found)


def _again(context: Context, node: Unit, order: Order) -> str:
    """The command that burns the node in once more."""
    by_hand = f"rackproof burnin {node.name} --suite {order.suite}"
    return f"rackproof bringup {context.rack.name}" if order.filed == PIPELINE else by_hand


def _ended(again: str, identity: str, evidence: Brought, verdict: Verdict, complaint: str) -> Result:
    """How far the suite came, and over what. One that was cut short, or whose collectives took the wrong way, still
    condemns the part it failed on; one that its carrier cannot vouch for condemns nothing.
    """
    followed = evidence.followed
    condemned = any(blames_hardware(f) for f in verdict.of(Answer.FAIL))
    if followed.end is None:
        why = evidence.doubt or "it died or ran out of time"
        return error("BURNIN_CUT", f"burn-in {identity} has no end: {why}", again)
    if evidence.doubt:
        return error("BURNIN_INCOMPLETE", f"burn-in {identity} is not whole: {evidence.doubt}", again)
    if followed.missing and not condemned:
        return error("BURNIN_INCOMPLETE", f"burn-in {identity} did not end: {', '.join(followed.missing)}", again)
    if complaint and not condemned:
        return error(WRONG_FABRIC, complaint, f"rackproof explain {WRONG_FABRIC}, then: {again}")
    return passed(followed.poor or f"{len(followed.records)} records")

"""burnin: ship the burn-in to the node, run it detached, follow its records, fetch what it kept.

The run belongs to the node, not to this process: it is started under systemd with an id that is on record before the
start, so a controller that was killed finds it again and neither starts a second one nor loses the first.

A GPU that replaced a faulty row is reset and everything is measured again, once: see `toolkit.judge.recovery`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from burnin.record import Artifact, Progress, Record, RecordError
from toolkit.errors import UndecidedError, UnreachableError
from toolkit.facts.kernel_events import measured as driver_events
from toolkit.judge.evidence import Measurement, Subject, Value
from toolkit.judge.part import GpuSeat, blames_hardware
from toolkit.judge.recovery import AGAIN, recovery, remaps_again
from toolkit.judge.verdict import Answer, Verdict
from toolkit.ledger import Event, EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Suite, Unit
from toolkit.rack.power import Begin, begins
from toolkit.stages import context as ctx
from toolkit.stages.archive import build_archive
from toolkit.stages.burnin_collectives import WRONG_FABRIC, judge_burnin, left_out, measured, not_asked, ways
from toolkit.stages.burnin_records import KERNEL_LOG, PIPELINE, Followed, measurements_of, overheated
from toolkit.stages.context import Context, Result, Work, error, passed
from toolkit.stages.gpu_reset import recover, spent
from toolkit.stages.readback import failed, record, undecided

REMOTE = "/opt/rackproof/burnin.pyz"
FOLDER = "/var/lib/rackproof/burnin"
POLL_SECONDS = 1.0
COMMAND_SECONDS = 60.0
CHUNK_BYTES = 1024 * 1024
MAX_RECORDS_BYTES = 64 * 1024 * 1024
MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
# How long a suite may take before we stop waiting: about three times what it plans, for a slow node is still a node.
SUITE_SECONDS = {Suite.REHEARSAL: 1500.0, Suite.QUICK: 900.0, Suite.STANDARD: 3600.0, Suite.LONG: 4 * 3600.0}
SILENT_POLLS = 10  # a unit that is gone this many polls without an end record will not write one any more
_DIGEST_LENGTH = 64
NEARLY = 0.99  # a workload that is done is not yet the stage's end, which is what 1.0 means to a watcher
# Time to ship the burn-in to every node before the first of them takes up its load.
SHIPPING = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of the nodes.

    filed      the ledger's key: an operator's own burn-in neither resumes the pipeline's nor is taken for it
    begin_at   the rack's common beginning; None: each node begins when it is ready
    """

    suite: Suite
    filed: str = PIPELINE
    begin_at: datetime | None = None
    begins: Mapping[str, Begin] | None = None

    def arguments(self, node: str) -> list[str]:
        """When the node's program takes up the load."""
        begin = (self.begins or {}).get(node, Begin())
        at = [] if self.begin_at is None else [
            "--begin-at", f"{self.begin_at.timestamp() + begin.after_s:.3f}"
        ]  # fmt: skip
        return at + (["--gpu-stagger", f"{begin.gpu_stagger_s:.3f}"] if begin.gpu_stagger_s else [])

    def longest_s(self, node: str, now: datetime) -> float:
        """How long to wait for the end."""
        wait = 0.0 if self.begin_at is None else max(0.0, (self.begin_at - now).total_seconds())
        return SUITE_SECONDS[self.suite] + wait + (self.begins or {}).get(node, Begin()).after_s


@dataclass(frozen=True, slots=True)
class Burned:
    """A burn-in that was followed to wherever it came.

    result    PASSED where it measured what it planned, or measured enough to condemn a part
    verdict   of the profile's burn-in gates over `measurements`, as far as the suite can answer them
    """

    identity: str
    result: Result
    measurements: tuple[Measurement, ...]
    verdict: Verdict
    seats: Mapping[int, GpuSeat]
    suite: Suite


def ordered(
    context: Context, nodes: Iterable[Unit], suite: Suite, *, step: bool = False, filed: str = PIPELINE
) -> Order:
    """The order for these nodes: staggered by the profile's ramp, or (`step`) all at once."""
    names = [n.name for n in nodes]
    found = begins(names, context.rack.profile, step)
    together = len(names) > 1 and any(b.gpu_stagger_s for b in found.values())
    return Order(suite, filed, context.clock() + SHIPPING if step or together else None, found)


def run(context: Context, work: Work) -> None:
    """Measures every node, side by side. Whether a node is good is certify's to say."""
    order = ordered(context, work.nodes, context.rack.profile.suite)
    ship = _shipper(context)
    work.each(work.nodes, lambda node: _burn_in(context, node, work.runs[node.name], order, ship).result)


def examine(suite: Suite, step: bool, seen: dict[str, Burned]) -> ctx.StageRunner:
    """A burn-in that an operator asks for: measured and judged by the profile's gates at once. Fills `seen`."""

    def runner(context: Context, work: Work) -> None:
        order = ordered(context, work.nodes, suite, step=step, filed=f"burnin by hand, {suite}")
        ship = _shipper(context)

        def one(node: Unit) -> Result:
            burned = _burn_in(context, node, work.runs[node.name], order, ship)
            seen[node.name] = burned
            if burned.result.outcome is not Outcome.PASSED:
                return burned.result
            record(context, node, burned.verdict)
            return _judged(context, node, burned, suite)

        work.each(work.nodes, one)

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


def _shipper(context: Context) -> Callable[[Unit], None]:
    archive = context.settings.cache / "burnin.pyz"
    digest = build_archive(archive)

    def ship(node: Unit) -> None:
        context.hands.shell.run(node, ["mkdir", "-p", "/opt/rackproof", FOLDER], COMMAND_SECONDS)
        answer = context.hands.shell.run(node, ["sha256sum", REMOTE], COMMAND_SECONDS)
        if answer.status != 0 or answer.stdout[:64].decode("ascii", "replace") != digest:
            context.hands.shell.put(node, archive, REMOTE, 0o755)

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
    if begun and begun.id > (state.event if state else 0) and not _is_over(context, node, order, begun):
        identity = str(_details(begun)["id"])
    else:
        identity = f"{rack}-{node.name}-{run.attempt}"
    _intend(context, node, run, order, identity)
    return identity


def _intend(context: Context, node: Unit, run: Run, order: Order, identity: str) -> None:
    details = {"id": identity, "suite": order.suite, "run": run.id}
    context.ledger.intent(context.rack.name, node.name, order.filed, details)


# Ends of a run that say nothing of the burn-in on the node: it may still run, or wait for its recovery.
_NOT_OVER = ("INTERRUPTED", "GPU_RESET_FAILED", "NODE_UNREACHABLE", "UNDECIDED", "DEFECT")


def _is_over(context: Context, node: Unit, order: Order, begun: Event) -> bool:
    """Whether a new burn-in is due. The pipeline goes on from one that measured everything: its stage did not end; but
    not from one that measured another fabric. An operator who asks again wants another, unless the last one was cut off
    from us.
    """
    rack, identity = context.rack.name, _details(begun)["id"]
    fetched = context.ledger.find(rack, node.name, EventKind.OBSERVED, order.filed)
    if fetched is None or _details(fetched)["id"] != identity:
        return False
    runs = {r.id: r for r in context.ledger.runs(rack, node.name, Stage.BURNIN)}
    taken = runs.get(str(_details(begun)["run"]))
    if order.filed == PIPELINE:
        return not _details(fetched)["complete"] or (taken is not None and taken.code == WRONG_FABRIC)
    return taken is not None and taken.outcome is not None and taken.code not in _NOT_OVER


def _details(event: Event) -> Mapping[str, Any]:
    details = event.body["details"]
    return details if isinstance(details, dict) else {}


def _measured(context: Context, node: Unit, order: Order, identity: str, run: Run) -> Burned:
    """Starts the burn-in unless it runs or ran, follows it to its end and judges what it measured."""
    _start(context, node, order, identity)
    followed = _follow(context, node, identity, order.longest_s(node.name, context.clock()))
    kept = _keep(context, node, order, identity, followed)
    found = ways(context, node, kept)
    measurements = _measurements(context, node, run, identity, followed, kept)
    measurements += tuple(measured(context, node, run.id, found))
    verdict = judge_burnin(context, node, measurements, order.suite, found.wrong)
    result = _ended(_again(context, node, order), identity, followed, verdict, found.complaint)
    return Burned(identity, result, measurements, verdict, followed.seats, order.suite)


def _start(context: Context, node: Unit, order: Order, identity: str) -> None:
    """Starts the run on the node. The node itself does nothing for an id that has ended."""
    if _is_active(context, node, identity):
        return
    again = "the same command again, when it has ended"
    for other in _others(context, node, identity):
        raise UndecidedError(f"{node.name} is busy with another burn-in: {other}", again)
    unit = [f"--unit=rackproof-burnin-{identity}", "--collect", "--quiet", "--property=KillMode=control-group"]
    suite = ["--run", identity, "--suite", order.suite, "--gpus", str(context.rack.profile.gpus_per_node)]
    argv = ["systemd-run", *unit, "/usr/bin/python3", REMOTE, "run", *suite, "--out", f"{FOLDER}/{identity}"]
    answer = context.hands.shell.run(node, argv + order.arguments(node.name), COMMAND_SECONDS)
    if answer.status != 0:
        said = (answer.stderr or answer.stdout)[:300].decode("utf-8", "replace")
        hint = f"rackproof bringup {context.rack.name}"
        raise UndecidedError(f"burn-in on {node.name} did not start: {said.strip()}", hint)


def _is_active(context: Context, node: Unit, identity: str) -> bool:
    argv = ["systemctl", "is-active", "--quiet", f"rackproof-burnin-{identity}.service"]
    return context.hands.shell.run(node, argv, COMMAND_SECONDS).status == 0


def _others(context: Context, node: Unit, identity: str) -> list[str]:
    """Other burn-ins that run on the node: two of them would measure each other."""
    argv = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "rackproof-burnin-*.service"]
    lines = context.hands.shell.run(node, argv, COMMAND_SECONDS).stdout.decode("utf-8", "replace").splitlines()
    units = [line.split()[0] for line in lines if line.startswith("rackproof-burnin-")]
    return [unit for unit in units if unit != f"rackproof-burnin-{identity}.service"]


def _follow(context: Context, node: Unit, identity: str, longest_s: float) -> Followed:
    """Reads the records as they come, until the end record, the deadline, or a unit that died without one."""
    followed, deadline, silent = Followed(), context.clock().timestamp() + longest_s, 0
    path = f"{FOLDER}/{identity}/records.jsonl"
    while followed.end is None and context.clock().timestamp() < deadline and silent < SILENT_POLLS:
        more = _more(context, node, path, len(followed.raw))
        if len(followed.raw) + len(more) > MAX_RECORDS_BYTES:
            raise UndecidedError(
                f"burn-in on {node.name} wrote more than {MAX_RECORDS_BYTES} bytes of records",
                f"look at {path} on the node",
            )
        try:
            fresh = followed.take(more)
        except RecordError as problem:
            context.ledger.artifacts.put(bytes(followed.raw))
            raise UndecidedError(
                f"burn-in records of {node.name}: {problem}", f"look at {path} on the node"
            ) from problem
        _show(context, node, fresh)
        if not fresh:
            silent = 0 if _is_active(context, node, identity) else silent + 1
            context.sleep(POLL_SECONDS)
    return followed


def _more(context: Context, node: Unit, path: str, offset: int) -> bytes:
    try:
        return context.hands.shell.read(node, path, offset, CHUNK_BYTES)
    except FileNotFoundError:
        return b""  # not written yet


def _show(context: Context, node: Unit, records: Iterable[Record]) -> None:
    for told in records:
        if isinstance(told, Progress):
            text = f"{told.workload} {told.text}".strip()
            done = min(told.done, NEARLY)
            context.progress(ctx.Progress(node.name, Stage.BURNIN, text, done, told.gpu))


def _keep(context: Context, node: Unit, order: Order, identity: str, followed: Followed) -> Mapping[str, str]:
    """Puts records and raw outputs on record; answers their digests by name. UndecidedError for another's records."""
    ledger, rack = context.ledger, context.rack.name
    origin = ledger.artifacts.put(bytes(followed.raw))
    kept = {"records": origin} | {a.name: _fetch(context, node, identity, a) for a in followed.artifacts}
    strangers = followed.runs - {identity}
    if strangers:
        raise UndecidedError(
            f"burn-in {identity} on {node.name}: its records are of run {', '.join(strangers)}", "look at the node"
        )
    complete = followed.end is not None and not followed.missing
    seats = {str(gpu): [seat.serial, seat.pci] for gpu, seat in followed.seats.items()}
    ledger.observed(
        rack, node.name, order.filed, {"id": identity, "artifacts": kept, "complete": complete, "gpus": seats}
    )
    return kept


def _fetch(context: Context, node: Unit, identity: str, artifact: Artifact) -> str:
    """The artifact's digest in our store, or why it is not there: raw output informs, measurements judge."""
    if not 0 <= artifact.bytes <= MAX_ARTIFACT_BYTES:
        return f"not fetched: {artifact.bytes} bytes"
    data = bytearray()
    try:
        while len(data) < artifact.bytes:
            path = f"{FOLDER}/{identity}/{artifact.name}"
            more = context.hands.shell.read(node, path, len(data), min(CHUNK_BYTES, artifact.bytes - len(data)))
            if not more:
                break
            data += more
    except (FileNotFoundError, UnreachableError) as problem:
        return f"not fetched: {problem}"
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        return f"not kept: its sha256 is not {artifact.sha256[:12]}"
    return context.ledger.artifacts.put(bytes(data))


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


def _ended(again: str, identity: str, followed: Followed, verdict: Verdict, complaint: str) -> Result:
    """How far the suite came, and over what. One that was cut short, or whose collectives took the wrong way, still
    condemns the part it failed on.
    """
    condemned = any(blames_hardware(f) for f in verdict.of(Answer.FAIL))
    if followed.end is None:
        return error("BURNIN_CUT", f"burn-in {identity} has no end: it died or ran out of time", again)
    if followed.missing and not condemned:
        return error("BURNIN_INCOMPLETE", f"burn-in {identity} did not end: {', '.join(followed.missing)}", again)
    if complaint and not condemned:
        return error(WRONG_FABRIC, complaint, f"rackproof explain {WRONG_FABRIC}, then: {again}")
    return passed(followed.poor or f"{len(followed.records)} records")

"""burnin: ship the burn-in to the node, run it detached, follow its records, fetch what it kept.

The run belongs to the node, not to this process: it is started under systemd with an id that is on record before the
start, so a controller that was killed finds it again and neither starts a second one nor loses the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from burnin.record import (
    MAX_LINE_BYTES,
    Artifact,
    End,
    Measured,
    Outcome,
    Progress,
    Record,
    RecordError,
    Start,
    WorkloadEnded,
    attempts,
    load,
)
from toolkit.errors import UndecidedError, UnreachableError
from toolkit.judge.evidence import Measurement, Subject
from toolkit.ledger import Event, EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Unit
from toolkit.stages import context as ctx
from toolkit.stages.archive import build_archive
from toolkit.stages.context import Context, Result, Work, error, passed

REMOTE = "/opt/rackproof/burnin.pyz"
FOLDER = "/var/lib/rackproof/burnin"
POLL_SECONDS = 1.0
COMMAND_SECONDS = 60.0
CHUNK_BYTES = 1024 * 1024
MAX_RECORDS_BYTES = 64 * 1024 * 1024
MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
# How long a suite may take before we stop waiting: three times what it plans, for a slow node is still a node.
SUITE_SECONDS = {"quick": 600.0, "standard": 3600.0, "long": 4 * 3600.0}
SILENT_POLLS = 10  # a unit that is gone this many polls without an end record will not write one any more


def run(context: Context, work: Work) -> None:
    """Measures every node, side by side. Judges nothing: that is certify's."""
    archive = context.settings.cache / "burnin.pyz"
    digest = build_archive(archive)

    def one(node: Unit) -> Result:
        context.hands.shell.run(node, ["mkdir", "-p", "/opt/rackproof", FOLDER], COMMAND_SECONDS)
        if _remote_digest(context, node) != digest:
            context.hands.shell.put(node, archive, REMOTE, 0o755)
        started = _start(context, node, work.runs[node.name])
        followed = _follow(context, node, started, context.rack.profile.suite)
        return _keep(context, node, work.runs[node.name], started, followed)

    work.each(work.nodes, one)


def _remote_digest(context: Context, node: Unit) -> str:
    answer = context.hands.shell.run(node, ["sha256sum", REMOTE], COMMAND_SECONDS)
    return answer.stdout[:64].decode("ascii", "replace") if answer.status == 0 else ""


def _start(context: Context, node: Unit, run: Run) -> str:
    """The id of the burn-in on the node: the one on record unless it came to no good end, else a new one."""
    rack = context.rack.name
    begun = context.ledger.find(rack, node.name, EventKind.INTENT, "burnin")
    fetched = context.ledger.find(rack, node.name, EventKind.OBSERVED, "burnin")
    joined = context.ledger.node_states(rack)[node.name].event
    poor = fetched is not None and begun is not None and fetched.id > begun.id and not _details(fetched)["complete"]
    resumable = begun is not None and begun.id > joined and not poor
    if begun and resumable:
        identity = str(_details(begun)["id"])
    else:
        identity = f"{rack}-{node.name}-{run.attempt}"
        context.ledger.intent(rack, node.name, "burnin", {"id": identity, "suite": context.rack.profile.suite})
    if _is_active(context, node, identity):
        return identity
    unit = [f"--unit=rackproof-burnin-{identity}", "--collect", "--quiet", "--property=KillMode=control-group"]
    profile = context.rack.profile
    suite = ["--run", identity, "--suite", profile.suite, "--gpus", str(profile.gpus_per_node)]
    argv = ["systemd-run", *unit, "/usr/bin/python3", REMOTE, "run", *suite, "--out", f"{FOLDER}/{identity}"]
    answer = context.hands.shell.run(node, argv, COMMAND_SECONDS)
    if answer.status != 0:
        said = (answer.stderr or answer.stdout)[:300].decode("utf-8", "replace")
        raise UndecidedError(f"burn-in on {node.name} did not start: {said.strip()}", f"rackproof bringup {rack}")
    return identity


def _details(event: Event) -> Mapping[str, object]:
    details = event.body["details"]
    return details if isinstance(details, dict) else {}


def _is_active(context: Context, node: Unit, identity: str) -> bool:
    argv = ["systemctl", "is-active", "--quiet", f"rackproof-burnin-{identity}.service"]
    return context.hands.shell.run(node, argv, COMMAND_SECONDS).status == 0


@dataclass(slots=True)
class _Followed:
    """What the node wrote so far: whole lines only. A last line without its end may be cut off and written anew."""

    raw: bytearray = field(default_factory=bytearray)
    records: list[Record] = field(default_factory=list)

    def take(self, more: bytes) -> list[Record]:
        """New records of the whole lines in `more`. Raises RecordError on anything that is not one."""
        whole = more[: more.rfind(b"\n") + 1]
        if not whole and len(more) > MAX_LINE_BYTES:
            raise RecordError(f"line over {MAX_LINE_BYTES} bytes")
        self.raw += whole
        fresh = list(load(whole.decode("ascii", "replace").split("\n")))
        self.records += fresh
        return fresh

    @property
    def last(self) -> list[Record]:
        """Records of the last attempt: one that was cut measured what counts no more."""
        found = attempts(self.records)
        return found[-1] if found else []

    @property
    def end(self) -> End | None:
        """The end record of the last attempt, if it came."""
        return next((r for r in reversed(self.last) if isinstance(r, End)), None)


def _follow(context: Context, node: Unit, identity: str, suite: str) -> _Followed:
    """Reads the records as they come, until the end record, the deadline, or a unit that died without one."""
    followed, deadline, silent = _Followed(), context.clock().timestamp() + SUITE_SECONDS[suite], 0
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
    for record in records:
        if isinstance(record, Progress):
            text = f"{record.workload} {record.text}".strip()
            context.progress(ctx.Progress(node.name, Stage.BURNIN, text, record.done))


def _keep(context: Context, node: Unit, run: Run, identity: str, followed: _Followed) -> Result:
    """Puts records, raw outputs and measurements on record; then says whether the suite came to its end."""
    ledger, rack = context.ledger, context.rack.name
    origin = ledger.artifacts.put(bytes(followed.raw))
    kept = {"records": origin} | {a.name: _fetch(context, node, identity, a) for a in _artifacts(followed)}
    strangers = {r.run for r in followed.last if isinstance(r, Start)} - {identity}
    if strangers:
        raise UndecidedError(
            f"burn-in {identity} on {node.name}: its records are of run {', '.join(strangers)}", "look at the node"
        )
    ledger.record_measurements(run, tuple(_measurements(node, run.id, origin, followed.last)))
    end = followed.end
    missing = [w for w in end.planned if w not in end.ended] if end else []
    complete = end is not None and bool(end.planned) and not missing
    ledger.observed(rack, node.name, "burnin", {"id": identity, "artifacts": kept, "complete": complete})
    again = f"rackproof bringup {rack}"
    if end is None:
        return error("BURNIN_CUT", f"burn-in {identity} on {node.name} has no end: it died or ran out of time", again)
    if not complete:
        return error(
            "BURNIN_INCOMPLETE", f"burn-in {identity} did not end: {', '.join(missing) or 'nothing planned'}", again
        )
    poor = [r for r in followed.last if isinstance(r, WorkloadEnded) and r.outcome is not Outcome.COMPLETED]
    told = "; ".join(f"{r.workload}{'' if r.gpu is None else f' gpu{r.gpu}'} {r.outcome.value}" for r in poor[:8])
    return passed(told or f"{len(followed.records)} records")


def _artifacts(followed: _Followed) -> list[Artifact]:
    return [r for r in followed.last if isinstance(r, Artifact)][:64]


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


def _measurements(node: Unit, run: str, origin: str, records: Iterable[Record]) -> Iterable[Measurement]:
    for record in records:
        if isinstance(record, Measured):
            subject = _subject(node, record)
            yield Measurement(record.metric, record.unit, record.value, subject, _when(node, record), run, origin)


def _when(node: Unit, record: Measured) -> datetime:
    try:
        at = datetime.fromisoformat(record.at)
    except ValueError as problem:
        raise UndecidedError(
            f"burn-in record of {node.name}: {problem}", "look at the records on the node"
        ) from problem
    if at.tzinfo is None:
        raise UndecidedError(f"burn-in record of {node.name}: {record.at} has no time zone", "look at the records")
    return at


def _subject(node: Unit, record: Measured) -> Subject:
    if record.gpu is None:
        return Subject(Scope.NODE, node.name)
    if record.link is None:
        return Subject(Scope.GPU, node.name, gpu=record.gpu)
    return Subject(Scope.LINK, node.name, gpu=record.gpu, link=record.link)

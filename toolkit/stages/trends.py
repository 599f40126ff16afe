"""How each board stood among its siblings, burn-in after burn-in: does it get worse? The key is its serial.

A board that was moved takes its history along, for all racks of the ledger are read. One that stayed through the repair
of its node begins anew: what it was before is no evidence of what it is now. A trend is a reason to measure
again and a warning in the certificate; it never fails a node by itself, for nobody has published what drift a sound
part may have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.judge.drift import Drift, Trend, drift
from toolkit.judge.evidence import Subject
from toolkit.judge.relative import Question
from toolkit.judge.sequential import Noise
from toolkit.ledger import EventKind, Run
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Move
from toolkit.rack.model import Suite, Unit
from toolkit.stages.burnin_records import seats_on_record
from toolkit.stages.context import Context

FILED = "trend"
_LEAST_SIGMA = 1 / 20  # of the limit: no reading repeats better than that
_MOST_EVENTS = 100_000

Key = tuple[str, Subject]


@dataclass(frozen=True, slots=True)
class Point:
    """Where a board stood in one burn-in, by the logarithm of its rate against its siblings'. `of`: its reading."""

    serial: str
    metric: str
    shift: float
    of: str


def drifts(
    context: Context, nodes: Sequence[Unit], runs: Mapping[str, Run], suite: Suite, asked: Iterable[Question]
) -> dict[Key, Drift]:
    """The trend of every board of these nodes, by metric and subject; on record, this burn-in with it."""
    boards = {s: serial for n in nodes for s, serial in _boards(context, n)}
    histories = _histories(context, suite, {serial: (context.rack.name, s.node) for s, serial in boards.items()})
    found: dict[Key, Drift] = {}
    told: dict[str, list[dict[str, object]]] = {n.name: [] for n in nodes}
    for q in asked:
        for point, subject in _points(q, boards):
            before = [p.shift for p in histories.get((point.serial, point.metric), ()) if p.of != point.of]
            trend = found[q.metric, subject] = drift([*before, point.shift], _noise(q))
            told[subject.node].append(_body(point, subject, trend))
    for node in nodes:
        body = {"run": runs[node.name].id, "suite": suite, "points": told[node.name]}
        context.ledger.observed(context.rack.name, node.name, FILED, body)
    return found


def _boards(context: Context, node: Unit) -> Iterator[tuple[Subject, str]]:
    """What has a serial of its own: the tray, and the GPUs that said theirs."""
    yield Subject(Scope.NODE, node.name), node.serial
    for gpu, seat in seats_on_record(context, node).items():
        if seat.serial:
            yield Subject(Scope.GPU, node.name, gpu=gpu), seat.serial


def _points(asked: Question, boards: Mapping[Subject, str]) -> Iterator[tuple[Point, Subject]]:
    for peer in asked.comparison.peers:
        if peer.subject in boards and peer.shift is not None:
            of = asked.of[peer.subject]
            yield Point(boards[peer.subject], asked.metric, peer.shift, of), peer.subject


def _noise(asked: Question) -> Noise:
    """The siblings', which bounds that of one board from one burn-in to the next."""
    noise = asked.comparison.noise
    if noise is None:
        raise AssertionError("who was compared has siblings with a noise")
    return Noise(max(noise.sigma, _LEAST_SIGMA * asked.limit), noise.degrees)


def _histories(
    context: Context, suite: Suite, seats: Mapping[str, tuple[str, str]]
) -> dict[tuple[str, str], list[Point]]:
    """Every board's points in that suite, oldest first, each reading once: a burn-in may be met again.

    seats  where boards are now, by serial: what they showed there before the node's last repair is left out
    """
    found: dict[tuple[str, str], dict[str, Point]] = {}
    moved = context.ledger.events(kind=EventKind.NODE_MOVED, limit=_MOST_EVENTS)
    repaired = {(e.rack, e.node): e.id for e in moved if e.body["move"] == Move.REPAIR}
    for event in context.ledger.events(kind=EventKind.OBSERVED, what=FILED, limit=_MOST_EVENTS):
        details = event.body["details"]
        if details["suite"] != suite:
            continue
        where = event.rack, event.node
        for p in details["points"]:
            if event.id < repaired.get(where, 0) and seats.get(p["serial"]) == where:
                continue
            point = Point(p["serial"], p["metric"], p["shift"], p["of"])
            found.setdefault((point.serial, point.metric), {})[point.of] = point
    return {key: list(points.values()) for key, points in found.items()}


def _body(point: Point, subject: Subject, trend: Drift) -> dict[str, object]:
    where = {"serial": point.serial, "metric": point.metric, "subject": str(subject)}
    why = trend.why if trend.trend is Trend.DRIFTING else ""  # of thousands of boards, those that an operator asks for
    return {**where, "shift": point.shift, "of": point.of, "trend": trend.trend, "why": why}

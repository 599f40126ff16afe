"""What a search of the rails comes to: for each node its result and its readings, and what goes on record.

A part is blamed where the search proved it, a configuration where tests took another way, nobody where it is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.locate import Exchange, Measured, Outcome, Suspect, Unmeasured
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, NewEvent
from toolkit.rack.gate import Scope
from toolkit.rack.lifecycle import Outcome as RunOutcome
from toolkit.rack.metric import METRICS, RAIL_METRIC
from toolkit.rack.model import Rack, Unit
from toolkit.stages.burnin_collectives import WRONG_FABRIC
from toolkit.stages.context import Result, error
from toolkit.stages.rail_search import Found, Lost, Ran, code_of, doubtful, named, node_of, shares

EXCHANGED = "RAIL_CABLES_EXCHANGED"
UNDECIDED = "RAIL_UNDECIDED"
MOST_WORDS = 600


def results(rack: Rack, nodes: Iterable[Unit], found: Found) -> dict[str, Result]:
    """What the search says against nodes; of those that are well it says nothing.

    A node with a convicted part leaves with it. One whose tests took another way, or of which something is open, is an
    ERROR with what would settle it.
    """
    blamed: dict[str, list[Suspect]] = {}
    for suspect in found.localisation.convicted:
        blamed.setdefault(node_of(found.fabric, suspect.segment), []).append(suspect)
    astray = {u.node: u for u in found.localisation.unmeasured}
    doubts = doubtful(found)
    ended = {}
    for node in nodes:
        if node.name in blamed:
            ended[node.name] = _convicted(node, blamed[node.name], found.localisation.exchanges)
        elif node.name in astray:
            ended[node.name] = _astray(rack, astray[node.name], found)
        elif node.name in doubts or found.unsure:
            why = "; ".join(w for w in (found.unsure, doubts.get(node.name, "")) if w)
            words = f"rails of {node.name} after {len(found.ran)} rounds: {why}"
            ended[node.name] = error(UNDECIDED, words[:MOST_WORDS], f"rackproof bringup {rack.name}")
    return ended


def measured(found: Found, node: str, run: str, at: datetime, origin: str) -> tuple[Measurement, ...]:
    """Of each HCA, the best bandwidth of a test it took part in: with a slow partner it is the partner's."""
    best: dict[str, float] = {}
    for ran in (r for tests in found.ran for r in tests):
        if isinstance(ran, Measured) and ran.gb_per_s is not None:
            for seat in (s for s in found.fabric.seats(ran.test) if s.node == node):
                best[seat.hca] = max(best.get(seat.hca, 0.0), ran.gb_per_s)
    return tuple(
        Measurement(RAIL_METRIC, METRICS[RAIL_METRIC].unit, value, Subject(Scope.HCA, node, hca=hca), at, run, origin)
        for hca, value in sorted(best.items())
    )


def judged(rack: str, node: str, result: Result, found: Found, origin: str) -> NewEvent:
    """The node's result with every reading behind it, as `why` shows findings. `origin`: the search's own record."""
    failed = result.outcome is RunOutcome.FAILED
    answer = Answer.FAIL if failed else Answer.INCONCLUSIVE
    details = [*_readings(node, found)] or [result.message]
    findings = [
        {
            "code": result.code, "answer": answer, "subject": result.part or f"rails of {node}", "value": None,
            "detail": words[:MOST_WORDS], "required": True, "artifact": origin,
        }
        for words in details
    ]  # fmt: skip
    body = {"answer": answer, "passed": 0, "findings": findings, "unplanned": []}
    return NewEvent(EventKind.JUDGED, rack, node, body, answer)


def in_record(found: Found) -> dict[str, object]:
    """For the ledger: every test with its reading, and what they come to."""

    def test(ran: Ran) -> dict[str, object]:
        seats = [f"{s.node}:{s.hca}" for s in found.fabric.seats(ran.test)]
        if isinstance(ran, Lost):
            return {"over": seats, "lost": ran.why[:300]}
        told: dict[str, object] = {"over": seats, "outcome": ran.outcome, "gb_per_s": ran.gb_per_s}
        if ran.counters:
            told["counted"] = {str(c.part): c.errors for c in ran.counters}
        return told | ({"instead": ran.words[:300]} if ran.words else {})

    located = found.localisation
    return {
        "rounds": [[test(r) for r in ran] for ran in found.ran],
        "unsure": found.unsure,
        "suspects": [
            {
                "segment": s.segment.name,
                "convicted": s.convicted,
                "probability": round(s.probability, 4),
                "shows": s.shows,
                "parts": {str(part): round(share, 4) for part, share in s.parts},
                "why": list(s.why),
                "settled_by": s.settled_by,
            }
            for s in located.suspects
        ],
        "exchanges": [{"rails": list(e.rails), "settled_by": e.settled_by} for e in located.exchanges],
        "unmeasured": [
            {"node": u.node, "endpoints": list(u.endpoints), "alone": u.alone, "settled_by": u.settled_by}
            for u in located.unmeasured
        ],
        "open": [s.name for s in located.open][:200],
    }


def _convicted(node: Unit, suspects: Sequence[Suspect], exchanges: Iterable[Exchange]) -> Result:
    names = {s.segment.name for s in suspects}
    exchange = next((e for e in exchanges if names & set(e.rails)), None)
    if exchange is not None:
        return _exchanged(node, exchange, suspects)
    first = suspects[0]
    parts = ", ".join(named(s) for s in suspects)
    why = "; ".join(first.why[:2])
    words = f"{first.segment.name}: {first.shows} ({first.probability:.1%}): {why}. In question: {shares(first)}"
    deed = f"service {parts} ({first.settled_by}), then: rackproof release {node.name}"
    return Result(RunOutcome.FAILED, code_of(first), words[:MOST_WORDS], parts, deed)


def _exchanged(node: Unit, exchange: Exchange, suspects: Sequence[Suspect]) -> Result:
    """Rails that reach nobody, two and more: cables in each other's port are likelier than as many dead ones."""
    rails = " and ".join(exchange.rails)
    words = f"{rails} reach nobody: their cables are in each other's leaf port, or all of them are dead"
    others = [named(s) for s in suspects if s.segment.name not in exchange.rails]
    more = f"; also {', '.join(others)}" if others else ""
    parts = ", ".join(f"cable {rail}" for rail in exchange.rails)
    deed = f"{exchange.settled_by}; then: rackproof release {node.name}"
    return Result(RunOutcome.FAILED, EXCHANGED, f"{words}{more}"[:MOST_WORDS], parts, deed)


def _astray(rack: Rack, astray: Unmeasured, found: Found) -> Result:
    instead = next(iter(_instead(astray.node, found)), "it took another way")
    hcas = sorted({s.hca for ran in _off_path(found) for s in found.fabric.seats(ran.test) if s.node == astray.node})
    if absent := sorted({name for ran in _off_path(found) for name in ran.absent if _over(found, ran, astray.node)}):
        words = f"rails of {astray.node} ({', '.join(hcas)}) were not measured: {instead}"
        again = f"see why nothing starts on {', '.join(absent)}, then: rackproof bringup {rack.name}"
        return error(UNDECIDED, words[:MOST_WORDS], again)
    whose = "" if astray.alone else "; whose configuration it is, tests do not tell"
    words = f"rails of {astray.node} ({', '.join(hcas)}) were not measured: {instead}{whose}"
    again = f"rackproof explain {WRONG_FABRIC}; check {astray.settled_by}; then: rackproof bringup {rack.name}"
    return error(WRONG_FABRIC, words[:MOST_WORDS], again)


def _off_path(found: Found) -> Iterator[Measured]:
    for ran in (r for tests in found.ran for r in tests):
        if isinstance(ran, Measured) and ran.outcome is Outcome.OFF_PATH:
            yield ran


def _instead(node: str, found: Found) -> Iterator[str]:
    for ran in _off_path(found):
        if ran.words and _over(found, ran, node):
            yield ran.words


def _over(found: Found, ran: Measured, node: str) -> bool:
    return any(s.node == node for s in found.fabric.seats(ran.test))


def _readings(node: str, found: Found) -> Iterator[str]:
    """What was read of the node's suspects, and what its tests measured instead of its rails."""
    for suspect in found.localisation.suspects:
        if node_of(found.fabric, suspect.segment) == node:
            shown = f"{suspect.segment.name} {suspect.shows} ({suspect.probability:.1%})"
            yield from (f"{shown}: {words}" for words in suspect.why)
    yield from dict.fromkeys(_instead(node, found))

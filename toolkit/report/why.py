"""The first unmet fact of a node, who owns it, the evidence and the next command. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.judge.dictionary import known_errors
from toolkit.judge.verdict import Answer
from toolkit.ledger import Event, EventKind
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.report.standing import Standing

SHOWN = 12
SUBJECTS = 8  # of one finding, by name
RECOVERY = "recovery"  # what rungs are filed under


@dataclass(frozen=True, slots=True)
class Why:
    """One answer. `evidence` lists findings and artifact digests of the last run.

    `known` says what stands behind a tool's words in the message, where `toolkit.judge.dictionary` has them.
    `rungs` are those of the ladder that can help, lowest first.
    """

    node: str
    state: NodeState
    stage: str
    code: str
    unmet: str
    part: str
    owner: str
    evidence: tuple[str, ...]
    next: str
    warnings: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    rungs: tuple[str, ...] = ()


def drifting(trend: Event | None) -> tuple[str, ...]:
    """The node's boards that get worse from one burn-in to the next, by the ledger's newest event of their trends."""
    points = trend.body["details"]["points"] if trend else ()
    return tuple(
        f"{p['metric']} of {p['subject']} ({p['serial']}): {p['why']}" for p in points if p["trend"] == "drifting"
    )[:SHOWN]


def why(rack: str, standing: Standing, events: tuple[Event, ...]) -> Why:
    """Why the node is where it is. `events` are the node's own since its last run began, oldest first."""
    again = f"rackproof bringup {rack}"
    stage = str(standing.stage or "")
    if standing.state is NodeState.ADMITTED and not standing.trouble:
        return Why(
            standing.node, standing.state, "", "", "nothing: it is admitted", "", "", (), f"rackproof status {rack}"
        )
    if not standing.trouble:
        unmet = f"stages after {stage} have not run" if stage else "it was never worked on"
        return Why(standing.node, standing.state, stage, "", unmet, "", "operator", (), again)
    # Evidence about hardware is the technician's; everything else is ours to settle first.
    owner = "hardware technician" if standing.outcome is Outcome.FAILED else "operator"
    return Why(
        standing.node, standing.state, stage, standing.code, standing.message, standing.part, owner,
        _evidence(events), _next(rack, standing, events) or standing.next or again,
        known=tuple(f"{known.says}: {known.cause}; {known.next}" for known in known_errors(standing.message)),
    )  # fmt: skip


def _evidence(events: tuple[Event, ...]) -> tuple[str, ...]:
    # What was tried since, then findings: what was read comes after what was found in it.
    ordered = sorted(events, key=lambda event: 0 if _is_rung(event) else 1 if event.kind == EventKind.JUDGED else 2)
    lines = list(dict.fromkeys(line for event in ordered for line in _lines(event)))
    return tuple(lines[:SHOWN]) + ((f"and {len(lines) - SHOWN} more",) if len(lines) > SHOWN else ())


def _next(rack: str, standing: Standing, events: tuple[Event, ...]) -> str:
    """What a rung that was done since asks for; empty where none was, or nothing came of it."""
    rungs = [event.body["details"] for event in events if _is_rung(event)]
    if not rungs or rungs[-1]["outcome"] != "settled":
        return ""
    back = f"rackproof release {standing.node}, then " if standing.state is NodeState.QUARANTINED else ""
    return f"nothing waits on it since {rungs[-1]['rung']}: {back}rackproof bringup {rack} measures it anew"


def _is_rung(event: Event) -> bool:
    return event.kind == EventKind.OBSERVED and event.what == RECOVERY


def _lines(event: Event) -> Iterator[str]:
    if event.kind == EventKind.JUDGED:
        findings: Any = event.body.get("findings", ())
        yield from _findings([f for f in findings if f["required"]])
    elif _is_rung(event):
        told = event.body["details"]
        said = f": {told['said']}" if told["said"] else ""
        yield f"recovery: {told['rung']} ({told['means']}) {told['outcome']}{said}"
    elif event.kind == EventKind.OBSERVED and event.body.get("artifact"):
        problem = f"  ({event.body['problem']})" if event.body.get("problem") else ""
        yield f"{event.what}: artifact {event.body['artifact']!s:.12}{problem}"


def _findings(found: list[dict[str, object]]) -> Iterator[str]:
    """Failures before doubts; what differs in its subject alone is one line."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for f in sorted(found, key=lambda f: f["answer"] != Answer.FAIL):
        key = (str(f["answer"]), str(f["code"]), str(f["detail"]), str(f.get("artifact") or ""))
        groups.setdefault(key, []).append(str(f["subject"]))
    for (answer, code, detail, artifact), subjects in groups.items():
        more = f" and {len(subjects) - SUBJECTS} more" if len(subjects) > SUBJECTS else ""
        where = f"{', '.join(subjects[:SUBJECTS])}{more}"
        yield f"{answer} {code} on {where}: {detail}{f' (artifact {artifact:.12})' if artifact else ''}"

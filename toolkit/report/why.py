"""The first unmet fact of a node, who owns it, the evidence and the next command. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit.ledger import Event, EventKind
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.report.standing import Standing

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Why:
    """One answer. `evidence` lists findings and artifact digests of the last run."""

    node: str
    state: NodeState
    stage: str
    code: str
    unmet: str
    part: str
    owner: str
    evidence: tuple[str, ...]
    next: str


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
        _evidence(events), standing.next or again,
    )  # fmt: skip


def _evidence(events: tuple[Event, ...]) -> tuple[str, ...]:
    # Findings first: what was read comes after what was found in it.
    ordered = sorted(events, key=lambda event: event.kind != EventKind.JUDGED)
    lines = [line for event in ordered for line in _lines(event)]
    return tuple(lines[:SHOWN]) + ((f"and {len(lines) - SHOWN} more",) if len(lines) > SHOWN else ())


def _lines(event: Event) -> Iterator[str]:
    if event.kind == EventKind.JUDGED:
        findings: Any = event.body.get("findings", ())
        yield from (_finding(f) for f in findings if f["required"])
    elif event.kind == EventKind.OBSERVED and event.body.get("artifact"):
        problem = f"  ({event.body['problem']})" if event.body.get("problem") else ""
        yield f"{event.what}: artifact {event.body['artifact']!s:.12}{problem}"


def _finding(found: dict[str, object]) -> str:
    artifact = f" (artifact {found['artifact']!s:.12})" if found.get("artifact") else ""
    return f"{found['answer']} {found['code']} on {found['subject']}: {found['detail']}{artifact}"

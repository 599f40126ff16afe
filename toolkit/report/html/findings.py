"""What stands against each node by its last verdict, grouped by code, with the code's words and the next command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import Outcome
from toolkit.rack.model import Rack
from toolkit.report.codes import ERROR_CODES
from toolkit.report.html.values import FindingRow
from toolkit.report.standing import Standing

MAX_SUBJECTS = 16


def findings_of(ledger: Ledger, rack: Rack, stood: Iterable[Standing]) -> tuple[FindingRow, ...]:
    """First what keeps each node where it is, failures before doubts, then all else that its last verdict noted.

    Nothing of a node that is at its goal.
    """
    rows: list[FindingRow] = []
    for standing in stood:
        if not standing.trouble:
            continue
        grouped = _grouped(_judged(ledger, rack, standing))
        if standing.code not in {code for code, _ in grouped}:
            rows.append(_of_run(rack, standing))
        rows += [_row(rack, standing, code, answer, found) for (code, answer), found in grouped.items()]
    return tuple(sorted(rows, key=lambda row: (not row.blamed, row.answer is not Answer.FAIL)))


def _judged(ledger: Ledger, rack: Rack, standing: Standing) -> list[Mapping[str, Any]]:
    """Findings of required gates in the node's last run, as recorded: no pass is among them."""
    last = ledger.last_run(rack.name, standing.node)
    if last is None or last.stage is not standing.stage:
        return []
    events = ledger.events(rack.name, standing.node, kind=EventKind.JUDGED, after=last.event)
    return [found for event in events[-1:] for found in event.body.get("findings", ()) if found["required"]]


def _grouped(found: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Answer], list[Mapping[str, Any]]]:
    groups: dict[tuple[str, Answer], list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault((str(one["code"]), Answer(one["answer"])), []).append(one)
    return groups


def _row(
    rack: Rack, standing: Standing, code: str, answer: Answer, found: list[Mapping[str, Any]]
) -> FindingRow:  # fmt: skip
    subjects = list(dict.fromkeys(str(one["subject"]) for one in found))
    more = [f"and {len(subjects) - MAX_SUBJECTS} more"] if len(subjects) > MAX_SUBJECTS else []
    blamed = code == standing.code
    return FindingRow(
        standing.node, code, answer, (*subjects[:MAX_SUBJECTS], *more), str(found[0]["detail"]), meaning_of(rack, code),
        standing.part if blamed else "", standing.next if blamed else f"rackproof explain {code}",
        str(found[0].get("artifact", "")), blamed,
    )  # fmt: skip


def _of_run(rack: Rack, standing: Standing) -> FindingRow:
    """What ended the last run, where no gate says it: an ERROR of ours, or cables."""
    answer = Answer.FAIL if standing.outcome is Outcome.FAILED else Answer.INCONCLUSIVE
    meaning = meaning_of(rack, standing.code)
    return FindingRow(
        standing.node,
        standing.code,
        answer,
        (standing.node,),
        standing.message,
        meaning,
        standing.part,
        standing.next,
        "",
        True,
    )


def meaning_of(rack: Rack, code: str) -> str:
    """The code's own words; else what its gate is for, with the limit's source."""
    if code in ERROR_CODES:
        return ERROR_CODES[code]
    gate = next((g for g in rack.profile.gates if g.code == code), None)
    return f"{gate.why} Source: {gate.source} ({gate.date})." if gate else ""

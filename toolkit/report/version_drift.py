"""The drift report of a rack's version lock as text: one line a pin and version, with the nodes folded."""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.judge.verdict import Answer
from toolkit.judge.version_drift import DriftReport

_MOST_NODES = 8


def lines(report: DriftReport) -> tuple[str, ...]:
    """What to print; the first line is the answer. Versions come from nodes and are made printable."""
    head = {
        Answer.PASS: f"all {report.nodes} nodes have the {report.pins} versions of the lock",
        Answer.FAIL: f"{sum(not d.unread for d in report.drifts)} of {report.pins} pins are not kept",
        Answer.INCONCLUSIVE: "undecided: no other version was seen, and not everything was read",
    }[report.answer]
    rows = [
        (drift.pin, drift.locked, _printable(version), _nodes(nodes))
        for drift in report.drifts
        for version, nodes in drift.found
    ]
    if not rows:
        return (head,)
    titles = ("pin", "lock", "found", "nodes")
    widths = [max(len(row[column]) for row in (titles, *rows)) for column in range(3)]
    table = [
        "  " + "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in (titles, *rows)
    ]
    return (head, *table)


def _printable(version: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in version)[:60]


def _nodes(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NODES} more" if len(names) > _MOST_NODES else ""
    return f"{len(names)}: " + ", ".join(names[:_MOST_NODES]) + more

"""Results as CSV: RFC 4180, a row for each case, every cell quoted, no cell a formula. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from toolkit.export.results import Case, Results, Suite
from toolkit.report.text import cell

COLUMNS = (
    "rack", "node", "serial", "slot", "state", "stage", "case", "subject", "answer", "required", "metric", "value",
    "unit", "operator", "limit", "measured_at", "seconds", "detail", "code", "part", "next", "artifact_sha256",
)  # fmt: skip


def table(results: Results) -> bytes:
    """The file, with a row of names. A value that nobody knows is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for suite, case in results.cases():
        writer.writerow([cell("" if value is None else value) for value in _row(results, suite, case)])
    return out.getvalue().encode("utf-8", "replace")


def _row(results: Results, suite: Suite, case: Case) -> Iterator[object]:
    node = next((n for n in results.nodes if n.name == suite.node), None)
    yield from (results.rack, suite.node)
    yield from (node.serial, node.slot, node.state) if node else ("", None, "")
    yield from (suite.stage, case.name, case.subject, case.answer)
    gate = case.gate
    if gate:
        limit = ", ".join(gate.limit) if isinstance(gate.limit, tuple) else gate.limit
        yield from (str(gate.required).lower(), gate.metric, case.value, gate.unit, gate.operator, limit)
    else:
        yield from ("", "", case.value, "", "", "")
    yield from (case.at.isoformat() if case.at else "", case.seconds)
    yield from (case.detail, case.code, case.part, case.next, case.artifact)

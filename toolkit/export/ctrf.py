"""Results as CTRF, the Common Test Report Format 0.0. Pure.

CTRF knows no errors: what could not be told is `other`, never `passed`, with our own word as its raw status. It wants a
duration of every test: where nobody knows one, `duration` is 0 and `extra.durationKnown` is false.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

from toolkit.export.plain import plain_document
from toolkit.export.results import Answered, Case, Results, Suite

SPEC_VERSION = "0.0.0"
_STATUS = {
    Answered.PASSED: "passed", Answered.FAILED: "failed", Answered.ERROR: "other", Answered.SKIPPED: "skipped",
}  # fmt: skip


def ctrf(results: Results) -> bytes:
    """The document."""
    tests = [_test(results, suite, case) for suite, case in results.cases()]
    counted = Counter(str(test["status"]) for test in tests)
    times = [at for suite in results.suites for at in (suite.began, suite.ended) if at]
    document = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        "timestamp": results.made_at.astimezone(UTC).isoformat(),
        "generatedBy": "rackproof",
        "results": {
            "tool": {"name": "rackproof", "version": results.version},
            "summary": {
                "tests": len(tests),
                **{status: counted[status] for status in ("passed", "failed", "skipped", "pending", "other")},
                "suites": len(results.suites),
                "start": _ms(min(times, default=results.made_at)),
                "stop": _ms(max(times, default=results.made_at)),
            },
            "tests": tests,
            "environment": {
                "appName": results.rack,
                "testEnvironment": results.site,
                "healthy": results.answer is Answered.PASSED,
                "extra": {"profile": results.profile, "sku": results.sku, "answer": results.answer.value},
            },
        },
    }
    return json.dumps(plain_document(document), indent=1).encode() + b"\n"


def _test(results: Results, suite: Suite, case: Case) -> dict[str, object]:
    metric = f" {case.gate.metric}" if case.gate else ""
    test: dict[str, object] = {
        "name": f"{case.name} {case.subject}{metric}",
        "status": _STATUS[case.answer],
        "rawStatus": case.answer.value,
        "duration": 0 if case.seconds is None else round(case.seconds * 1000),
        "suite": [name for name in (results.rack, suite.node, suite.stage) if name],
        "extra": _extra(case),
    }
    if case.detail:
        test["message"] = case.detail
    if case.at:
        test["stop"] = _ms(case.at)
    return test


def _extra(case: Case) -> dict[str, object]:
    told: dict[str, object] = {"durationKnown": case.seconds is not None}
    for name, text in (("code", case.code), ("part", case.part), ("next", case.next), ("artifact", case.artifact)):
        if text:
            told[name] = text
    if case.gate:
        gate = case.gate
        limit = list(gate.limit) if isinstance(gate.limit, tuple) else gate.limit
        told |= {"metric": gate.metric, "unit": gate.unit, "operator": gate.operator.value, "limit": limit}
        told |= {"required": gate.required, "source": gate.source}
    if case.value is not None:
        told["value"] = case.value
    return told


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)

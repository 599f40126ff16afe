"""Results as Kubernetes Events of the nodes, for `kubectl apply -f`. Pure.

An event for the newest run of every stage, and one for where the node stands. The same results make the same names, so
applying them twice changes nothing. The API server forgets events after an hour unless it is told otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime

from toolkit.export.on_record import OUTCOME, STATE
from toolkit.export.plain import plain
from toolkit.export.results import Answered, Case, Results, Suite

COMPONENT = "rackproof"
NAMESPACE = "default"  # events of what has no namespace are kept there
# Bytes of a note and characters of a reason, by the API reference of events.k8s.io/v1.
_MESSAGE, _REASON = 1024, 128
_NAME = 253  # of any object: a DNS subdomain


def events(results: Results) -> bytes:
    """A List of them, as JSON."""
    items = [
        _event(results, suite, case)
        for suite, case in results.cases()
        if case.name in (OUTCOME, STATE) and case.answer is not Answered.SKIPPED
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=1).encode() + b"\n"


def _event(results: Results, suite: Suite, case: Case) -> dict[str, object]:
    at = _time(case.at or suite.ended or suite.began or results.made_at)
    known = case.at or suite.ended or suite.began
    words = "; ".join(_words(suite, case))
    digest = hashlib.sha256(
        "\0".join((results.rack, suite.node, suite.stage, words, at if known else "")).encode("utf-8", "replace")
    )
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"rackproof-{digest.hexdigest()[:24]}",
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/name": COMPONENT},
        },
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": _text(suite.node, _NAME)},
        "type": "Normal" if case.answer is Answered.PASSED else "Warning",
        "reason": _reason(suite, case),
        "message": _text(words, _MESSAGE),
        "source": {"component": COMPONENT},
        "reportingComponent": f"rackproof.dev/{COMPONENT}",
        "reportingInstance": _text(results.rack, _REASON),
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def _reason(suite: Suite, case: Case) -> str:
    """The code where there is one: Kubernetes wants a word for a machine, and that is what it is."""
    what = "node" if case.name == STATE else suite.stage
    return _text(case.code or f"Rackproof{what.capitalize()}{case.answer.capitalize()}", _REASON)


def _words(suite: Suite, case: Case) -> Iterator[str]:
    what = "node" if case.name == STATE else suite.stage
    yield f"{what}: {case.answer}{': ' if case.detail else ''}{case.detail}"
    if case.part:
        yield f"part: {case.part}"
    if case.next:
        yield f"next: {case.next}"


def _time(at: datetime) -> str:
    """As metav1.Time has it: whole seconds, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _text(text: str, most: int) -> str:
    """Of so many bytes at most: the API server counts them."""
    return plain(text, most).encode()[:most].decode("utf-8", "ignore")

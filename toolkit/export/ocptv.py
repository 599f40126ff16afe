"""Results as JSON lines of the OCP Test and Validation output specification 2.0. Pure.

https://github.com/opencomputeproject/ocp-diag-core/tree/main/json_spec (read 2026-11). The rack is the device under
test; a step is a stage on a node. What could not be told is an `error` and a diagnosis UNKNOWN, and a run with one is
ERROR, NOT_APPLICABLE unless something failed. What was not asked is a log line and no diagnosis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from toolkit.export.plain import plain_document
from toolkit.export.results import Answered, Case, Results, Suite
from toolkit.rack.gate import Gate, Operator

_TYPES = {Answered.PASSED: "PASS", Answered.FAILED: "FAIL", Answered.ERROR: "UNKNOWN"}
_ENDS = {
    Answered.PASSED: ("COMPLETE", "PASS"),
    Answered.FAILED: ("COMPLETE", "FAIL"),
    Answered.ERROR: ("ERROR", "NOT_APPLICABLE"),
    Answered.SKIPPED: ("SKIP", "NOT_APPLICABLE"),
}
_VALIDATORS = {
    Operator.AT_LEAST: "GREATER_THAN_OR_EQUAL", Operator.AT_MOST: "LESS_THAN_OR_EQUAL", Operator.EQUALS: "EQUAL",
}  # fmt: skip

Artifact = dict[str, object]


def ocptv(results: Results) -> bytes:
    """The lines, each with its number and the time that it is of."""
    lines = []
    for number, (at, artifact) in enumerate(_artifacts(results)):
        lines.append(json.dumps(plain_document({"sequenceNumber": number, "timestamp": _time(at), **artifact})))
    return "\n".join(lines).encode() + b"\n"


def _artifacts(results: Results) -> Iterator[tuple[datetime, Artifact]]:
    hardware = _hardware(results)
    yield results.made_at, {"schemaVersion": {"major": 2, "minor": 0}}
    yield results.made_at, {"testRunArtifact": {"testRunStart": _start(results, hardware)}}
    for number, suite in enumerate(results.suites):
        for at, artifact in _step(results, suite, hardware):
            yield at, {"testStepArtifact": {"testStepId": str(number), **artifact}}
    status, result = _ENDS[results.answer]
    yield results.made_at, {"testRunArtifact": {"testRunEnd": {"status": status, "result": result}}}


def _start(results: Results, hardware: Mapping[str, Artifact]) -> Artifact:
    return {
        "name": f"rackproof {results.rack}",
        "version": results.version,
        "commandLine": f"rackproof export {results.rack} --format ocptv",
        "parameters": {"site": results.site, "profile": results.profile},
        "dutInfo": {
            "dutInfoId": results.rack,
            "name": results.rack,
            "platformInfos": [{"info": results.sku}],
            "softwareInfos": [
                {
                    "softwareInfoId": "rackproof", "name": "rackproof", "version": results.version,
                    "softwareType": "APPLICATION",
                }
            ],
            "hardwareInfos": list(hardware.values()),
        },
    }  # fmt: skip


def _hardware(results: Results) -> dict[str, Artifact]:
    """Every node, and every GPU that one reported, by what cases are asked of. Serials nobody told are left out."""
    found: dict[str, Artifact] = {}
    for node in results.nodes:
        found[node.name] = {
            "hardwareInfoId": node.name, "name": node.name, "location": f"slot {node.slot}",
        }  # fmt: skip
        if node.serial:
            found[node.name]["serialNumber"] = node.serial
        for index, seat in node.gpus:
            name = f"{node.name}/gpu{index}"
            found[name] = {"hardwareInfoId": name, "name": f"GPU {index} of {node.name}"}
            if seat.serial:
                found[name]["serialNumber"] = seat.serial
            if seat.pci:
                found[name]["location"] = seat.pci
    return found


def _step(results: Results, suite: Suite, hardware: Mapping[str, Artifact]) -> Iterator[tuple[datetime, Artifact]]:
    began = suite.began or suite.ended or results.made_at
    ended = suite.ended or began
    yield began, {"testStepStart": {"name": suite.name}}
    for case in suite.cases:
        at = case.at or ended
        for artifact in _case(case, _where(case.subject, hardware)):
            yield at, artifact
    answers = {case.answer for case in suite.cases}
    status = "ERROR" if Answered.ERROR in answers else "SKIP" if answers <= {Answered.SKIPPED} else "COMPLETE"
    yield ended, {"testStepEnd": {"status": status}}


def _case(case: Case, where: Artifact) -> Iterator[Artifact]:
    """What was measured, then what it came to."""
    if case.value is not None and case.gate is not None:
        measurement: Artifact = {"name": case.gate.metric, "value": case.value, "unit": case.gate.unit, **where}
        measurement["validators"] = list(_validators(case.gate))
        told = {"subject": case.subject, "gate": case.name, "source": case.gate.source, "artifactSha256": case.artifact}
        measurement["metadata"] = {name: text for name, text in told.items() if text}
        yield {"measurement": measurement}
    words = "; ".join(filter(None, (case.detail, case.part, case.next)))
    if case.answer is Answered.SKIPPED:
        yield {"log": {"severity": "INFO", "message": f"{case.name} of {case.subject} is skipped: {words}"}}
        return
    if case.answer is Answered.ERROR:
        symptom = case.code or case.name
        yield {"error": {"symptom": symptom, "message": f"{case.subject}: {words}", "softwareInfoIds": []}}
    verdict = case.code or case.name
    yield {"diagnosis": {"verdict": verdict, "type": _TYPES[case.answer], "message": words, **where}}


def _validators(gate: Gate) -> Iterator[Artifact]:
    """None for a gate that compares parts with one another: its limit is no number of the part's own.

    A set is a pattern here: the specification takes an array, and its JSON schema does not.
    """
    if gate.operator is Operator.ONE_OF and isinstance(gate.limit, tuple):
        words = "|".join(re.escape(word) for word in gate.limit)
        yield {"name": gate.code, "type": "REGEX_MATCH", "value": f"^({words})$"}
    kind = _VALIDATORS.get(gate.operator)
    if kind and isinstance(gate.limit, int | float | str):
        yield {"name": gate.code, "type": kind, "value": gate.limit}


def _where(subject: str, hardware: Mapping[str, Artifact]) -> Artifact:
    """The part that has a serial, and what of it the case is about."""
    node, _, rest = subject.partition("/")
    first, _, inside = rest.partition("/")
    for name, sub in ((f"{node}/{first}", inside), (node, rest)):
        if name in hardware:
            at: Artifact = {"hardwareInfoId": hardware[name]["hardwareInfoId"]}
            if sub:
                kind = "BUS" if sub.startswith("nvlink") else "UNSPECIFIED"
                at["subcomponent"] = {"type": kind, "name": sub}
            return at
    return {}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

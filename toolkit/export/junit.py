"""Results as JUnit XML, as Jenkins, GitLab and GitHub read it. Pure.

XML 1.0 cannot hold control characters, not even escaped ones: `plain` replaces them, the library escapes markup.
An ERROR is `<error>`, a failure `<failure>`, what was not asked `<skipped>`. A time that nobody knows is left out.
https://github.com/testmoapp/junitxml describes the format that these readers share (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from toolkit.export.plain import plain
from toolkit.export.results import Answered, Case, Results, Suite

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_ELEMENT = {Answered.FAILED: "failure", Answered.ERROR: "error", Answered.SKIPPED: "skipped"}


def junit(results: Results) -> bytes:
    """The file: a suite for each node and stage, a case for each question."""
    from xml.etree.ElementTree import Element, ElementTree, SubElement, indent, tostring

    root = Element("testsuites", {"name": plain(f"rackproof {results.rack}"), **_counts(results)})
    for suite in results.suites:
        head = {"name": plain(suite.name), **_counts(suite)}
        if suite.began:
            head["timestamp"] = _time(suite.began)
        if suite.began and suite.ended:
            head["time"] = _seconds((suite.ended - suite.began).total_seconds())
        element = SubElement(root, "testsuite", head)
        _properties(element, _of_suite(results, suite))
        for case in suite.cases:
            element.append(_case(results, suite, case))
    indent(ElementTree(root))
    made: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return made + b"\n"


def _case(results: Results, suite: Suite, case: Case) -> Element:
    from xml.etree.ElementTree import Element, SubElement

    of = ".".join(filter(None, ("rackproof", results.rack, suite.node, suite.stage)))
    metric = f" {case.gate.metric}" if case.gate else ""
    head = {"classname": plain(of), "name": plain(f"{case.name} {case.subject}{metric}")}
    if case.seconds is not None:
        head["time"] = _seconds(case.seconds)
    element = Element("testcase", head)
    _properties(element, _of_case(case))
    name = _ELEMENT.get(case.answer)
    if name:
        told = {"message": plain(case.detail)}
        if case.answer is not Answered.SKIPPED:
            told["type"] = plain(case.code or case.name)
        SubElement(element, name, told).text = plain("; ".join(_lines(case)))
    return element


def _lines(case: Case) -> Iterator[str]:
    yield case.detail
    if case.part:
        yield f"part: {case.part}"
    if case.next:
        yield f"next: {case.next}"


def _properties(element: Element, told: Iterator[tuple[str, str]]) -> None:
    from xml.etree.ElementTree import SubElement

    pairs = [(name, value) for name, value in told if value]
    if pairs:
        properties = SubElement(element, "properties")
        for name, value in pairs:
            SubElement(properties, "property", {"name": name, "value": plain(value)})


def _of_suite(results: Results, suite: Suite) -> Iterator[tuple[str, str]]:
    node = next((n for n in results.nodes if n.name == suite.node), None)
    yield from (("site", results.site), ("profile", results.profile), ("rackproof", results.version))
    if node:
        yield from (("serial", node.serial), ("slot", str(node.slot)), ("state", node.state.value))


def _of_case(case: Case) -> Iterator[tuple[str, str]]:
    yield "measured_at", _time(case.at) if case.at else ""
    yield "artifact_sha256", case.artifact
    if case.gate:
        gate = case.gate
        yield from (("metric", gate.metric), ("unit", gate.unit), ("operator", gate.operator.value))
        yield from (("limit", str(gate.limit)), ("required", str(gate.required).lower()), ("source", gate.source))
        yield "value", "" if case.value is None else str(case.value)


def _counts(of: Results | Suite) -> dict[str, str]:
    total = sum(of.count(answer) for answer in Answered)
    return {
        "tests": str(total),
        "failures": str(of.count(Answered.FAILED)),
        "errors": str(of.count(Answered.ERROR)),
        "skipped": str(of.count(Answered.SKIPPED)),
    }


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _time(at: datetime) -> str:
    """As the schema has it: seconds, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")

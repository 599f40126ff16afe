"""`dcgmi diag`: JSON of DCGM 2 to 4, or the table. Text in, `DiagReport` out; NVLink reports of dcgmi: dcgm_nvlink.

What DCGM calls a pass is recorded as its own word and nothing more: its floors are not ours, it passes tests that
looked at three quarters of the memory, and a test that was skipped did not pass. A cell of the table is wrapped in the
middle of words after 45 characters; its lines are put together again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from toolkit.facts import dcgm_nvlink
from toolkit.facts.dcgm_nvlink import LinkErrors, LinkStates
from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_TESTS = 1024
MAX_ENTITIES = 1024
MAX_MESSAGES = 256
_TEXT = 2048
_WORST_FIRST = ("Fail", "Error", "Warn", "Skip", "Not Run", "Pass")
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_ROW = re.compile(r"\|([^|]{1,64})\|([^|]{0,4096})(\|?)\s{0,8}\Z")
_SECTION = re.compile(r"[|+]-{2,32} {1,8}([A-Za-z][A-Za-z ]{0,40}?) {1,8}-{2,32}\+")
_BORDER = re.compile(r"[|+][-=]{4,64}\+[-=]{4,128}[|+]\s{0,8}\Z")
_STATED = re.compile(r"(Pass|Fail|Warn|Skip|Not Run)(?: - (All|GPUs?: ([\d, ]{1,2048})))?\s{0,64}\Z")
_CELL = 45  # characters of text in a line of the table's second cell
_MESSAGES = ("Error", "Warning", "Info")
_GPU_OF_TEXT = re.compile(r"\bGPU (\d{1,4})\b")
# What DCGM appends to a finding: what to do about it (dcgm_errors.h, the suggestions).
_ADVICE = re.compile(r"(?<=\S)\.? (?=(?:Verify that|Please |Run |Enable |Check |Reset |Drain |Reboot ))")
_ROOTS = ("DCGM Diagnostic", "DCGM GPU Diagnostic")


@dataclass(frozen=True, slots=True)
class EntityResult:
    """A test's result on one GPU (or CPU): the status as printed, DCGM's numbers of its errors."""

    entity: int
    status: str
    errors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Test:
    """One test. `category` is known of JSON alone; by_status: GPUs by status, where the table lists them."""

    name: str
    status: str
    category: str | None = None
    per_entity: tuple[EntityResult, ...] = ()
    by_status: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Keys without a value are left out."""
        out: dict[str, Any] = {"category": self.category} if self.category is not None else {}
        out["test"] = self.name
        if self.by_status:
            return out | {status.lower(): list(gpus) for status, gpus in self.by_status}
        out["status"] = self.status
        if self.per_entity:
            out["per_entity"] = [
                {"entity": e.entity, "status": e.status, "errors": list(e.errors)} for e in self.per_entity
            ]
        return out


@dataclass(frozen=True, slots=True)
class DiagReport:
    """What one run of the diagnostic says.

    errors, warnings   in DCGM's words, wrapped lines joined
    broken             sections of a table with an error and no test that failed
    complete           the output is whole: JSON to its last brace, a table to its last border
    """

    tests: tuple[Test, ...]
    version: str | None = None
    driver: str | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    complete: bool = True

    def _named(self, status: str) -> list[str]:
        return [t.name for t in self.tests if t.status == status]

    def as_json(self) -> dict[str, Any]:
        """Tests in order; `failed`, `warned`, `skipped` name them. `gpus`: those the errors speak of.

        DCGM appends what to do to what it found; the two are told apart where its words begin as it begins them.
        """
        out: dict[str, Any] = {
            "version": self.version,
            "driver": self.driver,
            "tests": [t.as_json() for t in self.tests],
            "failed": [*self._named("Fail"), *self.broken],
            "warned": self._named("Warn"),
            "skipped": [*self._named("Skip"), *self._named("Not Run")],
            "complete": self.complete,
        }
        if self.errors:
            out["error"] = "; ".join(_ADVICE.split(text, 1)[0] for text in self.errors)
            out["gpus"] = sorted({int(n) for text in self.errors for n in _GPU_OF_TEXT.findall(text)})
        if self.warnings:
            out["warning"] = "; ".join(_ADVICE.split(text, 1)[0] for text in self.warnings)
        if advice := [part for text in (*self.errors, *self.warnings) for part in _ADVICE.split(text, 1)[1:]]:
            out["advice"] = advice
        return out

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting a pass."""
        skipped = [f"{name} was skipped: that is no pass" for name in self.as_json()["skipped"]]
        found = [] if self.complete else ["the output was cut"]
        return (*found, *skipped, *([] if self.tests else ["no test in it"]))


def parse(text: str) -> DiagReport | LinkErrors | LinkStates:
    """Reads any output of dcgmi known here. Raises UnreadableError for JSON that is cut, and for other text."""
    clean = _ESCAPE.sub("", text[:MAX_CHARACTERS])
    start = clean.find("{")
    if start >= 0 and clean[start + 1 : start + 4096].lstrip()[:1] in ('"', "}"):
        return _of_json(_loaded(clean, start))
    if dcgm_nvlink.is_states(clean):
        return dcgm_nvlink.states(clean)
    if "|" not in clean:
        raise UnreadableError("neither JSON nor a table: not the output of dcgmi diag")
    return _Table().read(clean)


def _loaded(text: str, start: int) -> Any:
    try:
        value, _ = json.JSONDecoder(parse_constant=lambda _: None).raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, start) + getattr(error, "lineno", 1)
        raise UnreadableError(f"not whole JSON: {str(error)[:120]}", line) from error
    return value


def _of_json(value: Any) -> DiagReport | LinkErrors:
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        return dcgm_nvlink.errors(value)
    root = next((value[key] for key in _ROOTS if isinstance(value, dict) and isinstance(value.get(key), dict)), None)
    if root is None:
        raise UnreadableError("JSON, but with no diagnostic in it")
    told = _object(value.get("metadata"))
    # DCGM 3.3 has the versions inside the diagnostic, 4 beside it
    version = _word(told.get("version")) or _word(root.get("version")) or _word(root.get("DCGM Version"))
    driver = _word(told.get("Driver Version Detected")) or _word(root.get("Driver Version Detected"))
    errors = [_word(root.get(key)) or _word(value.get(key)) for key in ("runtime_error", "error", "Error")]
    tests = tuple(_tests(root))[:MAX_TESTS]
    return DiagReport(tests, version, driver, tuple(e for e in errors if e), complete=bool(tests or any(errors)))


def _tests(root: dict[str, Any]) -> Iterator[Test]:
    for category in _objects(root.get("test_categories")):
        for test in _objects(category.get("tests")):
            results = _objects(test.get("results"))
            entities = tuple(e for r in results for e in _entities(r))[:MAX_ENTITIES]
            said = _word(_object(test.get("test_summary")).get("status"))
            status = said or _worst(_word(r.get("status")) for r in results)
            yield Test(_word(test.get("name")) or "", status, _word(category.get("category")), entities)


def _entities(result: dict[str, Any]) -> Iterator[EntityResult]:
    """DCGM 4 has `entity_id`, 3 `gpu_id` (a text), 2 and 3 `gpu_ids` (a list in a text)."""
    status = _word(result.get("status")) or ""
    warnings = [w for w in _objects(result.get("warnings")) if _count(w.get("error_id")) is not None]
    errors = tuple(_count(w["error_id"]) or 0 for w in warnings)
    named = result.get("entity_id", result.get("gpu_id", result.get("gpu_ids")))
    numbers = re.findall(r"\d{1,4}", named[:4096]) if isinstance(named, str) else [named]
    for number in numbers:
        entity = _count(number)
        if entity is not None:
            yield EntityResult(entity, status, errors)


def _worst(statuses: Iterable[str | None]) -> str:
    """The worst known status; one that is not known is worse than a pass."""
    found = [status or "" for status in statuses]
    unknown = next((status for status in found if status not in _WORST_FIRST), None)
    for status in _WORST_FIRST:
        if status == "Pass" and unknown is not None:
            return unknown
        if status in found:
            return status
    return ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _word(value: Any) -> str | None:
    return value[:_TEXT] if isinstance(value, str) and value else None


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else None


@dataclass(slots=True)
class _Open:
    """A row of the table that may go on: the name in its first cell, the lines of its second."""

    name: str
    section: str
    lines: list[str]

    def statements(self) -> list[str]:
        """The second cell's statements: a line that states a status begins a new one, any other goes on."""
        found: list[str] = []
        for line in self.lines:
            if found and not (self.name not in _MESSAGES and _STATED.match(line)):
                found[-1] = found[-1].ljust(_CELL * max(1, -(-len(found[-1]) // _CELL))) + line
            else:
                found.append(line)
        return [statement.strip()[:_TEXT] for statement in found]


@dataclass(slots=True)
class _Table:
    """A table being read."""

    rows: list[_Open] = field(default_factory=list)
    section: str = ""
    closed: bool = False

    def read(self, text: str) -> DiagReport:
        for line in text.split("\n"):
            self._take(line.rstrip("\r"))
        tests = tuple(t for row in self.rows if row.name not in _MESSAGES for t in _test(row))
        told = {name: [row for row in self.rows if row.name == name][:MAX_MESSAGES] for name in _MESSAGES}
        failed_in = {
            r.section for r in self.rows if r.name not in _MESSAGES and any(t.status == "Fail" for t in _test(r))
        }
        broken = dict.fromkeys(r.section for r in told["Error"] if r.section and r.section not in failed_in)
        if not tests and not any(told.values()):
            raise UnreadableError("a table with no result in it: not the output of dcgmi diag")
        return DiagReport(
            tests=tests,
            errors=tuple(text for row in told["Error"] for text in row.statements()),
            warnings=tuple(text for row in told["Warning"] for text in row.statements()),
            broken=tuple(broken),
            complete=self.closed,
        )

    def _take(self, line: str) -> None:
        if section := _SECTION.match(line):
            self.section = section[1]
        elif row := _ROW.match(line):
            name, cell = row[1].strip(), row[2][1:] if row[2].startswith(" ") else row[2]
            if name == "Diagnostic" or len(self.rows) >= MAX_TESTS:
                return
            if name:
                self.rows.append(_Open(name, self.section, [cell.rstrip()]))
            elif self.rows and len(self.rows[-1].lines) < MAX_MESSAGES:
                self.rows[-1].lines.append(cell.rstrip())
        if line.strip():
            self.closed = bool(self.rows) and _BORDER.match(line) is not None


def _test(row: _Open) -> Iterator[Test]:
    stated = [m for m in map(_STATED.match, row.statements()) if m]
    if not stated:
        return
    by_status = tuple((m[1], tuple(int(n) for n in re.findall(r"\d{1,4}", m[3]))) for m in stated if m[3])
    yield Test(row.name, _worst(m[1] for m in stated), by_status=by_status)

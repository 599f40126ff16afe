"""`nvbandwidth`, as text or JSON (`-j`): matrices of copy rates by test. Text in, `BandwidthReport` out.

    Running host_to_device_memcpy_ce.
    memcpy CE CPU(row) -> GPU(column) bandwidth (GB/s)
              0         1
    0     26.03     25.94
    SUM host_to_device_memcpy_ce 51.97

Rates are GB/s, latencies (tests named so) ns, as printed. `N/A` is None. The text form prints two decimals: a number
without them was cut and is None; a row with fewer numbers than its header is kept and makes the report incomplete.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from toolkit.facts.unreadable import UnreadableError

MAX_CHARACTERS = 4 * 1024 * 1024
MAX_TESTS = 1024
MAX_SIDE = 1024  # GPUs of a multi-node run
MAX_LINES = 256  # errors and devices that are kept
_TEXT = 512
_VERSION = re.compile(r"nvbandwidth Version: v?([\w.\-]{1,32})")
_DRIVER = re.compile(r"Driver Version: ([\d.]{1,32})\s{0,8}\Z")
_DEVICE = re.compile(r"Device (\d{1,4}): (.{1,256}?)\s{0,8}\Z")
_RUNNING = re.compile(r"Running (\w{1,128})\.")
_SUM = re.compile(r"SUM (\w{1,128}) (\S{1,32})")
_RATE = re.compile(r"\d{1,9}\.\d\d\Z")
_JSON_RATE = re.compile(r"\d{1,9}(?:\.\d{1,9})?\Z")
_NUMERIC = re.compile(r"[\d.]{1,16}\Z")
_TROUBLE = re.compile(r"\bERROR\b|\bASSERT|\b[Ee]rror:|Invalid value|[Mm]ismatch|\bCUDA_ERROR_|\bfailed\b")
_ESCAPE = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_NOT_APPLICABLE = "N/A"


@dataclass(frozen=True, slots=True)
class Matrix:
    """One test: rows by their printed index; None where there is no rate. `whole`: nothing of it is missing."""

    rows: tuple[tuple[str, tuple[float | None, ...]], ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class BandwidthReport:
    """What one run says. `errors` in its own words; `waived` counts tests it left out."""

    tests: tuple[tuple[str, Matrix], ...]
    version: str | None = None
    driver: str | None = None
    sums: tuple[tuple[str, float], ...] = ()
    waived: int = 0
    errors: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every test that was begun has its whole matrix."""
        return bool(self.tests) and all(m.whole for _, m in self.tests)

    def as_json(self) -> dict[str, Any]:
        """Matrices by test and row."""
        return {
            "version": self.version,
            "driver": self.driver,
            "tests": {name: {row: list(rates) for row, rates in m.rows} for name, m in self.tests},
            "sums": dict(self.sums),
            "waived": self.waived,
            "errors": list(self.errors),
            "devices": list(self.devices),
            "complete": self.complete,
        }

    @property
    def doubts(self) -> tuple[str, ...]:
        """What an operator should know before trusting the rates."""
        cut = [f"{name}: its matrix is not whole" for name, m in self.tests if not m.whole]
        return (*cut, *self.errors, *([] if self.tests else ["no test in it"]))


@dataclass(slots=True)
class _Open:
    """A test being read: the header's indices, the rows under it."""

    name: str
    columns: int = 0
    rows: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    torn: bool = False

    def close(self) -> tuple[str, Matrix]:
        whole = bool(self.rows) and not self.torn and all(len(r) == self.columns for r in self.rows.values())
        return self.name, Matrix(tuple(self.rows.items()), whole)


@dataclass(slots=True)
class _Reading:
    tests: list[_Open] = field(default_factory=list)
    words: dict[str, str] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    waived: int = 0
    errors: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)


def parse(text: str) -> BandwidthReport:
    """Reads either form. Raises UnreadableError for JSON that is cut, and for text with no test and no error in it."""
    clean = _ESCAPE.sub("", text[:MAX_CHARACTERS])
    start = clean.find("{")
    if start >= 0 and '"nvbandwidth"' in clean[start : start + 256]:
        return _of_json(clean, start)
    reading = _Reading()
    for line in clean.split("\n"):
        _read(line.rstrip("\r"), reading)
    found = BandwidthReport(
        tests=tuple(test.close() for test in reading.tests),
        version=reading.words.get("version"),
        driver=reading.words.get("driver"),
        sums=tuple(reading.sums.items()),
        waived=reading.waived,
        errors=tuple(reading.errors),
        devices=tuple(reading.devices),
    )
    if not (found.tests or found.errors or found.version or found.waived):
        raise UnreadableError("no test in it: not the output of nvbandwidth")
    return found


def _read(line: str, reading: _Reading) -> None:
    _read_header(line.strip(), reading)
    if running := _RUNNING.search(line):
        if len(reading.tests) < MAX_TESTS:
            reading.tests.append(_Open(running[1]))
    elif line.lstrip().startswith("Waived"):
        reading.waived += 1
    elif total := _SUM.match(line):
        value = _rate(total[2])
        if value is not None and len(reading.sums) < MAX_TESTS:
            reading.sums[total[1]] = value
    elif _TROUBLE.search(line):
        reading.errors += [line.strip()[:_TEXT]] if len(reading.errors) < MAX_LINES else []
    elif reading.tests:
        _read_row(line.split()[: MAX_SIDE + 1], reading.tests[-1])


def _read_header(line: str, reading: _Reading) -> None:
    for name, pattern in (("version", _VERSION), ("driver", _DRIVER)):
        if said := pattern.match(line):
            reading.words.setdefault(name, said[1])
    if (device := _DEVICE.match(line)) and len(reading.devices) < MAX_LINES:
        reading.devices.append(device[2])


def _read_row(words: list[str], test: _Open) -> None:
    if not words or not all(_NUMERIC.match(w) or w == _NOT_APPLICABLE for w in words):
        return
    if words == [str(n) for n in range(len(words))] and not test.rows:
        test.columns = len(words)
    elif words[0].isdecimal() and len(words[0]) <= 4 and test.columns and len(test.rows) < MAX_SIDE:
        rates = words[1:]
        test.torn |= any(_rate(word) is None and word != _NOT_APPLICABLE for word in rates)
        test.rows[words[0]] = tuple(_rate(word) for word in rates)


def _rate(word: str) -> float | None:
    return float(word) if _RATE.match(word) else None


def _of_json(text: str, start: int) -> BandwidthReport:
    try:
        value, _ = json.JSONDecoder(parse_constant=lambda _: None).raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        line = text.count("\n", 0, start) + getattr(error, "lineno", 1)
        raise UnreadableError(f"not whole JSON: {str(error)[:120]}", line) from error
    root = value.get("nvbandwidth") if isinstance(value, dict) else None
    if not isinstance(root, dict):
        raise UnreadableError("JSON, but not of nvbandwidth")
    cases = [c for c in _list(root.get("testcases")) if isinstance(c, dict)][:MAX_TESTS]
    ran = [c for c in cases if c.get("status") != "Waived"]
    failed = [f"{_text(c.get('name'))}: {_text(c.get('error') or c.get('status'))}" for c in ran if _has_failed(c)]
    named = [(_text(c.get("name")), _finite(c.get("sum"))) for c in ran]
    overall = [_text(root[key]) for key in ("error", "warning") if root.get(key)]
    return BandwidthReport(
        tests=tuple((_text(c.get("name")), _matrix(c)) for c in ran),
        version=_text(root.get("git_version")).removeprefix("v") or None,
        driver=_text(root.get("Driver Version")) or None,
        sums=tuple((name, total) for name, total in named if total is not None),
        waived=len(cases) - len(ran),
        errors=(*overall, *failed)[:MAX_LINES],
        devices=tuple(_text(d) for d in _list(root.get("GPU Device list") or root.get("Device list"))[:MAX_LINES]),
    )


def _has_failed(case: dict[str, Any]) -> bool:
    return bool(case.get("error")) or case.get("status") not in (None, "Passed")


def _matrix(case: dict[str, Any]) -> Matrix:
    rows = [r for r in _list(case.get("bandwidth_matrix")) if isinstance(r, list)][:MAX_SIDE]
    rates = tuple((str(n), tuple(_finite(v) for v in row[:MAX_SIDE])) for n, row in enumerate(rows))
    whole = bool(rates) and len({len(r) for _, r in rates}) == 1 and not _has_failed(case)
    return Matrix(rates, whole)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:_TEXT] if isinstance(value, str) else ""


def _finite(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if _JSON_RATE.match(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
        return None
    return float(value) if math.isfinite(value) else None

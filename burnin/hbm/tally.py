"""What a run of sweeps has done, step by step, and how it is told: measurements and two files. No thresholds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from burnin.child import Reporter
from burnin.hbm.findings import Miscompare
from burnin.hbm.patterns import Step
from burnin.hbm.sweeper import Sweep

_KEPT_ROWS = 20_000  # about 2 MB; later ones only where something was wrong


@dataclass(frozen=True)
class Row:
    """One pass over memory. `checked` and `written` are numbers of steps, None where it did not check or write one.

    `words` counts all that were wrong up to its end.
    """

    action: str
    checked: int | None
    written: int | None
    down: bool
    sweep: Sweep
    words: int


@dataclass
class Tally:
    """All passes so far. `required` holds, for each step that must be verified, the bytes that were.

    planned  how many steps must be verified for coverage to count
    """

    free: int
    total: int
    peak: float | None
    planned: int = 0
    steps: list[Step] = field(default_factory=list)
    required: dict[int, int] = field(default_factory=dict)
    rows: list[tuple[Row, int]] = field(default_factory=list)  # with the words each found wrong
    left_out_rows: int = 0
    written: int = 0
    verified: int = 0
    finished: int = 0  # steps written and verified
    rates: dict[str, list[float]] = field(default_factory=dict)  # GB/s by action
    _words: int = 0

    def plan(self, step: Step, required: bool) -> int:
        """A step that is about to be done: its number."""
        self.steps.append(step)
        number = len(self.steps) - 1
        if required:
            self.required[number] = 0
        return number

    def add(self, row: Row) -> None:
        """A pass that was done."""
        self.written += row.sweep.written
        self.verified += row.sweep.verified
        if row.checked is not None:
            self.finished = max(self.finished, row.checked + 1)
            if row.checked in self.required:
                self.required[row.checked] = row.sweep.verified
        rate = row.sweep.gb_per_s
        if rate is not None:
            self.rates.setdefault(row.action, []).append(rate)
        errors, self._words = row.words - self._words, row.words
        if len(self.rows) < _KEPT_ROWS or errors:
            self.rows.append((row, errors))
        else:
            self.left_out_rows += 1

    @property
    def covered(self) -> int:
        """Bytes that every required step verified; 0 as long as one of them was not begun."""
        return min(self.required.values()) if self.planned and len(self.required) == self.planned else 0


def say(report: Reporter, tally: Tally) -> None:
    """Coverage, bytes and bandwidths. What was not measured is not reported."""
    report.measured("hbm_bytes_written", "bytes", tally.written)
    report.measured("hbm_bytes_verified", "bytes", tally.verified)
    report.measured("hbm_steps", "count", tally.finished)
    report.measured("hbm_coverage", "fraction", _share(tally.covered, tally.free))
    report.measured("hbm_coverage_of_total", "fraction", _share(tally.covered, tally.total))
    report.measured("hbm_peak_gb_per_s", "GB/s", None if tally.peak is None else round(tally.peak, 3))
    sweeps = tally.rates.get("sweep")
    if sweeps:
        median = statistics.median(sweeps)
        report.measured("hbm_sweep_gb_per_s_min", "GB/s", round(min(sweeps), 3))
        report.measured("hbm_sweep_gb_per_s_median", "GB/s", round(median, 3))
        if tally.peak:
            report.measured("hbm_sweep_fraction_of_peak", "fraction", round(median / tally.peak, 6))
    for action, metric in (("verify", "hbm_verify_gb_per_s_median"), ("move", "hbm_copy_gb_per_s")):
        if action in tally.rates:
            report.measured(metric, "GB/s", round(statistics.median(tally.rates[action]), 3))


def say_miscompares(
    report: Reporter, tally: Tally, words: int, transient: int, first: Sequence[Miscompare], path: Path
) -> None:
    """How many words were wrong, of which a second read gave some right; the first ones go to a file."""
    # none found in memory that was not looked at is not a measurement
    if tally.verified or words:
        report.measured("hbm_miscompares", "count", words)
        report.measured("hbm_miscompares_transient", "count", transient)
    if first:
        named = [{"pattern": _name(tally.steps, m.step), "transient": m.transient, **asdict(m)} for m in first]
        path.write_text(json.dumps(named, indent=1))
        report.artifact(path)
        one = first[0]
        where = f"vector {one.index} xor {one.xor.replace(' ', ':')} in {_name(tally.steps, one.step)}"
        report.measured("hbm_first_miscompare", "word", where)


def write_steps(report: Reporter, tally: Tally, path: Path) -> None:
    """Every pass, one a line, as a file."""
    passes = [_document(tally.steps, row, errors) for row, errors in tally.rows]
    lines = ",\n ".join(json.dumps(one) for one in passes)
    path.write_text(f'{{"passes_left_out": {tally.left_out_rows}, "passes": [\n {lines}\n]}}\n')
    report.artifact(path)


def _document(steps: Sequence[Step], row: Row, errors: int) -> dict[str, object]:
    rate = row.sweep.gb_per_s
    return {
        "action": row.action,
        "checked": None if row.checked is None else str(steps[row.checked]),
        "written": None if row.written is None else str(steps[row.written]),
        "direction": "descending" if row.down else "ascending",
        "bytes_written": row.sweep.written,
        "bytes_verified": row.sweep.verified,
        "ms": round(row.sweep.ms, 4),
        "gb_per_s": None if rate is None else round(rate, 3),
        "errors": errors,
    }


def _name(steps: Sequence[Step], number: int) -> str:
    return str(steps[number]) if number < len(steps) else f"step {number}"


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0

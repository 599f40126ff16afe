"""What the products of a GPU came to, unit by unit, and what of it is reported."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median

from burnin.child import Reporter
from burnin.gemm.agreement import Reference, suspects
from burnin.gemm.counters import Tally, WrongTile
from burnin.gemm.units import UNITS

_NONE = "none"
_KEPT_WRONG = 64
_DIGITS = 4  # of a rate


@dataclass
class UnitFindings:
    """One unit: tiles computed and wrong, by SM; `digest` of its full-mantissa products; TFLOP/s of each launch."""

    unit: str
    shape: str
    tiles: int = 0
    wrong: int = 0
    tiles_by_sm: dict[int, int] = field(default_factory=dict)
    wrong_by_sm: dict[int, int] = field(default_factory=dict)
    unanimous_and_wrong: int = 0  # tiles on which all SMs agree, and which Freivalds refutes
    first_wrong: list[WrongTile] = field(default_factory=list)
    tflop_per_s: list[float] = field(default_factory=list)
    digest: str = ""
    completed: bool = False

    def add(self, counted: Tally, reference: Reference) -> None:
        """Take over what was counted since `Gemm.prepare`, and what that found."""
        self.tiles += counted.tiles
        self.wrong += counted.wrong + len(reference.wrong)
        self.unanimous_and_wrong += len(reference.refuted)
        self.tiles_by_sm = _sum((self.tiles_by_sm, counted.tiles_by_sm))
        refuted = Counter(vote.sm for vote in reference.wrong)
        self.wrong_by_sm = _sum((self.wrong_by_sm, counted.wrong_by_sm, refuted))
        self.first_wrong += counted.first[: _KEPT_WRONG - len(self.first_wrong)]

    def seal(self, digest_sum: int) -> None:
        """Make the digest: of all results up to the end of the first rotation, and of the shape they depend on."""
        self.digest = _short_digest(f"{self.unit} {self.shape} {digest_sum:016x}")


@dataclass
class Findings:
    """Of all units of a GPU. `left_out` says of each that was not exercised why not."""

    sms: int = 0
    units: list[UnitFindings] = field(default_factory=list)
    unproven: list[UnitFindings] = field(default_factory=list)  # in code that never ran on such a chip before
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def exercised(self) -> list[UnitFindings]:
        """Units that got through all they were to do."""
        return [u for u in (*self.units, *self.unproven) if u.completed]

    def digest(self) -> str | None:
        """One for the GPU, the same on all of a kind; None unless every unit got through."""
        if not self.units or not all(u.completed for u in self.units):
            return None
        return _short_digest(" ".join(f"{u.unit} {u.digest}" for u in self.units))

    def covered(self) -> float | None:
        """Share of the SMs on which every unit computed tiles that were checked."""
        if not self.units or not self.sms:
            return None
        everywhere = set.intersection(*(set(u.tiles_by_sm) for u in self.units))
        return round(min(1.0, len(everywhere) / self.sms), 6)

    def judge_unproven(self) -> None:
        """A wrong tile of code that never ran on such a chip accuses the code, not the GPU: the unit is left out."""
        for unit in self.unproven:
            if unit.wrong:
                unit.completed = False
                self.left_out[unit.unit] = f"unproven kernel gave {unit.wrong} wrong tiles of {unit.tiles}"


def say(report: Reporter, found: Findings) -> None:
    """Report the measurements. Nothing is said of what no unit got to: no evidence is not "none wrong"."""
    if not found.units:
        return
    done = [u.unit for u in found.exercised]
    wrong = sum(u.wrong for u in found.units)
    report.measured("gemm_units", "word", " ".join(sorted(done)) or _NONE)
    report.measured("gemm_units_not_exercised", "word", _left_out(found, done))
    report.measured("gemm_runs", "count", sum(u.tiles for u in found.units))
    if wrong or all(u.completed for u in found.units):
        report.measured("gemm_wrong_tiles", "count", wrong)
        report.measured("gemm_sms_suspect", "word", suspects(_sum(u.wrong_by_sm for u in found.units), found.sms))
    report.measured("gemm_sms_covered", "fraction", found.covered())
    report.measured("gemm_digest", "word", found.digest())
    for unit in found.units:
        if unit.completed and unit.tflop_per_s:
            report.measured(f"gemm_{unit.unit}_tflop_per_s", "TFLOP/s", rounded(median(unit.tflop_per_s)))


def rounded(rate: float) -> float:
    """To the digits that a measurement has; a virtual GPU's rates are small."""
    return float(f"{rate:.{_DIGITS}g}")


def document(found: Findings) -> str:
    """All of it as JSON: the artifact."""
    return json.dumps(asdict(found), indent=1, sort_keys=True)


def _left_out(found: Findings, done: list[str]) -> str:
    reasons = {u.name: "did not get through" for u in UNITS if u.name not in done} | found.left_out
    return "; ".join(f"{unit}: {reason}" for unit, reason in sorted(reasons.items())) or _NONE


def _sum(counters: Iterable[Mapping[int, int]]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for counter in counters:
        total.update(counter)
    return dict(sorted(total.items()))


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""The evidence with some faults taken as known: what is left to explain. Only tests that show those faults differ."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.judge.locate.evidence import UNEXPLAINED, Evidence, Likelihood, posterior_odds
from toolkit.judge.locate.observation import CORRUPT, HANG, HEALTHY, MODES


@dataclass(frozen=True, slots=True)
class Given:
    """Known faults.

    shown   the mode a test shows under them, where that is not health
    gains   what each mode of one more fault would add, for the same tests
    """

    evidence: Evidence
    shown: dict[int, int] = field(default_factory=dict)
    gains: dict[int, Likelihood] = field(default_factory=dict)

    def plus(self, segment: int, mode: int) -> Given:
        """One more fault known."""
        evidence = self.evidence
        more = Given(evidence, dict(self.shown), dict(self.gains))
        tests = list(evidence.full.get(segment, ()))
        if mode >= CORRUPT:
            tests += evidence.fatal.get(segment, ())
        for t in tests:
            if mode > more.shown.get(t, HEALTHY):
                row = evidence.likelihood[t]
                more.shown[t] = mode
                more.gains[t] = tuple([row[max(m, mode)] - row[mode] for m in range(MODES)])
        return more

    def touched(self) -> set[int]:
        """Segments of which the known faults change what is thought."""
        touched: set[int] = set()
        for t in self.gains:
            touched.update(self.evidence.paths[t].full, self.evidence.paths[t].fatal)
        return touched

    def modes(self, segment: int) -> list[float]:
        """Log likelihood ratio of each mode of the segment, against the segment being healthy."""
        evidence = self.evidence
        sums = list(evidence.ratios[segment])
        if not self.gains:
            return sums
        for t in evidence.full.get(segment, ()):
            if t in self.gains:
                known, plain = self.gains[t], evidence.gains[t]
                sums = [total + a - b for total, a, b in zip(sums, known, plain, strict=True)]
        for t in evidence.fatal.get(segment, ()):
            if t in self.gains:
                for mode in (CORRUPT, HANG):
                    sums[mode] += self.gains[t][mode] - evidence.gains[t][mode]
        return sums

    def odds(self, segment: int) -> tuple[float, int]:
        """Log odds that the segment is bad too, and its likeliest mode."""
        return posterior_odds(self.modes(segment), self.evidence.log_prior(segment))

    def unexplained(self) -> list[int]:
        """Tests that one more fault would explain clearly better, worst first."""
        worst = {t: max(self.evidence.gains[t]) for t in self.evidence.wanting}
        worst |= {t: max(row) for t, row in self.gains.items()}
        found = [(-gain, t) for t, gain in worst.items() if gain > UNEXPLAINED]
        return [t for _, t in sorted(found)]

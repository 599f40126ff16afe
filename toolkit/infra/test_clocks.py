"""Clocks: evidence with a time in the future is refused, so a node's clock must not run ahead, nor behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.infra import words
from toolkit.infra.probes import CLOCK
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target
from toolkit.judge.verdict import CLOCK_SKEW


def wall_clocks(plan: Plan) -> Iterator[Question]:
    """Asked of hosts without a plan too."""
    yield from (_wall_clock(target) for target in plan.targets)


def _wall_clock(target: Target) -> Question:
    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, CLOCK)
        next_ = f"ssh {target.name} chronyc tracking (or timedatectl timesync-status), and this machine's clock"
        if fact.problem is not None:
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {fact.problem}", next_)
        # The fact's own time is that of the answer's arrival: the way there and back is at most the probe's time-out.
        ahead_s = fact.value - fact.at.timestamp()
        if abs(ahead_s) <= CLOCK_SKEW.total_seconds():
            return GOOD
        words_ = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
        limit = f"at most {CLOCK_SKEW.total_seconds():.0f} s, as evidence may be ahead (toolkit.judge.verdict)"
        return words.failed("CLOCK_OFF", f"{target.name}: its clock is {words_}; {limit}", next_)

    return Question(target, "", ask)


@pytest.mark.smoke
@asks(wall_clocks)
def test_wall_clock(answer: Answered) -> None:
    """The node's clock and this machine's are as close as evidence needs."""
    answer.holds()

"""How long a stage usually takes, out of the ledger: what ended well before, on racks of the same profile.

Nothing here is a default. A stage that never passed on such a rack has no usual time, and whoever shows it says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from toolkit.ledger import EventKind, Ledger, Run
from toolkit.rack.lifecycle import Stage
from toolkit.rack.model import Rack, Suite

if TYPE_CHECKING:
    from toolkit.settings import Settings

NEWEST = 200  # passes of a stage: more would only be older
FOR_TENTHS = 10  # passes from which on the outer tenths mean anything
NO_HISTORY = "no history yet"
BURNIN = "burnin"  # what the ledger files a node's own burn-in under


@dataclass(frozen=True, slots=True)
class Usual:
    """How long earlier runs took that passed, in seconds.

    low_s, high_s  the 10th and the 90th percentile; of fewer than FOR_TENTHS runs the shortest and the longest
    """

    median_s: float
    low_s: float
    high_s: float
    runs: int

    @property
    def words(self) -> str:
        """`22 min (20 min to 24 min, 31 runs)`: what the spread is, is said where there is room."""
        if self.runs == 1:
            return f"{lasting(self.median_s)} (1 run)"
        return f"{lasting(self.median_s)} ({lasting(self.low_s)} to {lasting(self.high_s)}, {self.runs} runs)"

    def left(self, elapsed_s: float) -> str:
        """What is left of a run that began `elapsed_s` ago, in words; no number once it is late."""
        if elapsed_s < self.median_s:
            return f"about {lasting(self.median_s - elapsed_s)} left"
        if elapsed_s < self.high_s:
            return f"over the middle of earlier runs, at most {lasting(self.high_s - elapsed_s)} to the usual longest"
        return f"longer than {'9 of 10' if self.runs >= FOR_TENTHS else 'all'} earlier runs"


def usual(seconds: Sequence[float]) -> Usual | None:
    """Median and spread; None of nothing."""
    if not seconds:
        return None
    from statistics import median, quantiles

    low, high = min(seconds), max(seconds)
    if len(seconds) >= FOR_TENTHS:
        tenths = quantiles(seconds, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    return Usual(median(seconds), low, high, len(seconds))


def usual_times(
    ledger: Ledger, rack: Rack, alike: Iterable[str], suite: Suite, stages: Iterable[Stage]
) -> dict[Stage, Usual]:
    """By stage, where there is history.

    alike  racks of the same profile, by name; this one is always among them
    suite  of the burn-in: one of another suite says nothing of how long this one takes
    """
    names = tuple(sorted({rack.name, *alike}))
    found = {}
    for stage in stages:
        runs: Iterable[Run] = ledger.newest_passes(names, stage, NEWEST)
        if stage is Stage.BURNIN:
            runs = (run for run in runs if _suite(ledger, run) == suite)
        took = usual([(run.finished - run.started).total_seconds() for run in runs if run.finished])
        if took is not None:
            found[stage] = took
    return found


def _suite(ledger: Ledger, run: Run) -> str:
    """As the order said it that the run gave its node; empty where none is on record."""
    orders = ledger.events(run.rack, run.node, EventKind.INTENT, after=run.event, limit=1, what=BURNIN)
    details: Mapping[str, object] = orders[0].body.get("details") or {} if orders else {}
    return str(details.get("suite", "")) if details.get("run") == run.id else ""


def alike(settings: Settings, ledger: Ledger, rack: Rack) -> tuple[str, ...]:
    """Racks on record whose file names the same profile. A file that does not read is nobody's: it is left out."""
    from toolkit.rack.loading import list_racks, profile_named

    inventory = settings.inventory
    known = set(ledger.racks()).intersection(list_racks(inventory))
    return tuple(sorted(name for name in known if profile_named(name, inventory) == rack.profile.name))


def lasting(seconds: float) -> str:
    """`41 s`, `3 min 20 s`, `22 min`, `1 h 05 min`: as exact as an estimate is."""
    whole = timedelta(seconds=round(seconds))
    minutes, rest = divmod(int(whole.total_seconds()), 60)
    if minutes == 0:
        return f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
    if minutes < 10:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"

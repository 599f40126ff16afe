"""The second half of a wave: it is in the pool, and watched until it was watched long enough or something is bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from toolkit.judge.verdict import CLOCK_SKEW
from toolkit.pool.desk import VOID, Desk, Entry, Site
from toolkit.pool.model import Sign
from toolkit.pool.wave_log import Halt, WaveLog, WaveRecord
from toolkit.pool.waves import Step, Watched, decide

NOTES = 10  # of a soak, in the ledger: what a resume repeats at most is one part of so many
LONGEST_GAP_S = 10.0
GAP_POLLS = 3
MAX_TOLD = 3

Look = Callable[[Sequence[str], datetime], "Halt | tuple[Sign, ...]"]


class Watch:
    """How long something was watched: time between looks, but no more of it than looks of this pace leave.

    What passed while the pool was silent, this machine slept or its clock was set was not watched.
    """

    def __init__(self, watched_s: float, poll_s: float) -> None:
        self.watched_s = watched_s
        self._gap_s = max(LONGEST_GAP_S, GAP_POLLS * poll_s)
        self._last: datetime | None = None

    def looked(self, at: datetime) -> float:
        """Counts a look; answers the seconds watched so far."""
        if self._last is not None:
            self.watched_s += min(max((at - self._last).total_seconds(), 0.0), self._gap_s)
        self._last = at
        return self.watched_s


class Soak:
    """One wave's soak."""

    def __init__(self, site: Site, desk: Desk, log: WaveLog, wave: WaveRecord, earlier: frozenset[str]) -> None:
        self._site = site
        self._desk = desk
        self._log = log
        self._wave = wave
        self._earlier = earlier

    def watch(self, entries: Mapping[str, Entry], look: Look) -> Halt | None:
        """Until the wave counts: None; or until something halts it."""
        regulation, wave = self._site.regulation, self._wave
        watched = Watched(frozenset(entries), self._earlier, wave.before)
        nodes, since = [*entries, *sorted(self._earlier)], wave.began - CLOCK_SKEW
        watch, noted = Watch(wave.watched_s, regulation.poll_s), wave.watched_s
        while True:
            signs = look(nodes, since)
            if isinstance(signs, Halt):
                return signs
            watched_s = watch.looked(self._site.clock())
            decision = decide(watched, (*self._void(entries), *signs), watched_s, regulation.soak_s)
            if decision.step is Step.HALT:
                return _halt(decision.signs, watched_s, regulation.soak_s)
            if decision.step is Step.COUNT or watched_s - noted >= regulation.soak_s / NOTES:
                self._log.soaks(wave, watched_s)
                noted = watched_s
            if decision.step is Step.COUNT:
                return None
            self._tell(entries, watched_s)
            self._site.sleep(min(regulation.poll_s, regulation.soak_s - watched_s))

    def _void(self, entries: Mapping[str, Entry]) -> Iterable[Sign]:
        return [Sign(node, VOID, why, "ledger") for node, why in self._desk.void(entries).items()]

    def _tell(self, nodes: Iterable[str], watched_s: float) -> None:
        soak_s = self._site.regulation.soak_s
        text = f"wave {self._wave.number}: in the pool, watched {watched_s:.0f} s of {soak_s:.0f} s"
        for node in nodes:
            self._desk.tell(node, text, min(watched_s / soak_s, 0.99))


def _halt(signs: Sequence[Sign], watched_s: float, soak_s: float) -> Halt:
    said = [f"{s.node} {s.code}: {s.detail} ({s.source})"[:300] for s in signs[:MAX_TOLD]]
    more = [f"and {len(signs) - MAX_TOLD} more signs"] if len(signs) > MAX_TOLD else []
    when = f"after {watched_s:.0f} s of {soak_s:.0f} s"
    return Halt("ADMISSION_HALTED", f"{when}, {'; '.join((*said, *more))}", tuple(signs))

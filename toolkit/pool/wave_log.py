"""Waves on record: what was begun, how long it was watched, how it ended. Intents stand there before the acts.

All of a rollout lies behind the newest `rollout over`; a rollout that was cut off has none yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from toolkit.ledger import Event, EventKind, Ledger, NewEvent
from toolkit.pool.model import Sign, Smoked, SmokeEnd
from toolkit.pool.waves import Mark

_WAVE, _SOAK, _SMOKE, _HALT, _END, _OVER = (
    "wave", "wave soaks", "wave smoke", "wave halt", "wave end", "rollout over",
)  # fmt: skip
MAX_SIGNS = 50
MAX_MARKS = 2000  # an event's body has its bound; a mark that is not kept halts once more than it had to
# Growth rests on waves that went well just now: after this long a rollout begins with a canary again.
FRESH = timedelta(hours=24)


class WaveEnd(StrEnum):
    """How a wave ended."""

    COUNTED = "counted"  # those of it that were let in are admitted
    TAKEN_OUT = "taken out"
    EMPTY = "empty"  # nobody of it was let in


@dataclass(frozen=True, slots=True)
class Halt:
    """Why a wave is taken out. `signs`: of nodes, where nodes showed it."""

    code: str
    text: str
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True, slots=True)
class WaveRecord:
    """A wave that was begun.

    before     marks of what was told of its nodes, and of those let in earlier, when it began
    watched_s  how long it was watched without a bad sign, as last noted
    smoked     its smoke collective's end, or that it has none; None while that is not on record
    halt       why it is being taken out; None while it is not
    """

    id: int
    number: int
    nodes: tuple[str, ...]
    began: datetime
    before: frozenset[Mark] = frozenset()
    watched_s: float = 0.0
    smoked: Smoked | None = None
    halt: Halt | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """What there is of the rack's rollout.

    open     the wave that has no end yet
    counted  nodes of its waves that counted, wave by wave
    """

    open: WaveRecord | None = None
    counted: tuple[tuple[str, ...], ...] = ()
    begun: int = 0

    @property
    def before(self) -> int:
        """Nodes that the last wave brought in; 0 where none did."""
        return len(self.counted[-1]) if self.counted else 0


class WaveLog:
    """One rack's waves in the ledger."""

    def __init__(self, ledger: Ledger, rack: str) -> None:
        self._ledger = ledger
        self._rack = rack

    def begin(self, number: int, nodes: Sequence[str], before: frozenset[Mark], soak_s: float) -> WaveRecord:
        """Before the first of them is let in."""
        kept = sorted(before)[:MAX_MARKS]
        details = {"number": number, "nodes": list(nodes), "soak_s": soak_s, "before": [list(m) for m in kept]}
        event = self._ledger.intent(self._rack, "", _WAVE, details)
        return WaveRecord(event.id, number, tuple(nodes), event.at, frozenset(kept))

    def soaks(self, wave: WaveRecord, watched_s: float) -> None:
        """Watched this long so far, and nothing bad was seen."""
        self._ledger.observed(self._rack, "", _SOAK, {"wave": wave.id, "watched_s": round(watched_s, 1)})

    def smoked(self, wave: WaveRecord, smoked: Smoked) -> None:
        """Its smoke collective's end, or that it has none."""
        details = {"wave": wave.id, "end": smoked.end, "detail": smoked.detail[:1000], "artifact": smoked.output}
        self._ledger.observed(self._rack, "", _SMOKE, details)

    def halts(self, wave: WaveRecord, halt: Halt) -> None:
        """Before the first of them is taken out."""
        signs = [_written(sign) for sign in halt.signs[:MAX_SIGNS]]
        details = {"wave": wave.id, "code": halt.code, "text": halt.text[:2000], "signs": signs}
        self._ledger.intent(self._rack, "", _HALT, details)

    def ended(self, wave: WaveRecord, end: WaveEnd, nodes: Iterable[str] = (), smoke: str = "") -> None:
        """With the nodes that counted, and what their smoke collective came to, in words."""
        self._ledger.append(self._seen(_END, {"wave": wave.id, "end": end, "nodes": sorted(nodes), "smoke": smoke}))

    def taken_out(self, wave: WaveRecord, halt: Halt) -> None:
        """All of it is out, and the rollout over: the next one begins with a canary."""
        end = self._seen(_END, {"wave": wave.id, "end": WaveEnd.TAKEN_OUT, "nodes": []})
        self._ledger.append_all([end, self._seen(_OVER, {"why": f"{halt.code}: {halt.text}"[:1000]})])

    def over(self) -> None:
        """Everybody was asked, and no wave was halted."""
        self._ledger.append(self._seen(_OVER, {"why": "everybody was asked"}))

    def _seen(self, what: str, details: dict[str, object]) -> NewEvent:
        return NewEvent(EventKind.OBSERVED, self._rack, "", {"what": what, "details": details}, what)

    def rollout(self, now: datetime) -> Rollout:
        """What a rollout that was cut off left behind."""
        over = self._ledger.find(self._rack, "", EventKind.OBSERVED, _OVER)
        told = _Told(self._ledger.events(self._rack, "", after=over.id if over else 0, limit=1_000_000))
        waves = list(told.waves())
        ends = {int(details["wave"]): (details, at) for details, at in told.of(_END)}
        counted = [
            tuple(ends[w.id][0]["nodes"])
            for w in waves
            if w.id in ends and ends[w.id][0]["end"] == WaveEnd.COUNTED and now - ends[w.id][1] < FRESH
        ]
        unended = waves[-1] if waves and waves[-1].id not in ends else None
        return Rollout(unended, tuple(counted), len(waves))


@dataclass(frozen=True, slots=True)
class Tally:
    """All waves of a rack since the ledger began. `open`: one that was begun has no end yet."""

    ended: Mapping[WaveEnd, int]
    halts: int
    open: bool


def tally(ledger: Ledger, rack: str) -> Tally:
    """Counts them."""
    ends = [
        WaveEnd(str(event.body["details"]["end"]))
        for event in ledger.events(rack, "", EventKind.OBSERVED, limit=1_000_000, what=_END)
    ]
    begun = len(ledger.events(rack, "", EventKind.INTENT, limit=1_000_000, what=_WAVE))
    halts = len(ledger.events(rack, "", EventKind.INTENT, limit=1_000_000, what=_HALT))
    return Tally({end: ends.count(end) for end in WaveEnd}, halts, begun > len(ends))


@dataclass(frozen=True, slots=True)
class _Told:
    """A rollout's events."""

    events: tuple[Event, ...]

    def of(self, what: str) -> Iterator[tuple[Mapping[str, Any], datetime]]:
        for event in self.events:
            if event.what == what and event.kind in (EventKind.INTENT, EventKind.OBSERVED):
                yield event.body["details"], event.at

    def waves(self) -> Iterator[WaveRecord]:
        watched = {int(details["wave"]): float(details["watched_s"]) for details, _ in self.of(_SOAK)}
        smoked = {int(details["wave"]): _smoked(details) for details, _ in self.of(_SMOKE)}
        halts = {int(details["wave"]): _halt(details) for details, _ in self.of(_HALT)}
        for event in self.events:
            if event.what == _WAVE and event.kind is EventKind.INTENT:
                details = event.body["details"]
                yield WaveRecord(
                    event.id,
                    int(details["number"]),
                    tuple(details["nodes"]),
                    event.at,
                    frozenset((str(m[0]), str(m[1]), str(m[2]), str(m[3])) for m in details["before"]),
                    watched.get(event.id, 0.0),
                    smoked.get(event.id),
                    halts.get(event.id),
                )


def _halt(details: Mapping[str, Any]) -> Halt:
    signs = tuple(Sign(s["node"], s["code"], s["detail"], s["source"]) for s in details["signs"])
    return Halt(str(details["code"]), str(details["text"]), signs)


def _smoked(details: Mapping[str, Any]) -> Smoked:
    return Smoked(SmokeEnd(details["end"]), str(details["detail"]), str(details["artifact"]))


def _written(sign: Sign) -> dict[str, str]:
    return {"node": sign.node, "code": sign.code, "detail": sign.detail[:1000], "source": sign.source[:300]}

"""Removals of parts as the ledger has them, and which parts are lemons by the site's thresholds.

A removal is a node that was quarantined on evidence: an operator's own quarantine names no part, and counts for none.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from toolkit.judge.lemons import Lemon, PartKind, Removal, Threshold, lemons
from toolkit.judge.part import named_parts
from toolkit.ledger import ArtifactError, Event, EventKind, Ledger, Run
from toolkit.rack.document import Problems, read
from toolkit.rack.lifecycle import Move, Outcome
from toolkit.rack.model import Rack, Unit
from toolkit.settings import Settings, first_of

FILE = "lemons.yml"
_MOST_EVENTS = 1_000_000
_SERIAL = frozenset(string.ascii_letters + string.digits + "._:-")
_MOST_SERIAL = 64


@dataclass(frozen=True, slots=True)
class Removals:
    """Every removal on record, oldest first. `untold`: of how many nodes the blamed part has no known serial."""

    told: tuple[Removal, ...]
    untold: int


@dataclass(frozen=True, slots=True)
class LemonList:
    """Lemons, and what they rest on. `removals`: of nodes; `untold`: of those, for a part whose serial nobody knows."""

    lemons: tuple[Lemon, ...]
    removals: int
    untold: int
    thresholds: Mapping[PartKind, Threshold]


def load_thresholds(settings: Settings) -> Mapping[PartKind, Threshold]:
    """By the site's lemons.yml, or ours. InputError with all that is wrong."""
    from toolkit.rack.fields import validate
    from toolkit.report.lemon_schema import LemonFile

    document = read(first_of(settings, FILE))
    problems = Problems(document)
    written = validate(LemonFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    return {
        PartKind(name): Threshold(told.removals, timedelta(days=told.within_days), told.source, told.date)
        for name, told in written
    }


def removals_on_record(ledger: Ledger) -> Removals:
    """Of all racks of the ledger: a board that was moved takes its removals along."""
    moved = ledger.events(kind=EventKind.NODE_MOVED, limit=_MOST_EVENTS)
    out = [e for e in moved if e.body["move"] == Move.QUARANTINE and e.body.get("run")]
    runs = {run.id: run for rack in sorted({e.rack for e in out}) for run in ledger.runs(rack)}
    spoken = _Spoken(ledger)
    told: list[Removal] = []
    untold = 0
    for event in out:
        run = runs.get(str(event.body["run"]))
        if run is None or run.outcome is not Outcome.FAILED:
            continue
        found = tuple(_removals(event, run, spoken))
        told += [r for r in found if r.serial]
        untold += not any(r.serial for r in found if r.kind is not PartKind.NODE) and bool(named_parts(run.part))
    return Removals(tuple(told), untold)


def lemon_list(ledger: Ledger, thresholds: Mapping[PartKind, Threshold], now: datetime) -> LemonList:
    """Every lemon of the installation."""
    found = removals_on_record(ledger)
    return LemonList(lemons(found.told, thresholds, now), len({r.run for r in found.told}), found.untold, thresholds)


def serials_of(ledger: Ledger, rack: Rack, node: Unit) -> frozenset[str]:
    """Serials that are in the node now, by its own last word and by the plan: the tray's, its GPUs', its HCAs'."""
    seen = ledger.find(rack.name, node.name, EventKind.OBSERVED, "burnin")
    gpus = (seen.body["details"].get("gpus") or {}) if seen else {}
    serials = {serial for serial, _ in gpus.values()}
    return frozenset(s for s in (*serials, node.serial, *(h.guid for h in node.hcas)) if s)


def lemons_in(found: Iterable[Lemon], serials: frozenset[str]) -> tuple[str, ...]:
    """The lemons among these serials, in words, for `why`."""
    return tuple(f"lemon: {lemon}" for lemon in found if lemon.serial in serials)


def _removals(event: Event, run: Run, spoken: _Spoken) -> Iterator[Removal]:
    def removal(kind: PartKind, serial: str, place: str) -> Removal:
        return Removal(kind, serial, event.at, event.rack, event.node, place, run.code, run.id)

    blamed = named_parts(run.part)
    for part in blamed:
        if part.kind in ("gpu", "hca"):
            yield removal(PartKind(part.kind), part.serial, part.place)
    tray = next((p.serial for p in blamed if p.kind == "tray"), "")
    yield removal(PartKind.NODE, tray or spoken.serial(event), "the node")


class _Spoken:
    """Serials of nodes by their own word at a time: what the plan says now may be another machine's."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._said: dict[tuple[str, str], tuple[Event, ...]] = {}

    def serial(self, moved: Event) -> str:
        """The last one the node said before it was moved; of one that never spoke, what it was imaged as."""
        key = moved.rack, moved.node
        if key not in self._said:
            said = self._ledger.events(*key, kind=EventKind.OBSERVED, what="fact identity", limit=_MOST_EVENTS)
            imaged = self._ledger.events(*key, kind=EventKind.INTENT, what="image", limit=_MOST_EVENTS)
            self._said[key] = tuple(sorted((*said, *imaged), key=lambda e: e.id))
        for event in reversed([e for e in self._said[key] if e.id < moved.id]):
            serial = self._read(event)
            if serial:
                return serial
        return ""

    def _read(self, event: Event) -> str:
        if event.kind == EventKind.INTENT:
            return _plain(str(event.body["details"].get("serial", "")))
        if event.body.get("problem") or not event.body.get("artifact"):
            return ""
        try:
            return _plain(self._ledger.artifacts.get(str(event.body["artifact"])).decode("utf-8", "replace").strip())
        except ArtifactError:
            return ""


def _plain(text: str) -> str:
    """A serial as one may be: anything else is none."""
    return text if 0 < len(text) <= _MOST_SERIAL and set(text) <= _SERIAL else ""

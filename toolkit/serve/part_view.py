"""A part's page, by its serial: where it sat, what was measured of it wherever that was, which runs blamed it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from toolkit.judge.evidence import Measurement
from toolkit.ledger import EventKind, Run
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import Outcome, Stage
from toolkit.rack.metric import METRICS, RAIL_METRIC
from toolkit.rack.model import Rack
from toolkit.report.html.series import CHARTED
from toolkit.report.html.series import Chart as Charted
from toolkit.report.html.values import Limits
from toolkit.serve.board import Summary
from toolkit.serve.seats import BURNIN, Past, Seat, names
from toolkit.serve.site import Site
from toolkit.serve.trend import Chart, Reading, chart

_ORDERS = (Operator.AT_LEAST, Operator.AT_MOST)
_OF_GPU = tuple(c for c in CHARTED if METRICS[c.metric].scope is Scope.GPU)
_OF_NODE = tuple(c for c in CHARTED if METRICS[c.metric].scope is Scope.NODE)
_OF_HCA = tuple(c for c in CHARTED if c.metric == RAIL_METRIC)
_NOTHING: tuple[Charted, ...] = ()
MAX_BLAMES = 40
MAX_SEATS = 24


@dataclass(frozen=True, slots=True)
class Place:
    """Where the part is, or was. `now`: it is there by the last burn-in, or by the rack file."""

    rack: str
    node: str
    what: str
    since: str
    until: str
    now: bool


@dataclass(frozen=True, slots=True)
class PartPage:
    """All of it. `kind`: GPU, tray, HCA or what else the rack file calls it; `read`: of the journal, 0..1."""

    serial: str
    kind: str
    places: tuple[Place, ...]
    by_record: bool
    read: float
    charts: tuple[Chart, ...]
    unmeasured: tuple[str, ...]
    blames: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class _Spot:
    """A place whose measurements are the part's: of which scope, from which event on and up to which (0: no bound)."""

    rack: str
    node: str
    scope: Scope
    gpu: int = -1
    hca: str = ""
    first: int = 0
    last: int = 0

    @property
    def words(self) -> str:
        """As an operator says it."""
        what = f" GPU {self.gpu}" if self.gpu >= 0 else f" {self.hca}" if self.hca else ""
        return f"{self.rack} {self.node}{what}"


def part_page(site: Site, serial: str) -> PartPage | None:
    """The part of that serial, or None: no burn-in on record found it, and no rack file has it."""
    past = site.seats.of(serial)
    if past.seats:
        return _gpu(site, serial, past)
    for rack in site.board.fleet():
        found = _designed(site, rack, serial) if rack.design else None
        if found:
            return found
    # A board that nobody has read of yet is not one that is not there.
    return PartPage(serial, "part", (), False, past.read, (), (), ()) if past.read < 1 else None


def _gpu(site: Site, serial: str, past: Past) -> PartPage:
    seats = past.seats[-MAX_SEATS:]
    latest = max(seats, key=lambda seat: seat.last_event)
    spots = [
        _Spot(s.rack, s.node, Scope.GPU, gpu=s.gpu, first=s.first_event, last=s.last_event) for s in seats
    ]  # fmt: skip
    places = tuple(_sat(site, seat, now=seat is latest and _is_last(site, seat)) for seat in reversed(seats))
    charts, missing = _charts(site, spots, site.designs.rack(latest.rack), _OF_GPU)
    return PartPage(serial, "GPU", places, True, past.read, charts, missing, _blames(site, serial, spots))


def _is_last(site: Site, seat: Seat) -> bool:
    """Whether the newest burn-in of that node still found it there."""
    event = site.ledger.find(seat.rack, seat.node, EventKind.OBSERVED, BURNIN)
    return event is not None and event.id == seat.last_event


def _sat(site: Site, seat: Seat, *, now: bool) -> Place:
    what = f"GPU {seat.gpu}" + (f" at {seat.pci}" if seat.pci else "")
    return Place(seat.rack, seat.node, what, _when(seat.first_at), _when(seat.last_at), now)


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}Z"


def _designed(site: Site, rack: Summary, serial: str) -> PartPage | None:
    """A unit or an HCA of a rack file; a GPU that was designed in and that no burn-in has found yet."""
    assert rack.design is not None  # noqa: S101 - the caller has looked
    for unit in rack.design.units:
        spot: _Spot | None = None
        if unit.serial == serial:
            kind, what, charted = str(unit.kind).replace("_", " "), f"slot {unit.slot}", _OF_NODE
            spot = _Spot(rack.name, unit.name, Scope.NODE)
        elif hca := next((h for h in unit.hcas if h.guid == serial), None):
            kind, what, charted = "HCA", f"{hca.name}, rail {hca.rail}", _OF_HCA
            spot = _Spot(rack.name, unit.name, Scope.HCA, hca=hca.name)
        elif gpu := next((g for g in unit.gpus if g.serial == serial), None):
            kind, what, charted = "GPU", f"GPU {gpu.index}, by the rack file", _NOTHING
            spot = _Spot(rack.name, unit.name, Scope.GPU, gpu=gpu.index)
        if spot is None:
            continue
        place = Place(rack.name, unit.name, what, "", "", True)
        charts, missing = _charts(site, [spot], rack.design, charted)
        return PartPage(serial, kind, (place,), False, 1.0, charts, missing, _blames(site, serial, [spot]))
    return None


def _charts(
    site: Site, spots: Sequence[_Spot], design: Rack | None, charted: Sequence[Charted]
) -> tuple[tuple[Chart, ...], tuple[str, ...]]:
    """One for each metric of which anything is on record; the titles of those of which nothing is."""
    runs = {spot: _runs(site, spot) for spot in spots}
    charts: list[Chart] = []
    missing: list[str] = []
    for one in charted:
        readings = [r for spot in spots for r in _readings(site, spot, one.metric, runs[spot])]
        if not readings:
            missing.append(one.title)
            continue
        gates = design.profile.gates if design else ()
        limits = [Limits(g.code, g.operator, g.limit, g.source) for g in gates
                  if g.metric == one.metric and g.operator in _ORDERS and g.limit is not None]  # fmt: skip
        charts.append(chart(one.title, str(METRICS[one.metric].unit), readings, limits))
    return tuple(charts), tuple(missing)


def _runs(site: Site, spot: _Spot) -> dict[str, Run]:
    """Burn-ins of that place while the part was in it.

    A burn-in puts on record which boards it found after its run began: the run is the last that began before that.
    """
    runs = site.ledger.runs(spot.rack, spot.node, Stage.BURNIN)
    begun = [run.event for run in runs if not spot.first or run.event < spot.first]
    since = begun[-1] if begun and spot.first else 0
    return {run.id: run for run in runs if run.event >= since and (not spot.last or run.event < spot.last)}


def _readings(site: Site, spot: _Spot, metric: str, runs: dict[str, Run]) -> Iterator[Reading]:
    """The last of each run: a doubtful part is measured again within one."""
    found: dict[str, Measurement] = {}
    for m in site.ledger.measurements(spot.rack, spot.node, metric=metric):
        subject = m.subject
        if (subject.scope, subject.gpu, subject.hca) == (spot.scope, spot.gpu, spot.hca) and m.run in runs:
            found[m.run] = m
    for m in found.values():
        if isinstance(m.value, int | float):
            yield Reading(m.at, float(m.value), spot.words, m.run, m.origin)


def _blames(site: Site, serial: str, spots: Sequence[_Spot]) -> tuple[Run, ...]:
    """Runs that did not pass and name the serial, the newest first."""
    places = dict.fromkeys((spot.rack, spot.node) for spot in spots)
    runs = [run for rack, node in places for run in site.ledger.runs(rack, node)]
    named = [r for r in runs if r.outcome in (Outcome.FAILED, Outcome.ERROR) and names(r.part, serial)]
    return tuple(sorted(named, key=lambda run: run.started, reverse=True)[:MAX_BLAMES])

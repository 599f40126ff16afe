"""From lines of work to an order a technician walks once: settings first, then rack position by rack position.

Lines may come of several fabrics (NVLink, InfiniBand, Ethernet): a place is visited once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.judge.fabric.line import Action, FabricReport, Place, WorkLine
from toolkit.judge.verdict import Answer

NOWHERE = Place("", -1, "")


@dataclass(frozen=True, slots=True)
class Visit:
    """What is done at one place. `place` is None for settings: nobody walks."""

    place: Place | None
    lines: tuple[WorkLine, ...]


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """The whole order of a rack. `counts` says in words what is as designed: (`cables as designed`, `94 of 96`)."""

    rack: str
    answer: Answer
    counts: tuple[tuple[str, str], ...]
    visits: tuple[Visit, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[WorkLine, ...]:
        """All lines in the order to take them up; a line's number is its place here, from 1."""
        return tuple(line for visit in self.visits for line in visit.lines)


def ordered(lines: Iterable[WorkLine]) -> tuple[WorkLine, ...]:
    """Settings first; then by place, the lines of one job together at its first place, in the order of their steps."""
    lines = tuple(lines)
    homes = _homes(lines)
    rank = {action: index for index, action in enumerate(Action)}

    def key(line: WorkLine) -> tuple[bool, Place, bool, int, int, int, str]:
        hands = line.action is not Action.CONFIGURE
        return (hands, _home(line, homes) or NOWHERE, not line.job, line.job, line.step, rank[line.action], line.text)

    return tuple(sorted(lines, key=key))


def work_order(
    rack: str,
    answer: Answer,
    lines: Iterable[WorkLine],
    counts: Sequence[tuple[str, str]] = (),
    doubts: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> WorkOrder:
    """The order for these lines."""
    lines = ordered(lines)
    homes = _homes(lines)
    visits: list[tuple[Place | None, list[WorkLine]]] = []
    for line in lines:
        place = None if line.action is Action.CONFIGURE else _home(line, homes)
        if not visits or visits[-1][0] != place:
            visits.append((place, []))
        visits[-1][1].append(line)
    made = tuple(Visit(place, tuple(of_place)) for place, of_place in visits)
    return WorkOrder(rack, answer, tuple(counts), made, tuple(doubts), tuple(notes))


def cable_order(report: FabricReport) -> WorkOrder:
    """The order of an InfiniBand and Ethernet report alone."""
    return work_order(report.rack, report.answer, report.lines, counts(report), report.doubts, report.notes)


def counts(report: FabricReport) -> tuple[tuple[str, str], ...]:
    """What is as designed, in words."""
    of = f"{report.links_designed:,}"
    return (
        ("cables as designed", f"{report.links_as_designed:,} of {of}"),
        ("of them at rate and Active", f"{report.links_sound:,} of {of}"),
        ("HCAs", f"{report.hcas_seen:,} of {report.hcas_designed:,}"),
        ("switches", f"{report.switches_seen:,} of {report.switches_designed:,}"),
        ("counters over", f"{report.seconds_counted:g} s" if report.seconds_counted else "not looked at"),
    )


def _homes(lines: Iterable[WorkLine]) -> dict[int, Place | None]:
    """Where each job begins."""
    homes: dict[int, Place | None] = {}
    for line in lines:
        if line.job and (line.step == 1 or line.job not in homes):
            homes[line.job] = line.place
    return homes


def _home(line: WorkLine, homes: dict[int, Place | None]) -> Place | None:
    return homes.get(line.job, line.place) if line.job else line.place

"""Whether a liquid-cooled rack is dry, by every detector it should have. A wet one is told by tray and name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from toolkit.errors import UndecidedError
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Rack, Unit
from toolkit.redfish.leaks import Detector, DetectorState, read_detectors
from toolkit.redfish.text import printable
from toolkit.stages.bmc_reach import Reach

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class UnitLeaks:
    """One unit. `problem`: why it could not be asked; empty where it answered."""

    unit: str
    planned: int
    detectors: tuple[Detector, ...]
    answer: Answer
    code: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class LeakReport:
    """All units of a rack that should have detectors."""

    rack: str
    answer: Answer
    units: tuple[UnitLeaks, ...]
    source: str


def check_leaks(rack: Rack, reach: Reach, names: Iterable[str] | None = None) -> LeakReport:
    """Reads every unit that should have detectors, or those named, side by side."""
    units = [u for u in rack.units if _planned(rack, u) and (names is None or u.name in set(names))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip((u.name for u in units), pool.map(lambda u: _read(reach, u), units), strict=True))
    return judge_leaks(rack, found)


def judge_leaks(rack: Rack, found: Mapping[str, tuple[Detector, ...] | str]) -> LeakReport:
    """Pure. `found`: what each unit's BMC listed, or why it could not be asked.

    FAIL for any wet detector; INCONCLUSIVE for one that is missing, disabled or says nothing, for a unit that was not
    read, and for a rack of which nothing is known; PASS only when all that are planned say that they are dry.
    """
    rows = tuple(_judge(u, _planned(rack, u), found[u.name]) for u in rack.units if u.name in found)
    answers = {row.answer for row in rows}
    if Answer.FAIL in answers:
        answer = Answer.FAIL
    elif not rows or Answer.INCONCLUSIVE in answers:
        answer = Answer.INCONCLUSIVE
    else:
        answer = Answer.PASS
    return LeakReport(rack.name, answer, rows, rack.profile.bmc.leak_detectors_source)


def _judge(unit: Unit, planned: int, found: tuple[Detector, ...] | str) -> UnitLeaks:
    if isinstance(found, str):
        return UnitLeaks(unit.name, planned, (), Answer.INCONCLUSIVE, "LEAK_UNDECIDED", found)
    wet = [d for d in found if d.state is DetectorState.LEAK]
    if wet:
        where = ", ".join(f"{d.name} ({d.said})" for d in wet)
        place = f"{unit.kind.value.replace('_', ' ')} {unit.name} in slot {unit.slot} ({unit.serial})"
        return UnitLeaks(unit.name, planned, found, Answer.FAIL, "COOLANT_LEAK", f"{place}: {where}")
    silent = [d for d in found if d.state is not DetectorState.DRY]
    if silent or len(found) < planned:
        said = f"{len(found)} of {planned} detectors are listed"
        said += "".join(f"; {d.name} {d.said}" for d in silent)
        return UnitLeaks(unit.name, planned, found, Answer.INCONCLUSIVE, "LEAK_UNDECIDED", said)
    return UnitLeaks(unit.name, planned, found, Answer.PASS)


def _planned(rack: Rack, unit: Unit) -> int:
    return rack.profile.bmc.detectors_of(unit.kind) if unit.bmc is not None else 0


def _read(reach: Reach, unit: Unit) -> tuple[Detector, ...] | str:
    try:
        return read_detectors(reach.wire(unit))
    except UndecidedError as problem:
        return printable(problem.message, 300)

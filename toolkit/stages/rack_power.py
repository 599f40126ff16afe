"""Does a power plan: step after step, each unit's intent on record before its button, and what was seen after it.

Nothing is pressed twice for one asking: a unit that is where the step wants it is left alone, so that the same command
again is the resume. A step that did not come whole ends the sequence: what comes after stands on it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from toolkit.errors import EvidenceError, UndecidedError, UsageError
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.model import Rack, Unit, UnitKind
from toolkit.rack.power_sequence import PowerPlan, PowerStep, StepKind
from toolkit.redfish import Power, Reset
from toolkit.redfish.text import printable
from toolkit.redfish.witness import contradiction
from toolkit.stages.bmc_reach import Reach
from toolkit.stages.leak_check import AT_ONCE, LeakReport, check_leaks

POWER = "rack-power"  # the ledger's key
_ON_ITS_WAY = {Power.ON: Power.POWERING_ON, Power.OFF: Power.POWERING_OFF}


class UnitEnd(StrEnum):
    """How one unit ended a step."""

    ALREADY = "already so"
    DONE = "done"
    ANSWERS = "answers"
    DRY = "dry"
    WET = "wet"
    UNKNOWN = "unknown"
    SILENT = "does not answer"
    LATE = "not in time"
    DOUBTED = "contradicts itself"  # its BMC says one thing of its power and shows another


GOOD = frozenset({UnitEnd.ALREADY, UnitEnd.DONE, UnitEnd.ANSWERS, UnitEnd.DRY})


@dataclass(frozen=True, slots=True)
class UnitStep:
    """One unit in one step. `said`: why, where it is not good; no device's words unbounded."""

    unit: str
    end: UnitEnd
    said: str = ""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One step, as it went."""

    kind: StepKind
    units: tuple[UnitStep, ...]

    @property
    def whole(self) -> bool:
        """Whether the next step may stand on it."""
        return all(unit.end in GOOD for unit in self.units)


@dataclass(frozen=True, slots=True)
class PowerDone:
    """The steps that were begun. `left`: those that were not."""

    rack: str
    on: bool
    steps: tuple[StepDone, ...]
    left: tuple[StepKind, ...]
    leaks: LeakReport | None = None

    @property
    def exit_code(self) -> int:
        """0 all of it came whole; 1 coolant where none should be; 3 nobody can tell, or not in time."""
        if not self.left and all(step.whole for step in self.steps):
            return 0
        wet = any(unit.end is UnitEnd.WET for step in self.steps for unit in step.units)
        return EvidenceError.exit_code if wet else UndecidedError.exit_code


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited, in seconds. An operating system may take minutes to end what it runs."""

    power_s: float = 300.0
    reach_s: float = 600.0
    poll_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Doing:
    """Everything reached outside, and time (`clock` in seconds). `force`: power is cut where nothing ends by itself."""

    rack: Rack
    reach: Reach
    ledger: Ledger
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    progress: Callable[[str, str], None]
    patience: Patience = Patience()
    force: bool = False


def carry_out(doing: Doing, plan: PowerPlan) -> PowerDone:
    """The plan, until a step does not come whole. UsageError, and nothing touched, where nodes are in the pool."""
    if not plan.on:
        _refuse_admitted(doing)
    done: list[StepDone] = []
    leaks: LeakReport | None = None
    for step in plan.steps:
        if step.kind is StepKind.LEAK_CHECK:
            leaks = check_leaks(doing.rack, doing.reach, step.units)
            done.append(_leaks(doing, leaks))
        elif step.kind is StepKind.REACH:
            done.append(StepDone(step.kind, _each(doing, step, _reached)))
        else:
            done.append(_powered(doing, step))
        if not done[-1].whole:
            break
    return PowerDone(plan.rack, plan.on, tuple(done), tuple(s.kind for s in plan.steps[len(done) :]), leaks)


def _refuse_admitted(doing: Doing) -> None:
    states = doing.ledger.node_states(doing.rack.name)
    live = [name for name, row in states.items() if row.state is NodeState.ADMITTED]
    if live:
        raise UsageError(
            f"{len(live)} nodes of {doing.rack.name} take jobs: {', '.join(sorted(live)[:8])}",
            f"rackproof drain {sorted(live)[0]} (each of them), then the same command again",
        )


def _powered(doing: Doing, step: PowerStep) -> StepDone:
    """Buttons one after another, `gap_s` apart; then all are waited for."""
    wanted = Power.ON if step.kind is StepKind.POWER_ON else Power.OFF
    pressed: dict[str, UnitStep | None] = {}
    until = 0.0
    for name in step.units:
        unit = doing.rack.unit(name)
        now = doing.clock()
        if now < until:
            doing.sleep(until - now)
        pressed[name] = _press(doing, unit, wanted)
        if pressed[name] is None:
            until = doing.clock() + step.gap_s
    waiting = [name for name, ended in pressed.items() if ended is None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = pool.map(lambda name: _until(doing, doing.rack.unit(name), wanted), waiting)
        settled = dict(zip(waiting, ends, strict=True))
    units = tuple(ended or settled[name] for name, ended in pressed.items())
    for ended in units:
        if ended.end is not UnitEnd.ALREADY:
            doing.ledger.observed(doing.rack.name, ended.unit, POWER, {"end": ended.end, "said": ended.said})
    return StepDone(step.kind, units)


def _press(doing: Doing, unit: Unit, wanted: Power) -> UnitStep | None:
    """None where the button was pressed, and it is to be waited for."""
    try:
        bmc = doing.reach.bmc(unit)
        serial = bmc.identity().serial
        if serial != unit.serial:
            return UnitStep(unit.name, UnitEnd.UNKNOWN, _another(unit, serial))
        now = bmc.power()
        if now is wanted:
            return UnitStep(unit.name, UnitEnd.ALREADY)
        button = Reset.ON if wanted is Power.ON else _off_button(unit)
        if now is _ON_ITS_WAY[wanted] or _is_pressed(doing, unit, button):
            return None
        doing.ledger.intent(doing.rack.name, unit.name, POWER, {"action": button.value})
        doing.progress(unit.name, f"power {wanted.value.lower()}")
        bmc.reset(button)
    except UndecidedError as problem:
        return UnitStep(unit.name, UnitEnd.SILENT, printable(problem.message, 300))
    return None


def _is_pressed(doing: Doing, unit: Unit, button: Reset) -> bool:
    """Whether a run that was cut off pressed this very button and nobody saw what came of it: it is waited for once.

    A shutdown shows nothing while operating systems end, and a second press is a power cut to some of them.
    """
    begun = doing.ledger.find(doing.rack.name, unit.name, EventKind.INTENT, POWER)
    ended = doing.ledger.find(doing.rack.name, unit.name, EventKind.OBSERVED, POWER)
    is_open = begun is not None and (ended is None or ended.id < begun.id)
    return begun is not None and is_open and begun.body["details"].get("action") == button.value


def _another(unit: Unit, serial: str) -> str:
    said = printable(serial, 64)
    return f"the BMC says serial {said}, the plan says {unit.serial}: this would be another machine's power"


def _off_button(unit: Unit) -> Reset:
    """A shelf has nothing that could end by itself."""
    return Reset.FORCE_OFF if unit.kind is UnitKind.POWER_SHELF else Reset.GRACEFUL_SHUTDOWN


def _until(doing: Doing, unit: Unit, wanted: Power) -> UnitStep:
    until = doing.clock() + doing.patience.power_s
    forced, seen, said = False, Power.UNKNOWN, ""
    while True:
        try:
            seen, said = doing.reach.bmc(unit).power(), ""
        except UndecidedError as problem:
            said = printable(problem.message, 300)
        if seen is wanted and not said:
            return _believed(doing, unit, wanted)
        if doing.clock() > until:
            if wanted is Power.OFF and doing.force and not forced and not said:
                forced, until = True, doing.clock() + doing.patience.power_s
                doing.ledger.intent(doing.rack.name, unit.name, POWER, {"action": Reset.FORCE_OFF.value})
                with suppress(UndecidedError):  # what came of it is looked at all the same
                    doing.reach.bmc(unit).reset(Reset.FORCE_OFF)
                continue
            end = UnitEnd.SILENT if said else UnitEnd.LATE
            return UnitStep(unit.name, end, said or f"its power is {seen.value} after {doing.patience.power_s:.0f} s")
        doing.sleep(doing.patience.poll_s)


def _believed(doing: Doing, unit: Unit, wanted: Power) -> UnitStep:
    """A BMC's word on power, held against what else it shows of a node, which may take its time to follow.

    A switch tray's or a shelf's BMC has no host that would report how far it has come.
    """
    if unit.kind is not UnitKind.NODE:
        return UnitStep(unit.name, UnitEnd.DONE)
    until = doing.clock() + doing.patience.power_s
    while True:
        try:
            against = contradiction(doing.reach.wire(unit), wanted)
        except UndecidedError as problem:
            return UnitStep(unit.name, UnitEnd.SILENT, printable(problem.message, 300))
        if not against:
            return UnitStep(unit.name, UnitEnd.DONE)
        if doing.clock() > until:
            return UnitStep(unit.name, UnitEnd.DOUBTED, against)
        doing.sleep(doing.patience.poll_s)


def _reached(doing: Doing, unit: Unit) -> UnitStep:
    until = doing.clock() + doing.patience.reach_s
    while True:
        try:
            serial = doing.reach.bmc(unit).identity().serial
        except UndecidedError as problem:
            if doing.clock() > until:
                return UnitStep(unit.name, UnitEnd.SILENT, printable(problem.message, 300))
            doing.sleep(doing.patience.poll_s)
            continue
        if serial != unit.serial:
            return UnitStep(unit.name, UnitEnd.UNKNOWN, _another(unit, serial))
        return UnitStep(unit.name, UnitEnd.ANSWERS)


def _each(doing: Doing, step: PowerStep, one: Callable[[Doing, Unit], UnitStep]) -> tuple[UnitStep, ...]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(pool.map(lambda name: one(doing, doing.rack.unit(name)), step.units))


def _leaks(doing: Doing, report: LeakReport) -> StepDone:
    ends = {Answer.PASS: UnitEnd.DRY, Answer.FAIL: UnitEnd.WET, Answer.INCONCLUSIVE: UnitEnd.UNKNOWN}
    for row in report.units:
        told = {"answer": row.answer, "code": row.code, "said": row.said, "detectors": len(row.detectors)}
        doing.ledger.observed(doing.rack.name, row.unit, "leaks", told)
    return StepDone(StepKind.LEAK_CHECK, tuple(UnitStep(r.unit, ends[r.answer], r.said) for r in report.units))

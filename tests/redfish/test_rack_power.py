"""A rack's power on and off, over BMCs with a lag and with faults."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rehearsal import now

from tests.redfish.units import Bench, bench
from toolkit.errors import UsageError
from toolkit.judge.verdict import Answer
from toolkit.ledger import EventKind, Ledger
from toolkit.rack.lifecycle import NodeState
from toolkit.rack.power_sequence import PowerPlan, StepKind, plan_off, plan_on
from toolkit.redfish import Power
from toolkit.stages.leak_check import check_leaks, judge_leaks
from toolkit.stages.rack_power import POWER, Doing, Patience, PowerDone, UnitEnd, carry_out
from toolkit.virtual.chassis import Button
from toolkit.virtual.faults import Fault, FaultKind

QUICK = Patience(power_s=1.0, reach_s=1.0, poll_s=0.05)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "artifacts", "test", now) as opened:
        yield opened


def done(rack: Bench, ledger: Ledger, plan: PowerPlan, **options: object) -> PowerDone:
    doing = Doing(rack.rack, rack, ledger, time.monotonic, time.sleep, lambda unit, text: None, QUICK, **options)
    return carry_out(doing, plan)


def ends(found: PowerDone) -> list[tuple[str, dict[str, str]]]:
    return [(step.kind.value, {u.unit: u.end.value for u in step.units}) for step in found.steps]


def test_a_rack_comes_up_in_the_order_that_its_parts_need(rack: Bench, ledger: Ledger) -> None:
    """Shelf, all BMCs answer, all dry, switch tray, trays; each button's intent is on record before what was seen."""
    order: list[str] = []
    for name in rack.bmcs:
        tray = rack.tray(name)
        tray.press = lambda button, t=tray, was=tray.press: (order.append(t.name), was(button))[1]
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 0
    assert order == ["shelf1", "nvswitch1", "tray01", "tray02"]
    assert [kind for kind, _ in ends(found)] == [
        "power on", "wait for BMCs", "leak check", "power on", "power on"
    ]  # fmt: skip
    for name in rack.bmcs:
        begun = ledger.find(rack.rack.name, name, EventKind.INTENT, POWER)
        seen = ledger.find(rack.rack.name, name, EventKind.OBSERVED, POWER)
        assert begun and seen and begun.id < seen.id
        assert seen.body["details"]["end"] == "done"


def test_the_same_command_again_presses_nothing(rack: Bench, ledger: Ledger) -> None:
    """What is on stays on: running again is the resume."""
    done(rack, ledger, plan_on(rack.rack))
    again = done(rack, ledger, plan_on(rack.rack))
    assert again.exit_code == 0
    assert [len(rack.tray(name).pressed) for name in rack.bmcs] == [1, 1, 1, 1]
    assert {end for step in again.steps for end in (u.end for u in step.units)} == {
        UnitEnd.ALREADY, UnitEnd.ANSWERS, UnitEnd.DRY
    }  # fmt: skip


def test_a_wet_tray_keeps_the_whole_rack_off(rack: Bench, ledger: Ledger) -> None:
    """FAIL, with tray, slot, serial and detector; no switch tray and no node gets a button."""
    rack.faults["tray02"].append(Fault(FaultKind.COOLANT_LEAK, "tray02", value=3))
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 1
    assert found.left == (StepKind.POWER_ON, StepKind.POWER_ON)
    (wet,) = [unit for unit in found.steps[-1].units if unit.end is UnitEnd.WET]
    assert wet.said == ("node tray02 in slot 6 (EX182102500002): Chassis_0/LeakDetector_3 (Critical Enabled Critical)")
    assert [rack.tray(name).pressed for name in ("nvswitch1", "tray01", "tray02")] == [[], [], []]
    assert rack.tray("shelf1").power is Power.ON
    event = ledger.find(rack.rack.name, "tray02", EventKind.OBSERVED, "leaks")
    assert event and event.body["details"]["code"] == "COOLANT_LEAK"


def test_a_missing_detector_is_not_dry(rack: Bench, ledger: Ledger) -> None:
    """Seven of eight say dry: nobody knows about the eighth, and the rack stays off."""
    rack.faults["nvswitch1"].append(Fault(FaultKind.LEAK_DETECTOR_GONE, "nvswitch1"))
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 3
    assert found.leaks is not None and found.leaks.answer is Answer.INCONCLUSIVE
    assert "7 of 8 detectors" in str([unit.said for unit in found.steps[-1].units])


def test_no_evidence_about_leaks_is_never_dry(rack: Bench) -> None:
    """No unit read, an unread unit, a unit that lists none: none of them passes; all of them dry does."""
    assert check_leaks(rack.rack, rack).answer is Answer.PASS
    assert judge_leaks(rack.rack, {}).answer is Answer.INCONCLUSIVE
    assert judge_leaks(rack.rack, {"tray01": "it does not answer"}).answer is Answer.INCONCLUSIVE
    assert judge_leaks(rack.rack, {"tray01": ()}).answer is Answer.INCONCLUSIVE


def test_a_bmc_of_another_machine_stops_the_sequence(rack: Bench, ledger: Ledger) -> None:
    """The serial behind the address is not the planned one: no node is switched on."""
    units = tuple(replace(u, serial="OTHER") if u.name == "tray01" else u for u in rack.rack.units)
    rack.rack = replace(rack.rack, units=units)
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 3
    assert dict(ends(found))["wait for BMCs"]["tray01"] == "unknown"
    assert rack.tray("tray01").pressed == []


def test_a_bmc_that_lies_about_power_is_not_believed(rack: Bench, ledger: Ledger) -> None:
    """It says On and pressed nothing: no firmware has begun, and that is told as a contradiction."""
    rack.faults["tray01"].append(Fault(FaultKind.BMC_LIES_ABOUT_POWER, "tray01"))
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 3
    (doubted,) = [u for u in found.steps[-1].units if u.end is UnitEnd.DOUBTED]
    assert doubted.unit == "tray01"
    assert "no firmware has begun" in doubted.said


def test_a_rack_goes_down_the_other_way_round_and_shelves_last(rack: Bench, ledger: Ledger) -> None:
    """Nodes end by themselves; the shelf, which takes standby power with it, only where it is asked for."""
    done(rack, ledger, plan_on(rack.rack))
    assert [s.units for s in plan_off(rack.rack).steps] == [("tray01", "tray02"), ("nvswitch1",)]
    found = done(rack, ledger, plan_off(rack.rack, shelves=True))
    assert found.exit_code == 0
    assert [tuple(units) for _, units in ends(found)] == [("tray01", "tray02"), ("nvswitch1",), ("shelf1",)]
    assert rack.tray("tray01").pressed[-1] is Button.GRACEFUL_SHUTDOWN
    assert rack.tray("shelf1").pressed[-1] is Button.FORCE_OFF


def test_a_rack_whose_nodes_take_jobs_is_not_switched_off(rack: Bench, ledger: Ledger) -> None:
    """Drain first: nothing is pressed, and the command that comes first is named."""
    done(rack, ledger, plan_on(rack.rack))
    ledger.enter(rack.rack.name, {"tray01": NodeState.ADMITTED}, "test")
    with pytest.raises(UsageError, match="tray01") as refused:
        done(rack, ledger, plan_off(rack.rack))
    assert "rackproof drain tray01" in refused.value.hint
    assert rack.tray("tray01").pressed == [Button.ON]


def test_a_shelf_of_another_serial_gets_no_button(rack: Bench, ledger: Ledger) -> None:
    """It comes first in the sequence, and stands before any other check."""
    units = tuple(replace(u, serial="OTHER") if u.name == "shelf1" else u for u in rack.rack.units)
    rack.rack = replace(rack.rack, units=units)
    found = done(rack, ledger, plan_on(rack.rack))
    assert (found.exit_code, ends(found)) == (3, [("power on", {"shelf1": "unknown"})])
    assert rack.tray("shelf1").pressed == []


def test_a_shutdown_that_was_asked_for_is_waited_for_and_not_asked_twice(rack: Bench, ledger: Ledger) -> None:
    """The run that pressed was killed; the next one waits for what it began, and presses only after that."""
    done(rack, ledger, plan_on(rack.rack))
    ledger.intent(rack.rack.name, "tray01", POWER, {"action": Button.GRACEFUL_SHUTDOWN.value})
    found = done(rack, ledger, plan_off(rack.rack))
    assert {u.unit: u.end for u in found.steps[0].units} == {"tray01": UnitEnd.LATE, "tray02": UnitEnd.DONE}
    assert rack.tray("tray01").pressed == [Button.ON]
    assert done(rack, ledger, plan_off(rack.rack)).exit_code == 0
    assert rack.tray("tray01").pressed == [Button.ON, Button.GRACEFUL_SHUTDOWN]


def test_a_silent_bmc_ends_the_sequence_and_says_so(rack: Bench, ledger: Ledger) -> None:
    """The switch tray's BMC is at an address where nobody is: nothing that stands on it is begun."""
    units = tuple(
        replace(u, bmc=replace(u.bmc, port=1)) if u.name == "nvswitch1" and u.bmc else u for u in rack.rack.units
    )
    rack.rack = replace(rack.rack, units=units)
    found = done(rack, ledger, plan_on(rack.rack))
    assert found.exit_code == 3
    assert dict(ends(found))["wait for BMCs"]["nvswitch1"] == "does not answer"
    assert rack.tray("tray01").pressed == []

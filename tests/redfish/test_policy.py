"""What a profile says of BMCs and power: read with its line numbers, and held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import InputError, UsageError
from toolkit.rack.loading import load_profile, load_rack
from toolkit.rack.power_sequence import StepKind, plan_off, plan_on
from toolkit.rack.unit_kind import UnitKind
from toolkit.settings import load

INVENTORY = load({}).inventory


def test_a_budget_that_the_nodes_would_break_is_refused_with_how_many_fit() -> None:
    """31 nodes of 10.2 kW are 316.2 kW; a profile that does not say what a node takes can hold no budget."""
    rack = load_rack("dgx-h100-su", INVENTORY)
    assert plan_on(rack, 317_000).watts == pytest.approx(316_200)
    with pytest.raises(UsageError, match=r"316\.2 kW, the budget is 300\.0 kW: 29 would fit"):
        plan_on(rack, 300_000)
    silent = replace(rack, profile=replace(rack.profile, node_power_watts=0.0))
    with pytest.raises(UsageError, match="does not say what a node takes"):
        plan_on(silent, 300_000)


def test_nodes_come_no_faster_than_the_ramp() -> None:
    """10.2 kW a node at 10 kW a second: 1.02 s from one button to the next; no ramp, no gap."""
    rack = load_rack("dgx-h100-su", INVENTORY)
    assert plan_on(rack).steps[-1].gap_s == pytest.approx(1.02)
    free = replace(rack, profile=replace(rack.profile, power_ramp_kw_per_s=0.0))
    assert plan_on(free).steps[-1].gap_s == 0.0


def test_the_sequence_names_every_unit_once_and_checks_what_is_cooled() -> None:
    """8 shelves, 9 switch trays, 18 trays; the air-cooled rack has no leak check; off leaves the shelves on."""
    nvl72 = load_rack("gb200-nvl72", INVENTORY)
    powered = [name for step in plan_on(nvl72).steps if step.kind is StepKind.POWER_ON for name in step.units]
    assert len(powered) == len(set(powered)) == 35
    assert StepKind.LEAK_CHECK in {step.kind for step in plan_on(nvl72).steps}
    assert StepKind.LEAK_CHECK not in {step.kind for step in plan_on(load_rack("dgx-h100-su", INVENTORY)).steps}
    assert not any(name.startswith("shelf") for step in plan_off(nvl72).steps for name in step.units)


def test_the_shipped_profiles_say_what_their_bmcs_should_be_with_sources() -> None:
    """Detectors of the liquid-cooled rack, BIOS and firmware of a DGX H100; a unit's kind that has none has none."""
    cooled = load_profile("gb200-nvl72", INVENTORY).bmc
    assert (cooled.detectors_of(UnitKind.NODE), cooled.detectors_of(UnitKind.POWER_SHELF)) == (4, 0)
    assert cooled.leak_detectors_source
    dgx = load_profile("dgx-h100", INVENTORY).bmc
    assert {pin.component: pin.version for pin in dgx.firmware}["HostBIOS_0"] == "1.06.07"
    assert all(one.source for one in (*dgx.firmware, *dgx.bios))


def test_a_wrong_bmc_section_is_told_by_line(tmp_path: Path) -> None:
    """A kind nobody knows, a lock without a source, a count of nothing."""
    (tmp_path / "profiles").mkdir()
    text = (INVENTORY / "profiles" / "dgx-h100.yml").read_text()
    wrong = "\nbmc:\n  leak_detectors: {counts: {gpu: 4}, source: x}\n  firmware:\n    - {kind: node, component: A}\n"
    begin, end = text.index("\nbmc:\n"), text.index("\ncertificate_lifetime:")
    (tmp_path / "profiles" / "dgx-h100.yml").write_text(text[:begin] + wrong.rstrip("\n") + text[end:])
    with pytest.raises(InputError) as caught:
        load_profile("dgx-h100", tmp_path)
    assert "gpu" in str(caught.value) and "version" in str(caught.value) and "source" in str(caught.value)
    line = text[:begin].count("\n") + 3
    assert f"dgx-h100.yml:{line}:" in str(caught.value)

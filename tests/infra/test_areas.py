"""No gate at rest is forgotten, in whatever profile: each is asked by exactly one module of tests."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import toolkit.infra
from toolkit.infra.areas import AREAS, area_of, at_rest
from toolkit.infra.questions import Plan
from toolkit.infra.targets import of_rack
from toolkit.rack.lifecycle import Stage
from toolkit.rack.loading import list_profiles, list_racks, load_profile, load_rack
from toolkit.report.check_codes import CHECK_CODES
from toolkit.report.codes import ERROR_CODES
from toolkit.settings import load

SETTINGS = load({})


@pytest.mark.parametrize("name", list_profiles(SETTINGS.inventory))
def test_every_required_gate_at_rest_is_in_one_area(name):
    """What is left to the burn-in is the burn-in's alone."""
    profile = load_profile(name, SETTINGS.inventory)
    gates = at_rest(profile)
    assert gates
    assert {g.stage for g in gates} <= {Stage.BASE, Stage.NVLINK, Stage.INFINIBAND, Stage.KUBERNETES}
    assert all(area_of(gate) is not None for gate in gates)
    assert sum(len(area.gates(profile)) for area in AREAS) == len(gates)


@pytest.mark.parametrize("name", list_racks(SETTINGS.inventory))
def test_every_gate_of_a_rack_is_asked_of_every_planned_part_and_no_question_twice(name):
    """Ids are the same in every process, and each names node, part and code."""
    rack = load_rack(name, SETTINGS.inventory)
    plan = Plan(SETTINGS, rack, of_rack(rack))
    asked = {}
    for module in pkgutil.iter_modules(toolkit.infra.__path__):
        if module.name.startswith("test_"):
            for function in vars(importlib.import_module(f"toolkit.infra.{module.name}")).values():
                for mark in getattr(function, "pytestmark", ()):
                    if mark.name == "asks":
                        ids = [question.id(plan) for question in mark.args[0].questions(plan)]
                        asked[module.name, function.__name__] = ids
    assert all(len(ids) == len(set(ids)) for ids in asked.values())
    everything = {question for ids in asked.values() for question in ids}
    codes = {gate.code for gate in at_rest(rack.profile)}
    for node in rack.nodes:
        mine = {question for question in everything if question.startswith(f"{node.name}-")}
        assert {code for code in codes if any(q.endswith(f"-{code}") for q in mine)} == codes


def test_every_code_of_a_check_is_one_that_explain_knows():
    """What a red test names can be typed after `rackproof explain`."""
    folder = Path(toolkit.infra.__path__[0])
    called = re.compile(r'(?:words\.failed|words\.inconclusive|told|failed|inconclusive)\(\s*"([A-Z][A-Z_]+)"')
    codes = {code for file in folder.glob("*.py") for code in called.findall(file.read_text())}
    codes |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)", (?:f"|hint|next_)', (folder / "test_boot.py").read_text()))
    assert len(codes) > 15
    gates = {g.code for name in list_profiles(SETTINGS.inventory) for g in load_profile(name, SETTINGS.inventory).gates}
    assert codes - gates <= set(ERROR_CODES)
    assert set(CHECK_CODES) <= codes

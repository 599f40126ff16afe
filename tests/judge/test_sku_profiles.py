"""Profiles of DGX H200, DGX B200 and GB300 NVL72: physics, sources, and nothing borrowed from another machine."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from toolkit.judge import ceilings
from toolkit.judge.lint import Code, ceiling_of, lint
from toolkit.rack.claim import Claim, Span
from toolkit.rack.claims import load_skus, profile_claims
from toolkit.rack.gate import Gate, Operator
from toolkit.rack.loading import load_profile
from toolkit.rack.model import Mode, UnitKind

INVENTORY = Path(__file__).parents[2] / "inventory"
# profile -> the one it takes gates from, and how sources name that one's machine
NEW = {"dgx-h200": ("dgx-h100", "H100"), "dgx-b200": ("dgx-h100", "H100"), "gb300-nvl72": ("gb200-nvl72", "GB200")}
RATES = ("GB/s", "TFLOP/s", "celsius", "watt")


def own_and_inherited(name: str) -> tuple[dict[tuple[str, str], Gate], dict[tuple[str, str], Gate]]:
    """Gates by code and metric: those the profile writes, and those it takes over."""
    base = {(g.code, g.metric): g for g in load_profile(NEW[name][0], INVENTORY).gates}
    found = {(g.code, g.metric): g for g in load_profile(name, INVENTORY).gates}
    taken = {key: gate for key, gate in found.items() if base.get(key) == gate}
    return {key: gate for key, gate in found.items() if key not in taken}, taken


def limit(name: str, code: str) -> float | None:
    """The limit of a gate of numbers."""
    (gate,) = (g for g in load_profile(name, INVENTORY).gates if g.code == code)
    assert gate.limit is None or isinstance(gate.limit, int | float)
    return gate.limit


@pytest.mark.parametrize(
    ("name", "mode", "gpus", "hcas", "units"),
    [
        ("dgx-h200", Mode.NVSWITCH_GEN3, 8, 8, {UnitKind.NODE: 31, UnitKind.LEAF: 8, UnitKind.SPINE: 4}),
        ("dgx-b200", Mode.NVLINK5_SINGLE, 8, 8, {UnitKind.NODE: 32, UnitKind.LEAF: 8, UnitKind.SPINE: 4}),
        (
            "gb300-nvl72",
            Mode.MNNVL_HOST_IMEX,
            4,
            8,
            {UnitKind.NODE: 18, UnitKind.NVLINK_SWITCH: 9, UnitKind.POWER_SHELF: 8},
        ),
    ],
)
def test_a_profile_states_its_mode_and_shape(name, mode, gpus, hcas, units):
    """Nothing is guessed from the name: B200 is in GB200's."""
    profile = load_profile(name, INVENTORY)
    assert (profile.mode, profile.gpus_per_node, profile.hcas_per_node) == (mode, gpus, hcas)
    assert dict(profile.units) == units
    assert profile.nvlinks_per_gpu == 18


@pytest.mark.parametrize("name", NEW)
def test_the_linter_finds_nothing_wrong_with_a_new_profile(name):
    """Neither by itself nor beside all the others of the inventory."""
    others = ("dgx-h100", "gb200-nvl72", *NEW)
    claims = [claim for other in others for _, claim in profile_claims(other, INVENTORY)]
    mine = {claim for _, claim in profile_claims(name, INVENTORY)}
    assert [f for f in lint(claims, load_skus(INVENTORY)).findings if f.claim in mine] == []


@pytest.mark.parametrize("name", NEW)
def test_no_limit_is_borrowed_from_another_machine(name):
    """What is inherited names no measurement of the other SKU: GB300 was once judged by GB200's figures (aicr#2640)."""
    _, inherited = own_and_inherited(name)
    machine = NEW[name][1]
    assert inherited
    for gate in inherited.values():
        if gate.limit is not None:
            share = gate.operator is Operator.PEERS  # of what siblings of the same machine reach: no rate of another
            assert share or gate.unit not in RATES, f"{gate.code}: a rate of {machine} does not hold for {name}"
            assert "TB/s" not in gate.source, f"{gate.code}: {gate.source}"
            assert not re.search(rf"\b{machine}\b", gate.source), f"{gate.code}: {gate.source}"


@pytest.mark.parametrize("name", NEW)
def test_every_gate_is_sourced_and_dated_or_has_no_limit(name):
    """A missing limit is null, says that nobody has published one, and is never required."""
    for gate in load_profile(name, INVENTORY).gates:
        assert date.fromisoformat(gate.date) <= date(2026, 12, 31)
        if gate.operator is Operator.SAME_ACROSS:
            continue  # it has no limit by its nature
        assert (gate.limit is None) == gate.source.startswith("none"), gate.code
        assert gate.limit is not None or not gate.required, gate.code


@pytest.mark.parametrize("name", NEW)
def test_versions_that_gates_repeat_are_those_of_the_lock(name):
    """A lock that moves takes its gates along, or the profile does not load right."""
    profile = load_profile(name, INVENTORY)
    lock = dict(profile.versions)
    driver = lock["nvidia-driver-580-open"]
    assert {g.limit for g in profile.gates if g.metric in ("driver_version", "fabric_manager_version")} == {driver}
    managers = {"nvidia-fabricmanager", "nvidia-imex", "libnvsdm", "libnvidia-nscq"} & lock.keys()
    assert {lock[m] for m in managers} == {driver}
    assert ("nvlsm" in lock) is (profile.mode is Mode.NVLINK5_SINGLE)


@pytest.mark.parametrize(
    ("name", "link", "ring", "nvls", "node_nics"),
    [("dgx-h200", 25, 450, 700, 400), ("dgx-b200", 50, 900, 1400, 400), ("gb300-nvl72", 50, 900, 1080, 400)],
)
def test_closed_forms_of_a_profile_give_the_published_values(name, link, ring, nvls, node_nics):
    """B from the links, NVLS from B and the node's ranks, R from its ports."""
    profile = load_profile(name, INVENTORY)
    b = link * profile.nvlinks_per_gpu
    assert (b, limit(name, "NVLINK_SLOW")) == (ring, link)
    assert round(ceilings.nvls(b, profile.gpus_per_node).gb_per_s) == nvls
    assert profile.hcas_per_node * float(dict(profile.expected)["hca_rate_gbit_per_s"]) / 8 == node_nics
    (claim,) = (c for g, c in profile_claims(name, INVENTORY) if g.code == "NCCL_BUSBW_LOW")
    ceiling = ceiling_of(claim, load_skus(INVENTORY))
    assert ceiling is not None
    assert round(ceiling.gb_per_s) == nvls
    assert profile.nvlink_gb_per_s > link


@pytest.mark.parametrize(
    ("sku", "nodes", "environment", "busbw"),
    [
        ("GB300 NVL72", 18, {}, 1751),  # one domain of 72, NVLS
        ("GB300 NVL72", 2, {"NCCL_MNNVL_ENABLE": "0"}, 700),
        ("GB300 NVL72", 4, {"NCCL_MNNVL_ENABLE": "0"}, 500),
        ("GB300 NVL72", 8, {"NCCL_MNNVL_ENABLE": "0"}, 443),
        ("GB300 NVL72", 16, {"NCCL_MNNVL_ENABLE": "0"}, 420),
        ("DGXH200", 1, {}, 700),
        ("DGXB200", 1, {}, 1400),
        ("DGXB200", 2, {}, 750),
        ("DGXH200", 16, {}, 423),
        ("DGXB200", 64, {}, 406),
    ],
)
def test_ceilings_of_the_new_skus_are_the_published_cells(sku, nodes, environment, busbw):
    """NVLS within a domain, NIC-bound beyond it, as the table of ceilings has them."""
    claim = Claim(
        sku=sku,
        test="all_reduce",
        scope=Span.FABRIC if environment or (nodes > 1 and sku != "GB300 NVL72") else Span.DOMAIN,
        operator=Operator.AT_LEAST,
        limit=None,
        unit="GB/s",
        source="",
        place="",
        nodes=nodes,
        environment=tuple(sorted(environment.items())),
    )
    ceiling = ceiling_of(claim, load_skus(INVENTORY))
    assert ceiling is not None
    assert round(ceiling.gb_per_s) == busbw


def test_an_h200_floor_stands_between_the_h100s_and_what_healthy_nodes_measured():
    """Its GPUs have the H100's links: no lower a floor, and 480 was measured."""
    h100, h200 = limit("dgx-h100", "NCCL_BUSBW_LOW"), limit("dgx-h200", "NCCL_BUSBW_LOW")
    assert h100 is not None
    assert h200 is not None
    assert h100 <= h200 < 480.0


def test_an_h200_floor_under_the_h100s_would_be_a_warning():
    """Azure ships 431 under 460: worth a look, no defect."""
    both = [c for p in ("dgx-h100", "dgx-h200") for _, c in profile_claims(p, INVENTORY)]
    floors = [c for c in both if c.operator is Operator.AT_LEAST and c.scope is Span.NODE]
    claims = [c for c in floors if c.test == "all_reduce"]
    slower = [c if c.sku == "DGXH100" else _with(c, 431.0) for c in claims]
    found = lint(slower, load_skus(INVENTORY))
    assert [(f.code, f.warning) for f in found.findings] == [(Code.CONTRADICTS_NEIGHBOUR, True)]


def test_the_floor_in_the_field_for_a_b200_is_vacuous_and_ours_is_inconclusive():
    """440 is an H200's: a B200 at half its rate passes it."""
    (claim,) = (c for g, c in profile_claims("dgx-b200", INVENTORY) if g.code == "NCCL_BUSBW_LOW")
    assert claim.limit is None
    found = lint([_with(claim, 440.0)], load_skus(INVENTORY))
    assert [f.code for f in found.defects] == [Code.VACUOUS]


def _with(claim: Claim, floor: float) -> Claim:
    return replace(claim, limit=floor)

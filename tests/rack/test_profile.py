"""A profile's gates are checked like code: what does not fit is told with its line, and nothing is ever evaluated."""

import re
from datetime import date, timedelta

import pytest

from tests.rack.conftest import PROFILE
from toolkit.errors import InputError, UsageError
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.loading import list_profiles, load_profile
from toolkit.rack.metric import METRICS
from toolkit.rack.model import Mode, Suite, UnitKind

# What is replaced in conftest's profile and by what; then the problem: its line, the field, words of it.
BAD = [
    ("mode: nvswitch_gen3", "mode: gb200", 3, "mode", "one of: nvswitch_gen3"),
    ("mode: nvswitch_gen3", "mode: mnnvl_dra", 3, "mode", "without units of kind nvlink_switch"),
    ("leaf: 2}", "leaf: 2, nvlink_switch: 9}", 3, "mode", "with units of kind nvlink_switch"),
    ("mode: nvswitch_gen3", "mode: pcie", 6, "nvlinks_per_gpu", "only there"),
    ("leaf: 2}", "leef: 2}", 4, "units.leef", "did you mean leaf?"),
    ("gpus_per_node: 2", "gpus_per_node: two", 5, "gpus_per_node", "not a number"),
    ("image: small.img.zst", "image: ../../etc/passwd", 9, "image", "no folders"),
    ("lifetime: 30d", "lifetime: 1 month", 10, "certificate_lifetime", "30d"),
    ("lifetime: 30d", "lifetime: 30d\ncertificate_lifetime_source:", 11, "certificate_lifetime_source", "is empty"),
    ("lifetime: 30d", "lifetime: 30d\nlifetime_source: x", 11, "lifetime_source", "no such field"),
    ("sku: Small\n", "sku: Small\nlicence: x\n", 3, "licence", "no such field"),
    ("sku: Small\n", "", 1, "sku", "is missing"),
    ("code: DRIVER_VERSION_WRONG", "code: driver", 14, "gates[0].code", "upper-case"),
    ("metric: driver_version", "metric: driver_versions", 15, "gates[0].metric", "did you mean driver_version?"),
    ("unit: version", "unit: parsecs", 16, "gates[0].unit", "not a known unit"),
    ("unit: version", "unit: count", 16, "gates[0].unit", "driver_version is in version, not count"),
    ("scope: node", "scope: gpu", 17, "gates[0].scope", "measured of each node"),
    ("scope: node", "scope: datacentre", 17, "gates[0].scope", "not a known scope"),
    ("operator: equals", "operator: eval", 18, "gates[0].operator", "not a known operator"),
    ("operator: equals", "operator: at_least", 18, "gates[0].operator", "does not order a version"),
    ("limit: 580.95.05", "limit: 580.82.07", 11, "expected.driver_version", "DRIVER_VERSION_WRONG demands '580.82.07'"),
    ("limit: 580.95.05", "limit: {a: 1}", 19, "gates[0].limit", "null where nobody has sourced one"),
    ("limit: 580.95.05", "limit: [580.95.05]", 19, "gates[0].limit", "one_of"),
    ("    limit: 580.95.05\n", "", 14, "gates[0].limit", "is missing"),
    ("stage: base", "stage: basement", 20, "gates[0].stage", "did you mean base?"),
    ("required: true", "required: yes", 21, "gates[0].required", "true or false"),
    ("required: true", "required: false", 13, "gates", "nothing could ever pass"),
    ("part: software", "part: flux_capacitor", 22, "gates[0].part", "one of: gpu"),
    ("source: the lock", "source:", 24, "gates[0].source", "is empty"),
    ("date: 2026-11-23", "date: yesterday", 25, "gates[0].date", "a date"),
    ("date: 2026-11-23", "date: 2026-02-30", 25, "gates[0].date", "not a date"),
    ("image: small", "suite: rehearsal\nimage: small", 9, "suite", "for virtual racks"),
    ("image: small", "suite: forever\nimage: small", 9, "suite", "one of: rehearsal, quick, standard, long"),
    ("image: small", "power_ramp_kw_per_s: 5\nimage: small", 9, "power_ramp_kw_per_s", "gpu_power_watts"),
    ("gates:\n", "gates_left_out: [{code: X_Y, why: z}]\ngates:\n", 13, "gates_left_out", "nothing is inherited"),
    ("gates:\n", "gates_from: small\ngates:\n", 13, "gates_from", "no other profile small"),
    ("gates:\n", "gates_from: big\ngates:\n", 13, "gates_from", "no other profile big"),
    ("profile: small", "profile: smaller", 1, "profile", "profile: small"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "words"), BAD)
def test_a_fault_in_a_profile_has_its_line(inventory, old, new, line, field, words):
    """One change in a good profile, one problem that says where and what."""
    problems = inventory.gate_problems(old, new)
    assert any((p.line, p.field) == (line, field) and words in f"{p.wrong} {p.right}" for p in problems), "\n".join(
        map(str, problems)
    )


def numeric(metric: str, unit: str, scope: str, operator: str, limit: str) -> str:
    """A profile whose one more gate is of this metric."""
    first = PROFILE[PROFILE.index("  - code") :]
    more = first.replace("DRIVER_VERSION_WRONG", "MORE").replace("driver_version", metric)
    more = more.replace("unit: version", f"unit: {unit}").replace("scope: node", f"scope: {scope}")
    return PROFILE + more.replace("operator: equals", f"operator: {operator}").replace("580.95.05", limit)


OF_ALL_GATHER = ("nccl_all_gather_busbw_gb_per_s", "GB/s", "node", "at_least", "300")


@pytest.mark.parametrize("suite", ["suite: quick\n", ""])
def test_a_suite_that_could_never_certify_is_refused_with_its_line(inventory, suite):
    """Quick, which is what a profile without a word means, runs two collectives: no gate may be required of others."""
    text = numeric(*OF_ALL_GATHER).replace("image: small", f"{suite}image: small")
    inventory.profile(text)
    with pytest.raises(InputError) as refused:
        load_profile("small", inventory.folder)
    (problem,) = refused.value.problems
    assert (problem.field, problem.line) == ("suite", 9 if suite else 1)
    assert "quick runs no all_gather, and MORE are required of it" in problem.wrong


def test_quick_certifies_where_no_gate_is_required_of_what_it_leaves_out(inventory):
    """As of a profile without collectives, or with those that it runs."""
    of_all_reduce = ("nccl_busbw_gb_per_s", *OF_ALL_GATHER[1:])
    for text in (
        PROFILE,
        numeric(*of_all_reduce),
        numeric(*OF_ALL_GATHER).replace("image:", "suite: standard\nimage:"),
    ):
        inventory.profile(text)
        assert load_profile("small", inventory.folder).suite in (Suite.QUICK, Suite.STANDARD)


def test_rails_of_nodes_without_hcas_are_refused(inventory):
    """What cannot be measured is not asked for."""
    text = PROFILE.replace("hcas_per_node: 2", "hcas_per_node: 0\nrail_test: true")
    inventory.profile(text)
    with pytest.raises(InputError, match="its nodes have no HCA"):
        load_profile("small", inventory.folder)


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        (("gpu_count", "count", "node", "equals", "8"), 8),
        (("nccl_busbw_gb_per_s", "GB/s", "node", "at_least", "440"), 440.0),
        (("hbm_coverage", "fraction", "gpu", "at_least", "0.95"), 0.95),
        (("ecc_enabled", "flag", "gpu", "equals", "true"), 1),
        (("row_remap_pending", "flag", "gpu", "equals", "false"), 0),
        (("nccl_transport", "word", "node", "one_of", "[NVLS, P2P]"), ("NVLS", "P2P")),
        (("fabric_manager_version", "version", "node", "equals", "1.10"), "1.10"),
        (("fabric_state", "word", "gpu", "same_across", "null"), None),
        (("hbm_celsius_max", "celsius", "gpu", "at_most", "null"), None),
    ],
)
def test_a_limit_has_the_type_of_its_unit(inventory, written, typed):
    """A version 1.10 stays text, a count is whole, a flag is 0 or 1, null is nobody's number."""
    inventory.profile(numeric(*written))
    limit = load_profile("small", inventory.folder).gates[1].limit
    assert limit == typed
    assert type(limit) is type(typed)


@pytest.mark.parametrize(
    "written",
    [
        ("gpu_count", "count", "node", "equals", "8.5"),
        ("gpu_count", "count", "node", "at_least", "inf"),
        ("nccl_busbw_gb_per_s", "GB/s", "node", "at_least", "440 GB/s"),
        ("nccl_busbw_gb_per_s", "GB/s", "node", "at_least", "1e3"),
        ("ecc_enabled", "flag", "gpu", "equals", "1"),
        ("nccl_transport", "word", "node", "one_of", "NVLS"),
        ("fabric_state", "word", "gpu", "same_across", "Completed"),
    ],
)
def test_a_limit_that_does_not_fit_is_refused_at_its_line(inventory, written):
    """Line 31 is the second gate's limit."""
    inventory.profile(numeric(*written))
    with pytest.raises(InputError) as error:
        load_profile("small", inventory.folder)
    assert [(p.line, p.field) for p in error.value.problems] == [(31, "gates[1].limit")]


def test_a_gate_written_twice_is_refused(inventory):
    """The same code on the same metric."""
    inventory.profile(PROFILE + PROFILE[PROFILE.index("  - code") :])
    with pytest.raises(InputError, match="written twice"):
        load_profile("small", inventory.folder)


def test_an_unknown_profile_lists_the_known(inventory):
    """For the profile itself and for a rack that names it."""
    with pytest.raises(UsageError, match="small"):
        load_profile("none", inventory.folder)


def test_inherited_gates_are_those_of_the_other_profile(inventory):
    """One level; a gate of the same code and metric replaces the other's."""
    own = PROFILE.replace("profile: small", "profile: other").replace("gates:\n", "gates_from: small\ngates:\n")
    inventory.profile(own.replace("stage: base", "stage: nvlink"), "other")
    (gate,) = load_profile("other", inventory.folder).gates
    assert gate.stage == "nvlink"
    inventory.profile(own[: own.index("gates:\n")], "other")
    assert load_profile("other", inventory.folder).gates == load_profile("small", inventory.folder).gates
    inventory.profile(
        own.replace("profile: other", "profile: third").replace("gates_from: small", "gates_from: other"), "third"
    )
    with pytest.raises(InputError, match="takes its own gates from small"):
        load_profile("third", inventory.folder)


def test_the_shipped_profiles_load(shipped):
    """With their modes stated and their durations typed."""
    profiles = {name: load_profile(name, shipped) for name in list_profiles(shipped)}
    assert {name: p.mode for name, p in profiles.items()} == {
        "dgx-b200": Mode.NVLINK5_SINGLE,
        "dgx-h100": Mode.NVSWITCH_GEN3,
        "dgx-h200": Mode.NVSWITCH_GEN3,
        "gb200-nvl72": Mode.MNNVL_HOST_IMEX,
        "gb300-nvl72": Mode.MNNVL_HOST_IMEX,
        "virtual-dgx-h100": Mode.NVSWITCH_GEN3,
    }
    assert all(p.certificate_lifetime == timedelta(days=30) for p in profiles.values())
    assert dict(profiles["gb200-nvl72"].units) == {
        UnitKind.NODE: 18, UnitKind.NVLINK_SWITCH: 9, UnitKind.POWER_SHELF: 8,
    }  # fmt: skip


def test_the_virtual_rack_is_judged_by_the_gates_of_the_metal(shipped):
    """But for the host's speed, which is left out by name and with the reason."""
    virtual, metal = load_profile("virtual-dgx-h100", shipped), load_profile("dgx-h100", shipped)
    left_out = dict(virtual.left_out)
    relative = {"HBM_BANDWIDTH_BELOW_PEERS", "GEMM_RATE_BELOW_PEERS", "PCIE_BANDWIDTH_BELOW_PEERS"}
    assert set(left_out) == {"HBM_BANDWIDTH_LOW", "PCIE_BANDWIDTH_LOW"} | relative
    assert all("host" in why for why in left_out.values())
    assert virtual.gates == tuple(g for g in metal.gates if g.code not in left_out)
    assert (virtual.suite, metal.suite) == (Suite.REHEARSAL, Suite.STANDARD)


def test_a_gate_left_out_must_be_there(inventory):
    """A name that nothing is called by is a mistake, not a wish granted."""
    own = PROFILE.replace("profile: small", "profile: other")
    own = own[: own.index("gates:\n")] + "gates_from: small\ngates_left_out:\n  - {code: NO_SUCH_GATE, why: none}\n"
    inventory.profile(own, "other")
    with pytest.raises(InputError, match="small has no gate NO_SUCH_GATE"):
        load_profile("other", inventory.folder)


@pytest.mark.parametrize("name", ["dgx-h100", "gb200-nvl72"])
def test_every_shipped_gate_is_sourced_or_has_no_limit(shipped, name):
    """A limit has a document and a date; where there is none the source says so and nothing is required of it."""
    for gate in load_profile(name, shipped).gates:
        assert date.fromisoformat(gate.date) <= date(2026, 12, 31)
        if gate.operator is not Operator.SAME_ACROSS:
            assert gate.limit is not None or gate.source.startswith("none"), gate.code
            assert gate.limit is not None or not gate.required, gate.code
        assert gate.limit is None or not gate.source.startswith("none"), gate.code
        assert gate.why.endswith(".") or "marin" in gate.why, gate.code
        assert gate.metric in METRICS
        assert Stage(gate.stage)


def test_the_bandwidth_gate_of_an_h100_obeys_physics(shipped):
    """Between the ring's and NVLS' ceilings' order: over 368 (no NVLS seen), under 480 (healthy) and 700 (ceiling)."""
    profile = load_profile("dgx-h100", shipped)
    (gate,) = (g for g in profile.gates if g.code == "NCCL_BUSBW_LOW")
    payload_gb_per_s = 25 * profile.nvlinks_per_gpu
    nvls_ceiling = payload_gb_per_s * 2 * (profile.gpus_per_node - 1) / (profile.gpus_per_node + 1)
    assert isinstance(gate.limit, float)
    assert 368 < gate.limit < 478.9 < nvls_ceiling == pytest.approx(700)


def test_a_profile_names_no_secret_and_no_gate_an_expression(shipped):
    """Data only: nothing in a profile is ever evaluated."""
    for file in (shipped / "profiles").glob("*.yml"):
        text = file.read_text()
        assert not re.search(r"password|lambda|eval|\{\{", text, re.IGNORECASE)


def test_every_metric_is_of_a_scope_and_says_what_it_is():
    """The vocabulary is complete and its names are words."""
    for name, metric in METRICS.items():
        assert name == metric.name
        assert metric.scope in Scope
        assert metric.meaning
    assert set(Operator) == {"at_least", "at_most", "equals", "one_of", "same_across", "peers"}

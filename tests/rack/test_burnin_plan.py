"""What a burn-in will take, before it runs: levels by topology, closed forms with their sources, nothing made up."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.nccl.collective import Collective as NodeCollective
from burnin.suites import BY_NAME
from burnin.workload import OwnProcess
from toolkit.judge import levels
from toolkit.judge.forecast import forecast
from toolkit.judge.lint import sku_named
from toolkit.judge.pace import LAUNCH_S
from toolkit.rack.burnin_plan import (
    BUDGETS,
    RAIL_READINGS,
    RAIL_SEARCH_S,
    RAIL_TEST,
    RAIL_TESTS_AT_ONCE,
    Collective,
    Figure,
    LevelName,
    level_name,
    most,
    run_today,
    total,
    unknown,
)
from toolkit.rack.claims import load_skus
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Mode, Suite, UnitKind, WideLevel
from toolkit.rack.power import ramp_seconds
from toolkit.settings import load
from toolkit.stages import level_tests, rails

INVENTORY = load({}).inventory
SKUS = load_skus(INVENTORY)
DGX = load_rack("dgx-h100-su", INVENTORY)
NVL72 = load_rack("gb200-nvl72", INVENTORY)
DEMO = load_rack("demo", INVENTORY)
PAIR = load_rack("demo-small", INVENTORY)
MOVED_GB = 2 * (50 + 2) * 2**35 / 1e9  # up to 16 GiB, doubling, out of place and in place, 50 timed and 2; less a crumb


def plan_of(rack, suite=Suite.STANDARD, nodes=None, others=(), skus=SKUS, **options):
    """The plan for all nodes of the rack, or for those named."""
    return forecast(rack, nodes or [n.name for n in rack.nodes], suite, skus, others, **options)


def level(plan, name):
    """One level of the plan."""
    return next(level for level in plan.levels if level.name is name)


def figures(plan):
    """Every number of the plan."""
    costs = [t.cost for found in plan.levels for t in found.tests] + [
        found.cost for found in plan.levels if found.tests
    ]
    return [
        f for c in (*costs, plan.today, plan.whole) for f in (c.minutes, c.minutes_at_most, c.kwh, c.kwh_at_most, c.kw)
    ]


def option(workload, name, default=0.0):
    """A number among a workload's arguments."""
    arguments = workload.arguments
    return float(arguments[arguments.index(name) + 1]) if name in arguments else default


@pytest.mark.parametrize("suite", Suite)
def test_the_budgets_are_those_of_the_program_that_runs_on_the_node(suite):
    """The controller imports no workload, so that its table is held equal to theirs here."""
    theirs, ours = BY_NAME[suite.value], BUDGETS[suite]
    own = [w for w in theirs.workloads if isinstance(w, OwnProcess)]
    collectives = [w for w in theirs.workloads if isinstance(w, NodeCollective)]
    rests = sum((option(w, "--cycles", 1) - 1) * option(w, "--rest") for w in own)
    assert ours.load == tuple((w.name, option(w, "--seconds")) for w in own)
    assert ours.rest_s == theirs.settle_s + rests
    assert ours.deadline_s == theirs.deadline_s
    assert ours.collectives == tuple(
        Collective(w.kind.value, w.smallest, w.largest, w.iterations, w.deadline_s) for w in collectives
    )
    assert set(ours.where_installed) == {w.name for w in theirs.workloads} - {w.name for w in (*own, *collectives)}


def test_a_collective_moves_every_size_twice_as_often_as_it_is_timed_and_checked():
    """1, 2 and 4 bytes, 3 iterations: 7 bytes, 5 times out of place and 5 times in place."""
    assert Collective("all_reduce", 1, 4, 3, 60).bytes_moved == 70
    assert BUDGETS[Suite.STANDARD].collectives[0].bytes_moved == pytest.approx(MOVED_GB * 1e9)


@given(st.lists(st.one_of(st.none(), st.floats(0.001, 1e6))))
def test_what_is_unknown_is_never_added_up_as_nothing(values):
    """A sum with an unknown part says what it lacks; of unknown parts alone, and of none, it is unknown."""
    parts = [unknown(f"part {n}") if v is None else Figure(v) for n, v in enumerate(values)]
    for found in (total(parts), most(parts)):
        assert (found.value is None) == all(v is None for v in values)
        assert bool(found.lacking) == (not values or None in values)
    if known := [v for v in values if v is not None]:
        assert total(parts).value == pytest.approx(sum(known))
        assert most(parts).value == max(known)


def test_a_dgx_scalable_unit_goes_from_its_nodes_over_rails_and_leaves_to_the_whole():
    """31 nodes; NVLink ends at the node, and one rack has no other rack."""
    plan = plan_of(DGX)
    assert [found.name for found in plan.levels] == list(LevelName)
    assert [found.name for found in plan.levels if found.absent] == [LevelName.DOMAIN, LevelName.RACKS]
    assert "NVLink ends at the node" in level(plan, LevelName.DOMAIN).absent
    (pairs,) = level(plan, LevelName.RAILS).tests
    assert (pairs.groups, pairs.rounds, pairs.ranks) == (16, RAIL_READINGS * 8, 2)  # 120 pairs, 16 at once
    assert [(t.name, t.groups, t.ranks) for t in level(plan, LevelName.LEAF).tests] == [
        ("all_reduce", 8, 31),
        ("alltoall", 8, 31),
    ]
    assert [(t.name, t.ranks) for t in level(plan, LevelName.UNIT).tests] == [("all_reduce", 248), ("alltoall", 248)]


def test_minutes_of_the_nodes_are_budget_closed_form_cool_down_and_ramp():
    """Each with its source; the energy is of the load alone, at what whole nodes take."""
    cost = level(plan_of(DGX), LevelName.NODES).tests[0].cost
    moving = MOVED_GB * (
        1.75 / 478.9 + (3 * 0.875 + 1) / 450
    )  # all_reduce as published, four others at the ring's rate
    ramp = ramp_seconds(31, DGX.profile)
    assert cost.minutes.value == pytest.approx((240 + 90 + 210 + 15 + moving + 5 + ramp) / 60, rel=1e-4)
    assert "together 210 s" in cost.minutes.source
    assert "Azure/AI-benchmarking-guide" in cost.minutes.source
    assert cost.minutes_at_most.value == pytest.approx((BY_NAME["standard"].deadline_s + ramp) / 60)
    assert cost.kw.value == pytest.approx(31 * 10.2)
    assert cost.kwh.value == pytest.approx(31 * 10.2 * (555 + moving) / 3600, rel=1e-4)


def test_between_nodes_time_follows_from_the_ceiling_where_nobody_published_a_figure():
    """A pair on one rail has one HCA; all_reduce over 31 nodes is bound by their NICs."""
    plan = plan_of(DGX)
    (pairs,) = level(plan, LevelName.RAILS).tests
    assert pairs.cost.minutes.value == pytest.approx(64 * RAIL_TEST.bytes_moved / 50e9 / 60, rel=1e-4)
    assert "64 x all_reduce" in pairs.cost.minutes.source
    assert "no published figure: ceiling" in pairs.cost.minutes.source
    over_all = level(plan, LevelName.UNIT).tests[0].cost.minutes
    assert over_all.value == pytest.approx(MOVED_GB * 2 / (400 * 31 / 30) / 60, rel=1e-4)


def test_a_deadline_leaves_a_slow_leaf_time_to_be_measured():
    """That of a node's collective where it is enough; over one port of 50 GB/s all_reduce takes longer than that."""
    (reduce, _), (long, _) = (
        level(plan_of(DGX, suite), LevelName.LEAF).tests for suite in (Suite.STANDARD, Suite.LONG)
    )
    _, unit = (t for t in level(plan_of(DGX), LevelName.UNIT).tests)
    on_node = BUDGETS[Suite.STANDARD].collectives[0].deadline_s
    assert unit.cost.minutes_at_most.value == (on_node + LAUNCH_S) / 60
    for test in (reduce, long):
        assert test.cost.minutes_at_most.value == pytest.approx(2 * test.cost.minutes.value + LAUNCH_S / 60)


def test_the_rails_are_planned_as_they_are_run():
    """The search's own collective, sizes, deadline, and how many at once."""
    ran = (rails.COLLECTIVE, rails.SMALLEST_BYTES, rails.LARGEST_BYTES, rails.ITERATIONS, rails.TEST_SECONDS)
    assert Collective(*ran) == RAIL_TEST
    assert (rails.MOST_AT_ONCE, rails.SEARCH_TIME.total_seconds()) == (RAIL_TESTS_AT_ONCE, RAIL_SEARCH_S)
    assert dict(levels.ALONE) == rails.ALONE


@pytest.mark.parametrize("rack", [DGX, NVL72, DEMO, PAIR], ids=lambda rack: rack.name)
def test_the_levels_are_planned_as_they_are_run(rack):
    """The same collectives among as many ranks, and the order of each has the sizes and the deadline of the plan."""
    nodes, suite = [n.name for n in rack.nodes], rack.profile.suite
    plan = plan_of(rack, suite)
    for name, tests in levels.wide(rack, nodes, suite, sku_named(rack.profile.sku, SKUS)).items():
        planned = level(plan, level_name(name))
        if isinstance(tests, str):
            assert planned.absent == tests
            continue
        for test, shown in zip(tests, planned.tests, strict=True):
            orders = [level_tests.order_of(rack, test, c, "x") for wave in test.waves for c in wave]
            assert (shown.name, shown.groups, shown.rounds) == (test.kind, len(test.waves[0]), len(test.waves))
            assert {o.collective for o in orders} == {test.kind} and max(o.ranks for o in orders) == shown.ranks
            assert {(o.smallest, o.largest, o.iterations) for o in orders} == {
                (levels.SMALLEST, BUDGETS[suite].collectives[0].largest, BUDGETS[suite].collectives[0].iterations)
            }
            assert len(test.waves) * orders[0].deadline_s / 60 == pytest.approx(shown.cost.minutes_at_most.value)


def test_an_nvl72_rack_has_its_domain_and_says_that_its_leaves_are_elsewhere():
    """Two collectives over 72 GPUs; energy of the GPUs alone, since nobody states what a tray takes."""
    plan = plan_of(NVL72)
    domain = level(plan, LevelName.DOMAIN)
    assert [t.name for t in domain.tests] == ["all_reduce", "alltoall"]
    assert {t.ranks for t in domain.tests} == {72}
    assert "770 GB/s (healthy, NVIDIA/aicr PR#2785" in domain.tests[0].cost.minutes.source
    (rails_test,) = level(plan, LevelName.RAILS).tests
    assert "over 4 rails" in rails_test.on, "what joins a rail outside is taken for its leaf"
    assert "no leaf is among its units" in level(plan, LevelName.LEAF).absent
    assert "several such racks" in level(plan, LevelName.UNIT).absent
    assert plan.power.startswith("GPUs only, at their 1,200 W")
    assert plan.today.kw.value == pytest.approx(86.4)


def test_a_virtual_rack_has_deadlines_and_no_made_up_speed_or_power():
    """Unknown stays unknown through to the totals, and says what is missing."""
    plan = plan_of(DEMO, Suite.REHEARSAL)
    assert [found.name for found in plan.levels if found.absent] == [LevelName.DOMAIN, LevelName.RACKS]
    for cost in (plan.today, plan.whole):
        assert (cost.minutes.value, cost.kwh.value, cost.kw.value) == (None, None, None)
    tests = [t for found in plan.levels if found.runs_today for t in found.tests]
    assert [t.name for t in tests] == ["suite rehearsal", "all_reduce", "all_reduce", "alltoall", "all_reduce"]
    on_node = BUDGETS[Suite.REHEARSAL].collectives[0].deadline_s
    limit = BUDGETS[Suite.REHEARSAL].deadline_s + 4 * RAIL_TEST.deadline_s + 3 * (on_node + LAUNCH_S)
    assert plan.today.minutes_at_most.value == pytest.approx(limit / 60)
    assert any("time of a rehearsal" in words for words in plan.whole.minutes.lacking)
    assert any("states no gpu_power_watts" in words for words in plan.whole.kwh.lacking)
    assert plan.ramp.gpu_kw.value is None


def test_a_part_that_is_unknown_makes_the_sum_a_lower_bound():
    """A quick suite on a virtual rack has its seconds of load, and a collective of which nobody knows the time."""
    minutes = plan_of(DEMO, Suite.QUICK).today.minutes
    assert minutes.value == pytest.approx((25 + 10 + 15 + 3 + 5) / 60)
    assert minutes.lacking == ("time of collectives: on a virtual rack a stand-in makes up their numbers",)


@pytest.mark.parametrize("rack", [DGX, NVL72, DEMO, PAIR], ids=lambda rack: rack.name)
@pytest.mark.parametrize("suite", Suite)
def test_every_number_is_known_with_a_source_or_unknown_with_a_reason(rack, suite):
    """Never zero, never less than the energy allows, never later than its deadline."""
    plan = plan_of(rack, suite)
    for figure in figures(plan):
        assert (figure.value is None and figure.lacking) or (figure.value > 0 and figure.source)
    for found in plan.levels:
        assert bool(found.tests) != bool(found.absent)
        for test in found.tests:
            cost = test.cost
            assert cost.minutes.value is None or cost.minutes.value <= cost.minutes_at_most.value
            if cost.kwh.value is not None:
                assert cost.kwh.value <= cost.kw.value * cost.minutes.value / 60 + 1e-9


def test_two_nodes_are_a_pair_and_no_leaf_of_their_own():
    """There is no third partner: the one pair is read as often as any. The two are a scalable unit all the same."""
    plan = plan_of(PAIR)
    (pairs,) = level(plan, LevelName.RAILS).tests
    assert (pairs.groups, pairs.rounds) == (8, RAIL_READINGS) and pairs.name == "all_reduce"
    assert "their pairs are all there is" in level(plan, LevelName.LEAF).absent
    assert level(plan, LevelName.UNIT).tests


def test_a_node_alone_has_no_level_but_its_own():
    """Only what the plan's nodes can do is planned."""
    plan = plan_of(DGX, nodes=["dgx07"])
    assert [found.name for found in plan.levels if found.tests] == [LevelName.NODES]
    assert "dgx07 is alone" in level(plan, LevelName.LEAF).absent
    assert plan_of(NVL72, nodes=["tray01"]).levels[1].absent.startswith("tray01 is alone")


def test_more_rails_than_gpus_take_turns():
    """A rail test wants a GPU of its own: eight rails of a node with four GPUs are measured in two turns."""
    rack = replace(DEMO, profile=replace(DEMO.profile, gpus_per_node=4))
    (pairs,) = level(plan_of(rack, Suite.REHEARSAL), LevelName.RAILS).tests
    assert (pairs.groups, pairs.rounds) == (12, 4)
    on_leaves = levels.wide(rack, [n.name for n in rack.nodes], Suite.REHEARSAL, None)[WideLevel.LEAF]
    assert not isinstance(on_leaves, str)
    assert [[c.gpu for c in wave] for wave in on_leaves[0].waves] == [[0, 1, 2, 3], [0, 1, 2, 3]]


def test_racks_are_measured_in_pairs_where_another_like_rack_is_named():
    """Three racks are a ring: three rounds of a pair."""
    others = [replace(DGX, name=name) for name in ("su2", "su3")]
    two, three = plan_of(DGX, others=others[:1]), plan_of(DGX, others=others)
    assert [(t.name, t.rounds, t.ranks) for t in level(two, LevelName.RACKS).tests] == [
        ("all_reduce", 1, 496),
        ("alltoall", 1, 496),
    ]
    assert {(t.groups, t.rounds) for t in level(three, LevelName.RACKS).tests} == {(1, 3)}
    assert "not of profile dgx-h100" in level(plan_of(DGX, others=[NVL72]), LevelName.RACKS).absent
    bare = replace(DGX, units=tuple(u for u in DGX.units if u.kind is not UnitKind.SPINE))
    assert "no spine" in level(plan_of(bare, others=others), LevelName.RACKS).absent


@pytest.mark.parametrize(
    ("changed", "name", "why"),
    [
        ({"hcas_per_node": 0}, LevelName.RAILS, "no HCA"),
        ({"mode": Mode.PCIE}, LevelName.DOMAIN, "no NVLink"),
    ],
)
def test_a_level_that_the_hardware_lacks_is_not_there(changed, name, why):
    """And the plan says why."""
    assert why in level(plan_of(replace(DGX, profile=replace(DGX.profile, **changed))), name).absent


def test_without_cables_or_skus_it_says_what_is_missing():
    """A rack file may lack its links, an inventory its SKUs."""
    assert "no cable" in level(plan_of(replace(DGX, links=())), LevelName.RAILS).absent
    minutes = plan_of(DGX, skus=()).whole.minutes
    assert minutes.lacking == ("time of collectives: DGXH100 is not among the SKUs of the inventory",)


def test_the_power_is_of_whole_nodes_where_the_profile_states_it_else_of_gpus_else_unknown():
    """Three profiles, three answers; the missing one is named."""
    gpus_only = replace(DGX.profile, node_power_watts=0.0)
    expected = tuple(pair for pair in gpus_only.expected if pair[0] != "gpu_power_watts")
    silent = replace(gpus_only, expected=expected, power_ramp_kw_per_s=0.0)
    assert plan_of(DGX).today.kw.value == pytest.approx(316.2)
    assert plan_of(replace(DGX, profile=gpus_only)).today.kw.value == pytest.approx(173.6)
    found = plan_of(replace(DGX, profile=silent))
    assert found.today.kw == Figure(None, "the greatest of them", found.today.kw.lacking)
    assert "states no gpu_power_watts" in found.today.kwh.lacking[0]


def test_the_ramp_is_the_profiles_unless_a_step_is_asked_for():
    """248 GPUs of 700 W at 10 kW/s, or all at once."""
    ramp = plan_of(DGX).ramp
    assert (ramp.gpu_kw.value, ramp.kw_per_s) == (pytest.approx(173.6), 10)
    assert ramp.seconds.value == pytest.approx(17.29)
    step = plan_of(DGX, step=True)
    assert (step.ramp.kw_per_s, step.ramp.seconds.value) == (0, 0)
    assert step.today.minutes.value == pytest.approx(plan_of(DGX).today.minutes.value - 17.29 / 60)


def test_what_runs_today_is_said_in_one_place_and_totalled_apart():
    """A level that is planned and not run yet is in no total of today."""
    rack = replace(DGX, profile=replace(DGX.profile, levels=(WideLevel.LEAF,), rail_test=True))
    plan = plan_of(rack)
    today = {LevelName.NODES, LevelName.RAILS, LevelName.LEAF}
    assert {found.name for found in plan.levels if found.runs_today} == today == run_today(rack.profile, Suite.STANDARD)
    assert run_today(rack.profile, Suite.QUICK) == {LevelName.NODES}, "what follows rests on the profile's own suite"
    runs = [found.cost.minutes.value for found in plan.levels if found.runs_today and found.tests]
    assert plan.today.minutes.value == pytest.approx(sum(runs))
    assert plan.whole.minutes.value == pytest.approx(sum(f.cost.minutes.value for f in plan.levels if f.tests))


def test_the_plan_is_a_value():
    """The same rack gives the same plan; it is hashable and plain."""
    assert plan_of(DGX) == plan_of(DGX)
    assert hash(plan_of(DGX)) == hash(plan_of(DGX))
    assert asdict(plan_of(DGX))["levels"][0]["name"] == "nodes in parallel"

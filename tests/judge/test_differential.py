"""The smallest set of tests after a change: which, on whom, what it takes, and what it leaves unverified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.judge.forecast import forecast
from toolkit.judge.levels import FEWEST_ON_A_LEAF
from toolkit.judge.recert.changes import parse_change
from toolkit.judge.recert.differential import AT_LEAST, differential, enough
from toolkit.judge.recert.touch import Proof, touch
from toolkit.rack.claims import load_skus
from toolkit.rack.loading import load_rack
from toolkit.settings import load
from toolkit.stages import rail_partners

INVENTORY = load({}).inventory
SKUS = load_skus(INVENTORY)
DGX = load_rack("dgx-h100-su", INVENTORY)
NVL72 = load_rack("gb200-nvl72", INVENTORY)
DEMO = load_rack("demo", INVENTORY)
PAIR = load_rack("demo-small", INVENTORY)
GOAL = 0.20  # of a full run's node-minutes, for a tray


def after(rack, *words, **options):
    """The plan."""
    return differential(rack, touch(rack, [parse_change(rack, text) for text in words]), SKUS, **options)


def by_proof(plan):
    """Its steps."""
    return {step.proof: step for step in plan.steps}


@pytest.mark.parametrize(("rack", "words", "share"), [(DGX, "swap dgx07", 0.042), (NVL72, "swap tray03", 0.060)])
def test_a_tray_swap_costs_at_most_a_fifth_of_a_full_run(rack, words, share):
    """In node-minutes of forecast's own figures, every number known, and every level measured that it takes part in."""
    plan = after(rack, words)
    assert plan.share is not None and plan.share <= GOAL
    assert plan.share == pytest.approx(share, abs=0.001)
    wide = {Proof.LEAF, Proof.UNIT} if rack is DGX else {Proof.DOMAIN}
    assert set(by_proof(plan)) == {Proof.SUITE, Proof.RAILS, *wide}
    assert {step.nodes for step in plan.steps if step.proof is not Proof.SUITE} == {plan.steps[-1].nodes}
    assert len(plan.steps[-1].nodes) == AT_LEAST


def test_with_all_nodes_in_the_wide_levels_the_goal_is_missed_on_a_scalable_unit():
    """24 % of a full run, of which the leaves alone are 16: the price of measuring all of them at once."""
    plan = after(DGX, "swap dgx07", whole=True)
    assert plan.share == pytest.approx(0.240, abs=0.001)
    assert not [words for words in plan.unverified if "at once" in words]
    assert after(NVL72, "swap tray03", whole=True).share == pytest.approx(0.074, abs=0.001)


def test_a_smaller_group_says_what_it_leaves_unverified():
    """By level, and that few nodes meet the limits of all more easily; gates among siblings too."""
    found = after(DGX, "swap dgx07").unverified
    assert found[0].startswith("leaf: 4 of 31 nodes take part")
    assert found[1].startswith("scalable unit: 4 of 31") and "more easily" in found[1]
    assert "BELOW_PEERS" in found[2] and "under 24 h old" in found[2]


def test_what_a_full_run_takes_is_the_forecast_times_the_nodes():
    """The other side of the share is nobody's invention."""
    plan = after(DGX, "swap dgx07")
    whole = forecast(DGX, [n.name for n in DGX.nodes], DGX.profile.suite, SKUS)
    assert plan.full.value == pytest.approx(31 * whole.today.minutes.value)
    assert plan.full_kwh.value == pytest.approx(whole.today.kwh.value)
    own = by_proof(plan)[Proof.SUITE]
    alone = forecast(DGX, ["dgx07"], DGX.profile.suite, SKUS).levels[0].cost
    assert (own.minutes, own.kwh) == (alone.minutes, alone.kwh)
    assert plan.node_minutes.value == pytest.approx(sum(s.minutes.value * len(s.nodes) for s in plan.steps))


@pytest.mark.parametrize("rails", [1, 2, 3, 4, 8])
def test_partners_are_as_many_as_the_search_of_the_rails_wants(rails):
    """The stage's own rule, which this layer cannot import."""
    assert enough(rails) == rail_partners.enough(rails)
    assert AT_LEAST == rail_partners.AT_LEAST >= FEWEST_ON_A_LEAF


def test_partners_are_taken_in_the_order_in_which_they_are_welcome():
    """Nodes without jobs first; nobody who is not named."""
    plan = after(DGX, "swap dgx07", partners=("dgx20", "dgx30", "dgx10", "dgx11"))
    assert by_proof(plan)[Proof.RAILS].partners == ("dgx10", "dgx20", "dgx30")
    few = after(DGX, "swap dgx07", partners=("dgx20",))
    assert by_proof(few)[Proof.RAILS].nodes == ("dgx07", "dgx20")
    assert any("2 nodes where 4 are wanted" in words for words in few.unverified)
    assert any("no leaf joins more than two" in words for words in few.unverified)


def test_without_any_partner_what_cannot_be_measured_is_named():
    """No step is made up, and none is left out in silence."""
    plan = after(DGX, "swap dgx07", partners=())
    assert set(by_proof(plan)) == {Proof.SUITE}
    for level in ("rails in pairs", "leaf", "scalable unit"):
        assert any(words.startswith(f"{level}: dgx07 is alone") for words in plan.unverified)


def test_two_swapped_nodes_are_each_other_s_partners():
    """Two more are enough."""
    plan = after(DGX, "swap dgx07", "swap dgx09")
    assert by_proof(plan)[Proof.SUITE].nodes == ("dgx07", "dgx09")
    assert by_proof(plan)[Proof.RAILS].nodes == ("dgx01", "dgx02", "dgx07", "dgx09")


def test_an_hca_needs_no_suite_and_its_rail_the_others_as_controls():
    """Two pairs of one rail are no median: all rails of the four are read."""
    plan = after(DGX, "swap dgx07:mlx5_3")
    assert set(by_proof(plan)) == {Proof.RAILS, Proof.LEAF, Proof.UNIT}
    assert by_proof(plan)[Proof.RAILS].of == ()
    assert by_proof(plan)[Proof.LEAF].of == ("leaf2",)


def test_a_leaf_is_measured_with_every_node_on_it_and_no_other_rail():
    """Its ports are all new, and fifteen pairs tell what is healthy."""
    plan = after(DGX, "swap leaf2")
    rails, leaf = by_proof(plan)[Proof.RAILS], by_proof(plan)[Proof.LEAF]
    assert (len(rails.nodes), rails.of) == (31, ("rail 1 on leaf2",))
    assert (len(leaf.nodes), leaf.of) == (31, ("leaf2",))
    whole = forecast(DGX, [n.name for n in DGX.nodes], DGX.profile.suite, SKUS)
    assert rails.minutes.value == pytest.approx(whole.levels[2].cost.minutes.value / 8)
    assert not rails.partners and not plan.unverified


def test_an_nvlink_switch_is_measured_by_collectives_of_all_trays_and_the_domain():
    """No memory is tested for a switch's sake."""
    plan = after(NVL72, "swap nvswitch2")
    assert set(by_proof(plan)) == {Proof.COLLECTIVES, Proof.DOMAIN}
    assert all(len(step.nodes) == 18 for step in plan.steps)
    assert plan.share < GOAL


def test_a_node_that_runs_its_suite_runs_no_collectives_besides():
    """They are part of it."""
    plan = after(NVL72, "swap nvswitch2", "swap tray03")
    assert "tray03" not in by_proof(plan)[Proof.COLLECTIVES].nodes
    assert by_proof(plan)[Proof.SUITE].nodes == ("tray03",)


def test_a_driver_update_is_a_full_run():
    """There is nothing to save."""
    assert after(DGX, "update driver").share == pytest.approx(1.0)


@pytest.mark.parametrize(("rack", "words"), [(DGX, "update profile"), (NVL72, "swap shelf1")])
def test_where_nothing_is_to_be_measured_the_plan_is_empty_and_says_why(rack, words):
    """0 node-minutes, with a remark."""
    plan = after(rack, words)
    assert (plan.steps, plan.node_minutes.value, plan.share) == ((), 0.0, 0.0)
    assert plan.unverified


def test_what_nobody_can_reckon_is_unknown_and_no_share():
    """A virtual rack: its collectives have no time."""
    for rack in (DEMO, PAIR):
        plan = after(rack, "swap node1")
        assert plan.steps and plan.share is None and plan.node_minutes.value is None
    nobody = differential(DGX, touch(DGX, [parse_change(DGX, "swap dgx07")]))
    assert nobody.share is None and nobody.node_minutes.lacking


def test_levels_that_the_profile_does_not_ask_for_are_no_part_of_it():
    """A full run has them neither."""
    bare = replace(DGX, profile=replace(DGX.profile, levels=(), rail_test=False))
    assert set(by_proof(after(bare, "swap dgx07"))) == {Proof.SUITE}

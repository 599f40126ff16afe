"""What to test again: chances of unseen faults, and the choice of tests within a budget."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.recert.choose import Candidate, Terms, Trial, choose
from toolkit.judge.recert.hazard import Cause, History, Prior, gray_now, rate_per_hour
from toolkit.judge.recert.published import GPU_HOURS, INTERRUPTIONS, UNREACHED, priors

PRIOR = Prior(Cause.HBM, 1e-5, 0.5, 100.0, 0.5, "a test")
QUICK = Trial("quick", 3.0, 0.3, {Cause.HBM: 0.5}, "a test")
LONG = Trial("long", 15.0, 2.0, {Cause.HBM: 0.9}, "a test")
TERMS = Terms(10_000_000.0, None, None, 8, 100, 10_000.0)
YEAR = 8760.0


def nodes(count: int, **more: object) -> list[Candidate]:
    """Alike, each of a leaf of its own, last tested a hundred hours ago."""
    since = {"quick": 100.0, "long": 100.0}
    plain = Candidate("", 8, (), History(1000.0), since)
    return [replace(plain, node=f"n{i}", near=(f"leaf{i}",), **more) for i in range(count)]


def test_published_rates_are_the_table_s() -> None:
    """419 in all; what no test reaches is kept apart."""
    assert sum(INTERRUPTIONS.values()) + UNREACHED == 419
    hbm = next(p for p in priors(0.5, 72, 0.5) if p.cause is Cause.HBM)
    assert hbm.per_gpu_hour * GPU_HOURS == pytest.approx(72)


@given(hours=st.floats(0, 10 * YEAR), faults=st.integers(0, 20))
def test_a_node_s_rate_rises_with_its_faults_and_falls_with_quiet_hours(hours: float, faults: int) -> None:
    """Without a history it is the published one."""
    rate = rate_per_hour(PRIOR, 8, History(hours, {Cause.HBM: faults}))
    assert rate_per_hour(PRIOR, 8, History()) == pytest.approx(8e-5)
    assert rate < rate_per_hour(PRIOR, 8, History(hours, {Cause.HBM: faults + 1}))
    assert rate > rate_per_hour(PRIOR, 8, History(hours + 1, {Cause.HBM: faults}))


@given(hours=st.floats(0, YEAR), power=st.floats(0, 1))
def test_a_passed_trial_lowers_the_chance_of_an_unseen_fault_and_time_raises_it_again(
    hours: float, power: float
) -> None:
    """A trial that sees all leaves what began since; one that sees nothing changes nothing."""
    untested = gray_now(PRIOR, 1e-4, [], YEAR)
    tested = gray_now(PRIOR, 1e-4, [(hours, power)], YEAR)
    assert tested <= untested + 1e-15
    assert gray_now(PRIOR, 1e-4, [(hours, 0.0)], YEAR) == pytest.approx(untested)
    whole = 1e-4 * 0.5 * 100 * -math.expm1(-hours / 100)
    assert gray_now(PRIOR, 1e-4, [(hours, 1.0)], YEAR) == pytest.approx(-math.expm1(-whole))


def test_evidence_from_the_future_is_refused() -> None:
    """A clock that jumped proves nothing."""
    with pytest.raises(ValueError, match="future"):
        gray_now(PRIOR, 1e-4, [(-1.0, 0.5)], YEAR)


@given(minutes=st.floats(0, 200), kwh=st.floats(0, 20), count=st.integers(0, 30))
def test_no_budget_is_overdrawn_and_every_node_is_accounted_for(minutes: float, kwh: float, count: int) -> None:
    """What is not chosen though it would pay stands among the uncovered, with the reason."""
    made = choose(nodes(count), [QUICK, LONG], [PRIOR], replace(TERMS, node_minutes=minutes, kwh=kwh))
    assert made.node_minutes <= minutes and made.kwh <= kwh + 1e-9
    told = {p.node for p in made.picks} | {u.node for u in made.uncovered}
    assert told == {f"n{i}" for i in range(count)}


def test_a_leaf_is_never_emptied_and_the_floor_holds() -> None:
    """Of five nodes on one leaf two at once; of all, three."""
    same = [replace(n, near=("leaf",)) for n in nodes(5)]
    made = choose(same, [LONG], [PRIOR], replace(TERMS, at_once=2))
    assert len({p.node for p in made.picks}) == 2
    assert {u.why for u in made.uncovered} == {"2 nodes of leaf are tested already"}
    made = choose(nodes(5), [LONG], [PRIOR], replace(TERMS, nodes=3))
    assert len({p.node for p in made.picks}) == 3
    assert {u.why for u in made.uncovered} == {"3 nodes at once are as many as the capacity floor leaves"}


def test_evidence_too_old_goes_first_whatever_it_saves() -> None:
    """The oldest first, even where a lemon would pay better: nothing is forgotten."""
    fresh, old, older = nodes(3)
    fresh = replace(fresh, history=History(1000.0, {Cause.HBM: 5}))
    old, older = (replace(n, hours_since={"long": h}) for n, h in ((old, 800.0), (older, 900.0)))
    made = choose([fresh, old, older], [LONG], [PRIOR], replace(TERMS, node_minutes=30.0, oldest_hours=720.0))
    assert [(p.node, p.overdue) for p in made.picks] == [("n2", True), ("n1", True)]
    assert [(u.node, u.why) for u in made.uncovered] == [("n0", "the budget of 30 node-minutes is spent")]


def test_a_node_whose_fault_nobody_found_goes_before_a_lemon() -> None:
    """It stopped a job an hour ago: the fault may still be there."""
    suspect, lemon, plain = nodes(3)
    suspect = replace(suspect, suspected={Cause.HBM: 0.3})
    lemon = replace(lemon, history=History(1000.0, {Cause.HBM: 3}))
    made = choose([plain, lemon, suspect], [LONG], [PRIOR], TERMS)
    assert [p.node for p in made.picks] == ["n0", "n1", "n2"]
    assert "most likely to find: hbm" in made.picks[0].why


def test_a_second_trial_is_credited_with_what_the_first_would_miss() -> None:
    """Of quick's half and long's nine tenths together no more than 95 % is ever counted."""
    made = choose(nodes(1), [QUICK, LONG], [PRIOR], TERMS)
    assert [p.trial for p in made.picks] == ["quick", "long"]
    assert sum(p.saves for p in made.picks) == pytest.approx(made.picks[0].saves / 0.5 * 0.95)


def test_what_costs_more_than_it_saves_is_not_done() -> None:
    """On a small pool an interruption is cheap, and idle minutes are not."""
    made = choose(nodes(3), [QUICK, LONG], [PRIOR], replace(TERMS, interruption_node_minutes=100.0))
    assert made.picks == ()
    assert made.uncovered == ()


def test_a_node_that_the_scheduler_wants_is_left_alone() -> None:
    """Overdue or not; it is named."""
    made = choose(nodes(2, wanted=True), [LONG], [PRIOR], replace(TERMS, oldest_hours=1.0))
    assert made.picks == ()
    assert {u.why for u in made.uncovered} == {"the scheduler wants the node"}


def test_of_two_overdue_trials_the_one_that_finds_more_is_enough() -> None:
    """What quick would find, long finds."""
    due = replace(TERMS, oldest_hours=50.0, interruption_node_minutes=1.0)
    made = choose(nodes(1), [QUICK, LONG], [PRIOR], due)
    assert [(p.trial, p.overdue) for p in made.picks] == [("long", True)]

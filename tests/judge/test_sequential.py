"""The sequential test keeps its stated errors, convicts nobody on one reading, and says when it cannot decide."""

import math
import random
from statistics import stdev

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolkit.judge.sequential import Decision, Design, Noise, decide, noise_of_peers, noise_of_repeats, spread

SURE = Noise(0.016, 1e6)
shifts = st.lists(st.floats(-0.2, 0.2), max_size=20)


def tried(design: Design, shift: float, times: int, seed: int) -> list[Decision]:
    """Decisions on parts of that true shift."""
    rng = random.Random(seed)
    return [
        decide(design, (shift + rng.gauss(0, design.noise.sigma) for _ in range(design.most))).decision
        for _ in range(times)
    ]


def test_a_part_like_its_peers_is_called_worse_no_more_often_than_stated():
    """One in a hundred was stated; of 8,000, not more than chance allows above it."""
    design = Design(0.03, SURE, alpha=0.01, beta=0.01, most=50)
    wrong = tried(design, 0.0, 8_000, seed=1).count(Decision.WORSE)
    assert wrong / 8_000 < 0.01 / (1 - 0.01) + 3 * math.sqrt(0.01 / 8_000)


def test_a_part_worse_by_the_effect_is_let_go_about_as_often_as_stated():
    """Beta, and the number of readings Wald's average says."""
    design = Design(0.03, SURE, alpha=0.001, beta=0.02, most=50)
    found = tried(design, -0.03, 10_000, seed=2)
    assert found.count(Decision.ALIKE) / 10_000 < 0.025
    assert found.count(Decision.WORSE) / 10_000 > 0.975
    rng = random.Random(3)
    read = [decide(design, (-0.03 + rng.gauss(0, 0.016) for _ in range(50))).readings for _ in range(4000)]
    assert sum(read) / len(read) == pytest.approx(design.expected_readings(worse=True), rel=0.2)


def test_a_part_within_what_is_tolerated_is_called_worse_no_more_often_than_stated():
    """Healthy parts differ: 1 % behind is not 3 %."""
    design = Design(0.03, SURE, tolerated=0.01, alpha=0.01, beta=0.01, most=100)
    wrong = tried(design, -0.01, 5000, seed=4).count(Decision.WORSE)
    assert wrong / 5000 < 0.01 / (1 - 0.01) + 3 * math.sqrt(0.01 / 5000)
    assert tried(design, -0.03, 2000, seed=5).count(Decision.WORSE) / 2000 > 0.98


def test_no_single_reading_convicts_however_low():
    """Something else may have disturbed it; a second like it settles."""
    design = Design(0.03, SURE)
    assert decide(design, [-0.9]).decision is Decision.AGAIN
    assert decide(design, [-0.9, -0.9]).decision is Decision.WORSE


def test_what_noise_hides_stays_unsettled():
    """A sigma ten times the effect is not decided in two dozen readings, and the reason has the numbers in it."""
    design = Design(0.03, Noise(0.3, 1e6))
    progress = decide(design, [-0.03] * 30)
    assert progress.decision is Decision.UNSETTLED
    assert progress.readings == design.most
    assert "effect 0.03" in progress.why
    assert f"about {design.expected_readings(worse=True):.0f} readings if worse" in progress.why


def test_without_readings_nothing_is_decided():
    """No evidence is neither for nor against."""
    progress = decide(Design(0.03, SURE), [])
    assert (progress.decision, progress.evidence, progress.readings) == (Decision.AGAIN, 0.0, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_reading_that_is_no_number_is_refused(bad):
    """It is not a reading, and not a zero."""
    with pytest.raises(ValueError, match="leave out"):
        decide(Design(0.03, SURE), [0.0, bad])


@pytest.mark.parametrize(
    "wrong",
    [
        {"effect": 0.0},
        {"tolerated": 0.03},
        {"tolerated": -0.01},
        {"alpha": 0.0},
        {"beta": 0.7},
        {"most": 1},
        {"effect": math.nan},
    ],
)
def test_a_design_that_is_none_is_refused(wrong):
    """Before the first reading."""
    with pytest.raises(ValueError, match="no test"):
        Design(**{"effect": 0.03, "noise": SURE, **wrong})


@given(shifts, st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_the_unit_of_the_readings_does_not_matter(read, unit):
    """Readings, effect and noise in another unit decide the same, after as many readings."""
    one = decide(Design(0.03, SURE), read)
    other = decide(Design(0.03 * unit, Noise(SURE.sigma * unit, SURE.degrees)), [r * unit for r in read])
    assume(min(abs(one.evidence - edge) for edge in (Design(0.03, SURE).worse_at, Design(0.03, SURE).alike_at)) > 1e-6)
    assert one.decision is other.decision
    assert one.evidence == pytest.approx(other.evidence, abs=1e-6)


@given(shifts, st.floats(0.0, 0.1))
@settings(max_examples=100, deadline=None)
def test_lower_readings_never_speak_better_of_a_part(read, lower):
    """Evidence after the same number of readings only grows."""
    design = Design(0.03, SURE)
    assert math.fsum(map(design.weight, (r - lower for r in read))) >= math.fsum(map(design.weight, read)) - 1e-9


@given(shifts, st.floats(-0.2, 0.2))
@settings(max_examples=60, deadline=None)
def test_a_decision_stands_whatever_is_read_after_it(read, more):
    """The first crossing decides."""
    design = Design(0.03, SURE)
    first = decide(design, read)
    if first.decision is not Decision.AGAIN:
        assert decide(design, [*read, more, more]) == first


def test_few_peers_make_the_test_more_cautious():
    """Sigma from five peers is taken at more than twice its value, from seventy-two at a quarter more."""
    few, many = (Noise(0.01, 0.37 * n).cautious for n in (5, 72))
    assert few > 0.02
    assert 0.011 < many < 0.0135


def test_controls_cost_noise_and_many_cost_less():
    """One control doubles the variance."""
    assert SURE.against(1).sigma == pytest.approx(SURE.sigma * math.sqrt(2))
    assert SURE.against(16).sigma < SURE.against(4).sigma < SURE.against(1).sigma
    with pytest.raises(ValueError, match="one control"):
        SURE.against(0)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9, 10, 30])
def test_the_robust_spread_is_unbiased_for_normal_values(count):
    """At every sample size that a node or a rack has."""
    rng = random.Random(count)
    mean = sum(spread([rng.gauss(0, 1) for _ in range(count)]) for _ in range(8_000)) / 8_000
    assert mean == pytest.approx(1.0, abs=0.04)


def test_one_wild_value_hardly_moves_the_robust_spread():
    """A standard deviation is no longer a measure of the healthy."""
    rng = random.Random(7)
    values = [rng.gauss(100, 1) for _ in range(30)]
    assert spread([*values, 10.0]) < 1.3 * spread(values)
    assert stdev([*values, 10.0]) > 10 * stdev(values)


def test_repeats_leave_out_what_differs_between_parts():
    """Parts 10 % apart that repeat within 1 % have a noise of 1 %."""
    rng = random.Random(8)
    repeats = [[part + rng.gauss(0, 0.01) for _ in range(4)] for part in (rng.gauss(0, 0.1) for _ in range(300))]
    assert noise_of_repeats(repeats).sigma == pytest.approx(0.01, rel=0.1)
    assert noise_of_peers([r[0] for r in repeats]).sigma > 0.08


def test_noise_of_too_little_is_refused():
    """One reading of each part says nothing of repeats, two peers less an effect nothing at all."""
    with pytest.raises(ValueError, match="read twice"):
        noise_of_repeats([[0.1], [0.2]])
    with pytest.raises(ValueError, match="nothing of noise"):
        noise_of_peers([0.1, 0.2], fitted=1)
    with pytest.raises(ValueError, match="no noise"):
        Noise(math.nan, 3)


def test_peers_that_read_all_the_same_are_not_believed_to_have_no_noise():
    """A sigma of 0 would convict on a rounding: a twentieth of the effect is the least."""
    design = Design(0.04, noise_of_peers([1.0] * 20))
    assert design.sigma == pytest.approx(0.002)
    assert decide(design, [-0.001] * 16).decision is Decision.ALIKE

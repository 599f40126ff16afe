"""Charts over certifications: a slow decline shows, a constant handicap and a single bad day do not."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.judge.drift import (
    FEWEST,
    Chart,
    Drift,
    Trend,
    cusum_limit,
    cusum_run_length,
    drift,
    ewma_limit,
    ewma_run_length,
)
from toolkit.judge.sequential import Noise

SIGMA = 0.01
NOISE = Noise(SIGMA, 1e6)
histories = st.lists(st.floats(-0.05, 0.05), min_size=FEWEST, max_size=30)


def steady(seed: int, count: int, at: float = 0.0) -> list[float]:
    """A history without a change."""
    rng = random.Random(seed)
    return [at + rng.gauss(0, SIGMA) for _ in range(count)]


def run(length_of: str, limit: float, shift: float, times: int) -> float:
    """Average certifications until an alarm, by simulation of the plain chart."""
    rng = random.Random(f"{length_of} {shift}")
    total = 0
    for _ in range(times):
        chart, alarmed = 0.0, False
        while not alarmed:
            step = rng.gauss(-shift, 1)
            total += 1
            if length_of == "cusum":
                chart = max(0.0, chart - step - 0.5)
                alarmed = chart > limit
            else:
                chart += 0.2 * (step - chart)
                alarmed = chart / math.sqrt(0.2 / 1.8) < -limit
    return total / times


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_stated_run_lengths_are_what_a_simulation_gives(shift):
    """For a steady serial, and for a step of one sigma."""
    for name, limit, length in (
        ("cusum", cusum_limit(200), cusum_run_length(cusum_limit(200), shift)),
        ("ewma", ewma_limit(200), ewma_run_length(ewma_limit(200), shift)),
    ):
        assert run(name, limit, shift, 700) == pytest.approx(length, rel=0.1)


@pytest.mark.parametrize(("limit", "shift", "length"), [(4, 0, 336), (5, 0, 930), (4, 1, 8.38), (5, 1, 10.4)])
def test_the_cusums_run_lengths_are_the_published_ones(limit, shift, length):
    """One-sided, k = 0.5 (Montgomery, Introduction to Statistical Quality Control, table of the tabular CUSUM)."""
    assert cusum_run_length(limit, shift) == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize("length", [100.0, 1000.0, 10_000.0])
def test_limits_are_those_of_the_wanted_run_length(length):
    """Forth and back."""
    assert cusum_run_length(cusum_limit(length)) == pytest.approx(length, rel=1e-3)
    assert ewma_run_length(ewma_limit(length)) == pytest.approx(length, rel=1e-2)


def test_steady_serials_alarm_no_more_often_than_stated():
    """Two charts of 500 certifications each: 24 of them alarm in less than a tenth of the serials."""
    alarmed = sum(drift(steady(seed, 24), NOISE, 500).trend is Trend.DRIFTING for seed in range(700))
    assert alarmed / 700 < 2 * 24 / 500


def test_a_part_that_always_was_slower_is_not_drifting():
    """It is its own yardstick: peers' statistics speak of what it is, this of what it becomes."""
    assert drift(steady(4, 30, at=-0.04), NOISE).trend is Trend.STEADY


def test_a_step_is_found_with_its_beginning_and_its_size():
    """Three sigmas from the eleventh certification on."""
    found = drift([*steady(5, 10), *steady(6, 10, at=-3 * SIGMA)], NOISE)
    assert found.trend is Trend.DRIFTING
    assert found.since is not None
    assert abs(found.since - 10) <= 1
    assert found.change == pytest.approx(-3 * SIGMA, abs=SIGMA)
    assert found.alarm is not None
    assert 10 < found.alarm <= 15
    assert f"certification {found.alarm + 1} of 20" in found.why
    assert "once in 10,000 certifications" in found.why


def test_a_slow_decline_is_found():
    """Half a sigma a month, which no two certifications show."""
    found = drift([v - 0.5 * SIGMA * n for n, v in enumerate(steady(7, 24))], NOISE)
    assert found.trend is Trend.DRIFTING
    assert found.chart in Chart


def test_getting_better_is_no_alarm():
    """A repaired part."""
    assert drift([*steady(8, 10, at=-0.05), *steady(9, 10)], NOISE).trend is Trend.STEADY


def test_one_bad_day_alarms_nobody():
    """However bad, and it does not hide what comes after it."""
    once = [*steady(10, 10), -0.9, *steady(11, 10)]
    assert drift(once, NOISE).trend is Trend.STEADY
    assert drift([*once, *steady(12, 10, at=-4 * SIGMA)], NOISE).trend is Trend.DRIFTING


@pytest.mark.parametrize("count", range(FEWEST))
def test_few_certifications_show_no_trend(count):
    """Not steady either."""
    found = drift([-0.5] * count, NOISE) if count else None
    if found is None:
        assert drift([], NOISE).trend is Trend.UNDECIDED
    else:
        assert found.trend is Trend.UNDECIDED
        assert f"{count} certifications" in found.why


def test_what_is_no_number_and_no_noise_are_refused():
    """A missing certification is no certification."""
    with pytest.raises(ValueError, match="left out"):
        drift([0.0, math.nan, 0.0, 0.0], NOISE)
    with pytest.raises(ValueError, match="noise"):
        drift([0.0] * 5, Noise(0.0, 5))
    with pytest.raises(ValueError, match="run length"):
        drift([0.0] * 5, NOISE, run_length=3)


def alike(one: Drift, other: Drift) -> bool:
    """The same but for rounding."""
    return one.cusum == pytest.approx(other.cusum, abs=1e-6) and one.ewma == pytest.approx(other.ewma, abs=1e-6)


@given(histories, st.floats(-1, 1), st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_neither_the_units_zero_nor_its_size_matters(history, zero, unit):
    """Charts are in sigmas against the serial's own mean."""
    moved = drift([zero + unit * v for v in history], Noise(SIGMA * unit, 1e6))
    assert alike(drift(history, NOISE), moved)


@given(st.floats(-1, 1), st.integers(FEWEST, 40))
@settings(max_examples=40, deadline=None)
def test_a_history_of_equal_values_never_alarms(value, count):
    """Nothing has changed."""
    assert drift([value] * count, NOISE).trend is Trend.STEADY


@given(histories, st.floats(0, 0.1))
@settings(max_examples=60, deadline=None)
def test_a_worse_last_value_never_lowers_the_charts(history, lower):
    """A decline cannot make a part look better."""
    worse = drift([*history[:-1], history[-1] - lower], NOISE)
    plain = drift(history, NOISE)
    assert worse.cusum[-1] >= plain.cusum[-1] - 1e-9
    assert worse.ewma[-1] <= plain.ewma[-1] + 1e-9

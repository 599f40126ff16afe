"""Peers: who stands apart by more than noise and position explain; nobody, where that cannot be said."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.judge.evidence import Subject
from toolkit.judge.peers import (
    FEWEST_PEERS,
    Comparison,
    Position,
    Reading,
    Rule,
    Scale,
    Standing,
    Worse,
    compare,
)
from toolkit.judge.sequential import Decision, Noise, decide
from toolkit.rack.gate import Scope

values = st.lists(st.floats(50, 200), min_size=FEWEST_PEERS, max_size=40)


def gpu(node: int, slot: int = 0) -> Subject:
    """A GPU of a node."""
    return Subject(Scope.GPU, f"node{node}", gpu=slot)


def plain(numbers: list[float]) -> list[Reading]:
    """One reading of a node each, positions unknown."""
    return [Reading(gpu(n), value) for n, value in enumerate(numbers)]


def rack(
    nodes: int, value: Callable[[int, int], float], slots: int = 8, inlet: Callable[[int], float] | None = None
) -> list[Reading]:
    """Nodes of so many slots; the slot is a position in every node."""
    return [
        Reading(
            gpu(n, s),
            value(n, s),
            (Position("slot", str(s), f"node{n}"),),
            inlet(n) if inlet else None,
        )
        for n in range(nodes)
        for s in range(slots)
    ]


def noisy(seed: int, centre: float, sigma: float = 0.005) -> Callable[[int, int], float]:
    """Healthy readings."""
    rng = random.Random(seed)
    drawn = {(n, s): centre * (1 + rng.gauss(0, sigma)) for n in range(200) for s in range(8)}
    return lambda n, s: drawn[n, s]


def suspects(found: Comparison) -> set[Subject]:
    """Whom to measure again."""
    return {p.subject for p in found.suspects}


@given(st.floats(1, 1000), st.integers(FEWEST_PEERS, 72), st.sampled_from(list(Scale)), st.sampled_from(list(Worse)))
@settings(max_examples=60, deadline=None)
def test_where_all_are_equal_nobody_is_a_suspect(value, count, scale, worse):
    """Whatever the scale."""
    found = compare(plain([value] * count), Rule(scale=scale, worse=worse))
    assert {p.standing for p in found.peers} == {Standing.ALIKE}


@given(values, st.floats(0.01, 1000))
@settings(max_examples=80, deadline=None)
def test_the_unit_of_a_rate_does_not_matter(numbers, unit):
    """GB/s or MB/s: shifts are ratios."""
    one, other = compare(plain(numbers)), compare(plain([v * unit for v in numbers]))
    assert [p.shift for p in one.peers] == pytest.approx([p.shift for p in other.peers], abs=1e-9)
    assert one.least == pytest.approx(other.least, abs=1e-9)


@given(values, st.floats(-1000, 1000))
@settings(max_examples=80, deadline=None)
def test_the_zero_of_a_difference_does_not_matter(numbers, zero):
    """Celsius or kelvin."""
    rule = Rule(effect=3.0, scale=Scale.DIFFERENCE, worse=Worse.HIGHER)
    one, other = compare(plain(numbers), rule), compare(plain([v + zero for v in numbers]), rule)
    assert [p.shift for p in one.peers] == pytest.approx([p.shift for p in other.peers], abs=1e-6)
    assert one.least == pytest.approx(other.least, abs=1e-6)


@given(st.lists(st.floats(80, 120), min_size=32, max_size=32), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_readings_does_not_matter(numbers, rng):
    """Neither for shifts nor for effects of position and inlet air."""
    readings = rack(8, lambda n, s: numbers[4 * n + s], slots=4, inlet=lambda n: 20.0 + n)
    shuffled = readings[:]
    rng.shuffle(shuffled)
    one, other = compare(readings), compare(shuffled)
    assert {p.subject: p for p in one.peers} == {p.subject: p for p in other.peers}
    assert (one.effects, one.slope, one.least) == (other.effects, other.slope, other.least)


@given(values, st.integers(0, 1000), st.floats(0.5, 0.99))
@settings(max_examples=80, deadline=None)
def test_a_slower_reading_never_puts_its_subject_ahead(numbers, index, factor):
    """Whoever gets worse gets no better standing."""
    who = index % len(numbers)
    slower = [v * factor if n == who else v for n, v in enumerate(numbers)]
    one, other = compare(plain(numbers)).peers[who], compare(plain(slower)).peers[who]
    assert one.shift is not None
    assert other.shift is not None
    assert other.shift <= one.shift + 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_gpu_is_the_worst_suspect_and_its_words_have_the_numbers(seed):
    """5 % behind among 72, noise of half a percent."""
    fine = noisy(seed, 430.0)
    found = compare(rack(9, lambda n, s: fine(n, s) * (0.95 if (n, s) == (4, 2) else 1.0)))
    worst = found.suspects[0]
    assert worst.subject == gpu(4, 2)
    assert worst.shift == pytest.approx(math.log(0.95), abs=0.02)
    assert "the median of 72" in worst.why
    assert f"{worst.reading.value:g} against {found.centre:g}" in worst.why


@pytest.mark.parametrize("count", range(FEWEST_PEERS))
def test_too_few_peers_decide_nothing(count):
    """However far one of them stands apart: it may be the only healthy one."""
    found = compare(plain([100.0] * (count - 1) + [10.0] if count else []))
    assert {p.standing for p in found.peers} <= {Standing.UNDECIDED}
    assert found.noise is None
    with pytest.raises(ValueError, match="nothing was compared"):
        found.design()


def test_a_reading_that_is_no_number_is_undecided_and_no_peer():
    """Not a zero, and not one of those who say what is normal."""
    found = compare(plain([100.0, 101.0, 99.0, 100.0, 100.5, math.nan, 0.0]))
    assert [p.standing for p in found.peers[5:]] == [Standing.UNDECIDED] * 2
    assert "the median of 5" in found.peers[0].why
    assert {p.standing for p in compare(plain([100.0] * 4 + [math.nan] * 9)).peers} == {Standing.UNDECIDED}


def test_a_subject_that_was_read_twice_is_refused():
    """Two readings are ambiguous."""
    with pytest.raises(ValueError, match="twice"):
        compare([*plain([100.0] * 6), Reading(gpu(0), 90.0)])


def test_peers_that_do_not_agree_say_nothing_of_anybody():
    """Ten of thirty slow alike: a shared part, for the locator to find, not ten bad GPUs."""
    found = compare(plain([100.0 + n * 0.01 for n in range(20)] + [80.0 + n * 0.01 for n in range(10)]))
    assert {p.standing for p in found.peers} == {Standing.UNDECIDED}
    assert "none of them says what is normal" in found.peers[-1].why


def test_a_difference_smaller_than_is_worth_a_part_makes_no_suspect():
    """Peers that repeat to a thousandth: 1 % behind is not 3 %, nor half of it."""
    fine = noisy(3, 100.0, 0.0005)
    assert not compare(rack(9, lambda n, s: fine(n, s) * (0.99 if (n, s) == (1, 1) else 1.0))).suspects
    assert compare(rack(9, lambda n, s: fine(n, s) * (0.97 if (n, s) == (1, 1) else 1.0))).suspects


def test_a_slot_that_is_slow_in_every_node_blames_no_gpu():
    """The last in the air stream: an effect of the slot, told as such, and the slow GPU in it is still found."""
    fine = noisy(5, 430.0)
    found = compare(rack(12, lambda n, s: fine(n, s) * (0.95 if s == 7 else 1.0) * (0.94 if (n, s) == (3, 7) else 1.0)))
    (effect,) = (e for e in found.effects if e.level == "7")
    assert effect.shift == pytest.approx(math.log(0.95), abs=0.006)
    assert effect.places == 12
    assert found.notable == (effect,)
    assert found.suspects[0].subject == gpu(3, 7)
    assert "slot 7 is -" in found.suspects[0].why
    assert sum(p.subject.gpu == 7 for p in found.suspects) <= 2


def test_a_slow_node_is_not_taken_for_a_position():
    """One tray at one height of one rack: there is nothing it could be consistent with."""
    fine = noisy(6, 430.0)
    readings = [
        Reading(r.subject, r.value, (*r.positions, Position("height", r.subject.node, "rack1")))
        for r in rack(18, lambda n, s: fine(n, s) * (0.93 if n == 11 else 1.0), slots=4)
    ]
    found = compare(readings)
    assert {gpu(11, s) for s in range(4)} <= suspects(found)
    assert not any(e.factor == "height" for e in found.effects)


def test_a_height_that_is_slow_in_every_rack_is_a_position():
    """Top trays of six racks, 4 % behind; the one bad tray among them stands out."""
    rng = random.Random(7)
    readings = [
        Reading(
            Subject(Scope.NODE, f"r{r}t{t}"),
            430 * (0.96 if t == 17 else 1.0) * (0.93 if (r, t) == (2, 17) else 1.0) * (1 + rng.gauss(0, 0.004)),
            (Position("height", str(t), f"rack{r}"),),
        )
        for r in range(6)
        for t in range(18)
    ]
    found = compare(readings)
    assert any((e.factor, e.level) == ("height", "17") for e in found.effects)
    assert found.suspects[0].subject.node == "r2t17"
    assert len(found.suspects) <= 0.1 * len(readings)


def test_what_is_not_the_same_at_most_places_is_no_effect_of_position():
    """Slot 2 slow in three nodes of ten: three bad GPUs."""
    fine = noisy(8, 430.0)
    found = compare(rack(10, lambda n, s: fine(n, s) * (0.94 if s == 2 and n < 3 else 1.0)))
    assert all(abs(e.shift) < 0.01 for e in found.effects)
    assert {gpu(n, 2) for n in range(3)} <= suspects(found)


def test_warm_inlet_air_is_taken_off_and_excuses_no_hot_tray():
    """0.2 % for each degree between 20 and 29; a tray at 45 is excused as far as 29 only."""
    fine = noisy(9, 430.0, 0.003)
    warm = {n: 20.0 + n * 0.5 for n in range(18)} | {5: 45.0}
    found = compare(rack(18, lambda n, s: fine(n, s) * (1 - 0.002 * (warm[n] - 20)), slots=4, inlet=warm.__getitem__))
    assert found.slope is not None
    assert found.slope.shift_per_celsius == pytest.approx(-0.002, rel=0.3)
    assert {gpu(5, s) for s in range(4)} <= suspects(found)
    assert "inlet air of 45 C" in next(p.why for p in found.peers if p.subject == gpu(5))
    assert len(suspects(found)) <= 4 + 0.1 * 72


def test_inlet_air_that_some_did_not_measure_excuses_nobody():
    """A missing temperature is not an average one."""
    readings = rack(18, lambda n, s: 430 * (1 - 0.004 * n), slots=4, inlet=lambda n: 20.0 + n)
    assert compare(readings).slope is not None
    assert compare([*readings[:-1], Reading(readings[-1].subject, readings[-1].value)]).slope is None


def test_hotter_is_worse_where_the_rule_says_so():
    """Degrees above the others, with the sign an operator reads."""
    rule = Rule(effect=8.0, scale=Scale.DIFFERENCE, worse=Worse.HIGHER)
    found = compare(plain([60.0 + (n % 3) for n in range(20)] + [80.0]), rule)
    (peer,) = found.suspects
    assert peer.reading.value == 80.0
    assert "what is left is +19" in peer.why
    assert found.centre == pytest.approx(61.0)


def test_a_suspect_is_settled_by_fresh_readings_against_controls():
    """A slow one is worse, an unlucky one alike; what slows a whole round slows the controls too."""
    fine = noisy(11, 430.0)
    found = compare(rack(9, lambda n, s: fine(n, s) * (0.95 if (n, s) == (4, 2) else 1.0)))
    rng = random.Random(12)
    controls = [gpu(n, 1) for n in (0, 1, 2, 3)]
    design = found.design(noise=Noise(0.005, 50).against(len(controls)))

    def fresh(subject: Subject, level: float, round_: float) -> Reading:
        slot = Position("slot", str(subject.gpu), subject.node)
        return Reading(subject, 430 * level * round_ * (1 + rng.gauss(0, 0.005)), (slot,))

    for level, decision in ((0.95, Decision.WORSE), (1.0, Decision.ALIKE)):
        shifts = [
            found.shift(fresh(gpu(4, 2), level, slow), [fresh(c, 1.0, slow) for c in controls])
            for slow in (1.0, 0.8, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0)
        ]
        assert decide(design, shifts).decision is decision


def test_a_fresh_reading_without_a_control_or_a_number_is_refused():
    """It would be set against nothing."""
    found = compare(plain([100.0] * 8))
    with pytest.raises(ValueError, match="one control"):
        found.shift(Reading(gpu(1), 99.0), [])
    with pytest.raises(ValueError, match="no number"):
        found.shift(Reading(gpu(1), 0.0), [Reading(gpu(2), 100.0)])


@pytest.mark.parametrize(
    "wrong", [{"effect": 0.0}, {"effect": 1.5}, {"share": 0.5}, {"share": 0.0}, {"fewest": 2}, {"effect": math.nan}]
)
def test_a_rule_that_is_none_is_refused(wrong):
    """Before anything is compared."""
    with pytest.raises(ValueError, match="no rule"):
        Rule(**wrong)


def test_noise_makes_about_as_many_suspects_as_the_rule_says():
    """One in twenty of 40 clean racks of 72."""
    count = sum(len(compare(rack(9, noisy(1000 + seed, 430.0, 0.016))).suspects) for seed in range(40))
    assert 0.03 < count / (40 * 72) < 0.075


def test_a_position_that_too_few_places_show_is_not_told_from_a_part():
    """Eight GPUs of one node: a slot may be the slow thing, so less than both may do is nobody's fault."""
    levels = [1.0, 1.001, 0.999, 1.0, 0.962, 1.0, 1.001, 0.999]
    alone = compare(rack(1, lambda _, s: 430 * levels[s]))
    assert alone.confused == ("slot",)
    assert not alone.suspects
    assert "what slot does could not be told apart" in alone.peers[4].why
    assert alone.design().effect == pytest.approx(-math.log1p(-0.06))
    assert compare(plain([430 * level for level in levels])).suspects, "without a position to blame it is a suspect"
    levels[4] = 0.9
    assert suspects(compare(rack(1, lambda _, s: 430 * levels[s]))) == {gpu(0, 4)}


def test_controls_sit_where_the_suspect_sits_and_stand_alike():
    """The same slot first, then air as warm; never a suspect."""
    fine = noisy(13, 430.0)
    readings = rack(9, lambda n, s: fine(n, s) * (0.9 if (n, s) in ((4, 2), (5, 2)) else 1.0), inlet=lambda n: 20.0 + n)
    controls = compare(readings).controls(gpu(4, 2))
    assert [c.gpu for c in controls[:6]] == [2] * 6
    assert controls[0] == gpu(3, 2)
    assert not {gpu(4, 2), gpu(5, 2)} & set(controls)

"""Which nodes a collective is bad among: halves, then one by one; nobody is named without a test that was well."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.narrow import Narrowed, Nodes, narrow

NODES = tuple(f"n{i:02d}" for i in range(31))


def run(nodes: Nodes, guilty: set[str], fewest: int = 1, crowd: int = 2) -> tuple[Narrowed, list[Sequence[Nodes]]]:
    """Bad is every group of `crowd` nodes and more that has `fewest` of the guilty in it."""
    rounds: list[Sequence[Nodes]] = []

    def measure(groups: Sequence[Nodes]) -> list[bool | None]:
        rounds.append(groups)
        return [len(guilty & set(g)) >= fewest and len(g) >= crowd for g in groups]

    return narrow(nodes, measure, lambda: False), rounds


@given(st.sampled_from(NODES))
def test_one_of_31_is_found_in_a_few_rounds(guilty: str) -> None:
    """Halving to a pair or three, the others by themselves, one by one beside them."""
    found, rounds = run(NODES, {guilty})
    assert found.suspects == (guilty,) and set(found.cleared) == set(NODES) - {guilty}
    assert found.rounds == len(rounds) <= 9
    assert found.why == "it is bad with it and not without it"


def test_groups_of_a_round_have_no_node_in_common() -> None:
    """They run side by side."""
    for groups in run(NODES, {"n07"})[1]:
        names = [n for group in groups for n in group]
        assert len(names) == len(set(names)) and all(len(group) >= 2 for group in groups)


@given(st.sets(st.sampled_from(NODES), min_size=2))
def test_several_are_never_cleared_and_cleared_nodes_were_well_together(guilty: set[str]) -> None:
    """Whatever could not be told apart stays among the suspects."""
    found, _rounds = run(NODES, guilty)
    assert guilty <= set(found.suspects) and guilty.isdisjoint(found.cleared)
    assert set(found.suspects).isdisjoint(found.cleared)


def test_what_both_halves_share_names_nobody() -> None:
    """A switch, a configuration."""
    found, _rounds = run(NODES, set(NODES))
    assert (found.suspects, found.cleared, found.rounds) == (NODES, (), 1)
    assert found.why == "both halves are bad"


def test_what_shows_only_in_a_great_crowd_names_nobody() -> None:
    """Neither half is bad."""
    found, _ = run(NODES, {"n03"}, crowd=20)
    assert found.suspects == NODES and found.cleared == ()


def test_a_pair_that_is_bad_together_only_stays_together() -> None:
    """Neither of them is bad beside the others: both are suspects, the others are cleared."""
    found, _ = run(("a", "b", "c", "d", "e", "f"), {"a", "b"}, fewest=2)
    assert found.suspects == ("a", "b", "c") and found.cleared == ("d", "e", "f")


def test_a_test_that_told_nothing_clears_nobody() -> None:
    """None is not False."""
    found = narrow(NODES, lambda groups: [None for _ in groups], lambda: False)
    assert found.suspects == NODES and found.cleared == ()
    found = narrow(("a", "b", "c"), lambda groups: [True for _ in groups], lambda: False)
    assert (found.suspects, found.rounds) == (("a", "b", "c"), 0) and "too few" in found.why


def test_without_time_nothing_is_measured() -> None:
    """And everybody stays."""
    assert narrow(NODES, lambda groups: [True, False], lambda: True) == Narrowed(NODES, (), 0, "there was no time")

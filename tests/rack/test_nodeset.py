"""Folded names unfold in the order written, and never to more than allowed."""

import pytest
from ClusterShell.NodeSet import NodeSet
from hypothesis import given
from hypothesis import strategies as st

from toolkit.rack.nodeset import FoldError, expand, fold


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("leaf1", ["leaf1"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[01-03]", ["node01", "node02", "node03"]),
        ("node[08-11]", ["node08", "node09", "node10", "node11"]),
        ("node[3,1-2]", ["node3", "node1", "node2"]),
        ("node[1-9/4]", ["node1", "node5", "node9"]),
        ("gpu[0-1].nvlink[0-1]", ["gpu0.nvlink0", "gpu0.nvlink1", "gpu1.nvlink0", "gpu1.nvlink1"]),
        ("a[1-2],b", ["a1", "a2", "b"]),
    ],
)
def test_a_fold_unfolds_in_the_order_written(text, names):
    """Cables are paired by position: the order is the meaning."""
    assert list(expand(text)) == names


@pytest.mark.parametrize(
    "text",
    ["", "n[", "n]", "n[]", "n[3-1]", "n[01-3]", "n[a-b]", "n[1-2", "@all", "a,,b", "a b", "n[[1]]", "n[1-]", "a!b"],
)
def test_what_is_no_fold_is_refused(text):
    """NodeSet's @groups too: they would run a command of the site's configuration."""
    with pytest.raises(FoldError):
        expand(text)


@pytest.mark.parametrize("text", ["node[1-999999999]", "n[1-999999][1-999999][1-999999]", "n[0-4096]", "n[9999999999]"])
def test_a_huge_fold_is_refused_without_unfolding_it(text):
    """Counting is arithmetic."""
    with pytest.raises(FoldError):
        expand(text)


RANGES = st.builds(lambda a, b, s: f"{a}-{a + b}/{s}", st.integers(0, 99), st.integers(0, 20), st.integers(1, 5))
PADDED = st.builds(lambda a, b: f"{a:03d}-{a + b:03d}", st.integers(0, 50), st.integers(0, 20))


@given(st.lists(RANGES, min_size=1, max_size=4) | st.lists(PADDED, min_size=1, max_size=4))
def test_the_names_are_those_of_clustershell(ranges):
    """The same set as NodeSet's for the same text."""
    text = f"node[{','.join(ranges)}]"
    assert set(expand(text)) == set(NodeSet(text))


@given(st.text(max_size=40))
def test_any_text_unfolds_or_is_refused(text):
    """No other exception."""
    try:
        assert len(expand(text)) <= 4096
    except FoldError as error:
        assert str(error)


@given(st.lists(st.from_regex(r"[a-z]{1,3}[0-9]{0,4}", fullmatch=True), min_size=1, max_size=30))
def test_what_is_folded_unfolds_to_the_same_names(names):
    """Each once; numbers that begin with a zero keep it."""
    assert sorted(expand(fold(names))) == sorted(set(names))


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        (["node2", "node1", "node3", "node10"], "node[1-3,10]"),
        (["n01", "n02", "n10"], "n[01-02,10]"),
        (["gpu", "r1s1", "r2s1"], "gpu,r1s1,r2s1"),
        ([], ""),
    ],
)
def test_how_names_are_folded(names, folded):
    """By the number they end with, in its order."""
    assert fold(names) == folded

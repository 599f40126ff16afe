"""The drift report of a rack's version lock, as an operator reads it."""

from __future__ import annotations

from toolkit.judge.verdict import Answer
from toolkit.judge.version_drift import Drift, DriftReport
from toolkit.report.version_drift import lines

NODES = tuple(f"node{n}" for n in range(1, 13))


def test_a_rack_as_locked_is_one_line() -> None:
    """With what it was counted over."""
    assert lines(DriftReport(Answer.PASS, 18, 9, ())) == ("all 18 nodes have the 9 versions of the lock",)


def test_each_version_found_is_a_line_with_its_nodes() -> None:
    """Columns stand under each other; many nodes are counted."""
    drifts = (
        Drift("doca-ofed", "3.2.1", (("3.1.0", NODES[:1]), ("not installed", NODES[1:]))),
        Drift("kubelet", "1.34.3", (("not read", ("node1",)),)),
    )
    assert lines(DriftReport(Answer.FAIL, 12, 9, drifts)) == (
        "1 of 9 pins are not kept",
        "  pin        lock    found          nodes",
        "  doca-ofed  3.2.1   3.1.0          1: node1",
        "  doca-ofed  3.2.1   not installed  11: node2, node3, node4, node5, node6, node7, node8, node9 and 3 more",
        "  kubelet    1.34.3  not read       1: node1",
    )


def test_a_nodes_words_cannot_write_on_the_terminal() -> None:
    """A version with an escape sequence is shown, not obeyed."""
    shown = lines(DriftReport(Answer.FAIL, 1, 1, (Drift("a", "1", (("\x1b[31m2" * 40, ("n",)),)),)))
    assert all(line.isprintable() for line in shown)
    assert max(map(len, shown)) < 100

"""Waves: everybody once, a canary first, growing and spread; and what a look at a wave means."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.pool.model import NODE_GONE, NODE_SHUT, Sign
from toolkit.pool.policy import Regulation
from toolkit.pool.waves import (
    Candidate,
    Step,
    Watched,
    candidate,
    decide,
    mark,
    marks_before,
    most_now,
    plan_waves,
    spread,
    unfit,
)
from toolkit.rack.loading import load_rack
from toolkit.settings import load

REGULATIONS = st.builds(
    Regulation,
    canary=st.integers(1, 5),
    growth=st.floats(1.1, 10),
    most=st.one_of(st.none(), st.integers(1, 40)),
)


@st.composite
def racks(draw, most=60):
    """Candidates of a few leaves and domains, in any order."""
    count = draw(st.integers(0, most))
    leaves, domains = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    places = st.tuples(st.integers(0, leaves - 1), st.integers(0, domains - 1))
    return [
        Candidate(f"node{n}", *(f"{kind}{p}" for kind, p in zip("ld", draw(places), strict=True))) for n in range(count)
    ]


@given(candidates=racks(), regulation=REGULATIONS)
def test_every_node_is_in_one_wave_and_waves_grow_no_faster_than_they_may(candidates, regulation):
    """The first is the canary's; each other at most growth times as many, or one more, and never over `most`."""
    waves = plan_waves(candidates, regulation)
    assert sorted(n for w in waves for n in w.nodes) == sorted(c.name for c in candidates)
    assert [w.number for w in waves] == list(range(1, len(waves) + 1))
    sizes = [len(w.nodes) for w in waves]
    assert all(0 < size <= (regulation.most or size) for size in sizes)
    assert not sizes or sizes[0] <= regulation.canary
    assert all(now <= max(before * regulation.growth, before + 1) for before, now in itertools.pairwise(sizes))
    assert all(w.why for w in waves)


@given(candidates=racks(), regulation=REGULATIONS)
def test_the_same_candidates_make_the_same_waves(candidates, regulation):
    """Also where one of them is told twice."""
    assert plan_waves(candidates, regulation) == plan_waves([*candidates, *candidates[:1]], regulation)


@given(candidates=racks())
def test_no_leaf_has_its_second_node_before_every_leaf_has_its_first(candidates):
    """So that a bad leaf shows while one node of it is in."""
    order, taken = spread(candidates), Counter()
    leaves = {c.leaf for c in candidates}
    for c in order:
        assert not taken[c.leaf] or taken.keys() == leaves
        taken[c.leaf] += 1


@given(candidates=racks())
def test_of_one_leaf_no_domain_has_its_second_node_before_every_domain_has_its_first(candidates):
    """The same for NVLink domains."""
    one_leaf = [Candidate(c.name, "l0", c.domain) for c in candidates]
    taken = Counter()
    for c in spread(one_leaf):
        assert not taken[c.domain] or taken.keys() == {d.domain for d in one_leaf}
        taken[c.domain] += 1


@given(candidates=racks(), regulation=REGULATIONS)
def test_a_leaf_fills_in_step_with_its_size(candidates, regulation):
    """Once every leaf was reached, none is ahead of another by more than one node's share."""
    one_domain = [Candidate(c.name, c.leaf) for c in candidates]
    total, taken = Counter(c.leaf for c in one_domain), Counter[str]()
    for c in spread(one_domain):
        taken[c.leaf] += 1
        if taken.keys() == total.keys() and max(taken.values()) > 1:
            shares = {leaf: taken[leaf] / total[leaf] for leaf in total}
            behind = min(shares[leaf] + 1 / total[leaf] for leaf in total)
            assert max(share for leaf, share in shares.items() if taken[leaf] > 1) <= behind + 1e-9


def test_a_thousand_nodes_of_a_site_come_in_ten_waves():
    """Sixteen rail groups of sixty-odd nodes: after the fifth wave every one is reached, and none is half in."""
    nodes = [Candidate(f"node{n:04d}", f"unit{n % 16}") for n in range(1000)]
    waves = plan_waves(nodes, Regulation())
    assert [len(w.nodes) for w in waves] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 489]
    assert waves[0].why[0] == "canary" and waves[-1].why[0] == "the rest"
    early = Counter(n.leaf for n in nodes if n.name in {x for w in waves[:5] for x in w.nodes})
    assert len(early) == 16 and max(early.values()) == 2
    assert "16 of 16 rail groups, at most 2 of 62 nodes of" in waves[4].why[1]


@pytest.mark.parametrize(
    ("regulation", "before", "size"),
    [
        (Regulation(), 0, 1),
        (Regulation(), 1, 2),
        (Regulation(canary=3), 0, 3),
        (Regulation(growth=1.5), 1, 2),  # one and a half nodes are none more: one more, or it would never grow
        (Regulation(growth=1.5), 4, 6),
        (Regulation(most=4), 4, 4),
        (Regulation(most=2, canary=5), 0, 2),
    ],
)
def test_how_many_the_next_wave_may_have(regulation, before, size):
    """By what the last one brought in; nobody yet means that a canary is due."""
    assert most_now(regulation, before) == size


def test_nobody_and_one_node():
    """No node, no wave; one node is the canary and all there is."""
    assert plan_waves([], Regulation()) == ()
    (only,) = plan_waves([Candidate("node1")], Regulation())
    assert (only.nodes, only.why) == (("node1",), ("canary",))


def test_places_are_the_rack_files():
    """Nodes of one scalable unit share their leaves; trays of an NVL72 rack their NVLink domain too."""
    inventory = load({}).inventory
    for name, domains in (("dgx-h100-su", {""}), ("gb200-nvl72", {"gb200-nvl72"})):
        rack = load_rack(name, inventory)
        told = [candidate(rack, node) for node in rack.nodes]
        assert len({c.leaf for c in told}) == 1
        assert {c.domain for c in told} == domains


# What a look means

AT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
XID = Sign("node1", "CONDITION_GPU_XID_ERROR", "Xid 79", "condition GpuXidError")
OF_BEFORE = Sign("node1", "PODS_FAIL", "exit 1", "pod train-1", AT)


def test_a_wave_is_watched_until_its_time_is_up():
    """To the second."""
    watched = Watched(frozenset({"node1"}))
    assert decide(watched, (), 599.9, 600).step is Step.SOAK
    assert decide(watched, (), 600, 600).step is Step.COUNT
    assert decide(watched, (), 0, 0).step is Step.COUNT


@given(watched_s=st.floats(0, 1e6), soak_s=st.floats(0, 1e6))
def test_a_bad_sign_outweighs_any_time(watched_s, soak_s):
    """At the last look too."""
    found = decide(Watched(frozenset({"node1", "node2"})), (XID,), watched_s, soak_s)
    assert (found.step, found.signs) == (Step.HALT, (XID,))


def test_what_goes_bad_on_a_node_of_an_earlier_wave_halts_too():
    """The wave may have done it. What was bad there before the wave began was not of its doing."""
    earlier = Watched(frozenset({"node2"}), earlier=frozenset({"node1"}))
    assert decide(earlier, (XID,), 1, 0).step is Step.HALT
    known = Watched(frozenset({"node2"}), frozenset({"node1"}), marks_before(["node2"], [XID]))
    assert decide(known, (XID,), 1, 0).step is Step.COUNT


def test_an_earlier_node_that_somebody_took_out_is_their_decision():
    """An operator may drain one node of a thousand without stopping the rollout; one that vanishes stops it."""
    earlier = Watched(frozenset({"node2"}), earlier=frozenset({"node1"}))
    assert decide(earlier, (Sign("node1", NODE_SHUT, "drained", "taints"),), 1, 0).step is Step.COUNT
    assert decide(earlier, (Sign("node1", NODE_GONE, "", "nodes"),), 1, 0).step is Step.HALT
    assert decide(earlier, (Sign("node2", NODE_SHUT, "tainted by hand", "taints"),), 1, 0).step is Step.HALT


def test_a_stranger_halts_nobody():
    """Signs of nodes that nobody let in are for others to see to."""
    assert decide(Watched(frozenset({"node2"})), (XID,), 1, 0).step is Step.COUNT


def test_what_failed_on_a_node_before_it_was_let_in_is_not_seen_as_new_and_the_same_again_is():
    """The look reaches back for clocks that differ; a happening is known by its time."""
    before = marks_before(["node1"], [OF_BEFORE, Sign("node1", NODE_SHUT, "not yet", "taints")])
    watched = Watched(frozenset({"node1"}), before=before)
    assert before == {mark(OF_BEFORE)}
    assert decide(watched, (OF_BEFORE,), 1, 0).step is Step.COUNT
    again = Sign("node1", "PODS_FAIL", "exit 1", "pod train-1", AT + timedelta(seconds=9))
    assert decide(watched, (again,), 1, 0).step is Step.HALT


def test_a_node_that_is_bad_already_is_not_let_in_and_its_taint_is_no_badness():
    """The first sign of each is told."""
    shut = Sign("node2", NODE_SHUT, "not certified", "taints")
    found = unfit({"node1", "node2"}, (shut, XID, OF_BEFORE, Sign("node9", "NODE_GONE", "", "")))
    assert found == {"node1": XID}

"""Never green when unknown, as properties."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Answer, judge
from toolkit.rack.gate import Gate, Operator, Scope

NOW = datetime(2026, 11, 23, tzinfo=UTC)
DAY = timedelta(days=1)


def gate(code="BUSBW_LOW", metric="busbw", operator=Operator.AT_LEAST, limit=400.0, **more):
    """A sourced, required gate on a node."""
    fields = {
        "unit": "GB/s", "scope": Scope.NODE, "stage": "burnin", "required": True, "part": "tray",
        "why": "too slow", "source": "reference", "date": "2026-11-01",
    }  # fmt: skip
    return Gate(code=code, metric=metric, operator=operator, limit=limit, **(fields | more))


def node(name="node1"):
    """A node as a subject."""
    return Subject(Scope.NODE, name)


def measured(value, metric="busbw", subject=None, **more):
    """A fresh measurement."""
    fields = {"unit": "GB/s", "at": NOW, "run": "r1", "origin": "ab" * 32}
    return Measurement(metric=metric, value=value, subject=subject or node(), **(fields | more))


def answer(gates, subjects, evidence, max_age=DAY):
    """The verdict's answer."""
    return judge(gates, subjects, evidence, NOW, max_age).answer


PASSING = st.builds(
    lambda gates, names: (
        [gate(f"CODE_{i}", f"metric_{i}", op, limit) for i, (op, limit, _) in enumerate(gates)],
        [node(n) for n in names],
        [measured(v, f"metric_{i}", node(n)) for i, (_, _, v) in enumerate(gates) for n in names],
    ),
    st.lists(
        st.sampled_from([
            (Operator.AT_LEAST, 400.0, 480.0), (Operator.AT_MOST, 0, 0), (Operator.EQUALS, "Completed", "Completed"),
            (Operator.EQUALS, 8, 8), (Operator.ONE_OF, ("NVLS", "P2P"), "NVLS"), (Operator.SAME_ACROSS, 0, "580.95.05"),
        ]),
        min_size=1, max_size=6,
    ),
    st.lists(st.sampled_from(["node1", "node2", "node3"]), min_size=1, unique=True),
)  # fmt: skip


@given(PASSING, st.data())
def test_removing_any_piece_of_evidence_from_a_pass_never_leaves_a_pass(case, data):
    """The property the product stands on."""
    gates, subjects, evidence = case
    assert answer(gates, subjects, evidence) is Answer.PASS
    gone = data.draw(st.sampled_from(range(len(evidence))))
    assert answer(gates, subjects, evidence[:gone] + evidence[gone + 1 :]) is Answer.INCONCLUSIVE


@given(PASSING, st.data())
def test_spoiling_any_piece_of_evidence_never_leaves_a_pass(case, data):
    """Stale, from the future, in another unit, doubled, not a number: none of it is a pass, none a failure."""
    gates, subjects, evidence = case
    which = data.draw(st.sampled_from(range(len(evidence))))
    spoilt = data.draw(
        st.sampled_from([
            replace(evidence[which], at=NOW - 2 * DAY),
            replace(evidence[which], at=NOW + DAY),
            replace(evidence[which], unit="furlongs"),
            replace(evidence[which], value=float("nan")),
        ])
    )  # fmt: skip
    assert answer(gates, subjects, [*evidence[:which], spoilt, *evidence[which + 1 :]]) is Answer.INCONCLUSIVE
    assert answer(gates, subjects, [*evidence, evidence[which]]) is Answer.INCONCLUSIVE


@given(PASSING)
def test_an_unplanned_node_or_a_planned_but_silent_one_is_not_a_pass(case):
    """Planned and tested set are compared both ways."""
    gates, subjects, evidence = case
    assert answer(gates, [*subjects, node("node9")], evidence) is Answer.INCONCLUSIVE
    if len(subjects) > 1:
        assert answer(gates, subjects[1:], evidence) is Answer.INCONCLUSIVE


@given(PASSING)
def test_the_order_of_the_evidence_does_not_matter(case):
    """The verdict is of a set."""
    gates, subjects, evidence = case
    assert judge(gates, subjects, evidence, NOW, DAY) == judge(gates, subjects, evidence[::-1], NOW, DAY)


def test_nothing_required_is_not_a_pass():
    """No gate, no required gate, nobody planned: nothing was proven."""
    assert answer([], [node()], [measured(480.0)]) is Answer.INCONCLUSIVE
    assert answer([gate(required=False)], [node()], [measured(480.0)]) is Answer.INCONCLUSIVE
    assert answer([gate()], [], []) is Answer.INCONCLUSIVE


def test_a_gate_without_a_sourced_limit_is_inconclusive():
    """A missing threshold is never zero."""
    assert answer([gate(limit=None)], [node()], [measured(480.0)]) is Answer.INCONCLUSIVE


@pytest.mark.parametrize(
    ("operator", "limit", "value", "expected"),
    [
        (Operator.AT_LEAST, 400, 399.9, Answer.FAIL),
        (Operator.AT_LEAST, 400, 400, Answer.PASS),
        (Operator.AT_MOST, 0, 1, Answer.FAIL),
        (Operator.EQUALS, "Completed", "In Progress", Answer.FAIL),
        (Operator.EQUALS, 8, "8", Answer.INCONCLUSIVE),
        (Operator.AT_LEAST, 400, "fast", Answer.INCONCLUSIVE),
        (Operator.ONE_OF, ("NVLS",), "Socket", Answer.FAIL),
        (Operator.ONE_OF, "NVLS", "NVLS", Answer.INCONCLUSIVE),
    ],
)
def test_the_closed_set_of_operators(operator, limit, value, expected):
    """A comparison that makes no sense is our doubt, not the hardware's failure."""
    assert answer([gate(operator=operator, limit=limit)], [node()], [measured(value)]) is expected


def test_a_failure_outranks_a_doubt():
    """One bad GPU is a fact even where another was not measured."""
    gates = [gate(), gate(code="XID_SEEN", metric="xid_events", operator=Operator.AT_MOST, limit=0)]
    assert answer(gates, [node()], [measured(12.0)]) is Answer.FAIL


@pytest.mark.parametrize(
    ("values", "verdict", "blamed"),
    [
        ("aaab", Answer.FAIL, ["node4"]),
        ("aab", Answer.FAIL, ["node3"]),
        ("aaaa", Answer.PASS, []),
        ("aa", Answer.PASS, []),
        ("ab", Answer.INCONCLUSIVE, []),
        ("aabb", Answer.INCONCLUSIVE, []),
        ("aabc", Answer.INCONCLUSIVE, []),
        ("abc", Answer.INCONCLUSIVE, []),
        ("aaabc", Answer.FAIL, ["node4", "node5"]),
        ("aa-", Answer.INCONCLUSIVE, []),
        ("ab-", Answer.INCONCLUSIVE, []),
    ],
)
def test_the_odd_one_out_is_named_by_a_majority_of_three_and_more(values, verdict, blamed):
    """Of two that differ either may be wrong; a tie blames nobody; a silent one (-) is a doubt of its own."""
    rule = gate(operator=Operator.SAME_ACROSS, metric="gemm_digest", limit=None)
    names = [f"node{n}" for n in range(1, len(values) + 1)]
    evidence = [measured(v, "gemm_digest", node(n)) for n, v in zip(names, values, strict=True) if v != "-"]
    found = judge([rule], map(node, names), evidence, NOW, DAY)
    assert found.answer is verdict
    assert [str(f.subject) for f in found.of(Answer.FAIL)] == blamed

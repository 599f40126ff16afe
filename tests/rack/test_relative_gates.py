"""Gates relative to peers in a profile's file: what they may be of, and every mistake with its line."""

import pytest

from tests.rack.conftest import PROFILE
from toolkit.errors import InputError
from toolkit.rack.again import AGAIN, AGAIN_SECONDS, Again
from toolkit.rack.gate import Operator, WithoutPeers
from toolkit.rack.loading import load_profile
from toolkit.rack.metric import METRICS, Unit

RELATIVE = """  - code: HBM_BELOW_PEERS
    metric: hbm_copy_gb_per_s
    unit: GB/s
    scope: gpu
    operator: peers
    limit: 0.04
    stage: burnin
    required: true
    without_peers: not_asked
    part: gpu
    why: slower than its siblings
    source: policy
    date: 2026-11-23
"""
FIRST_LINE = PROFILE.count("\n") + 1


def problems(inventory, old, new):
    """Line, field and words of what is wrong with the gate when something in it is replaced."""
    assert old in RELATIVE
    inventory.profile(PROFILE + RELATIVE.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        load_profile("small", inventory.folder)
    return [(p.line - FIRST_LINE, p.field, f"{p.wrong} {p.right}") for p in error.value.problems]


def test_a_gate_relative_to_peers_is_read(inventory):
    """Its share stays a number, whatever its metric is counted in."""
    inventory.profile(PROFILE + RELATIVE)
    gate = load_profile("small", inventory.folder).gates[1]
    assert (gate.operator, gate.limit, gate.without_peers) == (Operator.PEERS, 0.04, WithoutPeers.NOT_ASKED)


def test_without_peers_it_is_inconclusive_unless_the_file_says_otherwise(inventory):
    """The strict answer is the default."""
    inventory.profile(PROFILE + RELATIVE.replace("    without_peers: not_asked\n", ""))
    assert load_profile("small", inventory.folder).gates[1].without_peers is WithoutPeers.INCONCLUSIVE


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("limit: 0.04", "limit: 4", 5, "limit", "0.03 is 3 %"),
        ("limit: 0.04", "limit: 0", 5, "limit", "above 0 and under 1"),
        ("limit: 0.04", "limit: 4 %", 5, "limit", "is not a share"),
        ("limit: 0.04", "limit: [0.04]", 5, "limit", "is not a share"),
        ("limit: 0.04", "limit: 1", 5, "limit", "is not a share"),
        ("stage: burnin", "stage: base", 6, "stage", "after a burn-in, not after base"),
        ("metric: hbm_copy_gb_per_s", "metric: hbm_peak_gb_per_s", 1, "metric", "no workload measures"),
        ("without_peers: not_asked", "without_peers: maybe", 8, "without_peers", "not a known"),
        ("operator: peers", "operator: at_least", 8, "without_peers", "compares with no peers"),
    ],
)
def test_a_mistake_has_its_line(inventory, old, new, line, field, words):
    """One change in a good gate, one problem that says where and what."""
    found = problems(inventory, old, new)
    assert [(at, where) for at, where, _ in found] == [(line, f"gates[1].{field}")]
    assert words in found[0][2]


def test_every_metric_that_can_be_measured_again_is_a_rate_with_a_suite():
    """Less is worse, in any unit."""
    assert set(AGAIN.values()) == set(Again)
    assert {METRICS[name].unit for name in AGAIN} == {Unit.GB_PER_S, Unit.TFLOP_PER_S}


def test_the_controller_knows_the_nodes_suites_of_one_workload():
    """Names and deadlines of burnin/suites.py; the node's program takes each."""
    from burnin.__main__ import _parser
    from burnin.suites import AGAIN as SUITES

    assert {s.name for s in SUITES} == set(Again)
    for suite in SUITES:
        assert suite.deadline_s + 180 < AGAIN_SECONDS
        assert len(suite.workloads) == 1
        assert suite.workloads[0].name == suite.name.removeprefix("again_")
        assert _parser().parse_args(["run", "--run", "x", "--suite", suite.name, "--out", "/x"]).suite == suite.name

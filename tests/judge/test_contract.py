"""A contract's criteria: only evidence that a certificate vouches for passes them, and the worst subject is named."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.judge.contract import NodeEvidence, RackEvidence, judge_contract
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import Answer
from toolkit.rack.contract import Annex, Criterion, Measure
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.loading import load_rack
from toolkit.rack.metric import METRICS
from toolkit.settings import load

RACK = load_rack("demo-small", load({}).inventory)
FULL = load_rack("demo", load({}).inventory)
AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
DIGEST = "ab" * 32
BUSBW = Measure("NCCL_BUSBW_LOW", "nccl_busbw_gb_per_s", Operator.AT_LEAST, 470.0)
COVERAGE = Measure("HBM_COVERAGE_LOW")


def measured(metric, subject, value, at=AT, origin=DIGEST, unit=None):
    """One measurement of the metric, in its unit."""
    return Measurement(metric, unit or METRICS[metric].unit, value, subject, at, "run", origin)


def gpus(node, metric, values, **more):
    """Of each GPU of a node."""
    return [measured(metric, Subject(Scope.GPU, node, gpu=n), value, **more) for n, value in enumerate(values)]


def of_node(node, *measurements, doubt=""):
    """Evidence of a node, by metric."""
    told = {}
    for m in measurements:
        told.setdefault(m.metric, []).append(m)
    return NodeEvidence(node, doubt, AT, DAY, {k: tuple(v) for k, v in told.items()})


def of_rack(*nodes, wide=(), lost=None):
    """Evidence of a rack; nodes that are not given have none."""
    return RackEvidence(tuple(nodes), tuple(wide), AT, DAY, lost or {})


def judged(evidence, *measures, rack=RACK):
    """One criterion with these measures."""
    annex = Annex("a", "Contract 7", (Criterion("B-1", "B 1", "t", tuple(measures)),), DIGEST)
    (answer,) = judge_contract(annex, rack, evidence)
    return answer


def both(metric, one, two, **more):
    """A value of a node's metric on each of the two nodes."""
    subject = [Subject(Scope.NODE, n.name) for n in RACK.nodes]
    return of_rack(
        of_node("node1", measured(metric, subject[0], one, **more)),
        of_node("node2", measured(metric, subject[1], two, **more)),
    )


def test_a_stricter_limit_of_the_contract_fails_what_our_gate_passes():
    """480 passes both; 465 is over our 440 and under the contract's 470, and is the one that is named."""
    good = judged(both("nccl_busbw_gb_per_s", 480.0, 478.0), BUSBW)
    assert (good.answer, good.count(Answer.PASS), len(good.subjects)) == (Answer.PASS, 2, 2)
    assert (good.worst.subject.node, good.worst.value) == ("node2", 478.0)
    bad = judged(both("nccl_busbw_gb_per_s", 480.0, 465.0), BUSBW)
    assert (bad.answer, bad.count(Answer.PASS), bad.count(Answer.FAIL)) == (Answer.FAIL, 1, 1)
    assert (bad.worst.subject.node, bad.worst.value) == ("node2", 465.0)
    ours = judged(both("nccl_busbw_gb_per_s", 480.0, 465.0), Measure("NCCL_BUSBW_LOW"))
    assert ours.answer is Answer.PASS


def test_what_nobody_vouches_for_never_passes_and_may_fail():
    """The same numbers, of a node without a certificate."""
    subject = Subject(Scope.NODE, "node2")
    vouched = of_node("node1", measured("nccl_busbw_gb_per_s", Subject(Scope.NODE, "node1"), 480.0))
    doubt = "no certificate in force: QUARANTINED HBM_ECC_CORRECTED"
    well = of_node("node2", measured("nccl_busbw_gb_per_s", subject, 480.0), doubt=doubt)
    slow = of_node("node2", measured("nccl_busbw_gb_per_s", subject, 300.0), doubt=doubt)
    open_ = judged(of_rack(vouched, well), BUSBW)
    assert open_.answer is Answer.INCONCLUSIVE
    assert open_.worst.detail.startswith("no certificate in force vouches for node2; measured: nccl_busbw_gb_per_s 480")
    assert judged(of_rack(vouched, slow), BUSBW).answer is Answer.FAIL


@pytest.mark.parametrize("measure", [Measure("HBM_BANDWIDTH_LOW"), Measure("IMEX_DOMAIN_NOT_UP")])
def test_a_gate_that_this_rack_is_not_asked_leaves_its_criterion_open(measure):
    """Beside one that passes, and alone; whatever was measured."""
    told = [of_node(n.name, *gpus(n.name, "hbm_coverage", [0.99] * 8)) for n in RACK.nodes]
    assert judged(of_rack(*told), COVERAGE).answer is Answer.PASS
    found = judged(of_rack(*told), COVERAGE, measure)
    assert (found.answer, found.count(Answer.PASS)) == (Answer.INCONCLUSIVE, 16)
    assert found.unasked[0].name == measure.code
    alone = judged(of_rack(*told), measure)
    assert (alone.answer, alone.worst, alone.subjects) == (Answer.INCONCLUSIVE, None, {})


def test_a_gate_without_a_sourced_limit_is_open_until_the_contract_states_one():
    """GPU_HOT has none of ours; the contract's 85 is judged."""
    told = of_rack(*(of_node(n.name, *gpus(n.name, "gpu_celsius_max", [60.0] * 7 + [84.0])) for n in RACK.nodes))
    assert judged(told, Measure("GPU_HOT")).answer is Answer.INCONCLUSIVE
    passed = judged(told, Measure("GPU_HOT", "gpu_celsius_max", Operator.AT_MOST, 85.0))
    assert (passed.answer, str(passed.worst.subject), passed.worst.value) == (Answer.PASS, "node1/gpu7", 84.0)


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ([], "was not measured"),
        (gpus("node2", "hbm_coverage", [0.99] * 7), "hbm_coverage was not measured"),
        (gpus("node2", "hbm_coverage", [0.99] * 8, at=AT - 2 * DAY), "is stale"),
        (gpus("node2", "hbm_coverage", [0.99] * 8, unit="percent"), "the gate in fraction"),
        (gpus("node2", "hbm_coverage", [0.99] * 8, origin="cd" * 32), "artifact is gone"),
    ],
    ids=["nothing", "one GPU", "stale", "unit", "lost"],
)
def test_taking_anything_away_from_a_pass_leaves_it_open(missing, why):
    """Nothing measured, one GPU of sixteen, evidence that is too old, another unit, an artifact that was deleted."""
    first = of_node("node1", *gpus("node1", "hbm_coverage", [0.99] * 8))
    found = judged(of_rack(first, of_node("node2", *missing), lost={"cd" * 32: "artifact is gone"}), COVERAGE)
    assert found.answer is Answer.INCONCLUSIVE
    assert why in found.worst.detail
    assert found.worst.subject.node == "node2"


@settings(max_examples=60, deadline=None)
@given(gone=st.sets(st.integers(0, 15), min_size=1), doubted=st.sets(st.sampled_from(["node1", "node2"])))
def test_no_part_of_a_pass_can_be_left_out(gone, doubted):
    """Whichever GPUs were not measured, and whoever has no certificate: with all of them there it is a pass."""
    whole = {n.name: gpus(n.name, "hbm_coverage", [0.99] * 8) for n in RACK.nodes}
    assert judged(of_rack(*(of_node(name, *told) for name, told in whole.items())), COVERAGE).answer is Answer.PASS
    left = {
        name: [m for m in told if m.subject.gpu + 8 * number not in gone]
        for number, (name, told) in enumerate(whole.items())
    }
    nodes = (of_node(name, *told, doubt="revoked" if name in doubted else "") for name, told in left.items())
    found = judged(of_rack(*nodes), COVERAGE)
    assert found.answer is Answer.INCONCLUSIVE
    assert found.count(Answer.PASS) == sum(len(told) for name, told in left.items() if name not in doubted)


def test_evidence_that_was_deleted_fails_nobody_either():
    """What cannot be read back proves nothing."""
    found = judged(both("nccl_busbw_gb_per_s", 480.0, 10.0), BUSBW)
    assert found.answer is Answer.FAIL
    gone = both("nccl_busbw_gb_per_s", 480.0, 10.0)
    lost = RackEvidence(gone.nodes, (), AT, DAY, {DIGEST: "artifact is damaged"})
    assert judged(lost, BUSBW).answer is Answer.INCONCLUSIVE


def unit_of(ranks, busbw=420.0):
    """The whole unit's all_reduce among so many ranks."""
    rack = Subject(Scope.RACK)
    wide = [measured("rack_nccl_all_reduce_busbw_gb_per_s", rack, busbw)]
    return [*wide, *([] if ranks is None else [measured("rack_nccl_all_reduce_ranks", rack, ranks)])]


@pytest.mark.parametrize(
    ("ranks", "answer"), [(48, Answer.PASS), (40, Answer.INCONCLUSIVE), (None, Answer.INCONCLUSIVE)]
)
def test_a_collective_of_the_unit_counts_only_with_every_rank_of_it(ranks, answer):
    """Five nodes of six are another unit than the contract's; too slow among five is too slow."""
    nodes = [of_node(n.name) for n in FULL.nodes]
    measure = Measure("UNIT_BUSBW_LOW", "rack_nccl_all_reduce_busbw_gb_per_s", Operator.AT_LEAST, 300.0)
    assert judged(of_rack(*nodes, wide=unit_of(ranks)), measure, rack=FULL).answer is answer
    assert judged(of_rack(*nodes, wide=unit_of(ranks, 200.0)), measure, rack=FULL).answer is Answer.FAIL


def test_a_leaf_that_was_not_measured_is_open_and_a_rack_without_one_asks_nobody():
    """Eight leaves of six nodes are planned in the one; in the other no leaf joins more than a pair."""
    measure = Measure("LEAF_BUSBW_LOW")
    found = judged(of_rack(*(of_node(n.name) for n in FULL.nodes)), measure, rack=FULL)
    assert (found.answer, len(found.subjects)) == (Answer.INCONCLUSIVE, 8)
    pair = judged(of_rack(*(of_node(n.name) for n in RACK.nodes)), measure)
    assert pair.answer is Answer.INCONCLUSIVE


def test_the_worst_is_what_fails_before_what_is_open_before_what_is_near():
    """Over several gates of one criterion; the biggest count of those that may be none."""
    node1 = [*gpus("node1", "hbm_coverage", [0.98, *[0.99] * 7]), *gpus("node1", "hbm_miscompares", [0] * 8)]
    node2 = [*gpus("node2", "hbm_coverage", [0.99] * 7), *gpus("node2", "hbm_miscompares", [0, 3, 9, *[0] * 5])]
    found = judged(of_rack(of_node("node1", *node1), of_node("node2", *node2)), COVERAGE, Measure("HBM_MISCOMPARE"))
    assert (found.answer, str(found.worst.subject), found.worst.value) == (Answer.FAIL, "node2/gpu2", 9)
    assert [found.count(a) for a in (Answer.PASS, Answer.FAIL, Answer.INCONCLUSIVE)] == [13, 2, 1]

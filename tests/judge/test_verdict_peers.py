"""A verdict by gates relative to peers: only what was compared, of that very reading, by that very limit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from toolkit.judge.compared import Compared, Standing
from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.verdict import DRIFTS, Answer, judge
from toolkit.rack.gate import Gate, Operator, Scope, WithoutPeers

NOW = datetime(2026, 11, 23, tzinfo=UTC)
GPU = Subject(Scope.GPU, "node1", gpu=3)
READ = Measurement("hbm_copy_gb_per_s", "GB/s", 2700.0, GPU, NOW, "run1", "ab" * 32)
GATE = Gate(
    code="HBM_BANDWIDTH_BELOW_PEERS", metric="hbm_copy_gb_per_s", unit="GB/s", scope=Scope.GPU,
    operator=Operator.PEERS, limit=0.04, stage="burnin", required=True, part="gpu", why="slow", source="policy",
    date="2026-11-23",
)  # fmt: skip
STOOD = Compared(READ.metric, GPU, 0.04, READ.origin, "cd" * 32, Standing.ALIKE, -0.001, "2700 against 2703")


def answered(*compared, gate=GATE, read=(READ,)):
    """The verdict of that gate on that GPU."""
    return judge([gate], [GPU], read, NOW, timedelta(days=1), compared)


@pytest.mark.parametrize(
    ("standing", "answer"),
    [
        (Standing.ALIKE, Answer.PASS),
        (Standing.CLEARED, Answer.PASS),
        (Standing.WORSE, Answer.FAIL),
        (Standing.UNSETTLED, Answer.INCONCLUSIVE),
        (Standing.UNDECIDED, Answer.INCONCLUSIVE),
        (Standing.TOO_FEW, Answer.INCONCLUSIVE),
    ],
)
def test_every_standing_has_its_answer(standing, answer):
    """A suspect that nothing settled is neither a pass nor a failure."""
    verdict = answered(replace(STOOD, standing=standing))
    assert verdict.answer is answer
    (finding,) = verdict.findings
    assert "2700 against 2703" in finding.detail
    assert finding.value == 2700.0


@pytest.mark.parametrize(
    "other",
    [
        {"of": "ef" * 32},
        {"limit": 0.05},
        {"metric": "hbm_verify_gb_per_s_median"},
        {"subject": Subject(Scope.GPU, "node1", gpu=4)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_comparison_of_anything_else_answers_nothing(other):
    """Another reading, another limit, another metric, another GPU."""
    verdict = answered(replace(STOOD, **other))
    assert verdict.answer is Answer.INCONCLUSIVE
    assert "was not compared" in verdict.findings[0].detail


def test_what_was_never_compared_is_inconclusive():
    """A reading by itself says nothing of siblings, however good it is."""
    assert answered().answer is Answer.INCONCLUSIVE
    assert (
        answered(gate=replace(GATE, limit=None)).findings[0].detail == "HBM_BANDWIDTH_BELOW_PEERS has no sourced limit"
    )


def test_a_good_standing_does_not_stand_for_stale_or_missing_evidence():
    """The measurement itself must be there, fresh, and one."""
    old = replace(READ, at=NOW - timedelta(days=2))
    for read in ((), (old,), (READ, READ)):
        assert answered(STOOD, read=read).answer is Answer.INCONCLUSIVE


def test_too_few_peers_keep_a_node_back_unless_the_profile_excuses_it():
    """Excused is not passed: a verdict of nothing else has proven nothing, and the finding stays to be named."""
    few = replace(STOOD, standing=Standing.TOO_FEW)
    strict = answered(few)
    assert strict.of(Answer.INCONCLUSIVE)
    gate = replace(GATE, without_peers=WithoutPeers.NOT_ASKED)
    lone = answered(few, gate=gate)
    assert (lone.answer, lone.of(Answer.INCONCLUSIVE)) == (Answer.INCONCLUSIVE, ())
    assert [f.excused for f in lone.findings] == [True]
    other = replace(GATE, code="HBM_COPY_LOW", operator=Operator.AT_LEAST, limit=2000.0)
    assert judge([gate, other], [GPU], [READ], NOW, timedelta(days=1), [few]).answer is Answer.PASS


@pytest.mark.parametrize("standing", [Standing.UNSETTLED, Standing.UNDECIDED, Standing.WORSE])
def test_only_too_few_peers_are_excused(standing):
    """A doubt about a part among enough siblings is a doubt."""
    gate = replace(GATE, without_peers=WithoutPeers.NOT_ASKED)
    verdict = answered(replace(STOOD, standing=standing), gate=gate)
    assert not any(f.excused for f in verdict.findings)
    assert verdict.answer is not Answer.PASS


def test_a_drift_is_a_warning_that_fails_nobody():
    """It has a code of its own, names the evidence, and the verdict is as it was."""
    verdict = answered(replace(STOOD, drift="CUSUM alarmed"))
    assert verdict.answer is Answer.PASS
    (warning,) = [f for f in verdict.findings if f.code == DRIFTS]
    assert (warning.answer, warning.gate.required, warning.origin) == (Answer.FAIL, False, "cd" * 32)
    assert verdict.of(Answer.FAIL) == ()
    assert DRIFTS not in {f.code for f in answered(STOOD).findings}

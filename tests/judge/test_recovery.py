"""When a GPU is reset and everything measured again, and when the verdict stands."""

from datetime import UTC, datetime

import pytest

from toolkit.judge.evidence import Measurement, Subject
from toolkit.judge.recovery import Recovery, recovery, remaps_again
from toolkit.judge.verdict import Answer, Finding
from toolkit.rack.gate import Gate, Operator, Scope

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def measured(metric, value, gpu=3):
    """What the node said of a GPU after its burn-in."""
    return Measurement(metric, "count", value, Subject(Scope.GPU, "node1", gpu=gpu), NOW, "r1", "ab" * 32)


def failed(metric, value=1, gpu=3, part="gpu", required=True):
    """A failed finding."""
    gate = Gate(
        metric.upper(), metric, "count", Scope.GPU, Operator.AT_MOST, 0, "burnin", required, part, "why", "source",
        "2026-11-23",
    )  # fmt: skip
    subject = Subject(Scope.GPU, "node1", gpu=gpu) if gpu is not None else Subject(Scope.NODE, "node1")
    return Finding(gate, subject, Answer.FAIL, value, "detail")


REMAPPED = (measured("row_remaps_delta", 1), measured("row_remap_pending_after", 1))
ROW = (failed("row_remaps_delta"), failed("row_remap_pending_after"))


def test_a_row_that_waits_for_its_spare_is_reset_and_run_again():
    """The GPU that asks, and only it."""
    assert recovery(ROW, REMAPPED) == Recovery((3,), (3,))


@pytest.mark.parametrize(
    ("metric", "value", "due"),
    [
        ("recovery_action_after", 1, Recovery((3,), (3,))),
        ("recovery_action_after", 4, Recovery((3,), (3,))),
        ("recovery_action_after", 2, None),
        ("recovery_action_after", 0, None),
        ("channel_repair_pending", 1, Recovery((3,), (3,))),
        ("tpc_repair_pending", 1, Recovery((3,), (3,))),
        ("row_remaps_delta", 1, Recovery((3,), ())),
        ("hbm_miscompares", 1, None),
    ],
)
def test_what_a_gpu_asks_for_says_what_is_due(metric, value, due):
    """A reset where it asks for one, a rerun alone where the row is in use; a reboot is not ours to do unasked."""
    assert recovery((failed(metric, value),), (measured(metric, value),)) == due


def test_a_gpu_that_had_its_recovery_gets_no_second():
    """What it shows again is no accident."""
    assert recovery(ROW, REMAPPED, {3}) is None
    assert recovery(ROW, REMAPPED, {4}) == Recovery((3,), (3,))


@pytest.mark.parametrize(
    "other",
    [
        failed("hbm_miscompares"),
        failed("hbm_uncorrected_errors_delta"),
        failed("row_remap_failure_after"),
        failed("row_remaps_delta", gpu=4),
        failed("nccl_wrong_values", gpu=None),
        failed("recovery_action_after", 2),
    ],
    ids=lambda f: f.code,
)
def test_a_failure_that_no_spare_row_explains_stands(other):
    """On this GPU or another: a rerun that happens to pass would hide it."""
    assert recovery((*ROW, other), REMAPPED) is None


@pytest.mark.parametrize(
    "other",
    [
        failed("hbm_corrected_errors_delta"),
        failed("xid_memory_events"),
        failed("xid_application_events", part="symptom"),
        failed("hbm_coverage", part="evidence"),
        failed("pcie_replays_delta", required=False),
    ],
    ids=lambda f: f.code,
)
def test_what_belongs_to_the_row_or_blames_nobody_does_not_hold_up_its_recovery(other):
    """The rerun measures it anew."""
    assert recovery((*ROW, other), REMAPPED) == Recovery((3,), (3,))


def test_rows_after_the_reset_are_counted_for_the_gpus_that_had_one():
    """0 for the others; nothing for one whose remaps nobody could read."""
    again = remaps_again((*REMAPPED, measured("row_remaps_delta", 2, gpu=5)), range(6), {3, 4, 5})
    assert again == {0: 0, 1: 0, 2: 0, 3: 1}

"""Driver: its version, its GPUs, their memory and slots, by the gates of stage base."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.facts import probe
from toolkit.infra import words
from toolkit.infra.areas import DRIVER, gates_of, unplanned_in
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target


def answering(plan: Plan) -> Iterator[Question]:
    """Asked of hosts without a plan too: the driver describes every GPU that it counts."""
    yield from (_answering(target) for target in plan.targets)


def _answering(target: Target) -> Question:
    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, probe.GPUS)
        next_ = f"ssh {target.name} nvidia-smi; dmesg on it names the Xid"
        if fact.problem is not None:
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {fact.problem}", next_)
        report = fact.value
        lost = [f"GPU {g['index']} at {g['id']}" for g in report["gpus"] if g["lost"]]
        if lost:
            return words.failed("GPU_LOST", f"{target.name}: the driver has lost {', '.join(lost)}", next_)
        if not report["gpus"] or report["attached"] != len(report["gpus"]):
            what = f"{target.name}: {report['attached']} GPUs attached, {len(report['gpus'])} described"
            return words.inconclusive("EVIDENCE_MISSING", what, next_)
        return GOOD

    return Question(target, "", ask)


@pytest.mark.smoke
@asks(answering)
def test_every_gpu_answers(answer: Answered) -> None:
    """nvidia-smi describes every GPU that it counts, and none is lost."""
    answer.holds()


@pytest.mark.smoke
@asks(gates_of(DRIVER))
def test_gate(answer: Answered) -> None:
    """A gate of the profile, on the node or on one GPU."""
    answer.holds()


@pytest.mark.smoke
@asks(unplanned_in(DRIVER))
def test_nothing_unplanned(answer: Answered) -> None:
    """No GPU is there that the plan does not have."""
    answer.holds()

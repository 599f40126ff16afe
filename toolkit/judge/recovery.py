"""Whether a GPU is reset and everything measured again before a verdict.

A faulty row that the GPU replaces by a spare is repaired, not proven: NVIDIA's rule is reset, then the full test
again, and a second new row on the same board is a matter for its maker (GPU Memory Error Management,
docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt). A fault that no spare row explains is judged at once: a rerun that
happens to pass would only hide it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from toolkit.judge.evidence import Measurement, Value
from toolkit.judge.part import blames_hardware
from toolkit.judge.verdict import Answer, Finding

REMAPS, PENDING, ACTION, AGAIN = (
    "row_remaps_delta", "row_remap_pending_after", "recovery_action_after", "row_remaps_after_reset",
)  # fmt: skip
_REPAIRS = ("channel_repair_pending", "tpc_repair_pending")
# NVML_GPU_RECOVERY_ACTION_GPU_RESET and _DRAIN_AND_RESET: a node in burn-in has nothing to drain.
RESETS = (1, 4)
# What a row leaves behind that is replaced for its corrected errors, and a rerun measures anew. An uncorrectable error
# is not among them: it would have ended a job, and a board that begins so is not taken into service on its second try.
_EXPLAINED = frozenset({REMAPS, PENDING, *_REPAIRS, "hbm_corrected_errors_delta", "xid_memory_events"})


@dataclass(frozen=True, slots=True)
class Recovery:
    """What comes before the verdict: a full rerun, after a reset of the GPUs that wait for one.

    gpus   whose evidence the rerun replaces
    reset  of them, those that ask for a reset; a row may be in use already
    """

    gpus: tuple[int, ...]
    reset: tuple[int, ...]


def recovery(
    findings: Iterable[Finding], measurements: Iterable[Measurement], spent: Set[int] = frozenset()
) -> Recovery | None:
    """The recovery that is due, or None where the verdict stands. `spent`: GPUs that had theirs already.

    Each GPU gets one: what it shows again after it is no accident.
    """
    seen = _of_gpus(measurements)
    reset = {gpu for gpu, values in seen.items() if _wants_reset(values)} - spent
    gpus = reset | ({gpu for gpu, values in seen.items() if _number(values.get(REMAPS)) > 0} - spent)
    failed = [f for f in findings if f.answer is Answer.FAIL and f.gate.required and blames_hardware(f)]
    if not gpus or not all(_explained(f, gpus) for f in failed):
        return None
    return Recovery(tuple(sorted(gpus)), tuple(sorted(reset)))


def remaps_again(measurements: Iterable[Measurement], gpus: Iterable[int], spent: Set[int]) -> dict[int, int]:
    """Rows each GPU remapped after the reset it had for an earlier one: 0 for a GPU that had none.

    A GPU whose remaps could not be read after its reset is not in the answer: nobody knows.
    """
    seen = _of_gpus(measurements)
    again: dict[int, int] = {}
    for gpu in gpus:
        values = seen.get(gpu, {})
        if gpu not in spent:
            again[gpu] = 0
        elif REMAPS in values and PENDING in values:
            again[gpu] = max(int(_number(values[REMAPS])), int(_number(values[PENDING]) > 0))
    return again


def _explained(finding: Finding, gpus: Set[int]) -> bool:
    if finding.subject.gpu not in gpus:
        return False
    if finding.gate.metric == ACTION:
        return finding.value in RESETS
    return finding.gate.metric in _EXPLAINED


def _wants_reset(values: Mapping[str, Value]) -> bool:
    return values.get(ACTION) in RESETS or any(_number(values.get(name)) > 0 for name in (PENDING, *_REPAIRS))


def _number(value: Value | None) -> float:
    return value if isinstance(value, int | float) else 0


def _of_gpus(measurements: Iterable[Measurement]) -> dict[int, dict[str, Value]]:
    seen: dict[int, dict[str, Value]] = defaultdict(dict)
    for m in measurements:
        if m.subject.gpu >= 0 and m.subject.link < 0:
            seen[m.subject.gpu][m.metric] = m.value
    return seen

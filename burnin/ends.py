"""How a GPU's processes fared with CUDA, as flags: made from their last words, by the suite, once a GPU. Pure.

A process says `cuda_result` itself ("ok", a CudaError's word, "hung"); one that never came back cannot, and its
silence is the word. Of a GPU of which nothing is known there is no flag.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from burnin.supervise import Ended, How

CUDA_RESULT: Final = "cuda_result"
OK: Final = "ok"
HUNG: Final = "hung"
# A workload of ours speaks once a second; one that was stopped after so long without a word was in a driver call.
HUNG_SILENCE_S: Final = 10.0

_FAILED = "cuda_failed"
_FLAG_OF = {
    HUNG: "cuda_hung",
    "ecc_uncorrectable": "cuda_ecc_uncorrectable",
    "fabric_not_ready": "cuda_fabric_not_ready",
    "no_device": "cuda_gpu_lost",
    "gpu_absent": "cuda_gpu_lost",
    "gpu_lost": "cuda_gpu_lost",
}
# The node's software or ours was at fault: nothing is said of the GPU.
_NOT_THE_GPU = frozenset(
    {
        "out_of_memory", "stub_library", "driver_mismatch", "compat_not_supported", "invalid_image",
        "no_binary_for_gpu", "invalid_ptx", "unsupported_ptx_version", "jit_compiler_not_found", "jit_disabled",
        "not_found",
    }
)  # fmt: skip
FLAGS: Final = (*dict.fromkeys(_FLAG_OF.values()), _FAILED)


def word_of(ended: Ended) -> str | None:
    """What the end of a process says of its GPU: HUNG, or None when the process had to speak for itself."""
    silent = ended.silent_s >= HUNG_SILENCE_S
    if ended.how is How.SILENT or ended.stuck or (ended.how is How.DEADLINE and silent):
        return HUNG
    return None


def flags(words: Iterable[str]) -> dict[str, int]:
    """FLAGS by name, 0 or 1, from all that was said of one GPU; empty when that tells nothing of it."""
    said = set(words) - _NOT_THE_GPU
    if not said:
        return {}
    raised = {_FLAG_OF.get(word, _FAILED) for word in said - {OK}}
    return {flag: int(flag in raised) for flag in FLAGS}

"""How CUDA fared on a GPU: from what its processes said, and from the silence of those that never came back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnin.ends import FLAGS, HUNG, flags, word_of
from burnin.supervise import Ended, How

CLEAN = dict.fromkeys(FLAGS, 0)


@pytest.mark.parametrize(
    ("words", "raised"),
    [
        (["ok", "ok"], set()),
        (["ok", "hung"], {"cuda_hung"}),
        (["ecc_uncorrectable", "ok"], {"cuda_ecc_uncorrectable"}),
        (["fabric_not_ready"], {"cuda_fabric_not_ready"}),
        (["gpu_absent"], {"cuda_gpu_lost"}),
        (["no_device"], {"cuda_gpu_lost"}),
        (["unknown_error"], {"cuda_failed"}),
        (["a word of a later driver", "hung"], {"cuda_failed", "cuda_hung"}),
        (["ok", "driver_mismatch"], set()),
    ],
)
def test_each_word_raises_its_flag_and_no_other(words: list[str], raised: set[str]) -> None:
    """Whatever one process met holds, however well the others did."""
    assert flags(words) == {**CLEAN, **dict.fromkeys(raised, 1)}


@pytest.mark.parametrize("words", [[], ["driver_mismatch"], ["no_binary_for_gpu", "out_of_memory"]])
def test_a_gpu_of_which_nothing_is_known_has_no_flag(words: list[str]) -> None:
    """Neither silence nor a fault of the node's software makes it good or bad."""
    assert flags(words) == {}


@given(st.lists(st.sampled_from(["ok", "hung", "ecc_uncorrectable", "unknown_error", "not_found"])), st.text())
def test_another_word_never_takes_a_flag_away(words: list[str], more: str) -> None:
    """Evidence only adds up."""
    before, after = flags(words), flags([*words, more])
    assert all(after[flag] >= value for flag, value in before.items())


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        (Ended(How.EXITED, 30), None),
        (Ended(How.SIGNALLED, 30, status=11, silent_s=20), None),
        (Ended(How.SILENT, 90, silent_s=60), HUNG),
        (Ended(How.DEADLINE, 90, silent_s=12), HUNG),
        (Ended(How.DEADLINE, 90, silent_s=0.4), None),
        (Ended(How.STOPPED, 9, silent_s=0.4), None),
        (Ended(How.STOPPED, 9, stuck=(4711,)), HUNG),
        (Ended(How.NOT_STARTED, 0), None),
    ],
)
def test_silence_is_the_word_of_a_process_that_never_came_back(ended: Ended, word: str | None) -> None:
    """Slow is not hung: one that still spoke when its time was over was at work."""
    assert word_of(ended) == word

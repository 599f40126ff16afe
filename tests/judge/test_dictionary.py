"""Strings of the platform's tools find their cause, and ordinary ones find none."""

from __future__ import annotations

import time

import pytest

from toolkit.judge.dictionary import KNOWN, known_error, known_errors

# As the tools print them; made up around the string, which is the vendor's.
SAID = {
    "CUDA_SYSTEM_NOT_READY": [
        "cudaGetDeviceCount returned error 802: system not yet initialized", "CUDA_ERROR_SYSTEM_NOT_READY",
        "Test CUDA failure common.cu:952 'system not yet initialized'", "RuntimeError: CUDA error code=802",
    ],
    "FM_PRE_NVL5": ["fabricmanager: Detected Pre-NVL5 system"],
    "DRIVER_VERSION_SKEW": [
        "fabric manager NVIDIA GPU driver interface version 580.82.07 don't match with driver version 580.95.05",
    ],
    "FM_NOTHING_TO_DO": ["request to query NVSwitch device information failed with error:NV_WARN_NOTHING_TO_DO"],
    "IMEX_IN_USE": ["failed to create channel: NV_ERR_IN_USE"],
    "FABRIC_INSUFFICIENT_RESOURCES": ["        Status                            : Insufficient Resources"],
    "IMEX_DEGRADED": ["Domain State: DEGRADED", "IMEX node 3 UNAVAILABLE, version ''"],
    "CHASSIS_UNMAPPED": ["ERROR: Chassis mapping is missing"],
    "IB_POLLING": ["Physical state: Polling", "leaf-1 port 5 is Down/Polling", "physical state: 2: Polling"],
    "IB_INITIALIZING": ["State: Initializing", "state: 2: INIT"],
    "IB_RAIL_MISMATCH": ["-E- Node rail connectivity mismatch"],
    "IB_LIMITED_MEMBER": ["pkeys: 0x7fff 0x0000", "0x7fff"],
    "NSCQ_UNHELD": ["libnvidia-nscq-580 : Depends: x (= 1) but 2 is to be installed; unmet dependencies"],
    "NO_GPU_FOUND": ["No devices were found"],
}  # fmt: skip


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in SAID.items() for text in texts])
def test_what_a_tool_says_finds_its_cause(code, text):
    """Anywhere in a longer message, in any case of letters."""
    for message in (text, f"TASK failed on dgx-001: {text}, rc 1", text.upper()):
        assert code in [known.code for known in known_errors(message)], message


def test_every_entry_is_tried_and_complete():
    """A cause, an action and a source each; codes are unique."""
    assert set(SAID) == {known.code for known in KNOWN}
    assert len({known.code for known in KNOWN}) == len(KNOWN)
    for known in KNOWN:
        assert all((known.says, known.cause, known.next, known.source))
        assert known_error(known.code) is known


@pytest.mark.parametrize(
    "text",
    [
        "", "error 8021", "port 802 is closed", "State: Active", "Physical state: LinkUp", "pkeys: 0x8001 0x7fff",
        "0xffff 0x7fff",
        "libnvidia-nscq-580 is already the newest version", "Domain State: UP", "error while waiting for the node",
    ],
)  # fmt: skip
def test_ordinary_words_find_nothing(text):
    """A full member beside 0x7fff is well; 802 alone is a number."""
    assert known_errors(text) == ()


@pytest.mark.parametrize("word", ["0x7fff ", "libnvidia-nscq", "IMEX ", "state: ", "0x", "error "])
def test_a_hostile_message_costs_no_time(word):
    """A node wrote it: megabytes of almost-matches."""
    text = word * 500_000
    began = time.process_time()
    known_errors(text)
    assert time.process_time() - began < 2.0

"""Codes of NVOS link diagnostics and what each speaks of.

Source: NVIDIA NVOS User Manual for NVLink Switches v25.02, "Link Diagnostic Per Port" (0 to 1023: firmware's PHY
indication; 1024 to 2047: firmware management).
"""

from __future__ import annotations

from enum import StrEnum

OK, UNPLUGGED = 0, 1024


class LinkTrouble(StrEnum):
    """What a code speaks of."""

    NONE = "nothing wrong"
    CLOSED = "the port was closed by a command"
    NEGOTIATION = "negotiation or training failed, or no partner answers"
    SIGNAL = "bad signal"
    SPEED = "trained below its speed"
    MISMATCH = "the two ends or the cable do not fit one another"
    INTERNAL = "an error inside the switch"
    UNPLUGGED = "nothing is plugged in"
    PENDING = "the switch still looks for the cause"
    UNKNOWN = "a code that the manual does not name"


_RANGES = (
    (range(0, 1), LinkTrouble.NONE),
    (range(1, 2), LinkTrouble.CLOSED),
    (range(2, 9), LinkTrouble.NEGOTIATION),
    (range(9, 14), LinkTrouble.MISMATCH),
    (range(14, 16), LinkTrouble.SIGNAL),  # 14: the far end reports a fault
    (range(16, 17), LinkTrouble.MISMATCH),
    (range(17, 18), LinkTrouble.SIGNAL),
    (range(18, 20), LinkTrouble.INTERNAL),
    (range(22, 24), LinkTrouble.INTERNAL),
    (range(24, 33), LinkTrouble.MISMATCH),
    (range(34, 36), LinkTrouble.SPEED),
    (range(38, 40), LinkTrouble.NEGOTIATION),
    (range(40, 42), LinkTrouble.MISMATCH),
    (range(42, 43), LinkTrouble.SIGNAL),
    (range(48, 50), LinkTrouble.SIGNAL),
    (range(50, 51), LinkTrouble.INTERNAL),
    (range(52, 53), LinkTrouble.SIGNAL),
    (range(55, 56), LinkTrouble.INTERNAL),
    (range(56, 57), LinkTrouble.SIGNAL),
    (range(57, 58), LinkTrouble.SIGNAL),
    (range(60, 61), LinkTrouble.NEGOTIATION),
    (range(128, 129), LinkTrouble.PENDING),
    (range(1024, 1025), LinkTrouble.UNPLUGGED),
)


def trouble_of(code: int) -> LinkTrouble:
    """What the code speaks of; 1023 (information not available) and codes without a name are UNKNOWN."""
    return next((trouble for codes, trouble in _RANGES if code in codes), LinkTrouble.UNKNOWN)

"""What BMCs are found to be, code by code."""

from __future__ import annotations

BMC_CODES = {
    "COOLANT_LEAK": "A leak detector of a tray is wet. The rack is not powered on, and what has power should lose it: "
    "rackproof power off RACK. The message names tray, slot, serial and detector.",
    "LEAK_UNDECIDED": "Not every leak detector that the profile has says that it is dry: one is missing, disabled or "
    "silent, or its BMC does not answer. Nothing is powered on over what nobody knows.",
    "BMC_OVERRIDE_STAYS": "The BMC was asked for one network boot and goes on asking for one at every start; it could "
    "not be cleared. The image may be up: the message says so. Clear the override at the BMC, then run bringup again.",
    "BMC_OVERRIDE_IGNORED": "The BMC accepted a network boot for the next start and shows nothing of it. Nothing was "
    "switched: the old disk would have booted.",
    "BMC_FACTORY_LOGIN": "A login that its maker ships opens this BMC, and everybody knows it. Change it before the "
    "BMC's network is reachable by anybody else.",
}

"""Xid 144-150, NVLink 5: which unit raised the error and what NVIDIA does about it, from the line's two first words.

    NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT Fatal XC0 i0 Link 01 (0x021425c6 0x00000000 ...)
                                                                          IntrInfo   error status

The unit's code stands in bits 9..5 of IntrInfo before driver R575 and in bits 6..0 since; the link's event in bits
25..20 in both. The word Fatal is the interrupt's own severity and not the recovery action: the tables below are.
Facts of NVIDIA's Xid catalog, sheet "144-150 decode"; layout ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from toolkit.judge.xids import Rule

_R575 = 575


class Layout(StrEnum):
    """Where IntrInfo keeps the unit's code."""

    BEFORE_R575 = "before R575"
    SINCE_R575 = "since R575"


class Step(StrEnum):
    """NVIDIA's recovery action of an error."""

    IGNORE = "IGNORE"
    RESET_GPU = "RESET_GPU"
    FOLLOW_154 = "XID_154_EVAL"  # what a 154 beside it asks; without one, the application is restarted


class Next(StrEnum):
    """Where NVIDIA would look afterwards."""

    NOWHERE = "IGNORE"
    SUPPORT = "CONTACT_SUPPORT"
    LINK_FLOW = "CHECK_NVLINK_FAILURE_FLOW"
    SYMPATHETIC = "SYMPATHETIC_REPORT_SOLO"
    DAILY = "REPORT_ISSUE"
    SIGNAL = "INVESTIGATE_LINK_SI"
    SOFTWARE = "INVESTIGATE_SW_USER"
    SOFTWARE_OR_SIGNAL = "INVESTIGATE_SW_USER_LINK_SI"
    PEER = "INVESTIGATE_PEER_DEVICE"
    HOST = "INVESTIGATE_HOST"
    CABLES = "INVESTIGATE_LINK_SI_AND_CABLES"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a line of 144-150 says. `layout` None: both read the same."""

    unit: str
    step: Step
    next: Next
    layout: Layout | None

    @property
    def rule(self) -> Rule:
        """Ours: a reset and a rerun settle a software state; signal integrity and cables need a technician."""
        if self.next is Next.CABLES:
            return Rule.SERVICE
        if self.step is Step.RESET_GPU:
            return Rule.RESET_AND_RERUN
        if self.step is Step.IGNORE and self.next is Next.NOWHERE:
            return Rule.NOTE  # corrected where it happened
        return Rule.RERUN


@dataclass(frozen=True, slots=True)
class _Unit:
    xid: int
    name: str
    code_before: int
    code_since: int
    errors: Mapping[int, tuple[Step, Next]]


_I, _R, _F = Step.IGNORE, Step.RESET_GPU, Step.FOLLOW_154
_ANY = -1  # whatever the error status is
_TOP = 0x80000000
_QUIET, _TELL, _RESET = (_I, Next.NOWHERE), (_I, Next.SUPPORT), (_R, Next.SUPPORT)


def _each(outcome: tuple[Step, Next], *errors: int) -> dict[int, tuple[Step, Next]]:
    return dict.fromkeys(errors, outcome)


_PIPE = _each(_QUIET, 1) | _each(_TELL, 2, _TOP) | _each(_RESET, 4)
_UNITS = (
    _Unit(144, "SAW_MVB", 1, 1, _each(_TELL, 1, 8) | _each(_RESET, 2, 0x10) | _each(_QUIET, 4, 0x20)),
    _Unit(145, "RLW_CTRL", 3, 3, _each(_TELL, _TOP)),
    _Unit(145, "RLW_REMAP", 4, 4, _each((_F, Next.SUPPORT), 1, 2) | _each((_F, Next.LINK_FLOW), 4, 8, 0x10, 0x20)
          | _each(_RESET, 0x40, 0x80) | _each(_QUIET, 0x100, 0x200) | _each(_TELL, _TOP)),
    _Unit(145, "RLW_RSPCOL", 5, 5, _each(_QUIET, 1) | _each(_RESET, 2) | _each(_TELL, _TOP)),
    _Unit(145, "RLW_RXPIPE", 6, 6, _each(_TELL, 1, 2, 4, 8, _TOP)),
    _Unit(145, "RLW_SRC_TRACK", 7, 7, _each(_RESET, 1, 0x10, 0x20) | _each(_QUIET, 2)
          | _each((_F, Next.NOWHERE), 4, 8) | _each(_TELL, _TOP)),
    _Unit(145, "RLW_TAGSTATE", 8, 8, _each(_QUIET, 1, 0x10000) | _each(_RESET, 2, 0x20000, 0x100000)
          | _each(_TELL, _TOP)),
    _Unit(146, "TLW_CTRL", 9, 9, _PIPE),
    _Unit(146, "TLW_RX_PIPE0", 10, 10, _PIPE),
    _Unit(146, "TLW_RX_PIPE1", 10, 11, _PIPE),
    _Unit(146, "TLW_TX_PIPE0", 11, 12, _PIPE),
    _Unit(146, "TLW_TX_PIPE1", 11, 13, _PIPE),
    _Unit(147, "TREX", 12, 14, _each(_TELL, 1, _TOP)),
    _Unit(148, "NVLPW", 0, 15, _each(_TELL, _TOP)),
    _Unit(149, "NETIR", 0, 24, _each((_R, Next.SYMPATHETIC), _ANY)),
    _Unit(149, "NETIR_BER_EVENT", 17, 19, _each((_I, Next.CABLES), 0, 1, 2, 3)),
    _Unit(149, "NETIR_MFDE_EVENT", 18, 20, _each(_RESET, 1, 4, 5, 7) | _each(_QUIET, 3)),
    _Unit(150, "MSE", 0, 0, _each(_RESET, _ANY)),
)  # fmt: skip

_LINK_EVENT = "NETIR_LINK_DOWN"
_LINK_CODES = {Layout.BEFORE_R575: 14, Layout.SINCE_R575: 17}
# Bits 25..20: why the link went down.
_LINK_EVENTS: Mapping[int, tuple[Step, Next]] = MappingProxyType(
    _each((_R, Next.SYMPATHETIC), 0)
    | _each((_R, Next.DAILY), 1)
    | _each((_R, Next.SIGNAL), 2, 4, 10)
    | _each((_R, Next.SOFTWARE), 15, 17, 22)
    | _each((_R, Next.SOFTWARE_OR_SIGNAL), 16, 18)
    | _each((_R, Next.PEER), 21, *range(32, 38))
    | _each((_I, Next.SOFTWARE), 38)
    | _each((_I, Next.HOST), 40)
    | _each((_R, Next.CABLES), 42, 43)
)
_DRIVER = re.compile(r"(\d{3,4})(?:\.\d{1,6}){0,3}\Z")


def layout_of(driver: str | None) -> Layout | None:
    """The layout a driver writes (`580.95.05`); None where the version is not known."""
    match = _DRIVER.match(driver or "")
    if match is None:
        return None
    return Layout.SINCE_R575 if int(match[1]) >= _R575 else Layout.BEFORE_R575


def decode(xid: int, registers: Sequence[str], driver: str | None = None) -> Decoded | None:
    """What the registers of a line say; None where they are too few or name no unit of that Xid.

    Without the driver's version both layouts are tried: no value names a unit in both, save 150's, which is one.
    """
    words = _words(registers)
    known = layout_of(driver)
    tried = (known,) if known else tuple(Layout)
    found = [d for layout in tried for d in _read(xid, words, layout)] if words else []
    first = found[0] if found else None
    if first is None or all(d.layout is first.layout for d in found):
        return first
    return Decoded(first.unit, first.step, first.next, None)


def _words(registers: Sequence[str]) -> list[int]:
    words = []
    for register in registers[:2]:
        try:
            words.append(int(register, 16))
        except ValueError:
            return []
    return words


def _read(xid: int, words: Sequence[int], layout: Layout) -> Iterator[Decoded]:
    intr = words[0]
    before = layout is Layout.BEFORE_R575
    # before R575 bits 4..0 repeat the Xid (144 is 1 ... 149 is 6, 150 is 0): they tell the layouts apart
    if before and intr & 0x1F != (xid - 143) % 7:
        return
    code = intr >> 5 & 0x1F if before else intr & 0x7F
    if xid == 149 and code == _LINK_CODES[layout]:
        outcome = _LINK_EVENTS.get(intr >> 20 & 0x3F)
        if outcome:
            yield Decoded(_LINK_EVENT, *outcome, layout)
        return
    for unit in _UNITS:
        if unit.xid == xid and code == (unit.code_before if before else unit.code_since):
            status = words[1] if len(words) > 1 else None
            outcome = unit.errors.get(_ANY) or (unit.errors.get(status) if status is not None else None)
            if outcome:
                yield Decoded(unit.name, *_second(unit, intr, status, before, outcome), layout)


def _second(unit: _Unit, intr: int, status: int | None, before: bool, outcome: tuple[Step, Next]) -> tuple[Step, Next]:
    """RLW_RXPIPE's packet errors need a reset when the bit above the unit's code is set."""
    fatal = intr >> (10 if before else 7) & 1
    return _RESET if unit.name == "RLW_RXPIPE" and status in (1, 2, 4) and fatal else outcome

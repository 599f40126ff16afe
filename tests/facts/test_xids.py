"""The Xid catalog as the burn-in uses it: classes, rules, texts that decide, the registers of 144-150."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.judge.xids import (
    XIDS,
    Board,
    Kind,
    Rule,
    entry,
    memory_part,
    read_text,
    recovery_rule,
    sxid_rule,
    worse_recovery,
)
from toolkit.judge.xids_nvlink import Layout, Next, Step, decode, layout_of


@pytest.mark.parametrize("number", [0, 1, 122, 125, 138, 152, 174, 178, 9999])
def test_a_number_in_no_list_is_unknown_and_never_a_note(number: int) -> None:
    """What nobody can explain is looked at by a person."""
    found = entry(number)
    assert (found.kind, found.rule, found.counts) == (Kind.UNKNOWN, Rule.SERVICE, True)


@given(st.integers(0, 999_999))
def test_only_a_listed_number_is_a_note(number: int) -> None:
    """Notes count against nobody: each is there on purpose."""
    assert number in XIDS or entry(number).kind is Kind.UNKNOWN


def test_the_catalog_is_consistent() -> None:
    """Every entry knows its own number; notes ask for nothing; what counts asks for something."""
    for number, found in XIDS.items():
        assert found.number == number and found.mnemonic and found.source
        assert (found.kind is Kind.NOTE) == (found.rule is Rule.NOTE) or number == 154, number
        assert found.repeat is None or found.repeat.rank >= found.rule.rank, number
        assert found.boards is None or found.boards <= set(Board)


@pytest.mark.parametrize(
    ("number", "kind", "rule"),
    [
        (79, Kind.LOST, Rule.REBOOT), (48, Kind.MEMORY, Rule.RESET_AND_RERUN), (63, Kind.MEMORY, Rule.RESET_AND_RERUN),
        (149, Kind.LINK, Rule.RESET_AND_RERUN), (62, Kind.HARDWARE, Rule.RESET_AND_RERUN),
        (119, Kind.DRIVER, Rule.RESET_AND_RERUN), (31, Kind.APPLICATION, Rule.RERUN),
        (45, Kind.CONSEQUENCE, Rule.RESTART), (137, Kind.NOTE, Rule.NOTE), (54, Kind.HARDWARE, Rule.SERVICE),
        (72, Kind.DRIVER, Rule.RERUN), (161, Kind.MEMORY, Rule.RMA_TRIAGE),
    ],
)  # fmt: skip
def test_the_class_and_rule_of_well_known_numbers(number: int, kind: Kind, rule: Rule) -> None:
    """One of each class."""
    assert (entry(number).kind, entry(number).rule) == (kind, rule)


@pytest.mark.parametrize(
    ("number", "text", "rule"),
    [
        (64, "Row Remapper Error: (0x1) - Row Remapping table is full", Rule.RMA_TRIAGE),
        (64, "Row Remapper Error: (0x1) - All reserved rows for bank are remapped", Rule.RMA_TRIAGE),
        (64, "DRAM Retirement failed due to no spare for retirement at 0x1", Rule.RMA_TRIAGE),
        (64, "Attempting to remap a row that is already pending remapping.", Rule.RESET_AND_RERUN),
        (64, "a reason that was invented tomorrow", Rule.RMA_TRIAGE),
        (160, "Marking Channel 3 for repair. Perform node reboot to activate repair.", Rule.REBOOT),
        (160, "Marking Channel 3 for repair. Perform GPU reset to activate repair.", Rule.RESET_AND_RERUN),
    ],
)
def test_the_text_decides_where_the_number_does_not(number: int, text: str, rule: Rule) -> None:
    """64 is a reset or a replacement; what is not understood is not taken for the mild case."""
    assert read_text(number, text).rule is rule


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Disabling ECC single-bit error interrupts in framebuffer at logical partition 3", "DRAM"),
        ("SM SBE interrupt storm detected", "SRAM"),
        ("Uncorrectable SRAM error", "SRAM"),
        ("something", None),
    ],
)
def test_a_storm_of_corrected_errors_is_told_by_dram_or_sram(text: str, part: str | None) -> None:
    """92 and 94 name it in words."""
    assert memory_part(text) == part


def test_the_worst_recovery_action_is_kept() -> None:
    """The driver goes from drain-and-reset back to reset; a reboot is worse than both."""
    assert worse_recovery(4, 1) == 4 and worse_recovery(1, 4) == 4 and worse_recovery(2, 4) == 2
    assert worse_recovery(99, 7) == 99 and recovery_rule(99) is Rule.SERVICE
    for one, other in itertools.product(range(8), repeat=2):
        assert recovery_rule(worse_recovery(one, other)).rank >= max(recovery_rule(one).rank, recovery_rule(other).rank)


@pytest.mark.parametrize(
    ("xid", "registers", "driver", "unit", "step", "then"),
    [
        (149, ("0x021425c6", "0x0"), None, "NETIR_LINK_DOWN", Step.RESET_GPU, Next.PEER),
        (149, ("0x00200011", "0x0"), "580.95.05", "NETIR_LINK_DOWN", Step.RESET_GPU, Next.SIGNAL),
        (149, ("0x00082226", "0x1"), "570.124.06", "NETIR_BER_EVENT", Step.IGNORE, Next.CABLES),
        (145, ("0x040868e2", "0x8"), None, "RLW_SRC_TRACK", Step.FOLLOW_154, Next.NOWHERE),
        (145, ("0x00000006", "0x1"), None, "RLW_RXPIPE", Step.IGNORE, Next.SUPPORT),
        (145, ("0x00000086", "0x1"), None, "RLW_RXPIPE", Step.RESET_GPU, Next.SUPPORT),
        (150, ("0x0", "0x0"), None, "MSE", Step.RESET_GPU, Next.SUPPORT),
    ],
)
def test_registers_are_decoded_in_both_layouts(
    xid: int, registers: tuple[str, ...], driver: str | None, unit: str, step: Step, then: Next
) -> None:
    """The layout is the driver's where its version is known, and the value's own where it is not."""
    found = decode(xid, registers, driver)
    assert found is not None and (found.unit, found.step, found.next) == (unit, step, then)


def test_a_layout_that_is_not_the_drivers_is_not_read() -> None:
    """Bits 9..5 of a value written since R575 mean something else."""
    assert decode(145, ("0x040868e2", "0x8"), "580.95.05") is None
    assert decode(145, ("0x040868e2", "0x8"), "570.1") is not None
    assert decode(149, (), None) is None and decode(149, ("none",), None) is None


@given(st.integers(144, 150), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_value_but_one_means_a_unit_in_both_layouts(xid: int, intr: int, status: int) -> None:
    """Reading without a driver version is safe because the layouts do not overlap, save in 150."""
    registers = (hex(intr), hex(status))
    both = [decode(xid, registers, driver) for driver in ("570.1", "580.1")]
    assert xid == 150 or None in both


def test_versions_of_drivers_fix_the_layout() -> None:
    """R575 is the first with the new one."""
    assert layout_of("574.99") is Layout.BEFORE_R575 and layout_of("575.51.03") is Layout.SINCE_R575
    assert layout_of(None) is None and layout_of("unknown") is None


def test_the_word_in_the_line_decides_over_the_switch_errors_number() -> None:
    """Without the word the number does, and a number nobody knows is unknown."""
    assert sxid_rule(20034, "fatal") == (Kind.LINK, Rule.REBOOT)
    assert sxid_rule(12028, None) == (Kind.LINK, Rule.NOTE) and sxid_rule(12028, "fatal") == (Kind.LINK, Rule.REBOOT)
    assert sxid_rule(23005, "nonfatal") == (Kind.HARDWARE, Rule.REBOOT)
    assert sxid_rule(28006, "nonfatal") == (Kind.LINK, Rule.NOTE)
    assert sxid_rule(28006, None) == (Kind.UNKNOWN, Rule.SERVICE)

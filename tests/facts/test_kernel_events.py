"""Counts for the gates from a run's kernel log, and the joining of lines. Whole logs with answers are in cases/."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.facts import kernel_events, kernel_log
from toolkit.facts.kernel_events import measured
from toolkit.facts.log_time import seconds_of
from toolkit.judge.xids import Kind, Rule

GPUS = {"00000000:1B:00.0": 0, "00000009:01:00.0": 1}
KINDS = ("memory", "lost", "link", "hardware", "driver", "application")


def counts(text: str, **options: object) -> dict[tuple[str, int | None], int]:
    found = measured(text, GPUS, **options)  # type: ignore[arg-type]
    assert all(unit == "count" for _, unit, _, _ in found)
    assert len({(metric, gpu) for metric, _, _, gpu in found}) == len(found), "a metric is measured once per subject"
    return {(metric, gpu): value for metric, _, value, gpu in found}


def xid(number: int, text: str, pci: str = "0000:1b:00", at: float = 1.0) -> str:
    return f"4,1,{int(at * 1e6)},-;NVRM: Xid (PCI:{pci}): {number}, {text}\n"


def test_a_quiet_log_is_zero_for_every_planned_gpu() -> None:
    """Silence in a log that was read to its end is health."""
    wanted = {(f"xid_{kind}_events", gpu): 0 for kind in KINDS for gpu in (0, 1)}
    assert counts("") == counts("4,1,1,-;usb 1-1: new device\n") == wanted | {("xid_unplaced_events", None): 0}


@pytest.mark.parametrize(
    ("text", "complete"),
    [("", False), (xid(79, "gone") + "[73 bytes more]\n", True), ("x\n" * (2 << 20) + "y", True)],
    ids=["not read", "cut by the node", "longer than is read"],
)
def test_a_log_that_was_not_read_whole_gives_no_number(text: str, complete: bool) -> None:
    """Unknown is not zero, and the part that was read is not the whole."""
    assert measured(text, GPUS, complete=complete) == []


def test_events_are_counted_on_their_gpu_by_class() -> None:
    """Addresses are compared as numbers of the bus, whoever wrote them."""
    text = (
        xid(48, "DBE at physAddr 0x10")
        + xid(63, "Row Remapper: New row (0x10) marked")
        + xid(74, "NVLink: fatal error detected on link 3(0x0)", "0009:01:00")
    )
    found = counts(text)
    assert {key: n for key, n in found.items() if n} == {("xid_memory_events", 0): 1, ("xid_link_events", 1): 1}


def test_what_no_planned_gpu_has_counts_for_the_node() -> None:
    """An unplanned address, an unknown number and a line nobody can read are not lost."""
    text = xid(79, "gone", "0000:ff:00") + xid(998, "new") + "NVRM: Xid: 79\n"
    assert {key: n for key, n in counts(text).items() if n} == {("xid_unplaced_events", None): 3}


def test_notes_and_switch_errors_are_counted_nowhere_here() -> None:
    """A note is no trouble; SXids are the node's own count."""
    text = xid(66, "note") + "nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 3 LTSSM Fault Up\n"
    assert not any(counts(text).values())


def test_a_lost_gpu_is_one_event_with_or_without_an_xid() -> None:
    """79 and the line beside it are one; a GPU lost at probe has only the line."""
    both = xid(79, "GPU has fallen off the bus.") + "NVRM: GPU 0000:1b:00.0: GPU has fallen off the bus.\n"
    assert counts(both)["xid_lost_events", 0] == 1
    assert counts("NVRM: GPU 0009:01:00.0: GPU has fallen off the bus.\n")["xid_lost_events", 1] == 1
    assert counts("NVRM: GPU 0009:01:00.0: RmInitAdapter failed! (0x62)\n")["xid_lost_events", 1] == 1


def test_a_repair_that_comes_again_later_is_a_replacement() -> None:
    """Two bursts on one GPU; the same two on two GPUs are not a repeat."""
    again = kernel_events.parse(xid(63, "New row", at=1) + xid(63, "New row", at=100)).events
    apart = kernel_events.parse(xid(63, "New row", at=1) + xid(63, "New row", "0009:01:00", at=100)).events
    assert [e.rule for e in again] == [Rule.RESET_AND_RERUN, Rule.RMA_TRIAGE]
    assert [e.rule for e in apart] == [Rule.RESET_AND_RERUN, Rule.RESET_AND_RERUN]


def test_the_worst_recovery_action_decides_the_rule() -> None:
    """Drain-and-reset then reset keeps drain-and-reset; a node reboot makes the event a reboot."""
    change = "GPU recovery action changed from 0x{:x} (a) to 0x{:x} (b)"
    (event,) = kernel_events.parse(
        xid(31, "fault") + xid(154, change.format(0, 4)) + xid(154, change.format(4, 1))
    ).events
    assert (event.number, event.recovery, event.rule) == (31, 4, Rule.RESET_AND_RERUN)
    (event,) = kernel_events.parse(xid(31, "fault") + xid(154, change.format(0, 2))).events
    assert (event.recovery, event.rule) == (2, Rule.REBOOT)


def test_a_recovery_action_alone_is_a_fault_and_its_end_is_a_note() -> None:
    """Something asked for the reset, even if its line is not in the window."""
    (asked,) = kernel_events.parse(xid(154, "GPU recovery action changed from 0x0 (None) to 0x1 (Reset)")).events
    (over,) = kernel_events.parse(xid(154, "GPU recovery action changed from 0x0 (None) to 0x0 (None)")).events
    assert (asked.kind, asked.rule, over.kind) == (Kind.HARDWARE, Rule.RESET_AND_RERUN, Kind.NOTE)


def test_a_link_keeps_both_its_ends() -> None:
    """Which of the two is at fault is not in the line."""
    (event,) = kernel_events.parse(xid(74, "NVLink: fatal error detected on link 14(0x0, 0x0)")).events
    assert (event.kind, event.link, len(event.ends)) == (Kind.LINK, 14, 2)
    assert "link 14" in str(event) and "0000:1b:00" in str(event)


def test_the_consequence_is_filed_under_the_cause_it_names() -> None:
    """45 caused by 149 on the same GPU; one whose cause is in no line makes an event of that cause."""
    text = xid(149, "NETIR_LINK_EVT Fatal XC0 i0 Link 07 (0x004485c6 0x0)") + xid(45, "Ch 1 caused by previous Xid 149")
    (event,) = kernel_events.parse(text).events
    assert event.numbers == (45, 149) and len(event.consequences) == 1
    (event,) = kernel_events.parse(xid(45, "Ch 1 caused by previous Xid 149")).events
    assert (event.number, event.kind) == (149, Kind.LINK)


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("4,12,7500000,-;NVRM: x", 7.5),
        ("[   12.500000] NVRM: x", 12.5),
        ("kernel: [   12.500000][ T1946] NVRM: x", 12.5),
        ("[  12.500000 T1946] NVRM", 12.5),
        ("NVRM: no time at all", None),
        ("[Sun Feb 31 10:00:00 2026] no such day", None),
    ],
)
def test_the_time_of_a_line_is_read_or_not_known(line: str, seconds: float | None) -> None:
    """A time that is none is not guessed."""
    assert seconds_of(line) == seconds


def test_dates_of_words_and_of_digits_are_seconds_apart() -> None:
    """dmesg -T and journalctl differ in form, not in what a second is."""
    for one, other in (
        ("[Sun Mar  1 10:00:00 2026] x", "[Sun Mar  1 10:00:06 2026] x"),
        ("Mar  1 10:00:00 node kernel: x", "Mar  1 10:00:06 node kernel: x"),
        ("2026-03-01T10:00:00,250000+00:00 x", "2026-03-01T10:00:06,250000+00:00 x"),
    ):
        first, second = seconds_of(one), seconds_of(other)
        assert first is not None and second is not None and second - first == 6


@given(
    st.lists(st.sampled_from([13, 31, 43, 45, 48, 63, 64, 79, 94, 119, 137, 145, 149, 154, 999]), max_size=40),
    st.data(),
)
def test_every_line_is_in_exactly_one_event(numbers: list[int], data: st.DataObject) -> None:
    """Whatever comes in whatever order, no line is dropped and none is counted twice."""
    places = [data.draw(st.sampled_from(["0000:1b:00", "0009:01:00"])) for _ in numbers]
    times = sorted(data.draw(st.floats(0, 200)) for _ in numbers)
    causes = [data.draw(st.sampled_from(["", " caused by previous Xid 149"])) for _ in numbers]
    text = "".join(xid(n, f"words{c}", p, t) for n, p, t, c in zip(numbers, places, times, causes, strict=True))
    found = kernel_events.parse(text).events
    # a tool that prints one line twice is not undone here: each line is its own
    assert sum(e.lines for e in found if e.source == "xid") == len(kernel_log.parse(text).xids)
    named = {n for e in found for n in e.numbers}
    assert set(numbers) <= named
    assert all(e.kind is Kind.UNKNOWN for e in found if e.number == 999)


@pytest.mark.parametrize(
    "line",
    ["NVRM: Xid (PCI:0000:1b:00): {}, x\n", "NVRM: Xid (PCI:{:04x}:1b:00): 45, x\n",
     "NVRM: Xid (PCI:{:04x}:1b:00): 45, caused by previous Xid 149\n"],
)  # fmt: skip
def test_a_flood_of_different_errors_is_joined_in_bounded_time(line: str) -> None:
    """What a broken node can print costs seconds, and the rest of it is not called zero."""
    text = "".join(line.format(n) for n in range(20_000))
    began = time.process_time()
    found = kernel_events.parse(text)
    assert time.process_time() - began < 20 and 0 < len(found.events) <= kernel_events.MAX_EVENTS
    if len(found.events) == kernel_events.MAX_EVENTS:
        assert found.doubts and measured(text, GPUS) == []

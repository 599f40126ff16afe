"""The kernel's log over a run: new lines only, counted once, and never 0 when it could not be read."""

from __future__ import annotations

import os
from pathlib import Path

from burnin.kernel_log import Counts, KernelLog, Xid

OLD = "4,1,100,-;NVRM: Xid (PCI:0000:1b:00): 31, pid=1, name=x, MMU Fault\n"
LOST = "3,9,900,-;NVRM: Xid (PCI:0000:1b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
SXID = (
    "3,7,700,-;nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO\n"
    "3,8,701,-;nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Severity 0 Engine instance 46 Sub-engine 00\n"
    "3,8,702,-;nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Data {0x00000000, 0x00000000}\n"
)


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def test_only_lines_after_the_mark_count(tmp_path: Path) -> None:
    """An Xid of last week is not this run's."""
    kmsg = tmp_path / "kmsg"
    append(kmsg, OLD)
    log = KernelLog(kmsg)
    log.drain()
    assert log.counts() == Counts(0, 0)
    append(kmsg, LOST + "6,10,901,-;usb 1-1: new device\n")
    log.drain()
    append(kmsg, SXID)
    log.drain()
    assert log.counts() == Counts(xids=1, sxids=1)
    assert log.text().decode() == LOST + "6,10,901,-;usb 1-1: new device\n" + SXID
    log.close()


def test_a_line_written_in_two_parts_counts_once(tmp_path: Path) -> None:
    """What was read half is put together."""
    kmsg = tmp_path / "kmsg"
    kmsg.touch()
    log = KernelLog(kmsg)
    for part in (LOST[:30], LOST[30:60], LOST[60:]):
        append(kmsg, part)
        log.drain()
    assert log.counts() == Counts(1, 0)
    log.close()


def test_new_xids_are_told_once_with_their_place(tmp_path: Path) -> None:
    """Address in numbers, severity where the line has it; never twice; a line without an address is only counted."""
    kmsg = tmp_path / "kmsg"
    kmsg.touch()
    log = KernelLog(kmsg)
    append(kmsg, LOST + LOST + "3,1,1,-;NVRM: Xid (0009:01:00): 145, RLW_REMAP Nonfatal XC0 i0 Link 05 (0x00000000)\n")
    append(kmsg, "4,2,2,-;[ T1946] NVRM: Xid (PCI:0008:06:00 GPU-I:02): 149, pid=7, NETIR_LINK_EVT  Fatal   XC0 i0\n")
    append(kmsg, "4,3,3,-;NVRM: Xid (no address): 79, GPU has fallen off the bus.\n")
    log.drain()
    assert log.fresh_xids() == (
        Xid((0, 0x1B, 0), 79, False), Xid((9, 1, 0), 145, False), Xid((8, 6, 0), 149, True)
    )  # fmt: skip
    assert log.fresh_xids() == () and log.counts() == Counts(5, 0)
    append(kmsg, LOST)
    log.drain()
    assert log.fresh_xids() == (Xid((0, 0x1B, 0), 79, False),)
    log.close()


def test_a_log_that_cannot_be_read_has_no_count(tmp_path: Path) -> None:
    """Unknown is not 0."""
    log = KernelLog(tmp_path / "nothing")
    log.drain()
    assert log.counts() is None and "No such file" in log.unreadable
    log.close()


def test_what_is_kept_is_bounded_and_what_is_counted_is_not(tmp_path: Path) -> None:
    """A storm of lines does not fill the disk, and is still counted whole."""
    kmsg = tmp_path / "kmsg"
    kmsg.touch()
    log = KernelLog(kmsg)
    append(kmsg, LOST * 20_000)
    log.drain()
    assert log.counts() == Counts(20_000, 0)
    assert len(log.text()) < (1 << 20) + 100 and log.text().endswith(b"bytes more]\n")
    log.close()


def test_the_real_kernel_log_is_read_where_there_is_one() -> None:
    """/dev/kmsg gives a record a read and EAGAIN at its end; a container may have none."""
    log = KernelLog(Path("/dev/kmsg"))
    log.drain()
    assert log.unreadable or log.counts() is not None
    assert log.unreadable or not os.get_blocking(log._fd)
    log.close()

"""The serial line: escape sequences out, times on, and the phase of the boot read from what firmware and system say."""

from __future__ import annotations

import os

import pytest

from toolkit.virtual.firmware import Phase
from toolkit.virtual.qemu import console
from toolkit.virtual.qemu.console import Console, Line, phase_of, plain


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        (">>Start PXE over IPv4.", Phase.NETWORK_BOOT),
        (">>Start HTTP Boot over IPv4.....", Phase.NETWORK_BOOT),
        ("iPXE initialising devices...ok", Phase.NETWORK_BOOT),
        ("deploy: machine VR00000001, planned disk VD00000001", Phase.RAMDISK),
        ("[   12.345678] systemd[1]: Detected architecture x86-64.", Phase.OPERATING_SYSTEM),
        ("Welcome to Debian GNU/Linux 12 (bookworm)!", Phase.OPERATING_SYSTEM),
        ("node1 login: ", Phase.OPERATING_SYSTEM),
        ("No bootable device.", Phase.NO_BOOT_DEVICE),
        ("BdsDxe: No bootable option or device was found.", Phase.NO_BOOT_DEVICE),
        ("Shell> ", Phase.NO_BOOT_DEVICE),
        ("[    4.1] Kernel panic - not syncing: VFS: Unable to mount root fs", Phase.CRASHED),
        ("[    0.000000] Linux version 6.1.0-56-cloud-amd64", None),
        ("user said deploy: yes", None),
    ],
)
def test_a_line_shows_the_phase_of_the_boot(text, phase):
    """Words of OVMF 2022.11, SeaBIOS 1.16, iPXE 1.0, our ramdisk and systemd."""
    assert phase_of(text) is phase


def test_what_a_terminal_would_obey_is_taken_out():
    """Cursor, colours, titles and control characters; the text is bounded."""
    raw = b"\x1b[2J\x1b[01;01H\x1b[0m\x1b[37mBdsDxe: \x1b]0;owned\x07loading\x08 Boot0001\x1b=\r\n"
    assert plain(raw) == "BdsDxe: loading Boot0001"
    assert len(plain(b"x" * 100_000)) == 400
    assert plain(b"\xff\xfe ok") == "\ufffd\ufffd ok"


def test_lines_carry_their_time_and_a_line_that_has_not_ended_counts(tmp_path):
    """Firmware prints `>>Start PXE over IPv4.` and waits in mid-line: the phase is known then, not a minute later."""
    reading, writing = os.pipe()
    now, phases = [100.0], []
    copied = Console(os.fdopen(reading, "rb"), tmp_path / "console.log", phases.append, lambda: now[0])
    os.write(writing, b"SeaBIOS\r\n\r\n>>Start PXE over IPv4.")
    _until(lambda: phases)
    now[0] = 104.5
    os.write(writing, b"\r\ndeploy: machine VR1\r\nlast")
    os.close(writing)
    copied.join(5.0)
    assert phases[0] is Phase.NETWORK_BOOT
    assert phases[-1] is Phase.RAMDISK
    assert console.read(tmp_path / "console.log") == (
        Line(0.0, "SeaBIOS"), Line(0.0, ">>Start PXE over IPv4."), Line(4.5, "deploy: machine VR1"), Line(4.5, "last"),
    )  # fmt: skip


def test_a_machine_that_never_stops_talking_does_not_fill_the_disk(tmp_path, monkeypatch):
    """The file is bounded; what comes after is still looked at."""
    monkeypatch.setattr(console, "_FILE_MAX_BYTES", 200)
    reading, writing = os.pipe()
    phases = []
    copied = Console(os.fdopen(reading, "rb"), tmp_path / "console.log", phases.append)
    os.write(writing, b"noise noise noise\r\n" * 100 + b"node1 login: ")
    os.close(writing)
    copied.join(5.0)
    assert (tmp_path / "console.log").stat().st_size <= 200
    assert phases == [Phase.OPERATING_SYSTEM]


def _until(condition):
    import time

    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)

"""The machine's serial line: what firmware, ramdisk and system say, with times, and what it tells of the boot.

The text is the machine's, so it is untrusted: escape sequences are taken out, lines and the file are bounded.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO

from toolkit.virtual.firmware import Phase

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>cM78])")
_LINE_MAX_CHARS, _LINE_MAX_BYTES = 400, 1600
_CHUNK_BYTES = 4096
_PIECES = re.compile(rb"[^\r\n]*[\r\n]|[^\r\n]+")
_FILE_MAX_BYTES = 4 * 1024 * 1024

# What a line says about the boot, first match counts. EDK II, SeaBIOS and iPXE do not draw their words from a
# catalogue: these are the ones of the versions in Debian 12.
_SIGNS: tuple[tuple[re.Pattern[str], Phase], ...] = (
    (re.compile(r"Kernel panic - not syncing"), Phase.CRASHED),
    (re.compile(r"No bootable (?:device|option)|BdsDxe: No bootable option|^Shell>"), Phase.NO_BOOT_DEVICE),
    (re.compile(r">>Start (?:PXE|HTTP) (?:B|b)?oot|^iPXE .*(?:initialising|Open Source)|^>>Start"), Phase.NETWORK_BOOT),
    (re.compile(r"^deploy: "), Phase.RAMDISK),
    (re.compile(r"systemd\[1\]: |Welcome to .*(?:Debian|Ubuntu|DGX)|login: ?$"), Phase.OPERATING_SYSTEM),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the console: seconds since power-on, and the text without escape sequences."""

    at_s: float
    text: str


def plain(raw: bytes) -> str:
    """A line as text: no escape sequences, no control characters, bounded."""
    text = _ESCAPES.sub("", raw.decode("utf-8", "replace"))
    return "".join(c for c in text if c.isprintable())[:_LINE_MAX_CHARS].rstrip()


def phase_of(text: str) -> Phase | None:
    """The phase of the boot that this line shows; None for a line that says nothing of it."""
    return next((phase for sign, phase in _SIGNS if sign.search(text)), None)


class Console:
    """Copies a machine's serial line into a file. `entered` is called with each phase that a line shows."""

    def __init__(
        self, stream: IO[bytes], file: Path, entered: Callable[[Phase], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._stream = stream
        self._file = file
        self._entered = entered
        self._clock = clock
        self._began = clock()
        self._thread = threading.Thread(target=self._copy, name="console", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits until the machine has closed its end."""
        self._thread.join(timeout_s)

    def _copy(self) -> None:
        """A line carries the time of its first character, and is looked at as it grows: firmware waits in mid-line."""
        with self._stream, self._file.open("a") as file:
            written = file.tell()
            line, at_s = b"", 0.0
            while chunk := os.read(self._stream.fileno(), _CHUNK_BYTES):
                now_s = self._clock() - self._began
                for piece in _PIECES.findall(chunk):
                    at_s = at_s if line else now_s
                    line = (line + piece)[:_LINE_MAX_BYTES]
                    self._look(line)
                    if piece[-1:] in b"\r\n":
                        written += self._write(file, written, Line(at_s, plain(line)))
                        line = b""
            self._write(file, written, Line(at_s, plain(line)))

    def _look(self, line: bytes) -> None:
        phase = phase_of(plain(line))
        if phase is not None:
            self._entered(phase)

    def _write(self, file: TextIO, written: int, line: Line) -> int:
        text = f"[{line.at_s:8.2f}] {line.text}\n"
        if not line.text or written + len(text) > _FILE_MAX_BYTES:
            return 0
        file.write(text)
        file.flush()
        return len(text)


def read(file: Path) -> tuple[Line, ...]:
    """What a console file holds; lines of another form (written by hand) are left out."""
    found = (re.fullmatch(r"\[ *(\d+\.\d+)\] (.*)", line) for line in file.read_text(errors="replace").splitlines())
    return tuple(Line(float(match[1]), match[2]) for match in found if match)

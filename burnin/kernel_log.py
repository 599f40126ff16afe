"""The kernel's log over the run: only lines that were written after the mark, kept raw, Xids and SXids counted.

Which Xid means what is decided where the raw text is read again, but for one thing that cannot wait: which of them
forbid a GPU to go on (safety.py). A log that could not be read, or that overran and lost lines, gives no count:
unknown is not 0.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

NAME = "kernel_log"
_KEPT_BYTES = 1 << 20
_FRESH = 4096  # kinds of Xid between two looks: more than all GPUs of a node can have
_READ = 64 * 1024  # one record of /dev/kmsg is at most 8 KiB; a smaller read than the record fails

# open-gpu-kernel-modules, kernel_rc.c: "NVRM: Xid (PCI:0000:1b:00 GPU-I:02): 79, ..."; older drivers leave out "PCI:"
_XID = re.compile(rb"NVRM: Xid \(")
_PLACED_XID = re.compile(
    rb"NVRM: Xid \((?:PCI:)?([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})[^)]{0,32}\): (\d{1,9})(.*)"
)
# An SXid event is one line with its number and two more, Severity and Data, of the same event.
_SXID = re.compile(rb"SXid \([^)]*\): \d+, (?!Severity|Data)")


@dataclass(frozen=True)
class Counts:
    """Events since the mark."""

    xids: int
    sxids: int


@dataclass(frozen=True)
class Xid:
    """An Xid of a GPU: its PCI (domain, bus, device), its number, whether the line calls it fatal."""

    pci: tuple[int, int, int]
    number: int
    fatal: bool


class KernelLog:
    """/dev/kmsg from now on. Opening it is the mark; `unreadable` says why there is no log, if so."""

    def __init__(self, path: Path) -> None:
        self.unreadable = ""
        self._lines: list[bytes] = []
        self._kept = 0
        self._rest = b""
        self._xids = self._sxids = 0
        self._fresh: dict[Xid, None] = {}  # a set that keeps the order
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            self.unreadable = f"{path}: {error.strerror}"

    def drain(self) -> None:
        """Take what was logged since the last call. To be called often: the kernel's buffer is short."""
        while not self.unreadable:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.unreadable = "lines were lost: the kernel's buffer was overrun"
                return
            except OSError as error:
                self.unreadable = f"reading stopped: {error.strerror}"
                return
            if not data:
                return
            self._take(data)

    def fresh_xids(self) -> tuple[Xid, ...]:
        """Xids that were drained since the last call, each once; without those whose address cannot be read."""
        fresh, self._fresh = tuple(self._fresh), {}
        return fresh

    def counts(self) -> Counts | None:
        """Events since the mark; None when the log was not read completely."""
        return None if self.unreadable else Counts(self._xids, self._sxids)

    def text(self) -> bytes:
        """The raw lines since the mark, bounded; a last line says how much was left out."""
        kept = b"".join(line + b"\n" for line in self._lines)
        left_out = self._kept - len(kept)
        return kept + (b"[%d bytes more]\n" % left_out if left_out else b"")

    def close(self) -> None:
        """Let the log go."""
        if self._fd >= 0:
            os.close(self._fd)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_READ:]
        for line in lines:
            self._kept += len(line) + 1
            if self._kept <= _KEPT_BYTES:
                self._lines.append(line)
            if _XID.search(line):
                self._xids += 1
                self._place(line)
            self._sxids += bool(_SXID.search(line))

    def _place(self, line: bytes) -> None:
        found = _PLACED_XID.search(line)
        if found is not None and len(self._fresh) < _FRESH:
            domain, bus, device = (int(part, 16) for part in found.group(1, 2, 3))
            # NVLink 5 lines carry the word: "..., NETIR_LINK_EVT  Fatal   XC0 ..."
            self._fresh[Xid((domain, bus, device), int(found[4]), b" Fatal" in found[5])] = None

"""The kernel's log over the run: only lines that were written after the mark, kept raw, Xids and SXids counted.

Which Xid means what is decided where the raw text is read again, but for one thing that cannot wait: which of them
forbid a GPU to go on (safety.py). A log that could not be read, or that overran and lost lines, gives no count:
unknown is not 0.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_SEQUENCE = re.compile(rb"\d{1,3},(\d{1,18}),")  # /dev/kmsg: priority, sequence number
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
    """/dev/kmsg from now on. Opening it is the mark; `unreadable` says why there is no log, if so.

    `mark` is where it began, to go on from in another process (`since`): the number of the last record before it, or
    in a file (a virtual node's) the offset. Empty where there is no log.
    """

    def __init__(self, path: Path, since: Mapping[str, Any] | None = None) -> None:
        self.unreadable = ""
        self.mark: Mapping[str, Any] = {}
        self._lines: list[bytes] = []
        self._kept = 0
        self._rest = b""
        self._xids = self._sxids = 0
        self._fresh: dict[Xid, None] = {}  # a set that keeps the order
        self._fd = -1
        self._after = -1  # records of the kernel's up to this number are of before the mark
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            if stat.S_ISCHR(os.fstat(self._fd).st_mode):
                self._begin_at_record(since)
            else:
                self._begin_at_offset(since)
        except OSError as error:
            self.unreadable = f"{path}: {error.strerror}"

    def _begin_at_offset(self, since: Mapping[str, Any] | None) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        offset = size if since is None else since.get("offset")
        if not isinstance(offset, int) or not 0 <= offset <= size:
            self.unreadable = "the log is not the one that was begun"
            return
        os.lseek(self._fd, offset, os.SEEK_SET)
        self.mark = {"offset": offset}

    def _begin_at_record(self, since: Mapping[str, Any] | None) -> None:
        """A device that is opened stands at the oldest record it has."""
        first, last = self._numbers()
        after = last if since is None else since.get("record")
        if not isinstance(after, int) or after > last or (since is not None and first > after + 1):
            self.unreadable = "lines were lost: the kernel's buffer no longer reaches back to where the log was begun"
            return
        self._after = after
        self.mark = {"record": after}
        os.lseek(self._fd, 0, os.SEEK_SET if since is not None else os.SEEK_END)

    def _numbers(self) -> tuple[int, int]:
        """Of the oldest and the newest record; 0 and -1 where there is none. Some ten thousand short reads at most."""
        first, last = 0, -1
        while True:
            try:
                found = _SEQUENCE.match(os.read(self._fd, _READ))
            except BlockingIOError:
                return first, last
            except BrokenPipeError:
                continue  # records were overwritten meanwhile: it goes on with the oldest there is
            if found is None:
                return first, last
            number = int(found[1])
            first, last = (number if last < 0 else first), number

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
            number = _SEQUENCE.match(data) if self._after >= 0 else None
            if number is None or int(number[1]) > self._after:
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

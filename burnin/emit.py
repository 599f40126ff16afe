"""A run in a container: the suite as a process below, its record file and what it kept on standard output, in frames.

The container's log is all that outlives it. Records go out as they are written, whole lines only; the artifacts follow
when the suite has ended, and then the totals. A log is rotated, and what was rotated cannot be asked for any more: what
would make it longer than a node agent keeps is left out, and said to be.

The exit status is the suite's own. SIGTERM stops the suite; what it wrote until then goes out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from burnin import record
from burnin.frames import Encoder
from burnin.journal import RECORDS

# kubelet's containerLogMaxSize is 10 MiB by default, and only the newest file of a log is served.
MOST_BYTES = 9 << 20
_FOR_THE_END = 32 << 10  # kept free for the last line
_POLL_S = 0.5
_READ_BYTES = 1 << 20
_SERIAL = Path("/sys/class/dmi/id/product_serial")  # readable for root
_BOOT = Path("/proc/sys/kernel/random/boot_id")  # of the machine, in a container too
_TOLD_AS_LEFT_OUT = 16


@dataclass(frozen=True)
class Carried:
    """Which run, by whom (`carrier`: such as the pod's UID), on which node as far as we were told, by which program."""

    run: str
    carrier: str
    node: str
    program: str


class Emitter:
    """Writes a run's folder to a stream, as it grows."""

    def __init__(
        self, carried: Carried, folder: Path, write: Callable[[bytes], None], most_bytes: int = MOST_BYTES
    ) -> None:
        self._carried = carried
        self._folder = folder
        self._write = write
        self._most = most_bytes - _FOR_THE_END
        self._frames = Encoder(carried.run, carried.carrier, carried.program)
        self._sent = 0
        self._digest = hashlib.sha256()
        self._named: dict[str, record.Artifact] = {}
        self._artifacts = 0
        self._left_out: dict[str, str] = {}

    def hello(self) -> None:
        """Who writes, and on which machine."""
        who = self._carried
        told: dict[str, object] = {"run": who.run, "carrier": who.carrier, "node": who.node, "program": who.program}
        told.update(serial=_text(_SERIAL), boot=_text(_BOOT), python=platform.python_version())
        self._write(self._frames.words("hello", told))

    def records(self) -> None:
        """The whole lines that were written since the last call, as far as there is room."""
        while fresh := self._fresh():
            if not self._fits(RECORDS, fresh):
                return
            self._sent += len(fresh)
            self._digest.update(fresh)
            named = [line.decode("ascii", "replace") for line in fresh.splitlines() if b'"record":"artifact"' in line]
            self._named.update((item.name, item) for item in record.load(named) if isinstance(item, record.Artifact))
            for line in self._frames.lines("records", RECORDS, fresh):
                self._write(line)

    def _fresh(self) -> bytes:
        if RECORDS in self._left_out:
            return b""
        try:
            with (self._folder / RECORDS).open("rb") as file:
                file.seek(self._sent)
                data = file.read(_READ_BYTES)
        except FileNotFoundError:
            return b""
        return data[: data.rfind(b"\n") + 1]

    def artifacts(self) -> None:
        """The files that the records name, small ones first."""
        for name in sorted(self._named, key=lambda name: self._named[name].bytes):
            try:
                content = (self._folder / name).read_bytes()
            except OSError as error:
                self._left_out[name] = str(error.strerror)
                continue
            if self._fits(name, content):
                self._artifacts += 1
                for line in self._frames.lines("artifact", name, content):
                    self._write(line)

    def end(self, status: int) -> None:
        """The totals."""
        told: dict[str, object] = {
            "status": status,
            "frames": self._frames.frames + 1,
            "records": {"bytes": self._sent, "sha256": self._digest.hexdigest()},
            "artifacts": self._artifacts,
            "left_out": dict(list(self._left_out.items())[:_TOLD_AS_LEFT_OUT]),
        }
        self._write(self._frames.words("end", told))

    def _fits(self, name: str, content: bytes) -> bool:
        if self._frames.size + self._frames.cost(content) <= self._most:
            return True
        self._left_out[name] = f"no room for {len(content)} bytes in the log"
        return False


def run(carried: Carried, folder: Path, arguments: Sequence[str], most_bytes: int = MOST_BYTES) -> int:
    """Run the suite with these further arguments and write its folder to standard output. Returns its exit status."""
    emitter = Emitter(carried, folder, _to_stdout, most_bytes)
    emitter.hello()
    argv = [sys.executable, sys.argv[0], "run", "--run", carried.run, "--out", str(folder), *arguments]
    # what it prints belongs to the operator, not among the frames
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def stop(number: int, frame: FrameType | None) -> None:
        child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    while child.poll() is None:
        emitter.records()
        time.sleep(_POLL_S)
    emitter.records()
    emitter.artifacts()
    emitter.end(child.returncode)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _to_stdout(line: bytes) -> None:
    while line:
        line = line[os.write(1, line) :]


def _text(path: Path) -> str:
    try:
        return record.clean(path.read_text(errors="replace"), 128)
    except OSError:
        return ""

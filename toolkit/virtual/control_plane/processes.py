"""The control plane's processes, found by a mark in their environment: no pid file that a crash leaves wrong.

Who starts a component over what a killed one left finds it, whatever killed its starter and when.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.virtual.cgroups import kill_all
from toolkit.virtual.network import NAMESPACES
from toolkit.virtual.programs import environment

_FOLDER_MARK, _NAME_MARK = "RACKPROOF_CONTROL_PLANE", "RACKPROOF_COMPONENT"
_POLL_S = 0.02
_KILL_S = 10.0
_QUOTED_BYTES = 2000


@dataclass(frozen=True, slots=True)
class Component:
    """A program of the control plane as it is to be started."""

    name: str
    argv: tuple[str, ...]
    log: Path


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is there."""

    pid: int
    argv: tuple[str, ...]


class Processes:
    """The processes of the control plane in `folder`, an absolute path without links."""

    def __init__(self, folder: Path, namespace: str = "", *, tied: bool = False) -> None:
        """`namespace`: the network namespace they live in. `tied`: they die with the thread that started them."""
        self._folder = folder
        self._namespace = namespace
        self._tied = tied
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def found(self) -> Mapping[str, Running]:
        """Components that run, by name, whoever started them."""
        for child in self._children.values():
            child.poll()  # a dead child of ours is not to stay a zombie
        mark = f"{_FOLDER_MARK}={self._folder}"
        found = {}
        for folder in Path("/proc").iterdir():
            marks = _strings(folder / "environ") if folder.name.isdecimal() else ()
            if mark in marks:
                name = next((m.partition("=")[2] for m in marks if m.startswith(f"{_NAME_MARK}=")), "")
                found[name] = Running(int(folder.name), _strings(folder / "cmdline"))
        return found

    def ensure(self, component: Component) -> None:
        """The component runs as told; one that runs otherwise is ended first."""
        running = self.found().get(component.name)
        if running is not None:
            if running.argv == component.argv:
                return
            self.end([component.name])
        entering = ["nsenter", f"--net={NAMESPACES / self._namespace}", "--"] if self._namespace else []
        tying = ["setpriv", "--pdeathsig", "KILL", "--"] if self._tied else []
        marks = {_FOLDER_MARK: str(self._folder), _NAME_MARK: component.name}
        with component.log.open("ab") as log:
            self._children[component.name] = subprocess.Popen(
                [*entering, *tying, *component.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment(**marks),
                start_new_session=True,
            )

    def require(self, components: Iterable[Component]) -> None:
        """Raises RackproofError, with its last words, for a component that has ended."""
        found = self.found()
        for component in components:
            if component.name not in found:
                raise RackproofError(
                    f"{component.name} ended by itself:\n{_tail(component.log)}", f"its log is {component.log}"
                )

    def end(self, names: Iterable[str], grace_s: float = 0.0) -> None:
        """Ends these components, by SIGTERM where they are given time for it. Nothing to do for those not there."""
        wanted = set(names)
        if grace_s > 0:
            for pid in self._pids(wanted):
                _terminate(pid)
            self._wait(wanted, grace_s)
        kill_all(self._pids(wanted))
        left = self._wait(wanted, _KILL_S)
        if left:
            raise RackproofError(f"processes {sorted(left)} of {self._folder} survive SIGKILL", "see `dmesg`")

    def _pids(self, names: set[str]) -> frozenset[int]:
        return frozenset(running.pid for name, running in self.found().items() if name in names)

    def _wait(self, names: set[str], deadline_s: float) -> frozenset[int]:
        end = time.monotonic() + deadline_s
        while (left := self._pids(names)) and time.monotonic() < end:
            time.sleep(_POLL_S)
        return left


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def _strings(path: Path) -> tuple[str, ...]:
    """NUL-separated strings of a file below /proc; none where the process is gone, a zombie or somebody else's."""
    try:
        raw = path.read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(part) for part in raw.split(b"\0")[:-1])


def _tail(log: Path) -> str:
    try:
        return "  " + "\n  ".join(log.read_bytes()[-_QUOTED_BYTES:].decode(errors="replace").splitlines()[-12:])
    except OSError:
        return "  (no log)"

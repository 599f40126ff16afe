"""Control groups of our own: which processes belong to a node, what they use, and a way to end all of them.

Works on pure v2 hosts and on v1 hosts with a `unified` hierarchy beside (systemd's hybrid layout).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RackproofError

CGROUP_ROOT = Path("/sys/fs/cgroup")
# v1 hierarchies we use: who belongs to a machine (systemd, unified), and its limits (memory, pids)
_V1_NAMES = ("systemd", "unified", "memory", "pids")
_V2_CONTROLLERS = "+memory +pids"
_KILL_DEADLINE_S = 10.0
_POLL_S = 0.02


def hierarchies(root: Path = CGROUP_ROOT) -> tuple[Path, ...]:
    """Roots of the hierarchies in use on this host."""
    if (root / "cgroup.controllers").exists():
        return (root,)
    return tuple(root / name for name in _V1_NAMES if (root / name / "cgroup.procs").exists())


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """One path below every hierarchy, e.g. `rackproof/demo-1a2b3c/node1`."""

    path: str

    @property
    def folders(self) -> tuple[Path, ...]:
        """The group's folder in each hierarchy."""
        return tuple(root / self.path for root in hierarchies())

    def create(self, memory_limit_bytes: int | None = None) -> None:
        """Makes the group; the limit covers everything in it, page cache included."""
        for root, folder in zip(hierarchies(), self.folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            if (root / "cgroup.controllers").exists():
                _enable_controllers(root, folder)
        if memory_limit_bytes is not None:
            for folder in self.folders:
                for name in ("memory.max", "memory.limit_in_bytes"):
                    if (folder / name).exists():
                        (folder / name).write_text(str(memory_limit_bytes))

    def join(self) -> None:
        """Moves the calling process into the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text("0")

    def pids(self, below: str = "") -> frozenset[int]:
        """Processes in the group and in those below it, as this process's PID namespace numbers them."""
        found: set[int] = set()
        for folder in self.folders:
            for listed in _files(folder / below, "cgroup.procs"):
                found.update(_read_pids(listed))
        # 0 is a process outside our PID namespace; kill(0) would be our own process group.
        return frozenset(pid for pid in found if pid > 0)

    def kill(self, deadline_s: float = _KILL_DEADLINE_S) -> None:
        """Ends every process of the group by SIGKILL and waits until none is left."""
        end = time.monotonic() + deadline_s
        while pids := self.pids() - {os.getpid()}:
            kill_all(pids)
            if time.monotonic() > end:
                raise RackproofError(
                    f"processes {sorted(pids)} of control group {self.path} survive SIGKILL",
                    "they are stuck in the kernel: see `dmesg`, then run the command again",
                )
            time.sleep(_POLL_S)

    def remove(self, deadline_s: float = _KILL_DEADLINE_S) -> None:
        """Removes the (empty) group and the groups below it."""
        end = time.monotonic() + deadline_s
        for folder in self.folders:
            while folder.exists():
                for inner in sorted(_folders(folder), key=lambda p: len(p.parts), reverse=True):
                    _rmdir(inner)
                if folder.exists():
                    if time.monotonic() > end:
                        raise RackproofError(f"control group {folder} cannot be removed: still in use")
                    time.sleep(_POLL_S)

    def memory_bytes(self) -> int | None:
        """Memory the kernel cannot reclaim: anonymous, tmpfs and kernel memory. None where nothing counts it."""
        for folder in self.folders:
            stat = _read_stat(folder / "memory.stat")
            if "anon" in stat:  # v2
                return stat["anon"] + stat.get("shmem", 0) + stat.get("kernel", 0)
            if "total_rss" in stat:  # v1; its shmem is part of the cache, not of rss
                kernel = folder / "memory.kmem.usage_in_bytes"
                kernel_bytes = int(kernel.read_text()) if kernel.exists() else 0
                return stat["total_rss"] + stat.get("total_shmem", 0) + kernel_bytes
        return None


def kill_all(pids: frozenset[int]) -> None:
    """SIGKILL to each; those already gone are fine."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _enable_controllers(root: Path, folder: Path) -> None:
    """v2: a controller counts in a group only when every group above passes it down."""
    for parent in reversed([p for p in folder.parents if p.is_relative_to(root)]):
        try:
            (parent / "cgroup.subtree_control").write_text(_V2_CONTROLLERS)
        except OSError:
            return  # not delegated to us: the machines run without a limit of their own


def _files(folder: Path, name: str) -> Iterator[Path]:
    for inner in _folders(folder):
        yield inner / name


def _folders(folder: Path) -> list[Path]:
    """The folder and all below it; groups vanish while we look."""
    if not folder.is_dir():
        return []
    return [Path(path) for path, _, _ in os.walk(folder)]


def _read_pids(listed: Path) -> list[int]:
    try:
        return [int(word) for word in listed.read_text().split()]
    except OSError:
        return []  # the group went away meanwhile, and its processes with it


def _read_stat(stat: Path) -> dict[str, int]:
    try:
        rows = [line.split() for line in stat.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def _rmdir(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # busy until the last process is reaped; the caller looks again

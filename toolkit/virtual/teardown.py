"""Removing a virtual rack from the host, whatever state it is in: found by our own tag and folder, never by luck."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.virtual import cgroups, disk, mounts, network
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.control_plane.processes import Processes
from toolkit.virtual.layout import Layout, racks_folder
from toolkit.virtual.programs import run

_DEADLINE_S = 15.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of a rack is on the host."""

    processes: tuple[int, ...]
    control_groups: tuple[Path, ...]
    namespaces: tuple[str, ...]
    loops: tuple[Path, ...]
    mounts: tuple[Path, ...]

    def __bool__(self) -> bool:
        return any((self.processes, self.control_groups, self.namespaces, self.loops, self.mounts))


def find(layout: Layout) -> Leftovers:
    """Everything of this rack that the host still has."""
    group = ControlGroup(layout.control_group)
    return Leftovers(
        processes=tuple(sorted(group.pids() | _daemons(layout) | _control_plane(layout))),
        control_groups=tuple(folder for folder in group.folders if folder.exists()),
        namespaces=tuple(name for name in network.existing() if layout.owns_namespace(name)),
        loops=disk.loops_below(layout.folder),
        mounts=_mounts_below(layout.folder),
    )


def racks(home: Path) -> tuple[str, ...]:
    """Names of all racks of this installation that left something on the host, up or not."""
    mark = Layout(home, "any").mark
    names = {path.name for path in racks_folder(home).glob("*") if path.is_dir()}
    tags = [path.name for root in cgroups.hierarchies() for path in (root / "rackproof").glob(f"*-{mark}")]
    pattern = re.compile(rf"rp-(?P<rack>.+)-{mark}-(controller|switch|bmcs|stranger|unit-.+)")
    found = (pattern.fullmatch(name) for name in network.existing())
    names |= {tag.removesuffix(f"-{mark}") for tag in tags} | {match["rack"] for match in found if match}
    return tuple(sorted(names))


def sweep(layout: Layout, *, keep_files: bool = False) -> None:
    """Ends and removes everything of the rack; with `keep_files` its disks and logs stay.

    Raises RackproofError that names what could not be removed.
    """
    group = ControlGroup(layout.control_group)
    cgroups.kill_all(_daemons(layout) | _control_plane(layout))
    group.kill()
    for name in network.existing():
        if layout.owns_namespace(name):
            network.remove(name)
    for mount in _mounts_below(layout.folder):
        run(["umount", "--recursive", str(mount)])
    _clear_loops(layout)
    group.remove()
    _remove_if_empty(ControlGroup("rackproof"))
    if not keep_files and layout.folder.exists():
        shutil.rmtree(layout.folder)
    left = find(layout)
    if left:
        raise RackproofError(f"rack {layout.rack} is not gone: {left}", "run the command again; if it stays, reboot")


def _clear_loops(layout: Layout) -> None:
    """They clear themselves once the last mount namespace that pins them is gone; this takes a moment."""
    end = time.monotonic() + _DEADLINE_S
    while disk.loops_below(layout.folder) and time.monotonic() < end:
        time.sleep(_POLL_S)
    for device in disk.loops_below(layout.folder):
        run(["losetup", "--detach", str(device)])


def _daemons(layout: Layout) -> frozenset[int]:
    """The daemon and its `unshare`, by their argument: they are ours before they have joined a control group."""
    wanted = os.fsencode(layout.description)
    found = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        if wanted in arguments and b"toolkit.virtual.daemon" in arguments:
            found.add(int(folder.name))
    return frozenset(found)


def _control_plane(layout: Layout) -> frozenset[int]:
    """Its Kubernetes control plane's processes."""
    return frozenset(running.pid for running in Processes(layout.cluster).found().values())


def _mounts_below(folder: Path) -> tuple[Path, ...]:
    """Mount points of our own mount namespace below the folder, innermost first."""
    points = (mount.point for mount in mounts.current())
    return tuple(sorted((p for p in points if p.is_relative_to(folder)), key=lambda p: -len(p.parts)))


def _remove_if_empty(group: ControlGroup) -> None:
    for folder in group.folders:
        try:
            folder.rmdir()
        except OSError:
            continue  # another rack uses it, or it is gone

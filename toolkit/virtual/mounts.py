"""Mounts as this process sees them, and those of others taken out of its copy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from toolkit.virtual.network import NAMESPACES
from toolkit.virtual.programs import run


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of proc_pid_mountinfo(5): where, of which file system, from what."""

    point: Path
    kind: str
    source: str


def current() -> tuple[Mount, ...]:
    """All mounts of this process's namespace, in the order they were made."""
    return tuple(_parse(line) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def forget_others(owned: Callable[[str], bool], needed: Iterable[Path]) -> None:
    """Unmounts, in this process's own mount namespace, other people's disks and network namespaces.

    A mount namespace begins as a copy of its maker's, and every copy holds a file system mounted and a network alive
    after their owner let them go. Loop devices go, but for those that `needed` paths lie on; of the named network
    namespaces those stay whose names are `owned`. The caller's mounts must be private: nothing here reaches the host.
    """
    needed = tuple(needed)
    gone = [mount.point for mount in reversed(current()) if _of_others(mount, owned, needed)]
    if gone:
        # Lazy: below one of them something else may be mounted, and in our copy nobody is to notice.
        run(["umount", "--lazy", "--no-mtab", *map(str, gone)])


def _of_others(mount: Mount, owned: Callable[[str], bool], needed: tuple[Path, ...]) -> bool:
    if mount.kind == "nsfs" and mount.point.parent == NAMESPACES:
        return not owned(mount.point.name)
    return mount.source.startswith("/dev/loop") and not any(path.is_relative_to(mount.point) for path in needed)


def _parse(line: str) -> Mount:
    """The fields before the lone dash vary in number."""
    before, _, after = line.partition(" - ")
    kind, source = after.split(" ")[:2]
    return Mount(Path(_unescape(before.split(" ")[4])), kind, _unescape(source))


def _unescape(field: str) -> str:
    """mountinfo writes space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)

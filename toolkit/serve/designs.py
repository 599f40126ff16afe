"""Racks as designed, for a process that lives long: a file is read once, and again when it or a profile changed."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import UsageError
from toolkit.rack.loading import list_racks, load_rack
from toolkit.rack.model import Rack

_LOOK_EVERY_S = 2.0  # a folder is not listed for every request

Stamp = tuple[tuple[str, int, int], ...]  # name, mtime_ns, size


@dataclass(frozen=True, slots=True)
class Design:
    """A rack file as it was read: the rack, or why there is none."""

    rack: Rack | None
    problem: str = ""


@dataclass(slots=True)
class Designs:
    """The inventory's racks. Safe for threads."""

    inventory: Path
    _known: dict[str, tuple[Stamp, Design]] = field(default_factory=dict)
    _stamps: dict[str, Stamp] = field(default_factory=dict)
    _looked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self) -> tuple[str, ...]:
        """Of all racks in the inventory, sorted."""
        with self._lock:
            self._look()
            return tuple(sorted(self._stamps))

    def design(self, name: str) -> Design:
        """The rack of that name in the inventory. Anything that is no name there, a path among it, is no rack."""
        with self._lock:
            self._look()
            stamp = self._stamps.get(name)
            if stamp is None:
                return Design(None, f"the inventory has no rack file of {name}")
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = self._known[name] = (stamp, self._read(name))
            return known[1]

    def rack(self, name: str) -> Rack | None:
        """The same, where why there is none does not matter."""
        return self.design(name).rack

    def _read(self, name: str) -> Design:
        try:
            return Design(load_rack(name, self.inventory))
        except UsageError as wrong:
            return Design(None, wrong.message)

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        of_profiles = _stamp(sorted((self.inventory / "profiles").glob("*.yml")))
        racks = self.inventory / "racks"
        self._stamps = {
            name: (*_stamp([racks / f"{name}.yml"]), *of_profiles) for name in list_racks(self.inventory)
        }  # fmt: skip
        self._looked = time.monotonic()


def _stamp(files: list[Path]) -> Stamp:
    found = []
    for file in files:
        try:
            told = file.stat()
        except OSError:  # it went away between listing and looking
            continue
        found.append((file.name, told.st_mtime_ns, told.st_size))
    return tuple(found)

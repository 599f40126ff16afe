"""Network interfaces that lost and gained their link, from a syslog, a journal or dmesg. Text in, `Flaps` out.

    systemd-networkd[5398]: ib6: lost carrier                   systemd-networkd
    NetworkManager[1]: <info> device (ib0): carrier: link connected
    mlx5_core 0000:c1:00.0 ib0: Link down                       kernel

One flap is a loss and a gain. A log covers the time it covers: silence of one that begins later says nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from toolkit.facts.fabric_text import Doubts, decoded, lines

MAX_INTERFACES = 1024
_NAME = r"([A-Za-z][\w.@-]{0,31})"
_CARRIER = re.compile(_NAME + r": (?:([Ll]ost)|[Gg]ained) carrier\b")
_MANAGER = re.compile(r"device \(" + _NAME + r"\): carrier: link (?:(disconnected)|connected)\b")
_KERNEL = re.compile(r"mlx[45]_\w{1,8} [0-9a-f:.]{7,16}:? " + _NAME + r": Link (?:is )?(?:([Dd]own)|[Uu]p)\b")


@dataclass(frozen=True, slots=True)
class Flaps:
    """Times each interface lost its link, and gained it."""

    lost: tuple[tuple[str, int], ...]
    gained: tuple[tuple[str, int], ...]
    doubts: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Counts by interface."""
        return {"lost_carrier": dict(self.lost), "gained_carrier": dict(self.gained), "doubts": list(self.doubts)}


def parse(text: bytes | str) -> Flaps:
    """Every loss and gain that is logged. Never raises; other lines are other programs' business."""
    doubts, lost, gained, names = Doubts(), Counter[str](), Counter[str](), set[str]()
    for line in lines(decoded(text, doubts), doubts):
        found = _CARRIER.search(line) or _MANAGER.search(line) or _KERNEL.search(line)
        if found is None:
            continue
        if found[1] in names or len(names) < MAX_INTERFACES:
            names.add(found[1])
            (lost if found[2] else gained)[found[1]] += 1
        else:
            doubts.add(f"more than {MAX_INTERFACES:,} interfaces: the rest was not read")
    return Flaps(tuple(sorted(lost.items())), tuple(sorted(gained.items())), doubts.all())

"""The planned partitions of an NVLink domain: each node in exactly one, and only where the rack has such a domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.rack.document import Problems, shown
from toolkit.rack.model import MNNVL, Partition, Profile, Unit, UnitKind
from toolkit.rack.nodeset import FoldError, expand

if TYPE_CHECKING:
    from toolkit.rack.schema import PartitionFile


def unfold_partitions(
    lines: Sequence[PartitionFile], units: Sequence[Unit], profile: Profile, problems: Problems
) -> tuple[Partition, ...]:
    """The partitions in the order written; what is wrong with them goes to `problems`. None written: none."""
    if not lines:
        return ()
    if profile.mode not in MNNVL:
        problems.add(
            ("partitions",), f"partitions in mode {profile.mode}", "only NVL72 racks have an NVLink domain", True
        )
        return ()
    nodes = [unit.name for unit in units if unit.kind is UnitKind.NODE]
    home: dict[str, str] = {}
    found: list[Partition] = []
    for number, line in enumerate(lines):
        members = _members(line, number, nodes, problems)
        for name in members:
            if name in home:
                wrong = f"{name} is in {home[name]} already"
                problems.add(("partitions", number, "nodes"), wrong, "a GPU belongs to one partition")
            home.setdefault(name, line.name)
        if line.name in {p.name for p in found}:
            problems.add(("partitions", number, "name"), f"{line.name} is used twice", "one name each")
        found.append(Partition(line.name, tuple(sorted(members, key=nodes.index))))
    left = [name for name in nodes if name not in home]
    if left and not problems.count:
        wrong = f"{left[0]} is in no partition" + (f" (nor {len(left) - 1} others)" if len(left) > 1 else "")
        problems.add(("partitions",), wrong, "every node in one, or leave `partitions` out", True)
    return tuple(found)


def _members(line: PartitionFile, number: int, nodes: Sequence[str], problems: Problems) -> tuple[str, ...]:
    loc = ("partitions", number, "nodes")
    try:
        names = tuple(expand(line.nodes))
    except FoldError as error:
        problems.add(loc, str(error), "NodeSet syntax: tray[01-09]")
        return ()
    unknown = [name for name in names if name not in nodes]
    if unknown:
        problems.add(loc, f"no node is named {shown(unknown[0])}", "nodes of this rack")
        return ()
    return names

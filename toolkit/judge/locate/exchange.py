"""Rails that reach nobody: parts that died, or cables in each other's leaf port. Tests by plan cannot tell the two.

Only leaves without a way between them show it: over spines a port reaches its rail from any leaf, at full rate, and
tests see nothing of an exchange. Two cables in each other's port of one leaf are never seen by a test either, and a
fault found later on one of them is then named at the wrong end. That takes the fabric's own list of neighbours, held
against the plan; it cannot be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from toolkit.judge.locate.evidence import Evidence
from toolkit.judge.locate.observation import Outcome
from toolkit.judge.locate.parts import SegmentKind


@dataclass(frozen=True, slots=True)
class Exchange:
    """Rails by the plan, of which every test so far reached nobody, on leaves that do not reach each other."""

    rails: tuple[str, ...]
    settled_by: str


def exchanges(evidence: Evidence, dead: Iterable[int]) -> tuple[Exchange, ...]:
    """Of the segments that hang for certain, those an exchange of cables would explain.

    On one node first, where two cables in one hand are mixed up; rails that are left over, all together.
    """
    fabric = evidence.fabric
    if fabric.spine >= 0:
        return ()
    silent = [s for s in dead if fabric.segments[s].kind is SegmentKind.ATTACHMENT and _reached_nobody(evidence, s)]
    ends = {s: fabric.attachment.index(s) for s in silent}
    by_node: dict[int, list[int]] = defaultdict(list)
    for s in silent:
        by_node[fabric.node[ends[s]]].append(s)
    groups = [group for group in by_node.values() if len(group) > 1]
    groups.append([s for group in by_node.values() if len(group) == 1 for s in group])
    return tuple(
        _exchange([fabric.segments[s].name for s in sorted(group)])
        for group in groups
        if len({fabric.leaf[ends[s]] for s in group}) > 1
    )


def _reached_nobody(evidence: Evidence, segment: int) -> bool:
    return all(evidence.observations[t].outcome is Outcome.HANG for t in evidence.full.get(segment, ()))


def _exchange(rails: list[str]) -> Exchange:
    ports = [rail.partition(" - ") for rail in rails]
    return Exchange(
        tuple(rails),
        "compare the neighbours that ibnetdiscover reports with the plan before a part is pulled, or test "
        f"{ports[0][0]} with the peers of {ports[1][0]}: if they reach each other, the cables are exchanged",
    )

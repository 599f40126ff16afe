"""Which way tests took. One that took another way than was meant says nothing of parts: its cause is a configuration.

NCCL decides for a whole communicator, so one node that is configured wrong takes every test of it off the plane. Which
node that is comes out by elimination: whoever was once on the plane's way is configured right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field

from toolkit.judge.locate.fabric import Fabric, Plane, Test
from toolkit.judge.locate.observation import Observation, Outcome

_GIVEN_UP = 3  # tests off the way: where no partner in the block is right, more of them tell nothing
_HANDS = "its NCCL environment, IMEX and RDMA set-up against a node that was measured: no part is to blame for it"


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """Endpoints of a node whose tests of a plane all took another way.

    alone   its tests went astray by themselves, or beside nodes that are right: it is this node's configuration.
            Without it: they went astray together with others', and whose doing that is nobody knows
    """

    plane: Plane
    node: str
    endpoints: tuple[str, ...]
    alone: bool
    settled_by: str


@dataclass(slots=True)
class Ways:
    """Endpoints by the way their tests took.

    meant    seen on the plane's own way at least once, by plane
    astray   tests that took another way, by plane and endpoint
    """

    meant: dict[Plane, set[int]] = field(default_factory=lambda: {p: set() for p in Plane})
    astray: dict[Plane, dict[int, list[Test]]] = field(default_factory=lambda: {p: defaultdict(list) for p in Plane})

    def take(self, observation: Observation) -> None:
        """Takes a test in. One that hung may have done so before its way was known."""
        test = observation.test
        if observation.outcome is Outcome.OFF_PATH:
            for e in test.members:
                self.astray[test.plane][e].append(test)
        elif observation.outcome is not Outcome.HANG:
            self.meant[test.plane].update(test.members)

    def unmeasured(self, plane: Plane) -> frozenset[int]:
        """Endpoints with tests off the way, and none on it."""
        return frozenset(self.astray[plane].keys() - self.meant[plane])

    def diverted(self, fabric: Fabric, plane: Plane) -> frozenset[int]:
        """Of these, those whose own node's doing it is: whoever else was in one of their tests is right."""
        right, node = self.meant[plane], fabric.node
        return frozenset(
            e
            for e in self.unmeasured(plane)
            if any(all(m in right or node[m] == node[e] for m in t.members) for t in self.astray[plane][e])
        )

    def tests(self, fabric: Fabric, usable: dict[Plane, frozenset[int]]) -> Iterator[Test]:
        """Each endpoint in doubt beside a partner that is right; where its block has none, beside another in doubt.

        `usable`: endpoints that may be partners. Disjoint, and on one plane for each endpoint.
        """
        busy: set[int] = set()
        doubtful = {plane: self.unmeasured(plane) - self.diverted(fabric, plane) for plane in Plane}
        for block in (b for b in fabric.blocks if not doubtful[b.plane].isdisjoint(b.members)):
            here = [e for e in block.members if e in doubtful[block.plane] and e not in busy]
            right = [e for e in block.members if e in self.meant[block.plane]]
            partners = [e for e in right if e in usable[block.plane] and e not in busy]
            if not right:
                astray = self.astray[block.plane]
                here = [e for e in here if len(astray[e]) < _GIVEN_UP]
                half = (len(here) + 1) // 2
                here, partners = _untried(here[:half], here[half:], astray)
            for pair in zip(here, partners, strict=False):
                busy.update(pair)
                yield Test(block.plane, tuple(sorted(pair)))

    def report(self, fabric: Fabric) -> Iterator[Unmeasured]:
        """What was not measured, by plane and node."""
        for plane in Plane:
            own = self.diverted(fabric, plane)
            by_node: dict[int, list[int]] = defaultdict(list)
            for e in sorted(self.unmeasured(plane)):
                by_node[fabric.node[e]].append(e)
            for node, ends in by_node.items():
                name = fabric.segments[node].name
                alone = not own.isdisjoint(ends)
                names = tuple(fabric.endpoints[e] for e in ends)
                yield Unmeasured(plane, name, names, alone, f"on {name}: {_HANDS}" if alone else _together(plane))


def _together(plane: Plane) -> str:
    return f"the way NCCL said it took in the {plane} tests: a configuration of the run, or of nodes never tested apart"


def _untried(here: Sequence[int], others: Iterable[int], astray: dict[int, list[Test]]) -> tuple[list[int], list[int]]:
    """Pairs of the two halves that were in no test together, as far as there are such."""
    left = list(others)
    paired: list[tuple[int, int]] = []
    for e in here:
        together: Set[int] = {m for t in astray[e] for m in t.members}
        partner = next((o for o in left if o not in together), left[0] if left else None)
        if partner is not None:
            left.remove(partner)
            paired.append((e, partner))
    return [e for e, _ in paired], [o for _, o in paired]

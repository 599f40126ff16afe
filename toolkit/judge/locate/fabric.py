"""The fabric as the locator sees it: endpoints, blocks of endpoints that can be tested together, paths of tests."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.judge.locate.parts import PartKind, Segment


class Plane(StrEnum):
    """Which fabric a test runs over."""

    NVLINK = "nvlink"
    RAIL = "rail"


@dataclass(frozen=True, slots=True, order=True)
class Test:
    """A collective among endpoints of one block. An endpoint is GPU k of a node, and on a rail HCA k of it."""

    __test__ = False  # for pytest: not a test class

    plane: Plane
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """Segments a test crosses: `full` may do anything to it, `fatal` can only hang it or corrupt its data.

    A GPU at 60 % still feeds a 50 GB/s rail: it slows NVLink tests only.
    """

    full: tuple[int, ...]
    fatal: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Endpoints any group of which can be tested together, in rows that share something (a leaf, two trays)."""

    plane: Plane
    name: str
    rows: tuple[tuple[int, ...], ...]

    @property
    def members(self) -> tuple[int, ...]:
        """All of them, row by row."""
        return tuple(e for row in self.rows for e in row)


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a rank of a test runs: GPU `index` of the node, and on a rail this HCA of it, empty where it has none."""

    node: str
    index: int
    hca: str


@dataclass(frozen=True, slots=True)
class Fabric:
    """Everything that tests of a rack or a scalable unit may cross.

    gpu, switch, node, attachment, leaf   index of the segment, by endpoint; -1 where the endpoint has none
    spine                                 index of the spines' segment; -1 without spines
    """

    endpoints: tuple[str, ...]
    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]
    gpu: tuple[int, ...]
    switch: tuple[int, ...]
    node: tuple[int, ...]
    attachment: tuple[int, ...]
    leaf: tuple[int, ...]
    spine: int

    def path(self, test: Test) -> Path:
        """What the test's traffic crosses, each segment once."""
        members = test.members
        nodes = {self.node[e] for e in members}
        if test.plane is Plane.NVLINK:
            crossed = {self.gpu[e] for e in members} | {self.switch[e] for e in members} | nodes
            return Path(tuple(sorted(crossed - {-1})), ())
        leaves = {self.leaf[e] for e in members}
        crossed = {self.attachment[e] for e in members} | nodes | leaves
        if len(leaves) > 1 and self.spine >= 0:
            crossed.add(self.spine)
        gpus = {self.gpu[e] for e in members}
        return Path(tuple(sorted(crossed - {-1})), tuple(sorted(gpus - {-1})))

    def columns(self, plane: Plane) -> tuple[tuple[int, ...], ...]:
        """What an endpoint's test on that plane always crosses, by endpoint: its own segment first."""
        if plane is Plane.NVLINK:
            return self.gpu, self.node, self.switch
        return self.attachment, self.node, self.leaf

    def segments_of(self, block: Block) -> frozenset[int]:
        """Everything that tests of the block may slow down on."""
        crossed = {column[e] for column in self.columns(block.plane) for e in block.members} - {-1}
        if block.plane is Plane.RAIL and self.spine >= 0 and len(block.rows) > 1:
            crossed.add(self.spine)
        return frozenset(crossed)

    def seats(self, test: Test) -> tuple[Seat, ...]:
        """Where the test's ranks run, in their order."""
        return tuple(self._seat(e) for e in test.members)

    def _seat(self, endpoint: int) -> Seat:
        node = self.segments[self.node[endpoint]].name
        parts = self.segments[self.attachment[endpoint]].parts if self.attachment[endpoint] >= 0 else ()
        hcas = [p.name.removeprefix(f"{node}:") for p in parts if p.kind is PartKind.HCA]
        return Seat(node, int(self.endpoints[endpoint].rpartition("/")[2]), hcas[0] if hcas else "")

    def describe(self, test: Test) -> str:
        """The test in words."""
        shown = ", ".join(self.endpoints[e] for e in test.members[:4])
        more = f" and {len(test.members) - 4} more" if len(test.members) > 4 else ""
        return f"{test.plane} test of {shown}{more}"

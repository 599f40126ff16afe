"""What can be bad: parts a technician can pull, and segments: parts that every test crosses together or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PartKind(StrEnum):
    """Kinds of parts."""

    GPU = "GPU"
    NVLINK = "NVLink"
    SWITCH_ASIC = "switch ASIC"
    NODE = "node"
    HCA = "HCA"
    CABLE = "cable"
    LEAF_PORT = "leaf port"
    LEAF = "leaf"
    SPINE = "spine"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part by position: `node3:mlx5_0`, `leaf1:7`, `tray05:gpu2.nvlink14`. A cable's name holds both its ends."""

    kind: PartKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class SegmentKind(StrEnum):
    """What a segment stands for in the model."""

    GPU = "gpu"  # a GPU and its NVLinks: traffic is spread over all of them
    SWITCH = "switch"  # all switch ASICs of an NVLink domain: every GPU's traffic crosses every one
    NODE = "node"
    ATTACHMENT = "attachment"  # HCA, cable and leaf port of one rail of one node
    LEAF = "leaf"
    SPINE = "spine"  # all spines between leaves: traffic is spread over them


@dataclass(frozen=True, slots=True)
class Segment:
    """Parts that bandwidth cannot tell apart. Counters, a swap or a look can."""

    kind: SegmentKind
    name: str
    parts: tuple[Part, ...]


# Chance that a segment of a rack just delivered is bad. Our judgement, within a factor of a few: no public fleet states
# such rates by part. They only weigh hypotheses against each other; tests outweigh them after two readings.
PRIOR: dict[SegmentKind, float] = {
    SegmentKind.GPU: 5e-4,
    SegmentKind.SWITCH: 5e-4,
    SegmentKind.NODE: 3e-4,
    SegmentKind.ATTACHMENT: 5e-4,
    SegmentKind.LEAF: 3e-4,
    SegmentKind.SPINE: 3e-4,
}

# Weight of a part against the others of its segment, before counters: optics and cables before boards.
PART_WEIGHT: dict[PartKind, float] = {
    PartKind.GPU: 1.0,
    PartKind.NVLINK: 0.05,
    PartKind.SWITCH_ASIC: 1.0,
    PartKind.NODE: 1.0,
    PartKind.HCA: 0.3,
    PartKind.CABLE: 0.5,
    PartKind.LEAF_PORT: 0.2,
    PartKind.LEAF: 1.0,
    PartKind.SPINE: 1.0,
}

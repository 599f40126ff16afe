"""What stands in a slot of a rack."""

from __future__ import annotations

from enum import StrEnum


class UnitKind(StrEnum):
    """What stands in a slot."""

    NODE = "node"
    NVLINK_SWITCH = "nvlink_switch"
    POWER_SHELF = "power_shelf"
    LEAF = "leaf"
    SPINE = "spine"

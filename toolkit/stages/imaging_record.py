"""What the image stage keeps on record of one node, by key: before it touches something, and when it saw something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

IMAGE = "image"  # an attempt and its end,
POWER = "image-power"  # its power action, with the boot override as the BMC showed it then,
OVERRIDE = "image-override"  # an override that had stayed, and what stands since it was taken back,
ERASED = "image-erase"  # and what a disk answered that was erased


class Journal(Protocol):
    """What is on record of this node since it was last PLANNED. `details` hold text and integers."""

    def intent(self, what: str, details: Mapping[str, Any]) -> None:
        """Records, durably, what is about to be done outside."""
        ...

    def observed(self, what: str, details: Mapping[str, Any]) -> None:
        """Records what was seen."""
        ...

    def find_intent(self, what: str) -> Mapping[str, Any] | None:
        """Details of the newest intent."""
        ...

    def find_observed(self, what: str) -> Mapping[str, Any] | None:
        """Details of the newest observation."""
        ...

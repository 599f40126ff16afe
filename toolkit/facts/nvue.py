"""One look at a switch tray over NVUE. What cannot be read is a problem in words, never a healthy default."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from toolkit.errors import UndecidedError, UnreachableError
from toolkit.judge.nvlink.seen import SwitchSeen
from toolkit.nvue.client import NvueClient, NvueRefusedError

T = TypeVar("T")


class _Reader:
    """Reads one thing after another; a switch that refuses us or does not answer is asked nothing more."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._over = False

    def read(self, ask: Callable[[], T]) -> T | None:
        """The answer, or None and a problem."""
        if self._over:
            return None
        try:
            return ask()
        except UndecidedError as error:
            self.problems.append(error.message)
            # each unanswered question would wait for its own time-out
            self._over = isinstance(error, NvueRefusedError | UnreachableError)
            return None


def look(unit: str, client: NvueClient) -> SwitchSeen:
    """Everything the verdict needs of one tray. Raises nothing: problems are in the value."""
    reader = _Reader()
    health = reader.read(client.health)
    cluster = reader.read(client.cluster)
    apps = reader.read(client.apps)
    partitions = reader.read(client.partitions)
    ports = reader.read(client.ports)
    firmware = reader.read(client.firmware)
    location = reader.read(client.location)
    return SwitchSeen(
        unit=unit,
        healthy=health[0] if health else None,
        issues=health[1] if health else (),
        cluster=cluster,
        apps=apps,
        partitions=partitions,
        ports=ports,
        firmware=firmware,
        location=location,
        problems=tuple(reader.problems),
    )

"""Nodes that were burnt in, for tests of what is measured between them afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from toolkit.rack.gate import Gate, Operator, Scope
from toolkit.rack.model import Unit
from toolkit.runners.shell import CommandResult

INVENTORY = Path(__file__).parents[1] / "inventory"
# The one gate of the nodes' own suite here.
STOPPED = Gate(
    "SAFETY_STOP", "safety_stop", "word", Scope.NODE, Operator.EQUALS, "none", "burnin", True, "tray", "w", "s", "d"
)


def now() -> datetime:
    """Wall clock."""
    return datetime.now(UTC)


class KilledError(BaseException):
    """The controller is killed: no code of ours may catch it."""


@dataclass
class Nodes:
    """Answers what is asked of nodes when leftovers are ended; keeps who was asked to end what."""

    stopped: list[tuple[str, str]] = field(default_factory=list)
    alive: tuple[str, ...] = ()

    @property
    def shell(self) -> Nodes:
        """Itself."""
        return self

    def run(self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = 0) -> CommandResult:
        """`guest stop` answers as the node's program does; everything else succeeds."""
        if argv[-2] == "stop" and argv[0] != "systemctl":
            self.stopped.append((node.name, argv[-1].rpartition("/")[2]))
            alive = ", ".join(f'"{words}"' for words in self.alive)
            return CommandResult(0, f'{{"found": 1, "alive": [{alive}]}}'.encode(), b"")
        return CommandResult(0, b"", b"")

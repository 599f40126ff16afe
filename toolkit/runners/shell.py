"""What a command on a node is asked and what it answers. `ssh` does it for real; the in-process rack imitates it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from toolkit.rack.model import Unit

MAX_OUTPUT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CommandResult:
    """Exit status and output of a command. `truncated`: the node sent more than the bound; the rest was not read."""

    status: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Shell(Protocol):
    """Commands and files on nodes. Raises UnreachableError when the node does not answer in time."""

    def run(
        self, node: Unit, argv: Sequence[str], timeout_s: float, max_bytes: int = MAX_OUTPUT_BYTES
    ) -> CommandResult:
        """Runs `argv` (quoted here, never a shell string) as root on the node."""
        ...

    def put(self, node: Unit, local: Path, remote: str, mode: int = 0o644) -> None:
        """Copies a file to the node, atomically (written beside, then renamed)."""
        ...

    def read(self, node: Unit, remote: str, offset: int, max_bytes: int) -> bytes:
        """Bytes of a file on the node from `offset`; empty at its end; FileNotFoundError if there is none."""
        ...

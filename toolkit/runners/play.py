"""What a playbook run is asked and what it answers. `ansible` runs it for real; the in-process rack imitates it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from toolkit.rack.model import Rack


class HostOutcome(StrEnum):
    """What happened on one host. UNKNOWN is everything that is not proven: it never counts as OK."""

    OK = "ok"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HostResult:
    """One host's end: the task that decided and what it said (bounded, printable)."""

    outcome: HostOutcome
    changed: int = 0
    task: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class PlayEvent:
    """Live progress: a host finished a task."""

    host: str
    task: str
    outcome: str


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """Run `playbook` (a file name in the playbooks folder) on exactly `nodes` of the rack.

    `variables` are not secret: they are written to disk. `ident` names the artifact folder.
    """

    rack: Rack
    playbook: str
    nodes: tuple[str, ...]
    ident: str
    timeout_s: float
    variables: Mapping[str, object] = field(default_factory=dict)
    check: bool = False


@dataclass(frozen=True, slots=True)
class PlayResult:
    """`hosts` has one entry for each node asked for, always. `folder` holds the runner's artifacts."""

    status: str
    hosts: Mapping[str, HostResult]
    folder: Path


class PlaybookRunner(Protocol):
    """One method: play and report."""

    def play(self, request: PlayRequest, on_event: Callable[[PlayEvent], None]) -> PlayResult:
        """Blocks until the play ended or its time is over. Raises nothing for a host's failure."""
        ...

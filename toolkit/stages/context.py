"""What a stage is given to act with, and what it answers. The in-process rack gives the same with other hands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from toolkit.ledger import Ledger, Run
from toolkit.pool.model import Pool
from toolkit.rack.lifecycle import Move, Outcome, Stage
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcClient
from toolkit.runners.play import PlaybookRunner
from toolkit.runners.shell import Shell
from toolkit.settings import Settings
from toolkit.stages.provisioning import ImageSite


@dataclass(frozen=True, slots=True)
class Result:
    """How a stage ended on a node.

    outcome  FAILED only on evidence about the hardware; `part` then names what to pull
    code     stable upper-case name of the finding; empty when PASSED
    next     the command or deed that comes next, for the operator
    move     a move other than the one the outcome implies (certify sends an undecided node back: RETEST)
    """

    outcome: Outcome
    code: str = ""
    message: str = ""
    part: str = ""
    next: str = ""
    move: Move | None = None


def passed(message: str = "") -> Result:
    """The stage did what it is for, and saw that it did."""
    return Result(Outcome.PASSED, message=message)


def error(code: str, message: str, hint: str) -> Result:
    """We could not, or could not tell."""
    return Result(Outcome.ERROR, code, message, next=hint)


@dataclass(frozen=True, slots=True)
class Progress:
    """Something an operator watching may want to know.

    done  0..1 where it is known; 1 says that the stage has its result
    gpu   of which GPU, where it is of one
    """

    node: str
    stage: Stage
    text: str
    done: float | None = None
    gpu: int | None = None


class Hands(Protocol):
    """Everything that reaches outside: BMCs, nodes, the provisioning server, the pool."""

    @property
    def playbooks(self) -> PlaybookRunner:
        """Changes machines."""
        ...

    @property
    def shell(self) -> Shell:
        """Reads machines."""
        ...

    @property
    def site(self) -> ImageSite:
        """The provisioning server's document root."""
        ...

    @property
    def pool(self) -> Pool:
        """The training pool."""
        ...

    def bmc(self, node: Unit) -> BmcClient:
        """The node's BMC; raises UndecidedError when it cannot be reached or trusted."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """One run of the pipeline over one rack."""

    rack: Rack
    settings: Settings
    ledger: Ledger
    hands: Hands
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    progress: Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage is asked: the nodes, each with its open run.

    finish  records a node's result; once for every node
    each    calls a function for every node given, side by side, and records what it returns (None: its result
            comes later, by `finish`). What it raises becomes that node's ERROR and never touches the others.
    """

    nodes: tuple[Unit, ...]
    runs: Mapping[str, Run]
    finish: Callable[[str, Result], None]
    each: Callable[[Iterable[Unit], Callable[[Unit], Result | None]], None]


StageRunner = Callable[[Context, Work], None]
"""A stage: blocks until every node of the work has its result. A node it stays silent about is an ERROR."""

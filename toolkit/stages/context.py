"""What a stage is given to act with, and what it answers. The in-process rack gives the same with other hands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from toolkit.errors import RackproofError
from toolkit.ledger import Ledger, Run
from toolkit.netboot.probe import DhcpServer
from toolkit.nvue.client import NvueClient
from toolkit.pool.join import Joins
from toolkit.pool.model import Pool
from toolkit.pool.policy import PoolPolicy
from toolkit.rack.lifecycle import Move, Outcome, Stage
from toolkit.rack.model import Rack, Unit
from toolkit.redfish import BmcClient
from toolkit.runners.carrier import Carrier
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

    @property
    def policy(self) -> PoolPolicy:
        """How the site lets racks into it."""
        ...

    @property
    def joins(self) -> Joins | None:
        """Lets nodes into the cluster; None where the site's pool is none that nodes join."""
        ...

    def carrier(self, node: Unit) -> Carrier:
        """What takes a burn-in to the node: SSH, or the site's scheduler; UsageError where nothing can."""
        ...

    def bmc(self, node: Unit) -> BmcClient:
        """The node's BMC; raises UndecidedError when it cannot be reached or trusted."""
        ...

    def strangers(self, node: Unit) -> tuple[DhcpServer, ...]:
        """DHCP servers that would answer the node and are not the boot service's; UsageError where nobody can look."""
        ...

    def nvue(self, tray: Unit) -> NvueClient:
        """NVUE of an NVLink switch tray; raises UsageError for one whose `nvos` the rack file does not give."""
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


def out_of_the_pool(context: Context, node: str, result: Result) -> Result:
    """A node that failed takes no more jobs. If the pool does not answer, the node's last word says so."""
    try:
        context.hands.pool.evict(node, f"{result.code} {result.part}".strip())
    except RackproofError as failure:
        return replace(result, message=f"{result.message}; NOT taken out of the pool: {failure.message}")
    return result


def holding(work: Work) -> tuple[Work, dict[str, Result]]:
    """The same work for the stage before another one: what passes is kept in the dict, by node, not recorded yet."""
    held: dict[str, Result] = {}

    def finish(name: str, ended: Result) -> None:
        if ended.outcome is Outcome.PASSED:
            held[name] = ended
        else:
            work.finish(name, ended)

    def hold(do: Callable[[Unit], Result | None]) -> Callable[[Unit], Result | None]:
        def one(node: Unit) -> Result | None:
            ended = do(node)
            if ended is None or ended.outcome is not Outcome.PASSED:
                return ended
            held[node.name] = ended
            return None

        return one

    return replace(work, finish=finish, each=lambda nodes, do: work.each(nodes, hold(do))), held

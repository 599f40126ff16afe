"""A node's turn at being measured again: what is asked, what it came to, and what comes next. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from toolkit.errors import UndecidedError
from toolkit.ledger import Run
from toolkit.rack.lifecycle import NodeState, Outcome
from toolkit.rack.model import Rack, Suite
from toolkit.report.recert_run import End, Turn
from toolkit.stages.aside import Aside
from toolkit.stages.burnin import YIELDED
from toolkit.stages.carried import Ends


@dataclass(frozen=True, slots=True)
class Task:
    """What a node is to be measured by. `whole`: with rails and levels, so that nothing has to be carried."""

    node: str
    suite: Suite
    why: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is allowed.

    near         leaves and NVLink domain of each node; `at_once`: nodes of each that may be out
    floor        share of the pool that goes on running jobs
    site         racks of the pool, for one that does not count its nodes itself
    take_over_s  how old workloads of a run that was cut may be that are not run again
    """

    near: Mapping[str, tuple[str, ...]]
    at_once: int
    floor: float
    site: tuple[Rack, ...]
    take_over_s: float


def task_of(one: Aside) -> Task:
    """The task of a node that an earlier run took out, as it was said then."""
    told = one.details
    return Task(one.node, Suite(str(told["suite"])), str(told.get("why", "")), bool(told.get("whole")))


def alike(tasks: Iterable[Task]) -> list[list[Task]]:
    """The tasks that may run together: of one suite."""
    found: dict[tuple[Suite, bool], list[Task]] = {}
    for task in tasks:
        found.setdefault((task.suite, task.whole), []).append(task)
    return list(found.values())


def turn_of(task: Task, end: End, *, message: str = "", next: str = "") -> Turn:
    """A turn that came to no run."""
    return Turn(task.node, task.suite, end, task.why, message=message, next=next)


def came_to(task: Task, state: NodeState | None, runs: Sequence[Run], again: str) -> Turn:
    """By the first of its runs that did not pass, and by where it stands."""
    bad = next((run for run in runs if run.outcome is not Outcome.PASSED), None)
    if bad is None:
        return turn_of(task, End.RENEWED)
    end = End.YIELDED if bad.code == YIELDED else End.UNDECIDED
    if state is NodeState.QUARANTINED:
        end = End.FAILED
        bad = next((run for run in runs if run.outcome is Outcome.FAILED), bad)
    return replace(
        turn_of(task, end), code=bad.code, part=bad.part, message=bad.message, next=bad.next or again
    )  # fmt: skip


def is_later(after: Ends, before: Ends, node: str) -> bool:
    """Whether the node's certificate ends later than it did."""
    now, then = after.at.get(node), before.at.get(node)
    return now is not None and (then is None or now > then)


def at_best(end: End) -> End:
    """What a turn came to at best whose node is not back in the pool."""
    return End.UNDECIDED if end in (End.RENEWED, End.KEPT) else end


def by_hand(rack: Rack, node: str) -> str:
    """What renews all of a node's evidence where the bounds do not let it be measured against others."""
    return f"with more idle nodes of its leaf, or by hand: rackproof drain {node}, then rackproof bringup {rack.name}"


def require_up(rack: Rack, states: Mapping[str, NodeState], names: Sequence[str]) -> None:
    """UndecidedError for a node whose turn has not come, with the command that comes first."""
    for name in names:
        state = states.get(name, NodeState.PLANNED)
        if state is NodeState.QUARANTINED:
            raise UndecidedError(
                f"{name} is QUARANTINED: it is measured after its repair",
                f"rackproof release {name}, rackproof bringup {rack.name} --to {NodeState.JOINED}; then this again",
            )
        if state is NodeState.TESTED:
            raise UndecidedError(
                f"{name} is TESTED, and was so before the change was told",
                f"first: rackproof bringup {rack.name} --to {NodeState.CERTIFIED}; then the same command again",
            )
        if state not in (NodeState.JOINED, NodeState.CERTIFIED, NodeState.ADMITTED):
            raise UndecidedError(
                f"{name} is {state}: it is not up",
                f"first: rackproof bringup {rack.name} --to {NodeState.JOINED}; then the same command again",
            )

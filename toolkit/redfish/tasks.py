"""Long work of a BMC: what a 202 answers, and how it is followed (DSP0266, "Asynchronous operations")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from toolkit.errors import UnreachableError
from toolkit.redfish.failures import BmcAnswerError
from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Answer, Document, Wire, each, is_path, link

_ENDED_WELL = frozenset({"Completed"})
_ENDED_BADLY = frozenset({"Exception", "Killed", "Cancelled", "Interrupted"})
_MAX_SAID = 4


class TaskEnd(StrEnum):
    """How a task stands. LOST: the BMC knows it no more (it forgets them when it restarts): what it did is unknown."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    LOST = "lost"
    SILENT = "silent"  # the BMC did not answer for longer than a restart takes
    LATE = "late"  # it still runs, and our patience is over


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the BMC tells it. `percent` is None where it names none."""

    path: str
    end: TaskEnd
    percent: int | None = None
    said: str = ""


@dataclass(frozen=True, slots=True)
class TaskPatience:
    """How long a task is followed, in seconds. `silent_s`: a BMC that flashes itself is away for minutes."""

    whole_s: float = 3600.0
    silent_s: float = 600.0
    poll_s: float = 5.0


def task_path(answer: Answer) -> str:
    """Where the work that was begun can be followed: the task itself, or its monitor; empty where none was named."""
    own = link(answer.document)
    return own if "/Tasks/" in own else (answer.location if is_path(answer.location) else own)


def read_task(wire: Wire, path: str) -> Task:
    """The task now. Raises UnreachableError where the BMC does not answer."""
    try:
        document = wire.get(path, "following a task")
    except BmcAnswerError as answer:
        # A monitor answers with the operation's own status when it is over: an error is the operation's.
        end = TaskEnd.LOST if answer.status in (404, 410) else TaskEnd.FAILED
        return Task(path, end, None, answer.message)
    return _task(path, document)


def all_tasks(wire: Wire) -> tuple[Task, ...]:
    """Tasks that the BMC knows, under way or ended."""
    service = link(wire.get(ROOT, "reading its tasks"), "Tasks")
    listed = link(wire.get_or_none(service) or {}, "Tasks") if service else ""
    return tuple(_task(path, document) for path, document in each(wire, listed)) if listed else ()


def follow(
    wire: Wire, path: str, patience: TaskPatience, clock: Callable[[], float], sleep: Callable[[float], None],
    progress: Callable[[Task], None] = lambda _: None,
) -> Task:  # fmt: skip
    """The task when it has ended, or when nothing more is to be learned by waiting. `clock` in seconds."""
    until = clock() + patience.whole_s
    heard = clock()
    while True:
        try:
            task = read_task(wire, path)
        except UnreachableError as away:
            if clock() - heard > patience.silent_s:
                return Task(path, TaskEnd.SILENT, None, away.message)
        else:
            heard = clock()
            progress(task)
            if task.end is not TaskEnd.RUNNING:
                return task
            if clock() > until:
                return Task(path, TaskEnd.LATE, task.percent, task.said)
        sleep(patience.poll_s)


def _task(path: str, document: Document) -> Task:
    state, status, percent = document.get("TaskState"), document.get("TaskStatus"), document.get("PercentComplete")
    shown = percent if isinstance(percent, int) and 0 <= percent <= 100 else None
    said = _messages(document.get("Messages"))
    if state in _ENDED_BADLY or (state in _ENDED_WELL and status in ("Critical", "Warning")):
        return Task(path, TaskEnd.FAILED, shown, said or printable(f"{state} {status}"))
    if state in _ENDED_WELL:
        return Task(path, TaskEnd.COMPLETED, shown, said)
    return Task(path, TaskEnd.RUNNING, shown, said)


def _messages(listed: object) -> str:
    """The last messages, in their order."""
    found = listed[-_MAX_SAID:] if isinstance(listed, list) else []
    return "; ".join(printable(one.get("Message")) for one in found if isinstance(one, dict) and one.get("Message"))

"""What Slurm's programs print, read strictly. Pure.

A reason, a comment or a job's name may hold anything, line breaks too: whoever drains a node by a health check lets the
node write it. Fields are therefore parted by a mark that is drawn anew for each question, which no text can foresee.
JSON would do as well, but Slurm has it only where it was built with json-c, and its fields change with every version.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from toolkit.errors import UndecidedError

NODE_FIELDS = ("NodeList", "StateComplete", "features_act", "Features", "Comment", "Reason", "User", "Timestamp")
JOB_FIELDS = ("%i", "%u", "%T", "%L", "%j", "%N")
MAX_SHOWN = 300
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")
_STATES = re.compile(r"[a-z_]{1,32}(\+[a-z_]{1,32}){0,15}")
_JOB = re.compile(r"\d{1,10}([_+.][0-9A-Za-z\[\],%+_-]{1,40})?")
_NOTHING = frozenset({"", "(null)", "N/A", "None", "none", "Unknown"})


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """A node as slurmctld has it.

    state      words of `scontrol show node`'s State, lower case: `idle`, `drain`, `not_responding`
    active     features that jobs are placed by now; `available`: those it may have
    reason     why it is drained, down or failing; `by` and `at`: whose word that is, and since when
    """

    name: str
    state: frozenset[str]
    active: tuple[str, ...] = ()
    available: tuple[str, ...] = ()
    comment: str = ""
    reason: str = ""
    by: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job that has nodes, or waits for them. `left`: of its time limit, as Slurm writes it; `nodes`: folded."""

    identity: str
    user: str
    state: str
    left: str
    name: str
    nodes: str

    def __str__(self) -> str:
        ends = "no time limit" if self.left in ("UNLIMITED", "INVALID", "NOT_SET") else f"{self.left} left"
        return f"job {self.identity} {shown(self.name, 60)} of {shown(self.user, 40)} ({self.state.lower()}, {ends})"


def node_format(mark: str) -> str:
    """sinfo's --Format: every field ended by the mark, at its full length."""
    return ",".join(f"{field}:{mark}" for field in NODE_FIELDS)


def job_format(mark: str) -> str:
    """squeue's --format."""
    return mark.join((*JOB_FIELDS, ""))


def nodes_of(said: str, mark: str) -> dict[str, SlurmNode]:
    """Nodes by name, of `sinfo --Node --noheader`. A node of several partitions is there once."""
    return {node.name: node for node in (_node(row) for row in rows(said, mark, len(NODE_FIELDS), "sinfo"))}


def jobs_of(said: str, mark: str) -> tuple[SlurmJob, ...]:
    """Jobs, of `squeue --noheader`."""
    found = []
    for row in rows(said, mark, len(JOB_FIELDS), "squeue"):
        if not _JOB.fullmatch(row[0]):
            raise _unreadable("squeue", f"{shown(row[0])} as a job")
        found.append(SlurmJob(*row))
    return tuple(found)


def shown(text: str, most: int = MAX_SHOWN) -> str:
    """Somebody's text on one line, without control characters, cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def rows(said: str, mark: str, width: int, program: str) -> list[Sequence[str]]:
    """Rows of so many fields: nothing but a line break may stand between the last mark of one and the next."""
    fields = said.split(mark)
    if fields.pop() not in ("", "\n") or len(fields) % width:
        raise _unreadable(program, f"{len(fields)} fields where each row has {width}")
    rows: list[Sequence[str]] = []
    for start in range(0, len(fields), width):
        first, *others = fields[start : start + width]
        if start and not first.startswith("\n"):
            raise _unreadable(program, f"{shown(first)} where a row begins")
        rows.append((first.removeprefix("\n"), *others))
    return rows


def _node(row: Sequence[str]) -> SlurmNode:
    name, state, active, available, comment, reason, by, at = row
    if not _NAME.fullmatch(name):
        raise _unreadable("sinfo", f"{shown(name)} as a node's name")
    if not _STATES.fullmatch(state.strip().lower()):
        raise _unreadable("sinfo", f"{shown(state)} as the state of {name}")
    return SlurmNode(
        name, frozenset(state.strip().lower().split("+")), _features(active), _features(available), _text(comment),
        _text(reason), _text(by), _time(at),
    )  # fmt: skip


def _features(text: str) -> tuple[str, ...]:
    return tuple(word for word in _text(text).split(",") if word)


def _text(text: str) -> str:
    """The text, or the empty string where Slurm says that there is none."""
    return "" if text.strip() in _NOTHING else text


def _time(text: str) -> datetime | None:
    """SLURM_TIME_FORMAT=standard, under TZ=UTC; None for what is no time."""
    try:
        return datetime.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def _unreadable(program: str, what: str) -> UndecidedError:
    return UndecidedError(
        f"{program} printed what nobody expects of it: {what}",
        f"see what `{program}` says by itself; Slurm 22.05 or newer is needed",
    )

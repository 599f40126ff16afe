"""Who has a use for a node of Slurm's now: a job that runs there, or one that waits and could run there. Pure.

A job that waits for resources, for its priority or for nodes that are drained would take any node that has its
features; how many it needs beside is not asked: giving way once too often costs a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolkit.pool import slurm_text
from toolkit.pool.slurm_record import CERTIFIED
from toolkit.pool.slurm_text import SlurmJob, SlurmNode, shown
from toolkit.rack.nodeset import expand

# squeue(1): of a pending job its number, user, name, reason, features and the nodes that it insists on
PENDING_FIELDS = ("%i", "%u", "%j", "%r", "%f", "%n")
OURS = ("rackproof-", "rackproof:", "rackproof_")
# squeue(1), JOB REASON CODES: of those that wait for a node; `ReqNodeNotAvail` has more words behind it. Slurm calls a
# constraint bad that no node meets now: such as our feature, where the last node that had it is out to be measured
_FOR_A_NODE = ("Resources", "Priority", "ReqNodeNotAvail", "Nodes_required_for_job_are_DOWN", "BadConstraints")
_WORD = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Pending:
    """A job that has no nodes yet. `features`: an expression; `nodes`: folded, empty where it takes any."""

    identity: str
    user: str
    name: str
    reason: str
    features: str
    nodes: frozenset[str] | None


def pending_format(mark: str) -> str:
    """squeue's --format."""
    return mark.join((*PENDING_FIELDS, ""))


def pending_of(said: str, mark: str) -> tuple[Pending, ...]:
    """Jobs of `squeue --noheader`, read as `slurm_text` reads them. UndecidedError for what is none."""
    found = []
    for identity, user, name, reason, features, nodes in slurm_text.rows(said, mark, len(PENDING_FIELDS), "squeue"):
        found.append(Pending(identity, user, name, reason, features, _named(nodes)))
    return tuple(found)


def _named(folded: str) -> frozenset[str] | None:
    """The nodes that a job insists on; None: it does not, or what Slurm writes cannot be read (then any would do)."""
    text = folded.strip()
    if text in ("", "(null)", "N/A", "None"):
        return None
    try:
        return frozenset(expand(text))
    except ValueError:
        return None


def in_use(jobs: Iterable[SlurmJob]) -> str:
    """The first job of these, all on one node, that is not ours, in words; empty: none."""
    return next((f"{job} runs there" for job in jobs if not job.name.startswith(OURS)), "")


def waited_for(node: SlurmNode, jobs: Iterable[Pending]) -> str:
    """The first job of these that the node would help, in words; empty: none."""
    for job in jobs:
        if not job.name.startswith(OURS) and job.reason.startswith(_FOR_A_NODE) and _fits(job, node):
            return f"job {job.identity} {shown(job.name, 60)} of {shown(job.user, 40)} waits ({shown(job.reason, 60)})"
    return ""


def _fits(job: Pending, node: SlurmNode) -> bool:
    """With any of its features the node is taken as fit where they are an alternative; else it must have all."""
    has = {*node.available, *node.active, CERTIFIED}
    words = _WORD.findall(job.features) if job.features not in ("(null)", "N/A") else []
    asked: Sequence[bool] = [word in has for word in words]
    fit = any(asked) if "|" in job.features else all(asked)
    return fit and (job.nodes is None or node.name in job.nodes)

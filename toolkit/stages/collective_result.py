"""What a collective over many nodes comes to: outcome and cause, numbers, and what is left of it on the nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from toolkit.facts.nccl_counters import Carried
from toolkit.facts.nccl_path import Answer, Proof
from toolkit.facts.nccl_run import NcclRun, Outcome
from toolkit.stages.context import Result, error, passed
from toolkit.stages.mpi_command import Order

_CAUSES = re.compile(
    r"ssh: |Permission denied|Host key verification failed|host key is known|REMOTE HOST IDENTIFICATION|"
    r"Could not resolve|this key starts|"
    r"Connection (?:refused|timed out|closed|reset)|No route to host|not enough slots|could not be found|execvp|"
    r"Executable:|unable to find|failed to start|"
    r"exited on signal|exited with|lost communication|Remote daemon:|hostfile|unknown host|Test (?:NCCL|CUDA) failure|"
    r"srun: error|salloc: error|slurmstepd[^:]*: error|NCCL WARN",
    re.IGNORECASE,
)
_MOST_CAUSES = 4


@dataclass(frozen=True, slots=True)
class Remains:
    """What was still there on a node at the end. `alive`: what would not die; `problem`: why nobody could look."""

    node: str
    found: int = 0
    alive: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Collected:
    """A collective that was started, wherever it came.

    how        of the launcher: `exited`, `deadline`, ...; empty where its end was not seen
    problem    what kept us from starting or following it; empty: nothing did
    artifacts  sha256 by name
    told       what the scheduler says of the nodes it would not give; empty: none was asked, or it would give all
    carried    what each node's counters said of the HCAs that the order is of
    retries_spent  NCCL's log says that an HCA sent something as often as it may and had no answer: nothing got through
    """

    order: Order
    run: NcclRun
    proof: Proof
    how: str
    status: int
    seconds: float
    output: str
    remains: tuple[Remains, ...]
    problem: str = ""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    carried: tuple[Carried, ...] = ()
    retries_spent: bool = False
    told: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """How it ended, by what it printed; a run we stopped did not complete, and did not crash by itself."""
        if self.run.outcome is Outcome.CRASHED and self.how == "deadline" and not self.run.failures:
            return Outcome.INCOMPLETE
        return self.run.outcome


def result(collected: Collected) -> Result:
    """What it comes to. PASSED: it was measured, and it was the right fabric; whether the numbers do is for gates."""
    again = "see the artifacts of the run, then the same command again"
    left = [r for r in collected.remains if r.alive]
    unseen = "; ".join(f"{r.node}: {r.problem}" for r in collected.remains if r.problem)
    gone = f"; nobody can tell what still runs on {unseen}" if unseen else ""
    if left:
        words = "; ".join(f"{r.node}: {', '.join(r.alive[:4])}" for r in left)
        return error(
            "COLLECTIVE_ORPHANS", f"processes of {collected.order.identity} do not die on {words}", "reboot it"
        )
    if collected.problem:
        return error("COLLECTIVE_NOT_FOLLOWED", collected.problem + gone, again)
    outcome = collected.outcome
    if outcome not in (Outcome.COMPLETED, Outcome.DATA_ERROR, Outcome.LOW_BANDWIDTH):
        words = f"{collected.order.collective} {outcome}: {cause(collected)}{gone}"
        return error(f"COLLECTIVE_{outcome.name}", words, again)
    if unseen:
        return error("COLLECTIVE_END_UNPROVEN", gone.removeprefix("; "), again)
    if collected.run.ranks != collected.order.ranks:
        words = f"{collected.run.ranks} ranks where {collected.order.ranks} were planned"
        return error("COLLECTIVE_RANKS_MISSING", words, again)
    if collected.proof.answer is not Answer.PROVEN:
        code = "WRONG_FABRIC" if collected.proof.answer is Answer.WRONG else "FABRIC_UNPROVEN"
        return error(code, f"{collected.order.collective} {collected.proof.text}", "see NCCL's log among the artifacts")
    return passed(f"{collected.order.collective} over {collected.order.ranks} ranks: {collected.proof.text}")


def measured(collected: Collected) -> list[tuple[str, str, float | str]]:
    """(metric, unit, value) of the rack. What is not known is not said; bandwidth is said of a whole table alone."""
    name, run = f"rack_nccl_{collected.order.collective}", collected.run
    said: list[tuple[str, str, float | str]] = [(f"{name}_outcome", "word", str(collected.outcome))]
    if run.ranks is not None:
        said.append((f"{name}_ranks", "count", run.ranks))
    if run.rows:
        said.append((f"{name}_largest_bytes", "bytes", max(row.size for row in run.rows)))
    if run.footer_complete and run.busbw is not None:
        said.append((f"{name}_busbw_gb_per_s", "GB/s", run.busbw[0]))
        said.append((f"{name}_busbw_p50_gb_per_s", "GB/s", run.busbw[1]))
    if run.wrong_total or (run.footer_complete and run.wrong_total is not None):
        said.append((f"{name}_wrong_values", "count", run.wrong_total))
    said.append(
        (f"{name}_path", "word", {Answer.WRONG: "wrong"}.get(collected.proof.answer, str(collected.proof.answer)))
    )
    if collected.proof.fraction is not None:
        said.append((f"{name}_path_bytes_fraction", "fraction", round(collected.proof.fraction, 4)))
    return said


def cause(collected: Collected) -> str:
    """Why it did not complete, in its own words, with nodes by their names; at most four lines."""
    names = {n.host.address: n.name for n in collected.order.nodes if n.host is not None}
    lines = list(dict.fromkeys(line.strip() for line in collected.output.splitlines() if _CAUSES.search(line)))
    if collected.how == "deadline":
        rows = len(collected.run.rows)
        lines.insert(
            0, f"no end within {collected.order.deadline_s:g} s, {rows} rows and {collected.run.ranks} ranks printed"
        )
    lines[:0] = collected.told
    if not lines:
        last = [line.strip() for line in collected.output.splitlines() if line.strip(" -\t\r")]
        lines = [f"{collected.how or 'no end'}, status {collected.status}", *last[-1:]]
    text = "; ".join(lines[:_MOST_CAUSES])
    for address in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(address)}(?![\w])", f"{names[address]} ({address})", text)
    return "".join(c if c.isprintable() else " " for c in text)[:1000]

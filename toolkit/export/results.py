"""Results of a rack as every format has them: suites of cases, each with one of four answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from toolkit.judge.evidence import Value
from toolkit.judge.part import GpuSeat
from toolkit.rack.gate import Gate
from toolkit.rack.lifecycle import NodeState


class Answered(StrEnum):
    """What a case came to. FAILED only by evidence about the hardware; what could not be told is an ERROR."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    ERROR = "ERROR"
    SKIPPED = "SKIPPED"  # not asked, and `detail` says why: never a pass


@dataclass(frozen=True, slots=True)
class Case:
    """One question and its answer.

    name      code of the gate, or what was asked of a stage or a node as a whole
    subject   what it was asked of: node2/gpu3
    detail    in words; may quote a node
    gate      None where no gate was asked
    at        when it was measured, or when the run ended; None: neither happened
    seconds   how long it took; None: nobody knows
    code      of what stands against it; empty where nothing does
    artifact  sha256 of the evidence; empty where there is none
    """

    name: str
    subject: str
    answer: Answered
    detail: str
    gate: Gate | None = None
    value: Value | None = None
    at: datetime | None = None
    seconds: float | None = None
    code: str = ""
    part: str = ""
    next: str = ""
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of a stage on a node; `node` is empty for what was asked of many nodes together."""

    node: str
    stage: str
    cases: tuple[Case, ...]
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """`node2 burnin`, `rack burnin`."""
        return f"{self.node or 'rack'} {self.stage}"

    def count(self, answer: Answered) -> int:
        """How many cases have this answer."""
        return sum(case.answer is answer for case in self.cases)


@dataclass(frozen=True, slots=True)
class TestedNode:
    """A node as designed, with the GPUs that it reported last, by index."""

    name: str
    serial: str
    slot: int
    state: NodeState
    gpus: tuple[tuple[int, GpuSeat], ...]


@dataclass(frozen=True, slots=True)
class Results:
    """All of a rack. `version`: of rackproof; `made_at`: when the ledger was read."""

    rack: str
    site: str
    profile: str
    sku: str
    version: str
    made_at: datetime
    nodes: tuple[TestedNode, ...]
    suites: tuple[Suite, ...]

    def cases(self) -> Iterator[tuple[Suite, Case]]:
        """Every case with its suite, in order."""
        for suite in self.suites:
            for case in suite.cases:
                yield suite, case

    def count(self, answer: Answered) -> int:
        """How many cases have this answer."""
        return sum(suite.count(answer) for suite in self.suites)

    @property
    def answer(self) -> Answered:
        """Of all of it. PASSED only where nothing failed or is open, and every node that is not retired is admitted."""
        found = worst(case.answer for _, case in self.cases())
        left = [node for node in self.nodes if node.state is not NodeState.RETIRED]
        whole = bool(left) and all(node.state is NodeState.ADMITTED for node in left)
        return Answered.ERROR if found is Answered.PASSED and not whole else found


_WORST_FIRST = (Answered.FAILED, Answered.ERROR, Answered.PASSED, Answered.SKIPPED)


def worst(answers: Iterable[Answered]) -> Answered:
    """The worst of them; of none, SKIPPED."""
    return min(answers, key=_WORST_FIRST.index, default=Answered.SKIPPED)

"""Documents of `--json` about racks and nodes that no type of ours describes: as verbs put them together.

Imported to make the shipped schemas, and by the test that holds the two together; no verb needs it to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from toolkit.certificate.drifted import Drifted
from toolkit.judge.ceilings import Ceiling
from toolkit.judge.dictionary import KnownError
from toolkit.judge.fabric.line import WorkLine
from toolkit.judge.ladder import Help
from toolkit.judge.recert.changes import Change
from toolkit.judge.recert.choose import Pick, Terms, Uncovered
from toolkit.judge.recert.differential import Step as RecertStep
from toolkit.judge.recert.touch import Touched
from toolkit.judge.verdict import Answer
from toolkit.rack.burnin_plan import BurninPlan, Figure
from toolkit.rack.gate import Gate
from toolkit.rack.lifecycle import NodeState, Stage
from toolkit.repair import Recovered
from toolkit.report.burnin import NodeBurnin
from toolkit.report.certificate_record import Evidence, OnRecord
from toolkit.report.contract_document import ContractReport
from toolkit.report.eta import Usual
from toolkit.report.overview import Overview
from toolkit.report.recert_run import Turn
from toolkit.report.why import Why
from toolkit.rma.answers import Answer as VendorAnswer
from toolkit.rma.pack import LeftOut
from toolkit.withdrawal import Withdrawn


@dataclass(frozen=True)
class PlanMore:
    """`plan`. `usual`: seconds of earlier runs by stage; a stage without history is not in it."""

    digest: str
    burnin: BurninPlan | None
    usual: Mapping[Stage, Usual]
    next: str


@dataclass(frozen=True)
class AdmitMore:
    """`admit`. `no_smoke`: why no collective was run before the pool was opened; empty: one was."""

    no_smoke: str


@dataclass(frozen=True)
class AdmissionPlanMore:
    """`admit --plan`. `seconds`: of all waves, as planned; null: it is not known."""

    seconds: float | None


@dataclass(frozen=True)
class StatusDocument:
    """`status`: racks by name."""

    racks: Mapping[str, Overview]


@dataclass(frozen=True)
class WhyDocument:
    """`why`: those that are kept from the pool, failures first; of one node that was named, that one."""

    rack: str
    nodes: tuple[Why, ...]


@dataclass(frozen=True)
class FactRead:
    """A fact. `value`: as its parser gives it; `problem`: why there is none."""

    value: Any
    problem: str | None
    at: datetime


@dataclass(frozen=True)
class FactsDocument:
    """`facts`, by probe."""

    rack: str
    node: str
    facts: Mapping[str, FactRead]


@dataclass(frozen=True)
class ExplainedGate:
    """A gate of a profile, under its ceiling, where there is a closed form."""

    profile: str
    gate: Gate
    ceiling: Ceiling | None


@dataclass(frozen=True)
class ExplainDocument:
    """`explain`. `ladder`: which restarts can help, and who says so; `runbook`: its sections."""

    code: str
    meaning: str
    gates: tuple[ExplainedGate, ...]
    known: tuple[KnownError, ...]
    ladder: Help | None
    runbook: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class NumberedLine(WorkLine):
    """A line of a work order. `number`: counted from 1."""

    number: int


@dataclass(frozen=True)
class WorkOrderDocument:
    """`fabric`."""

    rack: str
    answer: Answer
    counts: Mapping[str, str]
    lines: tuple[NumberedLine, ...]
    doubts: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BurninDocument:
    """`burnin`: each node that was burnt in."""

    rack: str
    nodes: tuple[NodeBurnin, ...]


@dataclass(frozen=True)
class DifferentialDocument:
    """`recert plan --after`. `holds`: pieces of evidence that stay good; `share`: of a whole burn-in's node-minutes."""

    rack: str
    changes: tuple[Change, ...]
    touched: tuple[Touched, ...]
    holds: int
    steps: tuple[RecertStep, ...]
    node_minutes: Figure
    kwh: Figure
    full: Figure
    full_kwh: Figure
    unverified: tuple[str, ...]
    share: float | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PickDocument(Pick):
    """A test that was chosen. `kwh` null: nobody knows."""

    kwh: float | None  # type: ignore[assignment]


@dataclass(frozen=True)
class BudgetDocument:
    """`recert plan --minutes`, `--kwh`. `kwh` null: nobody knows."""

    rack: str
    picks: tuple[PickDocument, ...]
    node_minutes: float
    kwh: float | None
    uncovered: tuple[Uncovered, ...]
    stays_uncovered: tuple[str, ...]
    terms: Terms
    aside: tuple[tuple[str, NodeState], ...]
    remarks: tuple[str, ...]
    assumed: tuple[str, ...]
    rates: str


@dataclass(frozen=True)
class RecertRunDocument:
    """`recert run`. `unverified`: after a change; `ahead`: within a budget. What does not apply is empty."""

    rack: str
    turns: tuple[Turn, ...]
    ahead: tuple[str, ...]
    unverified: tuple[str, ...]


@dataclass(frozen=True)
class WithdrawalDocument:
    """`drain`, `revoke`."""

    nodes: tuple[Withdrawn, ...]


@dataclass(frozen=True)
class DoorInstallDocument:
    """`door install`. `webhook`: where it answers; empty: the cluster has a policy of its own."""

    applied: tuple[str, ...]
    login: Path
    webhook: str


@dataclass(frozen=True)
class DoorLineDocument:
    """`door watch`: one a line, as it happens."""

    at: datetime
    told: str


@dataclass(frozen=True)
class SetAsideDocument:
    """`quarantine`, `release`."""

    rack: str
    node: str
    before: NodeState
    after: NodeState
    reason: str


@dataclass(frozen=True)
class RecoverDocument:
    """`recover`."""

    exit_code: int
    next: str
    recovered: Recovered


@dataclass(frozen=True)
class RmaDocument:
    """`rma`. `replaced_or_removed`: how often, by kind of name."""

    archive: Path
    bytes: int
    files: tuple[str, ...]
    answers: tuple[VendorAnswer, ...]
    unknown: tuple[str, ...]
    replaced_or_removed: Mapping[str, int]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class UnreadNode:
    """A node that could not be compared, and why."""

    node: str
    why: str


@dataclass(frozen=True)
class ProvenMore:
    """`verify`, of a certificate that could be read: its own fields, and what was found beside them."""

    answer: str
    code: str
    coverage: str
    against: str | None
    drifted: tuple[Drifted, ...]
    unread: tuple[UnreadNode, ...]
    record: OnRecord | None
    evidence_found: Evidence | None
    limits: tuple[str, ...]
    next: str


@dataclass(frozen=True)
class RefusedDocument:
    """`verify`, of a file that proves nothing, or of which nobody can say."""

    answer: str
    code: str
    message: str
    next: str


@dataclass(frozen=True)
class ContractReadingDocument:
    """`contract --read`."""

    report: ContractReport
    keyid: str
    answer: Answer
    doubt: str

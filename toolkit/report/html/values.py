"""What a rack's report shows: value objects, the same for the page and for JSON. Node-made text is not yet escaped."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from toolkit.judge.evidence import Subject, Value
from toolkit.judge.verdict import Answer
from toolkit.rack.gate import Limit, Operator, Scope
from toolkit.rack.lifecycle import NodeState, Outcome, Stage
from toolkit.rack.model import UnitKind
from toolkit.report.html.traces import Trace

SCHEMA = "rackproof.dev/rack-report/v1"


@dataclass(frozen=True, slots=True)
class Seat:
    """A unit in its slot. Of a node: where it stands, and what keeps it from its goal."""

    slot: int
    unit: str
    kind: UnitKind
    serial: str
    state: NodeState | None = None
    certified: bool = False
    outcome: Outcome | None = None
    stage: Stage | None = None
    code: str = ""
    part: str = ""
    message: str = ""
    next: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """A gate's line in a chart."""

    code: str
    operator: Operator
    limit: Limit
    source: str


@dataclass(frozen=True, slots=True)
class Point:
    """One measured subject. `value` None: it was not measured since it was repaired, or may not be believed.

    who     node, part, serial and slot in words
    answer  the worst of the profile's gates on it; None where none reads this metric
    """

    subject: Subject
    column: int
    who: str
    value: Value | None
    answer: Answer | None = None
    at: datetime | None = None
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over all planned subjects.

    ceiling   (what it is, value) of what physics allows; None where there is no closed form
    unjudged  why no gate reads it; empty where one does
    """

    metric: str
    title: str
    unit: str
    scope: Scope
    points: tuple[Point, ...]
    limits: tuple[Limits, ...]
    ceiling: tuple[str, float] | None = None
    unjudged: str = ""

    @property
    def numbers(self) -> tuple[float, ...]:
        """Values that are numbers."""
        return tuple(float(p.value) for p in self.points if isinstance(p.value, int | float))


@dataclass(frozen=True, slots=True)
class CableCell:
    """A planned cable of an HCA: the port it goes to, and what stands against it.

    fault  code of what stands against it; `none`; empty where it is not known
    """

    node: str
    hca: str
    rail: int
    far: str
    fault: str


@dataclass(frozen=True, slots=True)
class FabricLine:
    """Something to do about the fabric, or something open, as the last look has it."""

    code: str
    answer: Answer
    text: str
    ends: tuple[str, ...]
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Look:
    """The last look at the cables.

    links  (planned, between their planned ends, sound); None where the look did not count them
    """

    at: datetime
    answer: Answer
    links: tuple[int, int, int] | None
    lines: tuple[FabricLine, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bar:
    """One run on the timeline. `ended` None: it is open, or its process died."""

    node: str
    stage: Stage
    began: datetime
    ended: datetime | None
    outcome: Outcome | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What the last verdict on a node has against it, or could not tell.

    meaning  of the code, in our words; `part` is named where a run blamed one
    blamed   whether it is what keeps the node where it is
    """

    node: str
    code: str
    answer: Answer
    subjects: tuple[str, ...]
    detail: str
    meaning: str
    part: str
    next: str
    evidence: str
    blamed: bool


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """An artifact that values of this report were read from. `rests`: how many."""

    digest: str
    node: str
    run: str
    at: datetime
    rests: int


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """A certificate in force."""

    digest: str
    keyid: str
    issued_at: datetime
    expires_at: datetime
    nodes: tuple[str, ...]
    result: str


@dataclass(frozen=True, slots=True)
class RackReport:
    """All of it.

    answer   FAIL: a node failed on evidence; PASS: a certificate in force vouches for every planned node
    doubts   (node, why no certificate vouches for it)
    earlier  runs of earlier plans, which the timeline leaves out
    unlisted findings over what a page can hold; `untraced`: nodes whose trace is not drawn
    """

    rack: str
    site: str
    sku: str
    profile: str
    topology: str
    made_at: datetime
    tool_version: str
    answer: Answer
    seats: tuple[Seat, ...]
    certificates: tuple[CertificateRow, ...]
    doubts: tuple[tuple[str, str], ...]
    not_verified: tuple[str, ...]
    findings: tuple[FindingRow, ...]
    unlisted: int
    traces: tuple[Trace, ...]
    untraced: int
    series: tuple[Series, ...]
    cables: tuple[CableCell, ...]
    look: Look | None
    bars: tuple[Bar, ...]
    earlier: int
    evidence: tuple[EvidenceRow, ...]
    next: str

"""A contract report as a document: what is written as JSON, signed, printed and read back. Its version is `schema`.

A new field is a new version. Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from toolkit.judge.contract import overall
from toolkit.judge.verdict import Answer
from toolkit.rack.contract import MAX_CRITERIA, MAX_CRITERION_TEXT
from toolkit.rack.gate import Operator, Scope

SCHEMA: Literal["rackproof.dev/contract-report/v1"] = "rackproof.dev/contract-report/v1"


def _with_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a zone")
    return text


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(max_length=40), AfterValidator(_with_zone)]
Text = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0)]
Number = float | int | str | tuple[str, ...] | None


class Part(BaseModel):
    """An object with these keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GateLine(Part):
    """A gate of a criterion.

    stated_by  whose limit it is judged by: the contract's, or that of the rack's profile
    ours       the profile's limit beside the contract's, and how the contract's stands to it
    """

    name: Text
    metric: Text
    scope: Scope
    operator: Operator
    limit: Number
    unit: Text
    stated_by: Literal["contract", "profile"]
    ours: Number = None
    against_ours: Literal["", "stricter", "looser", "equal", "other"] = ""
    answer: Answer
    passed: Count
    failed: Count
    inconclusive: Count


class Worst(Part):
    """The subject that decides a criterion, or is nearest to its limit. `evidence`: where its value was read."""

    subject: Text
    metric: Text
    value: float | int | str | None
    unit: Text
    answer: Answer
    detail: Text
    evidence: Text


class NotAsked(Part):
    """A gate that a criterion names and that this rack is not asked."""

    name: Text
    why: Text


class CriterionLine(Part):
    """A criterion and its answer.

    subjects  how many were planned, by what they are
    unasked   gates that it names and that this rack is not asked
    evidence  what its answer was read from: sha256 of artifacts, and events of the ledger
    """

    id: Text
    clause: Text
    text: Annotated[str, Field(max_length=MAX_CRITERION_TEXT)]
    answer: Answer
    subjects: dict[Scope, Count]
    passed: Count
    failed: Count
    inconclusive: Count
    gates: tuple[GateLine, ...]
    unasked: tuple[NotAsked, ...]
    worst: Worst | None
    evidence: tuple[Text, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> CriterionLine:
        told = [*(g.answer for g in self.gates), *(Answer.INCONCLUSIVE for _ in self.unasked)]
        if self.answer is not overall(told):
            raise ValueError(f"criterion {self.id} says {self.answer}, and its gates say {overall(told)}")
        if self.passed + self.failed + self.inconclusive != sum(self.subjects.values()):
            raise ValueError(f"criterion {self.id}: its counts are not those of its subjects")
        if self.answer is Answer.PASS and self.passed != sum(self.subjects.values()):
            raise ValueError(f"criterion {self.id} passes, and not all of its subjects do")
        return self


class CertificateLine(Part):
    """A certificate that the report rests on."""

    sha256: Sha256
    keyid: Text
    issued_at: Time
    expires_at: Time
    nodes: tuple[Text, ...]


class Unvouched(Part):
    """A planned node that no certificate in force vouches for."""

    node: Text
    reason: Text


class Unproven(Part):
    """What the certificates say was not verified."""

    kind: Text
    what: Text


class ContractReport(Part):
    """The report. `topology`: sha256 of the rack as designed; `annex_sha256`: of the annex's file."""

    schema_: Literal["rackproof.dev/contract-report/v1"] = Field(SCHEMA, alias="schema")
    tool_version: Text
    made_at: Time
    contract: Text
    annex: Text
    annex_sha256: Sha256
    rack: Text
    site: Text
    sku: Text
    profile: Text
    topology: Sha256
    answer: Answer
    nodes: tuple[Text, ...]
    left_out: tuple[Unvouched, ...]
    certificates: tuple[CertificateLine, ...]
    criteria: Annotated[tuple[CriterionLine, ...], Field(min_length=1, max_length=MAX_CRITERIA)]
    not_verified: tuple[Unproven, ...]

    @model_validator(mode="after")
    def _agrees(self) -> ContractReport:
        found = overall(c.answer for c in self.criteria)
        if self.answer is not found:
            raise ValueError(f"it says {self.answer}, and its criteria say {found}")
        if sorted(n for c in self.certificates for n in c.nodes) != sorted(self.nodes):
            raise ValueError("its nodes are not those of its certificates")
        return self

    def document(self) -> dict[str, object]:
        """As JSON says it."""
        return self.model_dump(mode="json", by_alias=True)

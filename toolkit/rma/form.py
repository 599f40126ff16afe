"""A vendor's questions, what is hidden from it, and how large its archive may get: rma.yml."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.rack.document import Problems, read
from toolkit.settings import Settings, first_of

FILE = "rma.yml"
_KIB, _MIB = 1024, 1024 * 1024


class Source(StrEnum):
    """The evidence that can answer a question."""

    OBSERVED = "observed"
    WHEN = "when"
    HOW = "how"
    ELSEWHERE = "elsewhere"
    CHANGED = "changed"
    SERIAL = "serial"
    PART_NUMBER = "part_number"
    SLOT = "slot"
    DRIVER = "driver"
    VBIOS = "vbios"
    XIDS = "xids"
    ROW_REMAPPING = "row_remapping"
    SRAM_THRESHOLD = "sram_threshold"
    RECOVERY = "recovery"
    FOLLOWS = "follows"
    CONTROL = "control"
    SURROUNDINGS = "surroundings"
    NOBODY = "nobody"  # nothing that rackproof records


class Treatment(StrEnum):
    """What becomes of a name in what leaves the site."""

    REPLACE = "replace"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Policy:
    """What is replaced. Secrets are removed whatever it says."""

    hosts: Treatment = Treatment.REPLACE
    addresses: Treatment = Treatment.REPLACE
    macs: Treatment = Treatment.REPLACE
    users: Treatment = Treatment.REPLACE


@dataclass(frozen=True, slots=True)
class Question:
    """One question. `how`: how its answer is got where no evidence has it."""

    ask: str
    by: Source
    source: str
    how: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """rma.yml, typed. Sizes in bytes."""

    questions: tuple[Question, ...]
    policy: Policy
    artifact_bytes: int
    total_bytes: int
    neighbours: int


def load_form(settings: Settings) -> Form:
    """By the site's rma.yml, or ours. InputError with all that is wrong."""
    from toolkit.rack.fields import validate
    from toolkit.rma.form_schema import FormFile

    document = read(first_of(settings, FILE))
    problems = Problems(document)
    written = validate(FormFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    for number, asked in enumerate(written.questions):
        if asked.answered_by is Source.NOBODY and not asked.how:
            problems.add(("questions", number), "nobody answers it, and it does not say how the answer is got", "how:")
    problems.raise_any()
    hidden = written.redaction
    return Form(
        questions=tuple(Question(q.ask, q.answered_by, q.source, q.how or "") for q in written.questions),
        policy=Policy(hidden.hosts, hidden.addresses, hidden.macs, hidden.users),
        artifact_bytes=written.limits.artifact_kib * _KIB,
        total_bytes=written.limits.total_mib * _MIB,
        neighbours=written.limits.neighbours,
    )

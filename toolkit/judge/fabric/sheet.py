"""Where rules write what they find. One sheet is filled by all of them, in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.judge.fabric.line import Action, Place, WorkEnd, WorkLine
from toolkit.judge.verdict import Answer

SHOWN = 4  # names in a sentence; all are in the line's ends


@dataclass(slots=True)
class Sheet:
    """Lines, doubts and notes so far. A doubt alone keeps the report from PASS; a note never does."""

    rack: str
    lines: list[WorkLine] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    jobs: int = 0

    @property
    def again(self) -> str:
        """The command that looks again."""
        return f"rackproof fabric {self.rack}"

    def add(
        self,
        code: str,
        action: Action,
        text: str,
        ends: Iterable[WorkEnd],
        evidence: Sequence[str],
        proof: str,
        part: str,
        *,
        answer: Answer = Answer.FAIL,
        instead: str = "",
        job: int = 0,
        step: int = 0,
    ) -> None:
        """A line; it is done where its first end is, unless it is a setting."""
        ends = tuple(ends)
        place: Place | None = ends[0].place if ends and action is not Action.CONFIGURE else None
        self.lines.append(
            WorkLine(code, action, answer, text, ends, place, tuple(evidence), proof, part, instead, job, step)
        )

    def new_job(self) -> int:
        """A number for lines that belong together."""
        self.jobs += 1
        return self.jobs


def some(names: Sequence[str]) -> str:
    """A few of many, with how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def count(number: int, what: str) -> str:
    """`1 port`, `2 ports`, `4,242 symbol errors`."""
    return f"{number:,} {what}" + ("" if number == 1 else "es" if what.endswith("ch") else "s")


def unread(sheet: Sheet, what: str, by_unit: Mapping[str, Sequence[WorkEnd]]) -> None:
    """A line a unit for ports of which something was not read: open for that unit, and for no other."""
    for unit, ends in sorted(by_unit.items()):
        ports = some([end.port for end in ends])
        sheet.add(
            "FABRIC_UNREAD", Action.INSPECT, f"{what} of {unit} {ports} could not be read", ends,
            [f"{unit} did not answer for {count(len(ends), 'port')}"], f"{sheet.again}, when {unit} answers",
            "evidence", answer=Answer.INCONCLUSIVE,
        )  # fmt: skip

"""A question is one test: who is asked, how, and the answer in words. Modules of tests declare theirs with `asks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from toolkit.infra.targets import Target
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Rack
from toolkit.settings import Settings

if TYPE_CHECKING:
    from toolkit.infra.readings import Readings

NO_PLAN = "needs-a-plan"


@dataclass(frozen=True, slots=True)
class Plan:
    """What this session was told: a rack as designed (None: no --rack), the hosts, and whose certificate to read.

    certificate  of --certificate; None: the installation's newest of the rack
    trust        of --trust; None: as `rackproof verify` trusts
    """

    settings: Settings
    rack: Rack | None
    targets: tuple[Target, ...]
    certificate: Path | None = None
    trust: Path | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """PASS, FAIL or INCONCLUSIVE, with what an operator reads: the first line says what, the others why and what next.

    code   of the finding; empty where it passes
    """

    answer: Answer
    code: str = ""
    lines: tuple[str, ...] = ()

    def holds(self) -> None:
        """Fails the test unless the answer is PASS: nothing else is green."""
        if self.answer is not Answer.PASS:
            fail(self.lines)


GOOD = Answered(Answer.PASS)


@dataclass(frozen=True, slots=True)
class Question:
    """One test. `skip`: why it cannot be asked here; it is then shown by name as skipped, never as passed.

    name   after the target's in the test's id; empty: the target's alone
    """

    target: Target | None
    name: str
    ask: Callable[[Readings], Answered]
    skip: str = ""

    def id(self, plan: Plan) -> str:
        """As pytest shows it."""
        who = self.target.name if self.target else plan.rack.name if plan.rack else "rack"
        return f"{who}-{self.name}" if self.name else who


Asking = Callable[[Plan], Iterator[Question]]


@dataclass(frozen=True, slots=True)
class Asks:
    """What the marker `asks` carries."""

    questions: Asking = field(repr=False)


def asks(questions: Asking) -> pytest.MarkDecorator:
    """Marks a test function with the questions that it is asked."""
    return pytest.mark.asks(Asks(questions))


def of_nodes(questions: Callable[[Plan, Rack, Target], Iterator[Question]]) -> Asking:
    """Questions about each planned node. A host without a plan is asked nothing, and is shown as skipped."""

    def each(plan: Plan) -> Iterator[Question]:
        for target in plan.targets:
            if plan.rack is None or target.unit is None:
                yield Question(target, NO_PLAN, _never, target.why)
            else:
                yield from questions(plan, plan.rack, target)

    return each


def of_rack(questions: Callable[[Plan, Rack], Iterator[Question]]) -> Asking:
    """Questions about the rack as a whole."""

    def each(plan: Plan) -> Iterator[Question]:
        if plan.rack is None:
            yield Question(None, NO_PLAN, _never, "no rack was given: --rack RACK has the plan that this needs")
        else:
            yield from questions(plan, plan.rack)

    return each


def _never(_: Readings) -> NoReturn:
    raise AssertionError("a question that is skipped was asked")


def fail(lines: tuple[str, ...]) -> NoReturn:
    """Ends the test with these words alone. In a fixture this is an error, in a test a failure."""
    pytest.fail("\n".join(lines), pytrace=False)

"""Kernel arguments: those that the site asks for are in force, and nothing of ours waits for a reboot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.errors import RackproofError
from toolkit.infra import words
from toolkit.infra.probes import ARGUMENTS, REBOOT
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings
from toolkit.infra.role_variables import role_variable
from toolkit.infra.targets import Target
from toolkit.rack.model import Rack

ROLE, VARIABLE = "kernel_settings", "kernel_settings_arguments"


def in_force(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """A question for each argument that the site's variables ask for."""
    try:
        value, source = role_variable(plan.settings, rack, target.name, ROLE, VARIABLE)
    except RackproofError as error:
        unread = words.of_error(error, target.name)
        yield Question(target, "", lambda _: unread)
        return
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        value, unread = [], words.inconclusive("VARIABLE_WRONG", f"{source}: {VARIABLE} is no list of words", "as []")
        yield Question(target, "", lambda _: unread)
        return
    if not value:
        yield Question(target, "none", lambda _: GOOD, f"{VARIABLE} is empty for {target.name} ({source})")
    for word in dict.fromkeys(value):
        yield Question(target, word, _asked(target, word, str(source)).ask)


def _asked(target: Target, word: str, source: str) -> Question:
    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, ARGUMENTS)
        next_ = words.play(target.asked_as, "base") + ", then a reboot while it is out of the pool"
        if fact.problem is not None:
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {fact.problem}", next_)
        if word in fact.value:
            return GOOD
        what = f"{target.name}: {word} is not among the running kernel's arguments"
        return words.failed("KERNEL_ARGUMENT_MISSING", what, next_, f"asked: {source}")

    return Question(target, word, ask)


def reboots(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """What the role kernel_settings leaves where it may not reboot."""

    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, REBOOT)
        next_ = f"rackproof drain {target.name} --reason reboot, then reboot it"
        if fact.problem is not None:
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {fact.problem}", next_)
        if fact.value["ours"] is None:
            return GOOD
        return words.failed("REBOOT_DUE", f"{target.name}: {fact.value['ours']}", next_)

    yield Question(target, "", ask)


@pytest.mark.smoke
@asks(of_nodes(in_force))
def test_argument(answer: Answered) -> None:
    """An argument that the site asks for is one of the running kernel's."""
    answer.holds()


@pytest.mark.smoke
@asks(of_nodes(reboots))
def test_no_reboot_is_due(answer: Answered) -> None:
    """No setting of ours waits for a reboot."""
    answer.holds()

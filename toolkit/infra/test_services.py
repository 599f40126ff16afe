"""Services: those that the platform's mode needs run, those that it forbids cannot start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.infra import words
from toolkit.infra.areas import SERVICES, gates_of
from toolkit.infra.questions import Answered, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target
from toolkit.rack.model import Rack


def by_mode(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """Fabric manager and IMEX by the table of modes."""

    def ask(readings: Readings) -> Answered:
        return words.of_nvlink(target.name, readings.of_services(target))

    yield Question(target, "", ask)


@pytest.mark.smoke
@asks(gates_of(SERVICES))
def test_gate(answer: Answered) -> None:
    """A gate of the profile about one service."""
    answer.holds()


@pytest.mark.smoke
@asks(of_nodes(by_mode))
def test_mode(answer: Answered) -> None:
    """What manages NVLink in this mode runs, and what must not is masked or absent."""
    answer.holds()

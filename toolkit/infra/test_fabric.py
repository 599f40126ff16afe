"""Fabric: NVLink, by the gates of stage nvlink and by the joined view, which knows both ends of a link."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.infra import words
from toolkit.infra.areas import FABRIC, gates_of, unplanned_in
from toolkit.infra.questions import Answered, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target
from toolkit.rack.model import Mode, Rack


def joined(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """The NVLink rules of the platform's mode; what they say of services is asked in test_services."""

    def ask(readings: Readings) -> Answered:
        of_services = {finding.code for finding in readings.of_services(target)}
        own = [f for f in readings.nvlink(target).of(target.name) if f.code not in of_services]
        return words.of_nvlink(target.name, own)

    yield Question(target, "", ask, "no NVLink in mode pcie" if rack.profile.mode is Mode.PCIE else "")


@asks(gates_of(FABRIC))
def test_gate(answer: Answered) -> None:
    """A gate of the profile, on the node or on one GPU with its links."""
    answer.holds()


@asks(of_nodes(joined))
def test_joined_view(answer: Answered) -> None:
    """Nothing keeps the node from its NVLink domain; on NVL72 racks all trays are looked at together."""
    answer.holds()


@asks(unplanned_in(FABRIC))
def test_nothing_unplanned(answer: Answered) -> None:
    """No link is there that the plan does not have."""
    answer.holds()

"""Boot: the machine in this place is the planned one, and runs the image that is published for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolkit.errors import UsageError
from toolkit.facts import probe
from toolkit.infra import words
from toolkit.infra.probes import PLANTED
from toolkit.infra.questions import GOOD, Answered, Plan, Question, asks, of_nodes
from toolkit.infra.readings import Readings
from toolkit.infra.targets import Target
from toolkit.rack.model import Rack


def _is(target: Target, what: probe.Probe, planned: tuple[str, ...], code: str, next_: str) -> Question:
    """Whether a one-line fact is one of the planned."""

    def ask(readings: Readings) -> Answered:
        fact = readings.fact(target, what)
        if fact.problem is not None:
            return words.inconclusive("EVIDENCE_MISSING", f"{target.name}: {fact.problem}", next_)
        if fact.value in planned:
            return GOOD
        return words.failed(code, f"{target.name}: {what.name} is {fact.value}, must be {planned[0]}", next_)

    return Question(target, "", ask)


def serials(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """The tray's serial, of the rack file."""
    hint = f"find out which machine answers there: rackproof facts {target.name}; then correct cabling or rack file"
    yield _is(target, probe.IDENTITY, (target.asked_as.serial,), "NODE_SERIAL_MISMATCH", hint)


def products(_: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """The product's name, where the profile has one."""
    name = dict(rack.profile.expected).get("product_name", "")
    names = (name, rack.profile.sku)  # a virtual node says that it is one
    asked = _is(target, probe.PRODUCT, names, "PRODUCT_OTHER", f"give {rack.name} the profile of what stands there")
    skip = "" if name else f"profile {rack.profile.name} expects no product_name"
    yield Question(target, "", asked.ask, skip)


def images(plan: Plan, rack: Rack, target: Target) -> Iterator[Question]:
    """The image's sha256 as published; a rented node brings its owner's."""

    def ask(readings: Readings) -> Answered:
        try:
            published = readings.hands.site.image(rack.profile.image).sha256
        except UsageError as error:
            pytest.skip(f"no image to compare with: {error.message}")
        next_ = f"rackproof release {target.name} and rackproof bringup {rack.name} image it anew (its disk is wiped)"
        return _is(target, PLANTED, (published,), "IMAGE_OTHER", next_).ask(readings)

    yield Question(target, "", ask, "" if target.asked_as.bmc else f"{target.name} is rented: nobody here imaged it")


@pytest.mark.smoke
@asks(of_nodes(serials))
def test_serial(answer: Answered) -> None:
    """The machine that answers is the one in the rack file."""
    answer.holds()


@pytest.mark.smoke
@asks(of_nodes(products))
def test_product(answer: Answered) -> None:
    """It is of the profile's make."""
    answer.holds()


@asks(of_nodes(images))
def test_image(answer: Answered) -> None:
    """It runs the image that this installation publishes."""
    answer.holds()

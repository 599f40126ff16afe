"""Each fact that is another now is named; one that nobody could read is neither drift nor sameness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from toolkit.certificate.drifted import Drifted, drifted, drifted_design
from toolkit.certificate.fingerprint import NodeFacts, fingerprint_of
from toolkit.certificate.statement import Grounds
from toolkit.rack.model import Rack, Unit

CHANGES: dict[str, tuple[Callable[[NodeFacts], NodeFacts], tuple[str, str, str]]] = {
    "tray": (lambda f: replace(f, serial="SN9"), ("serial", "SN1", "SN9")),
    "driver": (lambda f: replace(f, driver="590.1"), ("driver", "580.95.05", "590.1")),
    "a GPU gone": (lambda f: replace(f, gpus=f.gpus[:1]), ("GPU", "16511", "")),
    "a GPU more": (lambda f: replace(f, gpus=(*f.gpus, "X")), ("GPU", "", "X")),
    "an HCA gone": (lambda f: replace(f, hcas=()), ("HCA", "0x1", "")),
    "vbios": (lambda f: replace(f, firmware=(("vbios", "97"), ("bmc", "24.09"))), ("firmware vbios", "96.00.A5", "97")),
    "a new part's": (
        lambda f: replace(f, firmware=(*f.firmware, ("bios", "1.6"))),
        ("firmware bios", "", "1.6"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_fact_that_changed_is_named_with_what_it_was_and_is(grounds: Grounds, name: str) -> None:
    """Node, field, was, is; and nothing else drifted."""
    change, (field, was, now) = CHANGES[name]
    then = grounds.nodes[0]
    (found,) = drifted(then, change(then))
    assert found == Drifted("node1", field, was, now)
    assert not found.unread


SILENCES: dict[str, Callable[[NodeFacts], NodeFacts]] = {
    "tray": lambda f: replace(f, serial=""),
    "driver": lambda f: replace(f, driver=""),
    "a GPU": lambda f: replace(f, gpus=(f.gpus[0], "")),
    "an HCA": lambda f: replace(f, hcas=("",)),
    "a version": lambda f: replace(f, firmware=(("vbios", ""), ("bmc", "24.09"))),
    "a component": lambda f: replace(f, firmware=f.firmware[:1]),
}


@pytest.mark.parametrize("name", SILENCES)
def test_a_fact_that_was_not_read_is_no_drift_and_is_not_passed_over(grounds: Grounds, name: str) -> None:
    """It is there, and says of itself that nothing was read."""
    then = grounds.nodes[0]
    (found,) = drifted(then, SILENCES[name](then))
    assert found.unread


def test_of_parts_that_are_fewer_and_one_of_them_silent_only_the_number_is_certain(grounds: Grounds) -> None:
    """Which of the two is missing nobody can say."""
    then = replace(grounds.nodes[0], gpus=("A", "B", "C"))
    found = drifted(then, replace(then, gpus=("A", "")))
    assert [(one.field, one.was, one.now) for one in found if not one.unread] == [("number of GPUs", "3", "2")]
    assert sum(one.unread for one in found) == 1


def of_leaf(rack: Rack, **changes: str) -> Rack:
    """The same rack with another leaf switch."""
    units = tuple(replace(u, **changes) if u.name == "leaf1" else u for u in rack.units)
    return replace(rack, units=units, digest="ef" * 32)


def without(rack: Rack, name: str) -> tuple[Unit, ...]:
    return tuple(unit for unit in rack.units if unit.name != name)


def test_the_rack_file_s_own_changes_are_named(grounds: Grounds) -> None:
    """A switch, a cable, a node that was taken out; and the topology's digest, which holds all the rest."""
    rack = grounds.rack
    then = fingerprint_of(rack, grounds.nodes)
    assert drifted_design(then, rack) == ()
    topology = Drifted("", "topology", "ab" * 32, "ef" * 32)
    assert drifted_design(then, of_leaf(rack, serial="LF9")) == (Drifted("", "unit leaf1", "LF1", "LF9"), topology)
    links = (replace(rack.links[0], part="cable9"), *rack.links[1:])
    assert drifted_design(then, replace(rack, links=links)) == (
        Drifted("", "cable leaf1:1 - node1:mlx5_0", "cable1", "cable9"),
    )
    away = replace(rack, units=without(rack, "node2"), links=tuple(k for k in rack.links if k.a.unit != "node2"))
    assert [(one.field, one.now) for one in drifted_design(then, away)] == [
        ("node node2", "not in the rack file"),
        ("cable leaf1:2 - node2:mlx5_0", "not in the rack file"),
    ]
    assert drifted_design(then, replace(rack, digest="ef" * 32)) == (topology,)


def test_what_a_node_left_out_does_is_no_drift(grounds: Grounds) -> None:
    """Its cable is not bound, and it may be repaired freely."""
    then = fingerprint_of(grounds.rack, grounds.nodes)
    links = tuple(replace(k, part="new") if k.a.unit == "node3" else k for k in grounds.rack.links)
    assert drifted_design(then, replace(grounds.rack, links=links)) == ()

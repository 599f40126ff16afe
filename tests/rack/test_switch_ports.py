"""InfiniBand switches in a rack file: their GUIDs and the numbers of their ports."""

from __future__ import annotations

import pytest

LEAF = "{name: leaf1, kind: leaf, slot: 3, serial: L1"


def test_a_switch_may_have_a_guid_and_it_is_part_of_the_topology(inventory):
    """A certificate binds the box; in the file of before nothing changes."""
    without = inventory.load()
    inventory.changed(LEAF, LEAF + ', guid: "0x5C25730300A00000"')
    rack = inventory.load()
    assert rack.unit("leaf1").guid == "0x5c25730300a00000"
    assert without.unit("leaf1").guid == ""
    assert rack.digest != without.digest


def test_the_digest_of_a_rack_without_switch_guids_is_what_it_was(inventory):
    """Certificates that were signed before the field was there stay in force."""
    assert inventory.load().digest == "a87234c17c0cf4b50c2ff3e91eb44b55b4f1ea9b85b78a2e84d73ba2f22aaf11"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (LEAF, LEAF + ', guid: "0x0200000000000010"', "the GUID 0x0200000000000010 is used twice"),
        (LEAF, LEAF + ", guid: leaf", "sixteen hexadecimal digits"),
        ("serial: N1,", 'serial: N1, guid: "0x0200000000000099",', "a node has no GUID of its own"),
        ('"leaf2:[1-2]"', '"leaf2:p[1-2]"', "1 to 254, as ibnetdiscover counts"),
        ('"leaf2:[1-2]"', '"leaf2:[0-1]"', "1 to 254, as ibnetdiscover counts"),
        ('"leaf2:[1-2]"', '"leaf2:[254-255]"', "1 to 254, as ibnetdiscover counts"),
        ('"leaf2:[1-2]"', '"leaf2:[1,1]"', "leaf2"),
    ],
)
def test_what_the_fabric_cannot_have_is_refused_with_its_line(inventory, old, new, words):
    """A GUID that another has, a port that does not exist, one port twice."""
    inventory.changed(old, new)
    problems = inventory.problems()
    assert any(words in f"{p.wrong} {p.right}" and p.line for p in problems), "\n".join(map(str, problems))

"""Hosts of --hosts find their place in the rack by name and by address; what is ambiguous is refused."""

from dataclasses import replace

import pytest

from toolkit.errors import UsageError
from toolkit.infra.targets import Named, matched, of_rack
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Host
from toolkit.settings import load

RACK = load_rack("demo-small", load({}).inventory)


def named(*names, address="", port=None):
    """A host as a connection knows it."""
    return Named(f"ssh://{names[0]}", names, address or names[0], port)


def test_a_host_is_matched_by_its_name_or_its_address():
    """The inventory's own name stays with a host that is no node."""
    found = matched(RACK, [named("node1"), named("web", address="10.66.0.12"), named("other")])
    assert [(t.name, t.unit.name if t.unit else None) for t in found] == [
        ("node1", "node1"), ("node2", "node2"), ("other", None),
    ]  # fmt: skip
    assert found[2].why == "other is no node of demo-small, neither by name nor by address"


def test_a_node_behind_another_port_is_another_node():
    """Nodes behind one address are told apart by their ports."""
    one, two = RACK.nodes
    behind = replace(
        RACK, units=(replace(one, host=Host("gate", ssh_port=2201)), replace(two, host=Host("gate", ssh_port=2202)))
    )
    (found,) = matched(behind, [named("gate", port=2202)])
    assert found.unit is not None
    assert found.unit.name == "node2"
    assert [t.planned for t in matched(behind, [named("gate", port=2202), named("gate", port=2209)])] == [True, False]


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([named("node1", address="10.66.0.12")], "is node1 and node2 of demo-small at once"),
        ([named("node1"), named("web", address="10.66.0.11")], "are one host, node1"),
        ([named("other"), named("other")], "are one host, other"),
        ([named("other"), named("web")], "none of other, web is a node of demo-small"),
        ([], "--hosts names no host"),
    ],
)
def test_hosts_that_are_ambiguous_or_nobody_are_refused(hosts, words):
    """One node's faults would be told of another, or a session that asked nobody would be green."""
    with pytest.raises(UsageError, match=words):
        matched(RACK, hosts)


def test_without_a_rack_every_host_says_why_it_has_no_plan():
    """The reason is shown beside each test that is skipped."""
    (found,) = matched(None, [named("node1")])
    assert not found.planned
    assert "--rack RACK" in found.why


def test_a_rack_alone_is_all_its_nodes():
    """Reached as rackproof reaches them."""
    assert [target.spec for target in of_rack(RACK)] == ["rackproof://node1", "rackproof://node2"]

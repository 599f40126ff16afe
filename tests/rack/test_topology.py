"""A node's topology labels: what schedulers place by, from the rack file alone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from toolkit import settings
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Mode, Partition, Rack
from toolkit.rack.topology import labels, value

# kubernetes.io/docs/concepts/overview/working-with-objects/labels
VALID = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")


def rack(name: str) -> Rack:
    return load_rack(name, settings.load().inventory)


def test_a_node_with_rails_says_its_leaves() -> None:
    """The leaf of its lowest rail, and all of them as one group; memory is shared in the node only."""
    su = rack("dgx-h100-su")
    found = {name.removeprefix("rackproof.dev/"): text for name, text in labels(su, su.nodes[0]).items()}
    assert found == {
        "rack": "dgx-h100-su", "slot": "1", "unit": "dgx01", "leaf": "dgx-h100-su.leaf1",
        "rail-group": "dgx-h100-su." + "_".join(f"leaf{n}" for n in range(1, 9)),
    }  # fmt: skip


def test_trays_of_one_partition_share_a_domain() -> None:
    """Without partitions the rack is the domain; leaves that are no units of the rack file are not made up."""
    domain = rack("gb200-nvl72")
    assert {labels(domain, n)["rackproof.dev/nvlink-domain"] for n in domain.nodes} == {"gb200-nvl72"}
    assert "rackproof.dev/leaf" not in labels(domain, domain.nodes[0])
    names = [n.name for n in domain.nodes]
    split = replace(domain, partitions=(Partition("a", tuple(names[:9])), Partition("b", tuple(names[9:]))))
    assert labels(split, split.nodes[0])["rackproof.dev/nvlink-domain"] == "gb200-nvl72.a"
    assert labels(split, split.nodes[-1])["rackproof.dev/nvlink-domain"] == "gb200-nvl72.b"


@pytest.mark.parametrize("text", ["leaf1", "a b", "-x-", "", "x" * 64, "x" * 63, "ü", "a/b", "_"])
def test_any_text_becomes_a_value_that_a_label_can_have(text: str) -> None:
    """What is one already stays; two texts never become one."""
    made = value(text)
    assert VALID.fullmatch(made)
    assert (made == text) is bool(VALID.fullmatch(text))
    assert value(text + "é") != made


def test_every_shipped_rack_has_labels_that_a_kubelet_takes() -> None:
    """Of every node, in every mode."""
    for name in ("demo", "dgx-h100-su", "gb200-nvl72"):
        for mode in Mode:
            one = rack(name)
            one = replace(one, profile=replace(one.profile, mode=mode))
            for node in one.nodes:
                assert all(VALID.fullmatch(text) for text in labels(one, node).values())

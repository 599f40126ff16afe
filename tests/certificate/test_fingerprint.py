"""What a certificate binds, and what unbinds it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.certificate.drifted import drift
from toolkit.certificate.fingerprint import NodeFacts, facts_from, fingerprint_of
from toolkit.certificate.statement import Grounds
from toolkit.errors import UndecidedError

WORD = st.text(alphabet="ABCDEF0123456789.:-", min_size=1, max_size=12)
FACTS = st.builds(
    NodeFacts,
    node=st.just("node1"),
    serial=WORD,
    gpus=st.lists(WORD, min_size=1, max_size=4, unique=True).map(tuple),
    hcas=st.lists(WORD, max_size=4, unique=True).map(tuple),
    driver=WORD,
    firmware=st.dictionaries(WORD, WORD, min_size=1, max_size=3).map(lambda d: tuple(d.items())),
)


@settings(deadline=None)
@given(facts=FACTS, seed=st.integers(0, 99))
def test_the_order_of_reading_does_not_matter(facts: NodeFacts, seed: int) -> None:
    """GPUs are found in another order after a reboot; it is the same machine."""

    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(random.Random(seed).sample(items, len(items)))

    again = replace(facts, gpus=shuffled(facts.gpus), hcas=shuffled(facts.hcas), firmware=shuffled(facts.firmware))
    assert again.digest == facts.digest
    assert drift(facts, again) == ()


@settings(deadline=None)
@given(then=FACTS, other=FACTS, field=st.sampled_from(["serial", "gpus", "hcas", "driver", "firmware"]))
def test_drift_is_named_exactly_when_the_digest_differs(then: NodeFacts, other: NodeFacts, field: str) -> None:
    """No silent change of any fact, and no invented one."""
    now = replace(then, **{field: getattr(other, field)})
    assert bool(drift(then, now)) == (then.digest != now.digest)


@settings(deadline=None)
@given(facts=FACTS)
def test_facts_survive_the_certificate(facts: NodeFacts) -> None:
    """What admission compares with is what was signed."""
    assert drift(facts_from("node1", facts.document()), facts) == ()


def test_a_swapped_gpu_is_named_by_serial(grounds: Grounds) -> None:
    """The operator reads which went and which came."""
    then = grounds.nodes[0]
    now = replace(then, gpus=(then.gpus[0], "NEW"), driver="", firmware=(("vbios", "97"), ("bmc", "24.09")))
    assert drift(then, now) == (
        "driver 580.95.05 is now unknown",
        "GPU 16511 is gone",
        "GPU NEW is new",
        "firmware vbios 96.00.A5 is now 97",
    )


DAMAGES: dict[str, tuple[Callable[[NodeFacts], NodeFacts], str]] = {
    "another tray": (lambda f: replace(f, serial="SN9"), "the rack file says 'SN1'"),
    "no driver": (lambda f: replace(f, driver=""), "driver of node1 is ''"),
    "a GPU missing": (lambda f: replace(f, gpus=f.gpus[:1]), "1 GPUs of 2"),
    "a GPU twice": (lambda f: replace(f, gpus=f.gpus[:1] * 2), "16510 was read in two places"),
    "another node's GPU": (lambda f: replace(f, gpus=(f.gpus[0], "16520")), "16520 was read in two places"),
    "no HCA": (lambda f: replace(f, hcas=()), "0 HCAs of 1"),
    "no firmware": (lambda f: replace(f, firmware=()), "no firmware version of node1"),
    "two answers": (lambda f: replace(f, firmware=(("a", "1"), ("a", "2"))), "two versions of one firmware"),
    "an escape": (lambda f: replace(f, driver="\x1b[2J"), r"driver of node1 is '\\x1b"),
    "a flood": (lambda f: replace(f, driver="9" * 300), "driver of node1 is"),
    "a stranger": (lambda f: replace(f, node="node9"), "node9 is not a node of the rack"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_fingerprint_is_taken_of_bad_facts(grounds: Grounds, damage: str) -> None:
    """A missing or doubtful fact is undecided, never an empty place in a certificate."""
    change, message = DAMAGES[damage]
    first, second = grounds.nodes
    with pytest.raises(UndecidedError, match=message):
        fingerprint_of(grounds.rack, [change(first), second])


def test_the_fingerprint_covers_the_certified_part_of_the_rack(grounds: Grounds) -> None:
    """Its nodes with their cables, the switches, and the topology; a node left out may be repaired freely."""
    document = fingerprint_of(grounds.rack, grounds.nodes).document()
    assert document["topology"] == {"sha256": "ab" * 32}
    assert document["switches"] == {"leaf1": "LF1"}
    assert document["cables"] == [
        {"ends": ["node1:mlx5_0", "leaf1:1"], "part": "cable1"},
        {"ends": ["node2:mlx5_0", "leaf1:2"], "part": "cable2"},
    ]
    assert "node3" not in str(document)


def test_another_topology_is_another_fingerprint(grounds: Grounds) -> None:
    """Two racks of the same nodes are not the same."""
    other = replace(grounds.rack, digest="ba" * 32)
    assert fingerprint_of(other, grounds.nodes).digest != fingerprint_of(grounds.rack, grounds.nodes).digest

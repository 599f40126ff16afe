"""The loop an operator's bringup would run to locate a fault, over racks of the inventory and a faulty fabric."""

from __future__ import annotations

import random
from pathlib import Path

from toolkit.judge.locate import Evidence, Fabric, Localisation, fabric_of, next_round, weigh
from toolkit.judge.locate.suspects import in_words
from toolkit.rack.loading import load_rack
from toolkit.virtual.fault_model import FaultyFabric, Trouble

INVENTORY = Path(__file__).parents[1] / "inventory"
MOST_ROUNDS = 24


def fabric(rack: str) -> Fabric:
    """Of a rack of the inventory."""
    return fabric_of(load_rack(rack, INVENTORY))


def located(where: Fabric, trouble: Trouble, seed: int, most: int = MOST_ROUNDS, soak: int = 0) -> Localisation:
    """What is said after the last round, or after `most` of them."""
    world = FaultyFabric(where, trouble, random.Random(seed))
    evidence = Evidence(where)
    for _ in range(most):
        tests = next_round(weigh(evidence), soak).tests
        if not tests:
            break
        endpoints = [e for t in tests for e in t.members]
        assert len(endpoints) == len(set(endpoints)), "tests of a round share an endpoint"
        evidence.add(world.run(tests))
    return in_words(weigh(evidence))

"""Whatever is seen: no exception, the same answer in any order, and PASS for the planned fabric alone."""

from __future__ import annotations

import random
from dataclasses import replace

from cabling import World, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.judge.fabric.compare import compare
from toolkit.judge.fabric.line import FabricReport
from toolkit.judge.fabric.seen import Discovery, SeenKind, SeenLink, SeenNode, SeenPort
from toolkit.judge.verdict import Answer

RACK = unit(3, 1, 2)


def disturbed(seed: int, acts: int) -> World:
    """Some things wrong at once, in ways that the tools would show."""
    rng, world = random.Random(seed), World(RACK)
    hcas = [key for key in world.guid if ":" in key]
    for _ in range(acts):
        ports = sorted(world.cables)
        a, b = rng.sample(ports, 2)
        act = rng.randrange(8)
        if act == 0 and world.cables[a] != b:
            world.swap(f"{a.unit}:{a.port}", f"{b.unit}:{b.port}")
        elif act == 1:
            world.pull(a)
        elif act == 2:
            world.guid[rng.choice(hcas)] = rng.choice([*world.guid.values(), "00" * 7 + "aa"])
        elif act == 3:
            world.said[rng.choice(list(world.said))] = rng.choice([*world.said.values(), "", "x" * 99, "\x1b[2J <b>"])
        elif act == 4:
            world.plug("leaf-1:40", f"leaf-2:{rng.choice([40, 41])}")
        elif act == 5:
            world.doubts = ("cut off",)
        elif act == 6:
            world.state[a] = (
                rng.choice(["Initialize", "Down", "Armed"]),
                rng.choice(["LinkUp", "Polling", "Disabled"]),
            )
        else:
            world.lid[rng.choice(hcas)] = rng.randrange(1, 9)
        if len(world.cables) < 6:
            break
    return world


def faces(report: FabricReport) -> list[tuple[str, str, str]]:
    return [(line.code, line.answer, line.text) for line in report.lines]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_any_mixture_of_faults_is_judged_the_same_in_any_order(seed, acts):
    """And passes only where every planned cable is found sound."""
    seen = disturbed(seed, acts).look()
    report = compare(World(RACK).design, seen)
    if report.answer is Answer.PASS:
        assert report.links_sound == report.links_designed
        assert not report.lines
    rng = random.Random(seed)
    nodes, links, ports = list(seen.discovery.nodes), list(seen.discovery.links), list(seen.ports or ())
    for things in (nodes, links, ports):
        rng.shuffle(things)
    mixed = replace(seen, ports=tuple(ports), discovery=replace(seen.discovery, nodes=tuple(nodes), links=tuple(links)))
    if len({n.guid for n in nodes}) == len(nodes):  # of two nodes with one GUID, which is told last is the tool's
        assert faces(compare(World(RACK).design, mixed)) == faces(report)


guids = st.sampled_from(["", "0" * 16, "f" * 16, "not a guid", *World(RACK).guid.values()])
seen_ports = st.builds(SeenPort, guids, st.integers(0, 300))
nodes = st.builds(
    SeenNode,
    guids,
    st.sampled_from(SeenKind),
    st.text(max_size=80),
    st.integers(0, 300),
    st.none() | st.integers(0, 70000),
)
links = st.builds(
    SeenLink, seen_ports, seen_ports, st.none() | st.integers(0, 16), st.sampled_from(["", "NDR", "HDR", "???"])
)
discoveries = st.builds(
    Discovery, st.lists(nodes, max_size=12).map(tuple), st.lists(links, max_size=20).map(tuple),
    st.lists(st.text(max_size=60), max_size=2).map(tuple), st.lists(guids, max_size=2).map(tuple),
    st.lists(st.tuples(guids, seen_ports), max_size=4).map(tuple), st.lists(seen_ports, max_size=3).map(tuple),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(discoveries)
def test_no_discovery_raises_and_none_of_rubbish_passes(discovery):
    """Nodes nobody described, ports that cannot be, links in circles."""
    report = compare(World(RACK).design, replace(World(RACK).look(), discovery=discovery))
    assert report.answer is not Answer.PASS

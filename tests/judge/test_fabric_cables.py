"""Every fault of cables named once and by its name, and none on a sound fabric."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from cabling import World, cable, port, unit

from toolkit.judge.fabric.design import designed
from toolkit.judge.fabric.line import Action, WorkLine
from toolkit.judge.verdict import Answer


def only(world: World, **changes: object) -> WorkLine:
    report = world.report(**changes)
    assert report.answer is Answer.FAIL
    (line,) = report.lines
    assert line.answer is Answer.FAIL
    return line


@pytest.mark.parametrize("guids", [False, True])
@pytest.mark.parametrize(("nodes", "spines", "rails"), [(8, 2, 8), (3, 0, 2), (1, 1, 1), (32, 4, 8)])
def test_a_sound_fabric_passes_with_nothing_to_do(nodes, spines, rails, guids):
    """With switches known by GUID or by name, with spines or without."""
    report = World(unit(nodes, spines, rails, guids)).report()
    assert (report.answer, report.lines, report.doubts, report.notes) == (Answer.PASS, (), (), ())
    assert report.links_designed == report.links_as_designed == report.links_sound
    assert report.hcas_seen == report.hcas_designed == nodes * rails


def test_two_crossed_cables_are_one_swap_at_the_node():
    """Both ends are at dgx-005: one visit; the other end is offered as well."""
    world = World()
    world.swap("leaf-1:5", "leaf-2:5")
    line = only(world)
    assert line.code == "FABRIC_CABLES_SWAPPED"
    assert line.text == "swap dgx-005 mlx5_0 and dgx-005 mlx5_1 (leaf-1 port 5/leaf-2 port 5)"
    assert line.instead == "swap leaf-1 port 5 and leaf-2 port 5 (dgx-005 mlx5_0/mlx5_1)"
    assert (line.action, line.place.unit, line.place.slot) == (Action.SWAP, "dgx-005", 5)
    assert {(end.unit, end.port) for end in line.ends} == {
        ("dgx-005", "mlx5_0"), ("dgx-005", "mlx5_1"), ("leaf-1", "5"), ("leaf-2", "5"),
    }  # fmt: skip
    assert any("dgx-005 mlx5_0 of rail 0 is on leaf-2" in fact for fact in line.evidence)


def test_two_nodes_crossed_on_one_leaf_are_swapped_at_the_leaf():
    """Both ends are at leaf-1."""
    world = World()
    world.swap("leaf-1:5", "leaf-1:6")
    assert only(world).text == "swap leaf-1 port 5 and leaf-1 port 6 (dgx-005 mlx5_0/dgx-006 mlx5_0)"


def test_a_rotation_of_three_is_two_swaps_in_order():
    """One job, steps 1 and 2, next to each other in the order."""
    world = World()
    world.swap("leaf-1:1", "leaf-1:2", "leaf-1:3")
    lines = world.report().lines
    assert [(line.code, line.job, line.step) for line in lines] == [
        ("FABRIC_CABLES_ROTATED", 1, 1), ("FABRIC_CABLES_ROTATED", 1, 2),
    ]  # fmt: skip
    for line in lines:  # by the hands of a technician who does what it says
        a, b = (port(f"{end.unit}:{end.port}") for end in line.ends[:2])
        far_a, far_b = world.cables[a], world.cables[b]
        world.plug(a, far_b)
        world.plug(b, far_a)
    assert world.report().answer is Answer.PASS


def test_spine_cables_crossed_between_the_same_switches_are_told_as_harmless():
    """The plan is off and no route is."""
    world = World()
    world.swap("leaf-1:9", "leaf-1:10")
    assert any("no traffic suffers" in fact for fact in only(world).evidence)


def test_ten_random_swaps_give_ten_swaps():
    """Far apart or on one node; doing them mends the fabric."""
    world, rng = World(unit(32, 4)), random.Random(7)
    leaves = [f"leaf-{k}:{n}" for k in range(1, 9) for n in range(1, 33)]
    picked = rng.sample(leaves, 20)
    for a, b in zip(picked[::2], picked[1::2], strict=True):
        world.swap(a, b)
    lines = world.report().lines
    assert [line.code for line in lines] == ["FABRIC_CABLES_SWAPPED"] * 10
    touched = {frozenset(f"{e.unit}:{e.port}" for e in line.ends if e.unit.startswith("leaf")) for line in lines}
    assert touched == {frozenset(pair) for pair in zip(picked[::2], picked[1::2], strict=True)}


def test_two_nodes_with_all_cables_crossed_are_asked_after_first():
    """Sixteen ends, or two nodes in each other's slot: said beside the swaps."""
    world = World()
    for k in range(1, 9):
        world.swap(f"leaf-{k}:5", f"leaf-{k}:6")
    report = world.report()
    assert len(report.lines) == 8
    assert report.notes[0].startswith("all 8 cables of dgx-005 and dgx-006 are crossed")


def test_a_cable_in_a_free_port_is_one_move():
    """From the port it is in to its own, which is dark."""
    world = World()
    world.pull("leaf-1:5")
    world.plug("dgx-005:mlx5_0", "leaf-1:40")
    line = only(world)
    assert (line.code, line.action) == ("FABRIC_CABLE_MISPLACED", Action.MOVE)
    assert line.text == "move the cable of dgx-005 mlx5_0: from leaf-1 port 40 to leaf-1 port 5"


def test_a_chain_of_moves_begins_at_the_free_port():
    """dgx-001 to dgx-003 each one port on: each move frees the port for the next."""
    world = World()
    for n in (1, 2, 3):
        world.pull(f"leaf-1:{n}")
    world.pull("leaf-1:4")
    for n in (1, 2, 3):
        world.plug(f"dgx-00{n}:mlx5_0", f"leaf-1:{n + 1}")
    lines = [line for line in world.report().lines if line.action is Action.MOVE]
    assert [line.text.split(": ")[1] for line in lines] == [
        "from leaf-1 port 2 to leaf-1 port 1",
        "from leaf-1 port 3 to leaf-1 port 2",
        "from leaf-1 port 4 to leaf-1 port 3",
    ]
    (own,) = [line for line in world.report().lines if line.action is not Action.MOVE]  # dgx-004's, which is out
    assert (own.code, own.action) == ("FABRIC_LINK_MISSING", Action.INSPECT)
    assert own.text == "no cable is seen between leaf-1 port 4 and dgx-004 mlx5_0: plug it once the port is free"


def test_a_cable_too_many_is_named():
    """Between two switches of the plan, in ports that the plan leaves free."""
    world = World()
    world.plug("leaf-1:50", "leaf-2:50")
    line = only(world)
    assert line.code == "FABRIC_CABLE_UNPLANNED"
    assert "no cable is planned between leaf-1 port 50 and leaf-2 port 50" in line.text


def test_cables_of_others_are_none_of_our_business():
    """A storage node on a leaf port that the plan leaves free, and the switch's own aggregation node."""
    world = World()
    for key, at in (("storage:hca", "leaf-1:60"), ("sharp:an", "leaf-2:65")):
        world.guid[key], world.lid[key] = f"{len(key):016x}", 900 + len(key)
        world.said[key] = "Mellanox Technologies Aggregation Node"
        world.plug(key, at)
    assert world.report().answer is Answer.PASS


def test_a_stranger_in_a_planned_port_is_not_pulled_unseen():
    """Its owner's name is said; what the plan has there is said."""
    world = World()
    world.pull("leaf-1:5")
    world.guid["x:mlx5_0"], world.said["x:mlx5_0"], world.lid["x:mlx5_0"] = "aa" * 8, "storage-01 mlx5_0", 999
    world.plug("x:mlx5_0", "leaf-1:5")
    line = only(world)
    assert (line.code, line.action) == ("FABRIC_CABLE_UNPLANNED", Action.INSPECT)
    assert "storage-01 mlx5_0" in line.text
    assert "planned: dgx-005 mlx5_0" in line.text


@pytest.mark.parametrize(
    ("physical", "code", "action"),
    [("Polling", "FABRIC_LINK_DOWN", Action.RESEAT), ("Disabled", "FABRIC_PORT_DISABLED", Action.CONFIGURE)],
)
def test_a_pulled_cable_is_told_from_a_disabled_port(physical, code, action):
    """By the physical state of the leaf's port; both ends are named."""
    world = World()
    world.pull("leaf-1:5")
    world.state[port("leaf-1:5")] = ("Down", physical)
    line = only(world)
    assert (line.code, line.action) == (code, action)
    assert {(end.unit, end.port) for end in line.ends} == {("leaf-1", "5"), ("dgx-005", "mlx5_0")}


def test_a_cable_to_a_node_that_does_not_answer_is_looked_at_before_it_is_pulled():
    """A rack of one HCA a node: off and unplugged look alike."""
    world = World(unit(4, 0, 1))
    world.pull("leaf-1:2")
    line = only(world, answering=frozenset({"dgx-001", "dgx-003", "dgx-004"}))
    assert (line.code, line.action) == ("FABRIC_LINK_DOWN", Action.INSPECT)
    assert any("does not answer in-band" in fact for fact in line.evidence)


def test_a_node_that_is_off_is_one_finding():
    """Not eight cables."""
    world = World()
    world.off("dgx-003")
    line = only(world)
    assert line.code == "FABRIC_NODE_MISSING"
    assert len([end for end in line.ends if end.unit == "dgx-003"]) == 8
    assert any("to settle" in fact and "BMC" in fact for fact in line.evidence)
    on = only(world, answering=frozenset({"dgx-003"}))
    assert on.answer is Answer.FAIL and any("it is on" in fact for fact in on.evidence)
    (unreachable,) = world.report(answering=frozenset({"dgx-001"})).lines
    assert unreachable.answer is Answer.INCONCLUSIVE


@pytest.mark.parametrize("name", ["spine-2", "leaf-3"])
def test_a_switch_that_is_down_is_one_finding(name):
    """Its cables are its consequence."""
    world = World()
    world.off(name)
    line = only(world)
    assert line.code == "FABRIC_SWITCH_MISSING"
    assert line.place.unit == name


def test_narrow_and_slow_cables_are_told_apart():
    """Lanes are dead in hardware; a speed may be a setting."""
    world = World()
    world.lanes[port("leaf-1:7")] = 1
    world.gbit[port("leaf-2:3")] = 14.0625
    narrow, slow = world.report().lines
    assert (narrow.code, narrow.text) == (
        "FABRIC_LINK_NARROW",
        "replace cable leaf-1 port 7 - dgx-007 mlx5_0: 1X of 4X",
    )
    assert (slow.code, slow.text) == ("FABRIC_LINK_SLOW", "reseat the cable leaf-2 port 3 - dgx-003 mlx5_1: FDR of NDR")


def test_all_cables_slow_alike_is_one_setting():
    """The plan's rate or the ports' speeds, never 96 cables."""
    world = World()
    world.gbit = dict.fromkeys(world.cables, 53.125)
    line = only(world)
    assert (line.code, line.action) == ("FABRIC_LINK_SLOW", Action.CONFIGURE)


def test_a_slow_rack_that_was_planned_so_is_sound():
    """25 GB/s are 4X HDR, and twice NDR's lanes at half the width carry it too."""
    world = World(unit(gb_per_s=25.0))
    world.gbit = dict.fromkeys(world.cables, 53.125)
    world.lanes[port("leaf-1:1")], world.gbit[port("leaf-1:1")], world.gbit[port("dgx-001:mlx5_0")] = 2, 106.25, 106.25
    assert world.report().answer is Answer.PASS


def test_a_cut_discovery_is_undecided_and_never_all_good():
    """Sound as far as it goes: INCONCLUSIVE, with the reason."""
    world = World()
    world.doubts = ("cut off in the middle",)
    report = world.report()
    assert (report.answer, report.lines) == (Answer.INCONCLUSIVE, ())
    assert report.doubts == ("discovery: cut off in the middle",)


def test_what_a_cut_discovery_shows_to_be_wrong_fails_all_the_same():
    """A swap of which all four ends were seen."""
    world = World()
    world.swap("leaf-1:5", "leaf-2:5")
    world.doubts = ("cut off",)
    assert only(world).code == "FABRIC_CABLES_SWAPPED"


def test_what_a_cut_discovery_lacks_is_not_pulled():
    """No state of the port either: look, do not reseat."""
    world = World()
    world.pull("leaf-1:5")
    world.off("dgx-002")
    world.doubts = ("cut off",)
    report = world.report(ports=None)
    assert report.answer is Answer.INCONCLUSIVE
    assert {line.action for line in report.lines} == {Action.INSPECT}
    assert {line.code for line in report.lines} == {"FABRIC_LINK_MISSING", "FABRIC_NODE_MISSING"}


def test_no_move_into_a_port_that_may_be_taken():
    """The discovery is incomplete and the target's state unknown: it is seen wrong, and looked at first."""
    world = World()
    world.pull("leaf-1:5")
    world.plug("dgx-005:mlx5_0", "leaf-1:40")
    world.doubts = ("cut off",)
    (line,) = world.report(ports=None).lines
    assert (line.answer, line.action) == (Answer.FAIL, Action.INSPECT)
    assert world.report().lines[0].action is Action.MOVE  # with the port seen dark it is a move


def test_lost_management_packets_are_undecided():
    """The port has light and what is behind it does not answer: no cable is blamed."""
    world = World()
    world.pull("leaf-3:4")
    world.state[port("leaf-3:4")] = ("Active", "LinkUp")
    world.doubts = ("bad status 110",)
    report = world.report()
    assert [(line.code, line.answer) for line in report.lines] == [("FABRIC_PEER_SILENT", Answer.INCONCLUSIVE)]
    assert report.answer is Answer.INCONCLUSIVE


def test_what_was_not_looked_at_is_said_and_keeps_from_passing():
    """Each by its name."""
    report = World().report(ports=None, before=None, after=None, managers=None, memberships=None, firmware=None)
    assert report.answer is Answer.INCONCLUSIVE
    assert len(report.doubts) == 5
    assert all(doubt.startswith("not looked at: ") for doubt in report.doubts)


def test_a_plan_without_infiniband_cables_is_undecided():
    """Nothing to compare with is not a pass."""
    world = World(replace(unit(), links=()))
    assert world.report().answer is Answer.INCONCLUSIVE


def test_another_fabric_is_said_to_be_one():
    """Not 96 missing cables."""
    world = World()
    world.guid = {key: f"{i:016x}" for i, key in enumerate(world.guid, 5)}
    world.said = {key: f"other-{i} mlx5_0" for i, key in enumerate(world.said)}
    report = world.report()
    assert (report.answer, [line.code for line in report.lines]) == (Answer.INCONCLUSIVE, ["FABRIC_OTHER"])
    assert "this is another fabric" in report.lines[0].text


def test_a_plan_with_a_port_on_two_cables_is_refused():
    """Loading refuses the file; a rack made by hand is refused here."""
    rack = unit()
    with pytest.raises(ValueError, match="leaf-1:1 is planned on two cables"):
        designed(replace(rack, links=(*rack.links, cable("leaf-1:1", "spine-1:60"))))

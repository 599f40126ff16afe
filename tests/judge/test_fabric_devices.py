"""Boards, switches, the subnet manager, counters and firmware: each fault by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cabling import World, leaf_guid, port, unit

from toolkit.judge.fabric.counters import LIMITS
from toolkit.judge.fabric.line import Action, WorkLine
from toolkit.judge.fabric.seen import Neighbor, SeenPort, SubnetManager
from toolkit.judge.verdict import Answer
from toolkit.rack.model import Link, LinkKind, Unit, UnitKind


def only(world: World, **changes: object) -> WorkLine:
    report = world.report(**changes)
    assert report.answer is Answer.FAIL
    (line,) = report.lines
    return line


@pytest.mark.parametrize("said", ["dgx-004 mlx5_2", "", "MT4129 ConnectX7 Mellanox Technologies"])
def test_a_replaced_board_is_no_cable_fault(said):
    """Known by its description, or by the place where the planned one is missing."""
    world = World()
    world.guid["dgx-004:mlx5_2"], world.said["dgx-004:mlx5_2"] = "946dae0300ffff00", said
    line = only(world)
    assert line.code == "FABRIC_HCA_REPLACED"
    assert "update the rack file or put the right board back" in line.text
    assert "946dae0300ffff00" in line.text


def test_boards_exchanged_between_nodes_are_not_crossed_cables():
    """GUIDs say one thing, names and cables another: no cable is moved."""
    world = World()
    a, b = "dgx-001:mlx5_0", "dgx-002:mlx5_0"
    world.guid[a], world.guid[b] = world.guid[b], world.guid[a]
    report = world.report()
    assert [line.code for line in report.lines] == ["FABRIC_HCA_MOVED"] * 2
    assert report.links_as_designed == report.links_designed


def test_nodes_exchanged_as_a_whole_are_a_line_each():
    """Eight boards that moved with their node."""
    world = World()
    for k in range(8):
        a, b = f"dgx-001:mlx5_{k}", f"dgx-002:mlx5_{k}"
        world.guid[a], world.guid[b] = world.guid[b], world.guid[a]
    lines = world.report().lines
    assert [line.code for line in lines] == ["FABRIC_HCA_MOVED"] * 2
    assert "dgx-001 has 8 HCAs planned elsewhere" in lines[0].text


def test_devices_counted_otherwise_are_a_note():
    """GUID and cable agree, the name does not: the driver enumerates as it likes."""
    world = World()
    a, b = "dgx-001:mlx5_0", "dgx-001:mlx5_1"
    world.said[a], world.said[b] = world.said[b], world.said[a]
    report = world.report()
    assert report.answer is Answer.PASS
    assert len(report.notes) == 2


def test_guids_never_filled_in_are_one_finding():
    """And undecided: another site's fabric may have the same names."""
    world = World()
    world.guid = {key: f"{i:016x}" if ":" in key else guid for i, (key, guid) in enumerate(world.guid.items(), 5)}
    report = world.report()
    assert [line.code for line in report.lines] == ["FABRIC_GUIDS_UNFILLED"]
    assert report.answer is Answer.INCONCLUSIVE


def test_a_duplicate_guid_is_named_at_both_places():
    """As ibnetdiscover shows it: one node, in the place it was met last; the copy's own place has another plan."""
    world = World()
    world.pull("leaf-3:4")
    world.pull("leaf-3:3")
    world.plug("leaf-3:4", "dgx-003:mlx5_2")
    world.duplicates = (world.guid["dgx-003:mlx5_2"],)
    world.doubts = ("the tool met a GUID twice",)
    world.state[port("leaf-3:3")] = ("Active", "LinkUp")
    line = only(world)
    assert line.code == "FABRIC_DUPLICATE_GUID"
    assert "once behind leaf-3 port 4, where dgx-004 mlx5_2 is planned and not seen" in line.text
    assert {(e.unit, e.port) for e in line.ends} >= {("dgx-003", "mlx5_2"), ("dgx-004", "mlx5_2"), ("leaf-3", "4")}


def test_a_duplicate_lid_is_named_with_both_owners():
    """Which ibidsverify says nothing of."""
    world = World()
    world.lid["dgx-002:mlx5_0"] = world.lid["dgx-001:mlx5_0"]
    line = only(world)
    assert (line.code, line.action) == ("FABRIC_DUPLICATE_LID", Action.CONFIGURE)
    assert "dgx-001 mlx5_0" in line.text
    assert "dgx-002 mlx5_0" in line.text


def test_switches_whose_names_are_exchanged_cost_no_cable():
    """One line for both, before any work."""
    world = World()
    world.said["leaf-1"], world.said["leaf-2"] = world.said["leaf-2"], world.said["leaf-1"]
    line = only(world)
    assert (line.code, line.action) == ("FABRIC_SWITCHES_EXCHANGED", Action.CONFIGURE)


def test_switches_without_names_are_known_by_their_cables():
    """And the note says what to write where."""
    world = World()
    world.said |= {key: "Quantum Mellanox Technologies" for key in world.said if ":" not in key}
    report = world.report()
    assert report.answer is Answer.PASS
    assert leaf_guid(0) in report.notes[0]


def test_a_switch_that_nothing_tells_is_undecided():
    """Two nodes are too few cables."""
    world = World(unit(2, 0, 2))
    world.said["leaf-1"] = "Quantum"
    report = world.report()
    assert [line.code for line in report.lines] == ["FABRIC_SWITCH_UNIDENTIFIED"]
    assert report.answer is Answer.INCONCLUSIVE


def test_a_replaced_switch_is_named():
    """The name is there under another GUID."""
    world = World(unit(guids=True))
    world.guid["leaf-1"] = "5c25730300ffff00"
    assert only(world).code == "FABRIC_SWITCH_REPLACED"


@pytest.mark.parametrize("managers", [(), (SubnetManager("ab" * 8, 1, 14, "NOTACTIVE"),), None])
def test_without_a_subnet_manager_all_of_initialize_is_one_finding(managers):
    """Config before hardware."""
    world = World()
    world.managers = managers
    world.state = {p: ("Initialize", "LinkUp") for p in world.cables}
    line = only(world)
    assert line.code == ("FABRIC_SM_IDLE" if managers is None else "FABRIC_SM_NONE")
    assert line.action is Action.CONFIGURE


def test_a_swap_shows_without_a_subnet_manager():
    """Discovery goes by directed routes; settings come first in the order all the same."""
    world = World()
    world.managers = ()
    world.state = {p: ("Initialize", "LinkUp") for p in world.cables}
    world.swap("leaf-1:5", "leaf-2:5")
    assert [line.code for line in world.report().lines] == ["FABRIC_SM_NONE", "FABRIC_CABLES_SWAPPED"]


def test_one_port_that_stays_in_initialize_is_named_with_both_ends():
    """Others are Active, so a manager works."""
    world = World()
    for end in ("leaf-1:5", "dgx-005:mlx5_0"):
        world.state[port(end)] = ("Armed", "LinkUp")
    line = only(world)
    assert line.code == "FABRIC_PORT_NOT_ACTIVE"
    assert len(line.ends) == 2


def test_two_masters_and_a_master_of_too_low_a_priority():
    """Both are settings."""
    world = World()
    other = SubnetManager(world.guid["dgx-002:mlx5_0"], 2, 15, "MASTER")
    assert only(world, managers=(*world.managers, other)).code == "FABRIC_SM_TWO_MASTERS"
    assert only(world, managers=(*world.managers, replace(other, state="STANDBY"))).code == "FABRIC_SM_PRIORITY"
    standby = replace(other, state="STANDBY", priority=3)
    assert world.report(managers=(*world.managers, standby)).answer is Answer.PASS


def test_limited_membership_is_told_from_none():
    """0x7fff reaches no other limited member; an empty table reaches nobody."""
    world = World()
    world.pkeys["dgx-001:mlx5_0"] = (0x7FFF, 0x0002)
    world.pkeys["dgx-002:mlx5_0"] = ()
    assert sorted(line.code for line in world.report().lines) == ["FABRIC_PKEY_LIMITED", "FABRIC_PKEY_MISSING"]


def test_p_keys_that_were_not_read_leave_their_node_open():
    """Of one HCA of many: the line names it, and no other node."""
    world = World()
    del world.pkeys["dgx-001:mlx5_0"]
    report = world.report()
    assert report.answer is Answer.INCONCLUSIVE
    (line,) = report.lines
    assert (line.code, [(end.unit, end.port) for end in line.ends]) == ("FABRIC_UNREAD", [("dgx-001", "mlx5_0")])


@pytest.mark.parametrize(("counter", "limit"), LIMITS.items())
def test_a_counter_that_grows_past_its_limit_fails_and_at_it_does_not(counter, limit):
    """Both ends are named, with the source of the limit."""
    world = World()
    world.grown[port("leaf-1:3")] = {counter: limit.most}
    full = {counter: 0}
    seen = world.look()
    if counter not in dict(seen.before[0].counts):  # those that a healthy port does not show
        seen = replace(
            seen, before=tuple(replace(c, counts=(*c.counts, (counter, 0))) for c in seen.before),
            after=tuple(replace(c, counts=(*c.counts, (counter, 0))) for c in seen.after),
        )  # fmt: skip
    assert full and world.report().answer is Answer.PASS
    world.grown[port("leaf-1:3")] = {counter: limit.most + 1}
    at = world.seen_port(port("leaf-1:3"))
    after = tuple(
        replace(c, counts=tuple((n, v + (limit.most + 1 if n == counter and c.port == at else 0)) for n, v in c.counts))
        for c in seen.before
    )
    report = world.report(before=seen.before, after=after)
    (line,) = report.lines
    assert (report.answer, line.code) == (Answer.FAIL, limit.code)
    assert {(e.unit, e.port) for e in line.ends} == {("leaf-1", "3"), ("dgx-003", "mlx5_0")}
    assert limit.source in line.evidence[-1]


def test_errors_are_told_once_a_cable_by_the_louder_end():
    """Both ends count; the sentence is the issue's."""
    world = World()
    world.grown[port("leaf-1:10")] = {"SymbolErrorCounter": 4242}
    world.grown[port("spine-1:2")] = {"SymbolErrorCounter": 12}
    line = only(world)
    assert line.text.startswith("port leaf-1/10: 4,242 symbol errors in 60 s")
    assert any("spine-1 port 2: SymbolErrorCounter grew by 12" in fact for fact in line.evidence)


def test_a_lifetime_value_says_nothing():
    """High before, as high after."""
    assert World().report().answer is Answer.PASS  # QUIET has errors of years ago


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"SymbolErrorCounter": 65535}, {"SymbolErrorCounter": 65535}, "is full and counts no more"),
        ({"SymbolErrorCounter": 9}, {"SymbolErrorCounter": 2}, "was cleared between the readings"),
        ({}, {"SymbolErrorCounter": 2}, "SymbolErrorCounter not shown twice"),
        ({"NewErrors": 1}, {"NewErrors": 5}, "nobody has sourced a limit"),
    ],
)
def test_counters_that_cannot_be_compared_are_a_doubt(before, after, said):
    """Full, cleared, missing once, or without a sourced limit: INCONCLUSIVE, never zero."""
    world = World()
    seen = world.look()
    others = {"LinkErrorRecoveryCounter": 0, "LinkDownedCounter": 0, "PortRcvErrors": 0}
    if "NewErrors" in after:
        others["SymbolErrorCounter"] = 0

    def counted(counts, new):
        at = world.seen_port(port("leaf-1:3"))
        return tuple(replace(c, counts=tuple((others | new).items())) if c.port == at else c for c in counts)

    report = world.report(before=counted(seen.before, before), after=counted(seen.after, after))
    assert report.answer is Answer.INCONCLUSIVE
    assert any(said in doubt and "leaf-1 port 3" in doubt for doubt in report.doubts)


def test_counters_without_load_are_a_note():
    """Some errors show only under load: said, and not held against the cables."""
    seen = World().look()
    report = World().report(after=seen.before)
    assert report.answer is Answer.PASS
    assert "moved less than 1%" in report.notes[0]


def test_readings_without_time_between_them_are_a_doubt():
    """Nothing can have grown in 0 s."""
    assert World().report(seconds=0.0).answer is Answer.INCONCLUSIVE


def test_firmware_and_boards_that_differ_from_most_are_named():
    """Firmware is compared within one board alone."""
    world = World()
    world.firmware["dgx-003:mlx5_1"] = ("28.39.1002", "MT_0000000838")
    world.firmware["dgx-003:mlx5_4"] = ("28.10.0001", "MT_0000000999")
    lines = {line.code: line for line in world.report().lines}
    assert set(lines) == {"FABRIC_FIRMWARE_DIFFERS", "FABRIC_PSID_DIFFERS"}
    assert [end.port for end in lines["FABRIC_FIRMWARE_DIFFERS"].ends] == ["mlx5_1"]
    assert [end.port for end in lines["FABRIC_PSID_DIFFERS"].ends] == ["mlx5_4"]


def test_without_a_majority_nobody_is_blamed():
    """Two of two HCAs differ."""
    world = World(unit(2, 0, 1))
    world.firmware["dgx-001:mlx5_0"] = ("28.39.1002", "MT_0000000838")
    report = world.report()
    assert report.answer is Answer.INCONCLUSIVE
    assert "no majority" in report.lines[0].text


def _with_ethernet() -> World:
    rack = unit(3, 0, 1)
    tor = Unit("tor1", UnitKind.POWER_SHELF, "T1", 3000)
    links = tuple(Link(port(f"dgx-00{n}:eth0"), port(f"tor1:{n}"), LinkKind.ETHERNET, 12.5, "cable") for n in (1, 2, 3))
    return World(replace(rack, units=(*rack.units, tor), links=(*rack.links, *links)))


def _heard(*order: int) -> tuple[Neighbor, ...]:
    return tuple(Neighbor(f"dgx-00{n}", "eth0", "TOR1.site.example", f"swp{p}") for n, p in enumerate(order, 1))


def test_lldp_in_the_planned_ports_is_sound():
    """Domain, case and the prefix of a port's name are the switch's own."""
    world = _with_ethernet()
    assert world.report(neighbors=_heard(1, 2, 3)).answer is Answer.PASS


@pytest.mark.parametrize(
    ("neighbors", "codes", "answer"),
    [
        (_heard(2, 1, 3), ["FABRIC_INBAND_MISCABLED"], Answer.FAIL),
        (_heard(1, 2), ["FABRIC_INBAND_UNHEARD"], Answer.INCONCLUSIVE),
        (None, [], Answer.INCONCLUSIVE),
    ],
)
def test_ethernet_is_compared_by_lldp(neighbors, codes, answer):
    """A swap is one line; silence is no proof of anything."""
    world = _with_ethernet()
    report = world.report(neighbors=neighbors)
    assert ([line.code for line in report.lines], report.answer) == (codes, answer)


def _rails_alone() -> World:
    """Two leaves and no spine: two subnets, each with a manager and LIDs of its own."""
    world = World(unit(4, 0, 2))
    world.lid = {key: 1 + i // 2 for i, key in enumerate(world.guid)}  # node by node: the same in both
    world.lid |= {"leaf-1": 90, "leaf-2": 90}
    world.managers = tuple(SubnetManager(world.guid[f"dgx-001:mlx5_{k}"], 1, 14, "MASTER") for k in (0, 1))
    return world


def test_subnets_of_their_own_have_masters_and_lids_of_their_own():
    """The same LID in two subnets is two addresses, and two masters are no rivals."""
    assert _rails_alone().report().answer is Answer.PASS


def test_a_subnet_without_a_master_is_named_beside_one_that_has_one():
    """By its switch; its ports wait, and that is the same finding."""
    world = _rails_alone()
    first, second = world.managers
    world.managers = (first, replace(second, state="DISCOVERING"))
    world.state = {p: ("Initialize", "LinkUp") for p in world.cables if p.unit == "leaf-2" or p.port == "mlx5_1"}
    line = only(world)
    assert line.code == "FABRIC_SM_NONE"
    assert "in the subnet of leaf-2" in line.text


def test_two_masters_in_one_of_several_subnets_are_rivals():
    """The other subnet's is not."""
    world = _rails_alone()
    rival = SubnetManager(world.guid["dgx-002:mlx5_1"], 2, 14, "MASTER")
    line = only(world, managers=(*world.managers, rival))
    assert line.code == "FABRIC_SM_TWO_MASTERS"
    assert "dgx-001 mlx5_0" not in line.text


def test_an_idle_subnet_beside_a_working_one_is_one_finding():
    """Nobody asked for managers: by the states of the ports."""
    world = _rails_alone()
    world.state = {p: ("Initialize", "LinkUp") for p in world.cables if p.unit == "leaf-2" or p.port == "mlx5_1"}
    assert [line.code for line in world.report(managers=None).lines] == ["FABRIC_SM_IDLE"]


def test_port_guids_that_count_on_from_the_node_do_not_shift_the_boards():
    """Boards numbered one after another, whose ports count upwards from the board: each GUID is two boards'."""
    rack = unit(4, 0, 4)
    units = tuple(
        replace(u, hcas=tuple(replace(h, guid=f"0x{0x200 + 16 * u.slot + h.rail:016x}") for h in u.hcas))
        for u in rack.units
    )
    world = World(replace(rack, units=units))
    seen = world.look()
    ports = tuple((f"{int(g, 16) + 1:016x}", SeenPort(g, 1)) for key, g in world.guid.items() if ":" in key)
    report = world.report(discovery=replace(seen.discovery, port_guids=ports))
    assert (report.answer, report.notes) == (Answer.PASS, ())


def test_a_rack_file_with_the_guids_of_ports_is_as_good():
    """Which is what ibstat prints: the discovery knows whose they are."""
    world = World()
    seen = world.look()
    ports = tuple((g, SeenPort(f"{int(g, 16) - 1:016x}", 1)) for key, g in world.guid.items() if ":" in key)
    home = dict(ports)
    nodes = tuple(replace(n, guid=home[n.guid].guid if n.guid in home else n.guid) for n in seen.discovery.nodes)
    links = tuple(replace(k, a=home.get(k.a.guid, k.a), b=home.get(k.b.guid, k.b)) for k in seen.discovery.links)
    report = world.report(discovery=replace(seen.discovery, nodes=nodes, links=links, port_guids=ports))
    assert (report.answer, report.notes) == (Answer.PASS, ())

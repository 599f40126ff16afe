"""The fabric by itself: from a rack file to wiring, faults on it, links that train, states, counters. No sockets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fabric_bench import SCALABLE_UNIT, Shape, rack_of

from toolkit.errors import UsageError
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Port
from toolkit.virtual.fabric import counters
from toolkit.virtual.fabric.agents import PerformanceAgent, SubnetAgent, keys_of
from toolkit.virtual.fabric.faults import faulty
from toolkit.virtual.fabric.mad import Attribute, Counters, Method, Status
from toolkit.virtual.fabric.model import FabricModel, Physical, PortModel, PortState
from toolkit.virtual.fabric.wiring import End, MemberKind, Speed, Wiring, planned, without_power
from toolkit.virtual.faults import Fault
from toolkit.virtual.faults import FaultKind as Kind

SMALL = Shape(nodes=2, rails=2, nodes_per_leaf=2, spines=1, uplinks=1)
INVENTORY = Path(__file__).parents[2] / "inventory"


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plan() -> Wiring:
    return planned(rack_of(SMALL))


def _port(fabric: FabricModel, member: str, number: int = 1) -> PortModel:
    return fabric.nodes[member].ports[number]


# --- wiring ------------------------------------------------------------


def test_a_plan_with_spines_is_taken_as_it_is() -> None:
    """Every link of the rack file is a cable, the adapter's end first, at the speed that carries its rate."""
    wiring = planned(rack_of(SCALABLE_UNIT))
    assert len(wiring.cables) == 512
    assert sum(m.kind is MemberKind.SWITCH for m in wiring.members) == 12
    cable = wiring.cable_at(End("dgx005 mlx5_2", 1))
    assert cable is not None
    assert (cable.b, cable.speed) == (End("leaf3", 5), Speed.NDR)


def test_leaves_that_nothing_joins_get_a_spine() -> None:
    """The demo's rack names leaves only: a spine makes them one subnet, on the first port of their upper half."""
    wiring = planned(load_rack("demo", INVENTORY))
    spines = [m for m in wiring.members if m.name == "spine1"]
    assert len(spines) == 1
    assert {c.a for c in wiring.cables if c.b.member == "spine1"} == {End(f"leaf{n}", 33) for n in range(1, 9)}
    assert wiring.member("node1 mlx5_0").guid == 0x0200DE0000000100


def test_a_switch_has_the_guid_of_the_rack_file_or_one_of_its_own() -> None:
    """Two switches without a GUID have different ones, and the same ones tomorrow."""
    rack = rack_of(SMALL)
    bare = replace(rack, units=tuple(replace(unit, guid="") for unit in rack.units))
    first, again = planned(bare), planned(bare)
    assert planned(rack).member("leaf1").guid == 0x5C25730300A00100
    assert first == again
    assert len({member.guid for member in first.members}) == len(first.members)


def test_a_link_to_no_port_is_refused() -> None:
    """An HCA that its node does not have, a switch port that is no number."""
    rack = rack_of(SMALL)
    for end in (Port("dgx001", "mlx5_9"), Port("leaf1", "x")):
        wrong = replace(rack, links=(replace(rack.links[0], a=end), *rack.links[1:]))
        with pytest.raises(UsageError, match="a link ends at"):
            planned(wrong)


# --- faults ------------------------------------------------------------


def test_three_rotated_cables_are_each_in_the_next_ones_port(plan: Wiring) -> None:
    """No cable is lost, and what is wrong with a cable stays with it."""
    narrow = Fault(Kind.NARROW_LINK, "dgx001", hca="mlx5_0")
    turned = Fault(Kind.ROTATED_CABLES, "dgx001", hca="mlx5_0", other="mlx5_1, dgx002:mlx5_0")
    wiring = faulty(plan, (narrow, turned))
    ends = {name: wiring.cable_at(End(name, 1)) for name in ("dgx001 mlx5_0", "dgx001 mlx5_1", "dgx002 mlx5_0")}
    assert [cable and cable.b for cable in ends.values()] == [End("leaf2", 1), End("leaf1", 2), End("leaf1", 1)]
    first = ends["dgx001 mlx5_0"]
    assert first is not None
    assert first.lanes == 1
    assert len(wiring.cables) == len(plan.cables)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(Kind.CABLE_PULLED, "dgx001", hca="mlx5_7"), "dgx001 has no HCA mlx5_7"),
        (Fault(Kind.SWAPPED_CABLES, "dgx001", hca="mlx5_0"), "needs --other"),
        (Fault(Kind.SWAPPED_CABLES, "dgx001", hca="mlx5_0", other="mlx5_0"), "needs --other"),
        (Fault(Kind.ROTATED_CABLES, "dgx001", hca="mlx5_0", other="mlx5_1"), "needs --other with 2"),
        (Fault(Kind.NARROW_LINK, "dgx001", value=3), "no 3 lanes"),
        (Fault(Kind.SWITCH_DOWN, "leaf9"), "leaf9 is no switch"),
        (Fault(Kind.MAD_LOSS, "dgx001", value=101), "101 percent"),
        (Fault(Kind.LINK_DOWNED, "dgx001", value=0), "0 s"),
    ],
)  # fmt: skip
def test_a_fault_that_the_fabric_cannot_have_is_refused(plan: Wiring, fault: Fault, said: str) -> None:
    """The message says what there is, or what the fault needs."""
    with pytest.raises(UsageError, match=said):
        faulty(plan, (fault,))


def test_a_cable_that_is_not_there_cannot_be_swapped(plan: Wiring) -> None:
    """Faults apply in the order they were set."""
    pulled = Fault(Kind.CABLE_PULLED, "dgx001", hca="mlx5_1")
    with pytest.raises(UsageError, match="no cable is plugged into dgx001 mlx5_1"):
        faulty(plan, (pulled, Fault(Kind.SWAPPED_CABLES, "dgx001", hca="mlx5_0", other="mlx5_1")))


# --- links ------------------------------------------------------------


def test_a_link_trains_for_a_while_and_waits_for_a_manager(plan: Wiring) -> None:
    """Down and Polling, then Initialize; Active only when a manager has armed it."""
    clock = Clock()
    fabric = FabricModel(plan, training_s=0.5, clock=clock)
    port = _port(fabric, "dgx001 mlx5_0")
    assert (port.state, port.physical) == (PortState.DOWN, Physical.POLLING)
    clock.now += 0.5
    fabric.tick()
    assert (port.state, port.physical) == (PortState.INITIALIZE, Physical.LINK_UP)
    assert not fabric.advance(port, PortState.ACTIVE)
    assert fabric.advance(port, PortState.ARMED)
    assert fabric.advance(port, PortState.ACTIVE)


def test_the_worse_of_plan_and_cable_is_what_a_link_trains_at(plan: Wiring) -> None:
    """One lane, and half the speed, each on its own."""
    faults = (Fault(Kind.NARROW_LINK, "dgx001", hca="mlx5_0"), Fault(Kind.HALF_RATE_RAIL, "dgx001", hca="mlx5_1"))
    fabric = FabricModel(faulty(plan, faults))
    narrow, slow = _port(fabric, "dgx001 mlx5_0"), _port(fabric, "dgx001 mlx5_1")
    assert (narrow.lanes, narrow.speed) == (1, Speed.NDR)
    assert (slow.lanes, slow.speed) == (4, Speed.HDR)


def test_a_node_without_power_leaves_its_switch_ports_polling(plan: Wiring) -> None:
    """They count a lost link; with power the link comes back and asks for a manager again."""
    fabric = FabricModel(plan)
    at_leaf = _port(fabric, "leaf1", 1)
    fabric.become(without_power(plan, ("dgx001",)))
    assert (at_leaf.state, at_leaf.physical) == (PortState.DOWN, Physical.POLLING)
    assert at_leaf.counters.value("LinkDownedCounter", fabric.clock()) == 1
    assert _port(fabric, "leaf1", 2).up
    fabric.become(plan)
    assert at_leaf.state is PortState.INITIALIZE


def test_what_stays_as_it_is_does_not_notice(plan: Wiring) -> None:
    """A fault on one cable, and one on how it counts, move no other port; the second not even its own."""
    moved: list[str] = []
    fabric = FabricModel(plan, changed=lambda port: moved.append(f"{port.node.member.name}:{port.number}"))
    moved.clear()
    fabric.become(faulty(plan, (Fault(Kind.SYMBOL_ERRORS, "dgx001", hca="mlx5_0"),)))
    assert moved == []
    fabric.become(faulty(plan, (Fault(Kind.CABLE_PULLED, "dgx001", hca="mlx5_0"),)))
    assert sorted(moved) == ["dgx001 mlx5_0:1", "leaf1:1"]


def test_a_link_that_drops_does_so_every_so_often(plan: Wiring) -> None:
    """Both ends count it; mended, it drops no more."""
    clock = Clock()
    fabric = FabricModel(plan, clock=clock)
    fabric.become(faulty(plan, (Fault(Kind.LINK_DOWNED, "dgx001", hca="mlx5_0", value=10),)))
    for _ in range(30):
        clock.now += 1
        fabric.tick()
    port = _port(fabric, "leaf1", 1)
    assert port.up
    assert port.counters.value("LinkDownedCounter", clock.now) == 3
    fabric.become(plan)
    clock.now += 60
    fabric.tick()
    assert port.counters.value("LinkDownedCounter", clock.now) == 3


# --- what ports answer ------------------------------------------------------------


def test_symbol_errors_grow_with_time_and_stop_at_their_width(plan: Wiring) -> None:
    """At the switch's end, which receives them; 65535 is the most that 16 bits can tell, and a manager can clear it."""
    clock = Clock()
    fabric = FabricModel(plan, clock=clock)
    fabric.become(faulty(plan, (Fault(Kind.SYMBOL_ERRORS, "dgx002", hca="mlx5_0", value=100),)))
    clock.now += 7
    agent, port = PerformanceAgent(fabric), _port(fabric, "leaf1", 0)
    asked = bytes((0, 2)) + bytes(190)

    def errors() -> int:
        status, data = agent.answer(port, Method.GET, Counters.PORT_COUNTERS, asked)
        assert status == Status.OK
        return int.from_bytes(data[4:6], "big")

    assert errors() == 700
    clock.now += 1_000_000
    assert errors() == 65535
    agent.answer(port, Method.SET, Counters.PORT_COUNTERS, bytes((0, 2, 0xFF, 0xFF)) + bytes(188))
    clock.now += 1
    assert errors() == 100


def test_data_that_is_counted_elsewhere_shows_in_64_bits(plan: Wiring) -> None:
    """What stand-ins moved over a port; 32 bits are full long before."""
    fabric = FabricModel(plan)
    port = _port(fabric, "dgx001 mlx5_0")
    port.counters.traffic = lambda: (5_000_000_000, 7)
    asked = bytes((0, 1)) + bytes(190)
    now = fabric.clock()
    assert int.from_bytes(counters.extended_counters([port.counters], now, asked)[8:16], "big") == 5_000_000_000
    assert int.from_bytes(counters.port_counters([port.counters], now, asked)[24:28], "big") == 0xFFFFFFFF


def test_a_limited_member_shows_its_keys_without_bit_15(plan: Wiring) -> None:
    """Whatever a manager has written."""
    fabric = FabricModel(faulty(plan, (Fault(Kind.PKEY_LIMITED, "dgx001", hca="mlx5_0"),)))
    assert keys_of(_port(fabric, "dgx001 mlx5_0"), 0)[:2] == b"\x7f\xff"
    assert keys_of(_port(fabric, "dgx001 mlx5_1"), 0)[:2] == b"\xff\xff"


def test_what_a_port_does_not_know_it_says(plan: Wiring) -> None:
    """An attribute nobody has, a port that is not there, a switch's table at an adapter."""
    fabric = FabricModel(plan)
    agent, port, switch = SubnetAgent(fabric), _port(fabric, "dgx001 mlx5_0"), _port(fabric, "leaf1", 0)
    assert agent.answer(port, Method.GET, 0xFF90, 0, bytes(64))[0] == Status.UNSUPPORTED_ATTRIBUTE
    assert agent.answer(port, Method.GET, Attribute.LINEAR_FORWARDING, 0, bytes(64))[0] == Status.UNSUPPORTED_ATTRIBUTE
    assert agent.answer(switch, Method.GET, Attribute.PORT_INFO, 99, bytes(64))[0] == Status.INVALID_FIELD
    assert agent.answer(switch, Method.GET, Attribute.LINEAR_FORWARDING, 9999, bytes(64))[0] == Status.INVALID_FIELD
    assert agent.answer(port, Method.TRAP, Attribute.PORT_INFO, 0, bytes(64))[0] == Status.UNSUPPORTED_METHOD

"""Subnet managers, P_Keys, opensm's log, firmware, LLDP: several shapes of each, and none that is not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.facts import hca_firmware, link_flaps, lldp, subnet
from toolkit.judge.fabric.seen import Firmware, Neighbor, SubnetManager

CASES = Path(__file__).parent / "cases"


def _text(kind: str, case: str) -> str:
    return (CASES / kind / case / "input.txt").read_bytes().decode()


def test_sminfo_and_the_managers_record_say_the_same() -> None:
    """One line of sminfo, one record of saquery: one manager."""
    line = "sminfo: sm lid 1 sm guid 0x9c63c003001a0001, activity count 3 priority 0 state 3 SMINFO_MASTER\n"
    master = SubnetManager("9c63c003001a0001", 1, 0, "MASTER")
    assert subnet.parse_sminfo(line).managers == (master,)
    assert subnet.parse_sminfo(_text("sminfo", "record")).managers == (master,)


def test_a_manager_that_was_master_and_is_not_is_a_doubt() -> None:
    """Asked on two ports with a hand-over between: who is master now cannot be told from this."""
    line = "sminfo: sm lid 1 sm guid 0x1, activity count 3 priority 0 state {}\n"
    found = subnet.parse_sminfo(line.format("3 SMINFO_MASTER") + line.format("2 SMINFO_STANDBY"))
    assert found.doubts == ("a subnet manager that changed on the way: 0000000000000001: MASTER, then STANDBY",)


@pytest.mark.parametrize("line", range(1, 8))
def test_a_record_cut_after_any_line_is_a_doubt(line: int) -> None:
    """A manager without its state is none."""
    found = subnet.parse_sminfo("".join(_text("sminfo", "record").splitlines(keepends=True)[:line]))
    assert found.managers == ()
    assert found.doubts


@given(rows=st.sets(st.integers(0, 8), max_size=8))
def test_a_table_of_keys_without_a_row_is_a_doubt(rows: set[int]) -> None:
    """A missing row may have held the full membership."""
    lines = _text("pkeys", "default_only").splitlines(keepends=True)
    assert subnet.parse_pkeys("".join(lines[n] for n in sorted(rows))).doubts
    assert subnet.parse_pkeys("".join(lines)).doubts == ()


def test_keys_keep_their_order_and_their_membership_bit() -> None:
    """Zero entries are holes; 0x0002 is a limited member of 0x8002."""
    assert subnet.parse_pkeys(_text("pkeys", "full_and_limited")).pkeys == (0xFFFF, 0x8001, 0x0002, 0x8005)


def test_counters_of_a_port_are_numbers_and_the_query_is_not_one() -> None:
    """PortSelect and the masks say what was asked."""
    found = subnet.parse_fields(_text("perfquery", "counters_of_a_port"))
    names = [name for name, _ in found.counts]
    assert (found.lid, found.port) == (1, 1)
    assert "SymbolErrorCounter" in names
    assert not {"PortSelect", "CounterSelect", "CounterSelect2"} & set(names)


def test_a_duplicated_guid_is_told_once_with_its_two_ports() -> None:
    """opensm logs it at every sweep."""
    found = subnet.parse_opensm_log(_text("opensm-log", "a_duplicated_guid") * 3)
    assert [d.guid for d in found.duplicates] == ["9c63c003001a0210"] == list(subnet.duplicated(found))
    assert found.duplicates[0].at == (("fc6a1c0300b00100", 2), ("fc6a1c0300b00100", 3))


@pytest.mark.parametrize("case", ["one_neighbor", "two_interfaces"])
def test_both_shapes_of_lldpcli_say_the_same(case: str) -> None:
    """`json` folds lists of one and names of systems into keys; `json0` does not."""
    folded, flat = (lldp.parse(_text("lldp", f"{case}_{shape}"), "n1") for shape in ("json", "json0"))
    assert folded == flat
    assert folded.doubts == ()
    assert {n.interface: n.port for n in folded.neighbors}["veA"] == "veB"


def test_a_neighbour_is_ours_by_the_node_asked() -> None:
    """The text does not say whose it is."""
    found = lldp.parse(_text("lldp", "networkctl"), "gpu01").neighbors
    assert found[0] == Neighbor("gpu01", "enp2s0f0", "oob-leaf-1", "swp12")


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_lldp_cut_anywhere_is_in_doubt(data: st.DataObject) -> None:
    """JSON that is not whole gives no neighbour."""
    text = _text("lldp", "two_interfaces_json").rstrip()
    found = lldp.parse(text[: data.draw(st.integers(0, len(text) - 1))])
    assert found.neighbors == ()
    assert found.doubts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["lldp", "interface", "name", "chassis", "port", "id", "value", "type", "Neighbors", "eth0"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(value=JSON)
@settings(max_examples=200, deadline=None)
def test_json_of_any_shape_gives_neighbours_with_all_three_parts(value: object) -> None:
    """Never an error, never a neighbour without interface, system or port."""
    for neighbor in lldp.parse(json.dumps({"lldp": value})).neighbors:
        assert neighbor.interface
        assert neighbor.system
        assert neighbor.port


def test_firmware_of_two_tools_is_one_entry_a_guid() -> None:
    """ibstat has no board; what another tool says of the same GUID completes it."""
    told = hca_firmware.parse(_text("hca-firmware", "ibv_devinfo")).adapters
    bare = (("mlx5_0", Firmware("9c63c003001a0000", "28.39.1002", "")),)
    assert hca_firmware.together(bare, told) == (
        Firmware("9c63c003001a0000", "28.39.1002", "MT_0000000838"),
        Firmware("9c63c003001a0010", "28.36.1010", "MT_0000000838"),
    )


def test_an_adapter_that_does_not_say_who_it_is_is_a_doubt() -> None:
    """A firmware version without a GUID belongs to nobody."""
    found = hca_firmware.parse("hca_id:\tmlx5_0\n\tfw_ver:\t\t28.39.1002\n")
    assert found.doubts == ("adapters that leave out their GUID or their firmware: 'mlx5_0'",)
    assert hca_firmware.together(found.adapters) == ()


def test_an_interface_that_only_gained_its_link_has_lost_none() -> None:
    """A host that booted is no flap."""
    found = link_flaps.parse("kernel: mlx5_core 0000:c1:00.0 ib2: Link up\n")
    assert (found.lost, found.gained) == ((), (("ib2", 1),))

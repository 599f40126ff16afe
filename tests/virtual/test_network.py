"""Namespaces, bridges, loop devices: the plan, and with root the real thing."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import RackproofError, UsageError
from toolkit.netboot.dnsmasq import configuration
from toolkit.netboot.hosts import host_lines
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual import disk, network, requirements, teardown
from toolkit.virtual.dnsmasq import boot_site
from toolkit.virtual.layout import Layout, layout_of


def test_interface_names_fit_the_kernel_whatever_nodes_are_called(rack: Rack, settings: Settings) -> None:
    """At most 15 characters; the node's own name is in the namespace's."""
    long = replace(rack.nodes[0], name="compute-tray-with-a-very-long-name-in-row-17")
    layout = layout_of(settings, rack.name)
    words = " ".join(
        command for batch in network.plan(layout, replace(rack, units=(long,))) for command in batch.commands
    ).split()
    names = [words[i + 1] for i, word in enumerate(words) if word in ("add", "name", "dev", "set", "master")]
    assert all(len(name) <= 15 for name in names if not name.startswith(("rp-", "10.")))
    assert layout.namespace(long.name) in words


def test_two_installations_do_not_meet(tmp_path: Path) -> None:
    """The same rack name under two homes has other namespaces, and neither owns the other's."""
    one, other = Layout(tmp_path / "a", "demo"), Layout(tmp_path / "b", "demo")
    assert one.controller != other.controller
    assert not one.owns_namespace(other.namespace("node1"))
    assert not one.owns_namespace(Layout(tmp_path / "a", "demo-2").controller)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "x" * 60, "a b"])
def test_a_name_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    """Rack names become file and namespace names."""
    with pytest.raises(UsageError, match="cannot name"):
        Layout(tmp_path, name)


@pytest.mark.parametrize("address", ["10.67.0.11", "192.168.1.1", "10.66.255.1", "fe80::1", "node1"])
def test_an_address_outside_the_virtual_networks_is_refused(rack: Rack, address: str) -> None:
    """The message names the node and the network it must be in."""
    unit = rack.nodes[0]
    assert unit.host
    wrong = replace(unit, host=replace(unit.host, address=address))
    with pytest.raises(UsageError, match=r"node1 has address .*\n.*10\.66\.0\.0/16"):
        network.check_addresses(replace(rack, units=(wrong,)))


def test_each_node_gets_its_own_boot_script_by_dhcp(rack: Rack, settings: Settings) -> None:
    """Only clients that say they are iPXE, each by its MAC; planned nodes are read from the rack's own folder."""
    site = boot_site(layout_of(settings, rack.name), settings.provision)
    text = configuration(site)
    assert "dhcp-boot=tag:ipxe,http://10.66.255.1/boot/${netX/mac:hexhyp}.ipxe" in text
    assert f"dhcp-hostsdir={layout_of(settings, rack.name).folder}/hosts" in text
    assert "52:54:00:66:00:02,10.66.0.12" in host_lines(rack)


def test_missing_programs_are_named_by_their_packages(tmp_path: Path) -> None:
    """An empty PATH misses everything; the hint is a command to copy."""
    missing = requirements.missing_packages(str(tmp_path))
    assert {"systemd-container", "dnsmasq-base", "iproute2"} <= set(missing)


def test_the_first_partition_is_read_from_the_mbr(tmp_path: Path) -> None:
    """A disk without a table, or with an empty one, has none."""
    image = tmp_path / "disk"
    disk.create(image, 1 << 20)
    assert disk.first_partition(image) is None
    sector = bytearray(512)
    sector[510:] = b"\x55\xaa"
    image.write_bytes(sector)
    assert disk.first_partition(image) is None
    sector[454:462] = struct.pack("<II", 2048, 4096)
    image.write_bytes(sector)
    assert disk.first_partition(image) == disk.Extent(1 << 20, 2 << 20)
    image.write_bytes(b"short")
    assert disk.first_partition(image) is None


@pytest.mark.root
def test_a_loop_device_shows_its_extent_and_is_let_go(tmp_path: Path) -> None:
    """Inside the block it reads the partition; after it, the file is free."""
    image = tmp_path / "disk"
    image.write_bytes(b"a" * 4096 + b"b" * 4096 + b"c" * 4096)
    with disk.attached(image, disk.Extent(4096, 4096)) as device:
        assert disk.backing_file(device) == str(image)
        assert disk.loops_below(tmp_path) == (device,)
        with device.open("rb") as block:
            assert block.read() == b"b" * 4096
    assert disk.loops_below(tmp_path) == ()


@pytest.mark.root
def test_a_disk_that_is_no_file_system_cannot_be_mounted(tmp_path: Path) -> None:
    """The error quotes mount(8)."""
    image = tmp_path / "disk"
    disk.create(image, 1 << 20)
    with (
        disk.attached(image) as device,
        pytest.raises(RackproofError, match="mount"),
        disk.mounted(str(device), tmp_path / "at", "ext4", "ro"),
    ):
        pass
    assert disk.loops_below(tmp_path) == ()


@pytest.mark.root
def test_the_controller_reaches_bmcs_and_a_dead_one_is_silent(rack: Rack, settings: Settings) -> None:
    """A namespace of its own per plane: the first BMC's address can go without taking the second's along."""
    layout = layout_of(settings, rack.name)
    network.build(layout, rack)
    try:
        listeners = [
            network.inside(layout.bmcs, lambda address=unit.bmc.address: socket.create_server((address, 443)))
            for unit in rack.nodes
        ]

        def answers(address: str) -> bool:
            try:
                network.inside(layout.controller, lambda: socket.create_connection((address, 443), 0.5).close())
            except TimeoutError:
                return False
            return True

        assert answers("10.67.0.11")
        network.unplug_bmc(layout, "10.67.0.11")
        network.unplug_bmc(layout, "10.67.0.11")
        assert (answers("10.67.0.11"), answers("10.67.0.12")) == (False, True)
        network.plug_bmc(layout, "10.67.0.11")
        assert answers("10.67.0.11")
        for listener in listeners:
            listener.close()
    finally:
        teardown.sweep(layout)
    assert not teardown.find(layout)


@pytest.mark.root
def test_an_error_inside_a_namespace_reaches_the_caller(rack: Rack, settings: Settings) -> None:
    """Not lost with the thread it happened in."""
    with pytest.raises(UsageError, match="no network namespace"):
        network.inside(layout_of(settings, rack.name).controller, lambda: None)

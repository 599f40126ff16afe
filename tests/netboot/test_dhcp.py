"""The real dnsmasq on a wire: what each kind of firmware is told, and that nobody else is told anything."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.netboot.conftest import ADDRESS, NODE, NODE_MAC, Service, dhcp, node_address, until
from tests.netboot.firmware import offer
from toolkit.netboot.hosts import forget_hosts, write_hosts
from toolkit.netboot.site import DhcpMode
from toolkit.rack.model import Rack, Unit
from toolkit.virtual import dhcp as client
from toolkit.virtual import network

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
SECOND_MAC, SWAPPED_MAC = "52:54:00:77:00:01", "52:54:00:77:00:99"


@pytest.fixture
def served(wired: Service) -> Iterator[Service]:
    """dnsmasq answers the rack's nodes."""
    with dhcp(wired):
        yield wired


def boot_file(kind: str, mac: str = NODE_MAC) -> str:
    """What firmware is told to boot; "" for no offer and for an offer without."""
    found = offer(kind, mac)
    return client.lease_of(found).boot_file if found else ""


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("bios", "undionly.kpxe"),
        ("uefi", "snponly.efi"),
        ("http", f"http://{ADDRESS}/boot/ipxe/snponly.efi"),
        ("arm-http", f"http://{ADDRESS}/boot/ipxe/snponly-arm64.efi"),
        ("ipxe", f"http://{ADDRESS}/boot/${{netX/mac:hexhyp}}.ipxe"),
        ("linux", ""),
    ],
)
def test_each_firmware_is_told_its_way_to_the_script(served: Service, kind: str, file: str) -> None:
    """Its planned address always; UEFI HTTP Boot takes an offer only if it says HTTPClient; Linux boots nothing."""
    found = offer(kind, NODE_MAC)
    assert found is not None
    assert str(found.address) == "10.66.0.11"
    assert client.lease_of(found).boot_file == file
    assert found.options.get(60) == (b"HTTPClient" if "http" in kind else None)
    assert 3 not in found.options  # no router: nothing outside can be reached


def test_firmware_without_http_gets_ipxe_by_tftp(served: Service) -> None:
    """The very program of Debian's package; nothing beside that folder."""
    with node_address():
        for name, status in (("undionly.kpxe", 0), ("snponly.efi", 0), ("../../../etc/hostname", 68)):
            got, body = served.curl("-s", "--path-as-is", f"tftp://{ADDRESS}/{name}", namespace=NODE, check=False)
            assert got == status or (status and got != 0), name
            assert status or body == (served.site.firmware / name).read_bytes()


def test_a_node_that_no_rack_plans_hears_nothing(served: Service) -> None:
    """Neither an offer nor a refusal: it is somebody else's."""
    assert offer("ipxe", "52:54:00:99:00:01", wait_s=1.5) is None
    assert offer("linux", "52:54:00:99:00:01", wait_s=1.5) is None


def second(rack: Rack) -> Rack:
    """Another rack in the same network."""
    return replace(rack, name="second", units=(_as_second(rack.nodes[0]),))


def _as_second(unit: Unit) -> Unit:
    assert unit.host is not None
    return replace(unit, host=replace(unit.host, address="10.66.7.11", mac=SECOND_MAC))


def test_a_second_rack_is_served_without_a_restart(served: Service, rack: Rack) -> None:
    """Written while dnsmasq runs; the first goes on. A swapped board, and one forgotten, are so after a reload."""
    hosts = served.site.hosts_folder
    assert offer("ipxe", SECOND_MAC, wait_s=0.9) is None
    assert write_hosts(hosts, second(rack))
    assert not write_hosts(hosts, second(rack))
    until("the second rack", 10, lambda: boot_file("ipxe", SECOND_MAC).startswith("http://"))
    assert boot_file("ipxe").startswith("http://")
    assert "new or modified" in (log := (served.folder / "dnsmasq.log").read_text())
    assert (log.count("new or modified"), "duplicate" in log) == (1, False)
    unit = second(rack).units[0]
    assert unit.host is not None
    swapped = replace(unit, host=replace(unit.host, mac=SWAPPED_MAC))
    assert write_hosts(hosts, replace(second(rack), units=(swapped,)))
    os.kill(int((served.folder / "dnsmasq.pid").read_text()), 1)
    until("the new board", 10, lambda: boot_file("ipxe", SWAPPED_MAC).startswith("http://"))
    assert offer("ipxe", SECOND_MAC, wait_s=0.9) is None
    assert forget_hosts(hosts, "second")
    os.kill(int((served.folder / "dnsmasq.pid").read_text()), 1)
    until("it is forgotten", 10, lambda: offer("ipxe", SWAPPED_MAC, wait_s=0.9) is None)
    assert boot_file("ipxe").startswith("http://")


def test_the_virtual_firmware_goes_the_same_way(served: Service) -> None:
    """DISCOVER to ACK, and the script's name once iPXE's setting is expanded."""
    lease = network.inside(NODE, lambda: client.ask("eth0", NODE_MAC, lambda: None))
    assert lease is not None
    assert (str(lease.address), lease.prefix) == ("10.66.0.11", 16)
    assert lease.boot_file == served.site.script_url


def test_beside_another_dhcp_server_it_gives_no_address(wired: Service) -> None:
    """proxyDHCP: only what to boot, only to planned nodes that ask to boot."""
    with dhcp(wired, replace(wired.site, mode=DhcpMode.PROXY)):
        told = {kind: offer(kind, NODE_MAC, wait_s=1.5) for kind in ("bios", "uefi", "ipxe", "linux")}
        assert told["linux"] is None
        for kind in ("bios", "uefi", "ipxe"):
            found = told[kind]
            assert found is not None, kind
            assert str(found.address) == "0.0.0.0"  # noqa: S104 - an address that is not given
            assert (found.options.get(60) or b"").startswith(b"PXEClient")
        assert offer("bios", "52:54:00:99:00:01", wait_s=1.5) is None

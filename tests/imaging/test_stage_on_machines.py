"""Faults of BMC and network under the image stage, on real virtual machines: each is named, the next run ends well."""

from __future__ import annotations

import pytest

from tests.imaging.machines import Site
from toolkit.netboot.offers import BootOffers
from toolkit.rack.lifecycle import Outcome
from toolkit.redfish import Reset
from toolkit.virtual.faults import FaultKind
from toolkit.virtual.firmware import Phase
from toolkit.virtual.stranger import ADDRESS, BOOT_FILE, HARDWARE

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(120)]


def _finishes(site: Site) -> None:
    result = site.image()
    assert result.outcome is Outcome.PASSED, (result, site.bench.layout.node("node1").console.read_text()[-2000:])
    assert site.is_up()


def test_a_stranger_with_dhcp_is_named_and_gone_the_node_is_imaged(site: Site) -> None:
    """ROGUE_DHCP with address, MAC and boot file; nothing was written, our script was not taken."""
    with site.fault(FaultKind.ROGUE_DHCP):
        result = site.image(silence_s=5.0)
    assert (result.outcome, result.code) == (Outcome.ERROR, "ROGUE_DHCP"), result
    for word in (ADDRESS, HARDWARE, BOOT_FILE):
        assert word in result.message
    console = site.bench.layout.node("node1").console.read_text()
    assert f"boot file {BOOT_FILE}" in console
    assert "No bootable device" in console
    _finishes(site)


def test_an_override_that_stays_is_imaged_once_and_cleared(site: Site) -> None:
    """Real Redfish, real boots: Continuous while it is imaged, Disabled afterwards, and restarts are from the disk."""
    with site.fault(FaultKind.BMC_OVERRIDE_STAYS):
        result = site.image()
    assert result.outcome is Outcome.PASSED, result
    assert "kept the boot override (Pxe Continuous); it is cleared now (None Disabled)" in result.message
    host = site.node.host
    assert host is not None
    offer = BootOffers(site.bench.settings.provision).look(host.mac)
    assert offer is not None and offer.again == 1  # the boot after the ramdisk was sent on to the disk
    assert site.bench.inside(lambda: str(site.bmc.boot_override())) == "None Disabled"
    site.bench.inside(lambda: site.bmc.reset(Reset.FORCE_RESTART))
    site.bench.wait("node1", lambda now: now.phase is Phase.SELF_TEST)
    site.bench.wait("node1", lambda now: now.phase is Phase.OPERATING_SYSTEM)

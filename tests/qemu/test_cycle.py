"""The whole imaging of a bare machine with real firmware, kernel and disk; then it is configured and read back."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.qemu.installation import NODE, RACK, RECIPE, Installation
from toolkit.image.manifest import Architecture
from toolkit.image.recipe import load_recipe
from toolkit.virtual.firmware import Phase
from toolkit.virtual.qemu.machine import Firmware, NetworkBoot
from toolkit.virtual.qemu.rack import QemuRack

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(2400)]

# Shown on the serial line in this order; a BIOS has its own first words.
FIRST_WORDS = {Firmware.UEFI: ">>Start PXE over IPv4", Firmware.BIOS: "SeaBIOS"}
SIGNED = "the site signed its manifest"
ON_THE_WAY = (
    "rackproof: imaging node1",
    "Linux version",
    "deploy: machine VR00000001",
    SIGNED,
    "deploy: writing",
    "deploy: read back",
    "deploy: rebooting",
    "GRUB",
    "Debian GNU/Linux 12 node1",
)


@pytest.fixture
def site() -> Iterator[Installation]:
    # Not pytest's folder: its path is too long for the boot service's UNIX socket.
    with tempfile.TemporaryDirectory(prefix="rp-qemu-") as folder:
        made = Installation(Path(folder))
        made.stock()
        yield made


@pytest.mark.parametrize("firmware", list(Firmware))
def test_a_bare_machine_becomes_the_planned_node(site, firmware):
    """Power by its BMC, network boot, image on its disk, boot from it, SSH by a signed key, base, facts as planned."""
    with QemuRack(site.rack, site.settings, lambda _: None, firmware=firmware) as rack:
        site.image(seconds=1800)
        site.wait_for(ON_THE_WAY[-1], 120)  # SSH answers before the serial line's getty does
        times = [site.seconds_to(text) for text in (FIRST_WORDS[firmware], *ON_THE_WAY)]
        assert times == sorted(times)
        _is_the_planned_machine(site, rack, firmware)
        site.plug_devices_in(rack)
        site.verb("bringup", RACK, "--to", "CONFIGURED")
        _facts_equal_the_plan(site)
        before = site.on_node("cat /proc/sys/kernel/random/boot_id")
        assert "runs the planned image already" not in site.verb("plan", RACK, "--to", "CONFIGURED")
        assert site.on_node("cat /proc/sys/kernel/random/boot_id") == before
        assert rack.chassis[NODE].phase is Phase.OPERATING_SYSTEM


def test_firmware_that_boots_by_http_comes_to_the_deploy_ramdisk(site):
    """Real firmware takes the offer that says HTTPClient, and iPXE by HTTP, not TFTP. What follows is the same."""
    with QemuRack(site.rack, site.settings, lambda _: None, network_boot=NetworkBoot.HTTP) as rack:
        driving = site.start("bringup", RACK, "--to", "IMAGED", "--confirm", RACK)
        try:
            site.wait_for(SIGNED, 900)
        finally:
            driving.kill()
            driving.communicate(timeout=60)
        words = (">>Start HTTP Boot over IPv4", *ON_THE_WAY[: ON_THE_WAY.index(SIGNED) + 1])
        times = [site.seconds_to(text) for text in words]
        assert times == sorted(times)
        assert not any("PXE over" in line.text for line in site.console)
        log = (rack.boot_service.folder / "dnsmasq.log").read_text()
        assert "vendor class: HTTPClient:Arch:00016" in log
        assert not re.search(r"dnsmasq-tftp\[\d+\]: sent", log)


def test_a_kernel_that_is_damaged_on_its_way_is_told_and_a_sound_one_imaged(site):
    """Of the right size, so that nobody but the machine notices; nothing reaches its disk until the kernel is sound."""
    (kernel,) = site.settings.provision.glob("images/*/*/vmlinuz")
    sound = kernel.read_bytes()
    with QemuRack(site.rack, site.settings, lambda _: None, firmware=Firmware.BIOS) as rack:
        site.be_impatient("4m")
        _replace(kernel, sound[: len(sound) // 2] + bytes(len(sound) - len(sound) // 2))
        site.image(expect=3)
        assert site.code() == "BOOT_LOOP"  # it cannot be unpacked, and the machine starts anew
        assert "never came up in the deploy ramdisk" in site.verb("why", NODE)
        assert not any("deploy:" in line.text for line in site.console)
        assert rack.layout.node(NODE).disk.stat().st_blocks == 0
        site.be_impatient("15m")
        _replace(kernel, sound)
        site.image(seconds=1800)
        assert site.on_node("hostname").strip() == NODE


def _replace(file: Path, content: bytes) -> None:
    """Another file of that name: the old one is a link to what is kept for other tests."""
    file.unlink()
    file.write_bytes(content)


def _is_the_planned_machine(site: Installation, rack: QemuRack, firmware: Firmware) -> None:
    """What the node's own kernel and SSH server say; the host key is believed by the site's CA."""
    known = site.settings.known_hosts(RACK).read_text()
    assert "@cert-authority 10.66.0.11 ssh-ed25519" in known
    said = site.on_node(
        "hostname; cat /sys/class/dmi/id/product_serial; cat /sys/block/nvme0n1/device/serial; "
        "cat /sys/class/net/e*/address; findmnt -no SOURCE /; "
        "[ -d /sys/firmware/efi ] && echo uefi || echo bios; df -BM --output=size / | tail -1"
    )
    name, serial, disk, mac, root, kind, size = (line.strip() for line in said.splitlines())
    assert (name, serial, disk, mac) == (NODE, "VR00000001", "VD00000001", "52:54:00:66:00:01")
    assert root.startswith("/dev/nvme0n1p")
    assert kind == firmware.value
    assert int(size.removesuffix("M")) > 7000, "the root file system did not grow to the disk's end"


def _facts_equal_the_plan(site: Installation) -> None:
    """What the node tells of itself now, against rack file, profile and recipe."""
    node, profile = site.rack.nodes[0], site.rack.profile
    facts = json.loads(site.verb("facts", NODE, "--json"))["facts"]
    told = {name: fact["value"] for name, fact in facts.items()}
    assert told["identity"] == node.serial
    recipe = load_recipe(RECIPE, Architecture.AMD64)
    assert told["image"] == f"{recipe.name} {recipe.digest[:12]}"
    assert len(told["gpus"]["gpus"]) == profile.gpus_per_node
    expected = dict(profile.expected)
    assert {gpu["name"] for gpu in told["gpus"]["gpus"]} == {expected["gpu_name"]}
    assert told["gpus"]["driver"] == expected["driver_version"]
    assert told["fabric_manager"] is told["ibstat"] is None, "not before the stages nvlink and infiniband"
    planned = dict(profile.versions)
    installed = {name: version for name, version in told["packages"].items() if name in planned}
    assert set(installed) >= {"nvidia-driver-580-open", "libnvidia-nscq", "nccl-tests"}
    assert installed.items() <= planned.items()

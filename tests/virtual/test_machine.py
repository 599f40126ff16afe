"""Real virtual machines: power, network boot, disk boot, faults, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit.errors import RackproofError, UsageError
from toolkit.rack.model import Rack
from toolkit.redfish import Power
from toolkit.settings import Settings
from toolkit.virtual import lab, network, requirements, teardown
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.chassis import Lag
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import Phase
from toolkit.virtual.layout import layout_of

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(120)]


def reset(bench, node: str, kind: str) -> None:
    import sushy

    system = bench.bmc(node)
    bench.inside(lambda: system.reset_system(getattr(sushy, f"RESET_{kind}")))


def answers(bench, address: str, port: int, timeout_s: float = 1.0) -> bool:
    def connect() -> bool:
        try:
            socket.create_connection((address, port), timeout_s).close()
        except TimeoutError:
            return False
        return True

    return bench.inside(connect)


def test_a_bare_machine_is_imaged_over_the_network_and_boots_from_its_disk(bench, images) -> None:
    """Power on by Redfish, network boot once, ramdisk, disk, reboot from inside, and off by the power button."""
    bench.install("node1", images)
    assert bench.get("node1") == "VR00000001\nVD00000001\n"
    assert bench.status("node1").power is Power.ON
    reports = (bench.settings.provision / "reports/node1-token.jsonl").read_text()
    assert hashlib.sha256(images.disk.read_bytes()).hexdigest() in reports

    override = bench.inside(lambda: bench._bmc("node1").boot)
    assert (override.target.value, override.enabled.value) == ("None", "Disabled")

    bench.get("node1", "/cgi-bin/reboot")
    bench.wait("node1", lambda now: now.phase is Phase.SELF_TEST)
    bench.wait("node1", lambda now: now.phase is Phase.OPERATING_SYSTEM)
    assert bench.get("node1").startswith("VR00000001"), "the second boot is from the disk: nobody imaged it again"
    assert (bench.settings.provision / "reports/node1-token.jsonl").read_text() == reports

    reset(bench, "node1", "GRACEFUL_SHUTDOWN")
    bench.wait("node1", lambda now: now.power is Power.OFF)


def test_power_comes_and_goes_with_a_lag_that_shows(bench) -> None:
    """PoweringOn and PoweringOff are states a client sees; the button itself answers at once."""
    began = time.monotonic()
    reset(bench, "node2", "ON")
    assert time.monotonic() - began < 0.5
    assert bench.status("node2").power is Power.POWERING_ON
    bench.wait("node2", lambda now: now.power is Power.ON)
    reset(bench, "node2", "FORCE_OFF")
    bench.wait("node2", lambda now: now.power is Power.POWERING_OFF)
    bench.wait("node2", lambda now: now.power is Power.OFF)


def test_a_machine_with_nothing_to_boot_sits_there(bench) -> None:
    """A blank disk and no boot script: the node stays on, says why, and a power cycle is the way out."""
    reset(bench, "node3", "ON")
    bench.wait("node3", lambda now: now.phase is Phase.NO_BOOT_DEVICE)
    assert "No bootable device" in bench.layout.node("node3").console.read_text()
    assert bench.status("node3").power is Power.ON
    reset(bench, "node3", "FORCE_OFF")
    bench.wait("node3", lambda now: now.power is Power.OFF)


def test_cutting_the_power_ends_the_machine_and_its_network(bench, images) -> None:
    """After ForceOff no process of the machine lives, its disk is free, and its address is silent."""
    bench.install("node2", images)
    bench.get("node2")
    assert bench.status("node2").memory_bytes is None or bench.status("node2").memory_bytes < 64 << 20
    reset(bench, "node2", "FORCE_OFF")
    bench.wait("node2", lambda now: now.power is Power.OFF)
    disks = [
        Path(f"/sys/block/{loop.name}/loop/backing_file").read_text() for loop in teardown.find(bench.layout).loops
    ]
    assert not [disk for disk in disks if "/node2/" in disk]
    with pytest.raises(OSError, match=r"[Nn]o route|timed out"):
        answers(bench, "10.66.0.12", 22, 1.5)
        raise TimeoutError("timed out")


def test_a_hung_boot_shows_and_heals(bench, images) -> None:
    """With BOOT_HANG the operating system never comes up; cleared, the next power cycle boots it."""
    bench.install("node3", images)
    lab.set_fault(bench.settings, bench.rack.name, Fault(FaultKind.BOOT_HANG, "node3"))
    reset(bench, "node3", "FORCE_RESTART")
    bench.wait("node3", lambda now: now.phase is Phase.HUNG)
    lab.clear_fault(bench.settings, bench.rack.name, "node3", FaultKind.BOOT_HANG)
    reset(bench, "node3", "FORCE_RESTART")
    bench.wait("node3", lambda now: now.phase is Phase.SELF_TEST)
    bench.wait("node3", lambda now: now.phase is Phase.OPERATING_SYSTEM)


def test_a_dead_bmc_is_silent_on_the_wire_and_comes_back(bench) -> None:
    """Not refused, not unreachable: no answer at all, while the others' BMCs go on."""
    fault = Fault(FaultKind.BMC_DEAD, "node1")
    lab.set_fault(bench.settings, bench.rack.name, fault)
    assert not answers(bench, "10.67.0.11", 443)
    assert answers(bench, "10.67.0.12", 443)
    assert bench.status("node1").faults == (fault,)
    assert lab.clear_fault(bench.settings, bench.rack.name, "node1") == (fault,)
    assert bench.bmc("node1").power_state.value == "Off"


def test_a_spoiled_image_reaches_one_node_once(bench, images) -> None:
    """BAD_IMAGE flips a byte of the image for the next download of that node, and is then used up."""
    bench.offer("node1", images)
    lab.set_fault(bench.settings, bench.rack.name, Fault(FaultKind.BAD_IMAGE, "node1"))
    good = hashlib.sha256(images.disk.read_bytes()).hexdigest()
    reports = bench.settings.provision / "reports/node1-token.jsonl"
    before = reports.read_text() if reports.exists() else ""
    for expected in (False, True):
        bench.install("node1", images)
        said = reports.read_text().removeprefix(before)
        assert (good in said) is expected
        before = reports.read_text()
        reset(bench, "node1", "FORCE_OFF")
        bench.wait("node1", lambda now: now.power is Power.OFF)
    assert bench.status("node1").faults == ()


def test_a_fault_the_rack_cannot_have_is_refused(bench) -> None:
    """No such node, no such GPU: the operator hears what there is."""
    with pytest.raises(UsageError, match="no node 'node9'"):
        lab.set_fault(bench.settings, bench.rack.name, Fault(FaultKind.ECC_DRIP, "node9", gpu=0))
    with pytest.raises(UsageError, match="GPU 8"):
        lab.set_fault(bench.settings, bench.rack.name, Fault(FaultKind.ECC_DRIP, "node1", gpu=8))


def test_up_twice_is_up_once(bench) -> None:
    """The second `up` says so and touches nothing; another rack file under the same name is refused."""

    said: list[str] = []
    before = teardown._daemons(bench.layout)  # what runs inside the machines comes and goes
    lab.up(bench.rack, bench.settings, said.append)
    assert said == ["rack bench is up already"]
    assert before
    assert teardown._daemons(bench.layout) == before
    with pytest.raises(UsageError, match="another version"):
        lab.up(replace(bench.rack, digest="1" * 64), bench.settings, said.append)


def daemons_of(bench) -> list[int]:
    """The daemon itself, without the `unshare` that started it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(bench.layout.description) in words and b"unshare" not in words[0]:
            found.append(int(folder.name))
    return found


def test_a_killed_daemon_takes_its_machines_along_and_down_removes_the_rest(make_bench, images) -> None:
    """SIGKILL is a power cut: no process, mount or loop device survives; disks do, until `down`."""
    bench = make_bench("doomed", 1)
    bench.install("node1", images)
    bench.get("node1")
    (daemon,) = daemons_of(bench)
    os.kill(daemon, signal.SIGKILL)
    end = time.monotonic() + 10
    while (left := teardown.find(bench.layout)) and (left.processes or left.loops):
        assert time.monotonic() < end, left
        time.sleep(0.05)
    assert not lab.status(bench.settings, "doomed").running

    lab.up(bench.rack, bench.settings, lambda _: None, Lag(0.1, 0.1, 0.1))
    reset(bench, "node1", "ON")
    assert bench.get("node1").startswith("VR00000001"), "the disk is as it was"

    (daemon,) = daemons_of(bench)
    os.kill(daemon, signal.SIGKILL)
    assert lab.down(bench.settings, "doomed") == ("doomed",)
    assert not teardown.find(bench.layout)
    assert not bench.layout.folder.exists()
    assert lab.down(bench.settings, "doomed") == ()


def test_down_removes_a_running_rack_whole(make_bench, images) -> None:
    """Machines that run are no reason to refuse: everything goes, in seconds."""
    bench = make_bench("busy", 1)
    bench.install("node1", images)
    began = time.monotonic()
    assert lab.down(bench.settings) == ("busy",)
    assert time.monotonic() - began < 5
    assert not teardown.find(bench.layout)
    assert str(bench.layout.folder) not in Path("/proc/mounts").read_text()


def test_down_finds_what_a_lost_installation_left(settings: Settings) -> None:
    """Even with the folder gone: namespaces and processes are found by the rack's tag, and other racks' are not."""
    ours, other = layout_of(settings, "lost"), layout_of(settings, "kept")
    group = ControlGroup(f"{ours.control_group}/node1")
    group.create()
    orphan = subprocess.Popen(["sleep", "600"])
    for folder in group.folders:
        (folder / "cgroup.procs").write_text(str(orphan.pid))
    for name in (ours.namespace("node1"), other.controller):
        subprocess.run(["ip", "netns", "add", name], check=True, env={"PATH": requirements.SEARCH_PATH})
    try:
        settings.home.mkdir(exist_ok=True)
        assert teardown.racks(settings.home.resolve()) == ("kept", "lost")
        assert lab.down(settings, "lost") == ("lost",)
        assert orphan.wait(5) == -signal.SIGKILL
        assert not teardown.find(ours)
        assert other.controller in network.existing()
    finally:
        orphan.kill()
        assert lab.down(settings) == ("kept",)


def test_a_rack_that_cannot_come_up_says_why_and_leaves_nothing(rack: Rack, settings: Settings) -> None:
    """The daemon's own words are in the error; its half-made networks are gone."""
    unit = rack.nodes[0]
    assert unit.bmc
    wrong = replace(unit, bmc=replace(unit.bmc, address=rack.nodes[1].bmc.address))
    twice = replace(rack, units=(wrong, rack.nodes[1]))
    with pytest.raises(RackproofError):
        lab.up(twice, settings, lambda _: None)
    assert not teardown.find(layout_of(settings, rack.name))
    lab.down(settings)

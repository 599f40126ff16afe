"""A QEMU machine behind a BMC on loopback, its NIC in a network namespace where nobody answers."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.qemu.deploy_bench import MIB, DeployBench, benched
from tests.qemu.deploy_parts import Netboot, make_image, make_netboot
from tests.virtual.conftest import a_rack
from toolkit.rack.model import Bmc as PlannedBmc
from toolkit.redfish import BmcClient, Credentials, connect
from toolkit.virtual.bmc import Bmc, BmcServer
from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.credentials import Login
from toolkit.virtual.network import NAMESPACES
from toolkit.virtual.qemu.chassis import QemuChassis
from toolkit.virtual.qemu.machine import Firmware, MachineSpec
from toolkit.virtual.tls import Authority

LOGIN = Login("admin", "correct horse")
UUID = "6f7a9f6e-0000-4000-8000-000000000001"


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits for something to become true; the test fails when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@dataclass(frozen=True)
class Machine:
    """What the tests hold: the chassis, and a client of its BMC."""

    chassis: QemuChassis
    bmc: BmcClient
    said: list[str]

    @property
    def messages(self) -> list[str]:
        """The BMC's event log, texts only."""
        return [event.message for event in self.chassis.events]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Switched off. A small BIOS machine: its firmware is through in a second."""
    rack = a_rack(1)
    unit = rack.nodes[0]
    namespace, group = f"rp-qemu-{os.getpid()}", ControlGroup(f"rackproof/qemu-test-{os.getpid()}")
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    subprocess.run(["ip", "-n", namespace, "tuntap", "add", "dev", "tap0", "mode", "tap"], check=True)
    said: list[str] = []
    spec = MachineSpec(
        unit.name, unit.serial, UUID, rack.profile.sku, "52:54:00:66:00:01", "tap0", tmp_path / "node/disk.img",
        "VD00000001", tmp_path / "node/variables.fd", Firmware.BIOS, memory_mib=64, processors=1,
    )  # fmt: skip
    chassis = QemuChassis(
        unit, rack.profile, spec, NAMESPACES / namespace, group, tmp_path / "node/console.log", 1 << 20, said.append
    )
    server = _serve(chassis, tmp_path)
    try:
        chassis.start()
        planned = PlannedBmc("127.0.0.1", "bmc", server.server_port)
        yield Machine(chassis, connect(planned, Credentials(LOGIN.username, LOGIN.password), tmp_path / "ca.pem"), said)
    finally:
        chassis.stop()
        server.shutdown()
        server.server_close()
        group.remove()
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def _serve(chassis: QemuChassis, folder: Path) -> BmcServer:
    pem = Authority.at(folder / "ca.pem", folder / "ca.key").issue("node1-bmc", "127.0.0.1")
    (folder / "server.pem").write_bytes(pem)
    server = BmcServer(Bmc(chassis, LOGIN, "127.0.0.1"), 0, folder / "server.pem")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def netboot() -> Iterator[Netboot]:
    """Kernel and deploy ramdisk, as the network gives them."""
    with tempfile.TemporaryDirectory() as folder:
        yield make_netboot(Path(folder))


@pytest.fixture(scope="module")
def image() -> Iterator[tuple[bytes, bytes]]:
    """A small image's disk: compressed, and as it stands on a node."""
    with tempfile.TemporaryDirectory() as folder:
        yield make_image(Path(folder), noise_bytes=2 * MIB)


@pytest.fixture
def bench(netboot, image) -> Iterator[DeployBench]:
    """A machine with NVMe disks that boots them."""
    with benched(netboot, image) as made:
        yield made

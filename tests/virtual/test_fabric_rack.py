"""A virtual rack's fabric in its daemon: power, faults and the site's subnet manager show at the nodes' ports."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from fabric_bench import until

from toolkit.errors import UsageError
from toolkit.facts import ibnetdiscover
from toolkit.virtual import lab, network
from toolkit.virtual.devices.ports import folder_of
from toolkit.virtual.fabric.tools import fetch
from toolkit.virtual.faults import Fault
from toolkit.virtual.faults import FaultKind as Kind

pytestmark = [pytest.mark.root, pytest.mark.rack, pytest.mark.timeout(180)]
ACTIVE, DOWN, WAITING = "4: ACTIVE", "1: DOWN", "2: INIT"


def _press(bench, node: str, kind: str) -> None:
    import sushy

    system = bench.bmc(node)
    bench.inside(lambda: system.reset_system(getattr(sushy, f"RESET_{kind}")))


def _state(bench, node: str, hca: str) -> str:
    return (folder_of(bench.layout.node(node).hardware, hca) / "state").read_text().strip()


def _becomes(bench, node: str, hca: str, wanted: str, timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while (now := _state(bench, node, hca)) != wanted:
        assert time.monotonic() < end, f"{node} {hca} is {now}\n{(bench.layout.folder / 'daemon.log').read_text()}"
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def _on(cabled) -> None:
    """Both nodes get power: their ports come up, and the site's manager brings them to Active."""
    for node in ("node1", "node2"):
        assert _state(cabled, node, "mlx5_0") == DOWN
        _press(cabled, node, "ON")
    for node in ("node1", "node2"):
        _becomes(cabled, node, "mlx5_1", ACTIVE)


def _tool(cabled, built: Path, tmp_path: Path, *argv: str) -> str:
    """A real tool on node1, in the node's network, over UDP as the node itself has it."""
    tools = fetch(built, lambda _: None)
    address, port = (cabled.layout.node("node1").hardware / "infiniband/fabric").read_text().split()
    told = {"IBSIM_SERVER_NAME": address, "IBSIM_SERVER_PORT": port}
    environment = dict(tools.environment("", "node1 mlx5_0")) | told
    words = [f"{name}={environment.pop(name)}" for name in ("LD_PRELOAD", "LD_LIBRARY_PATH")]
    inside = f"--net={network.NAMESPACES / cabled.layout.namespace('node1')}"
    return subprocess.run(
        ["nsenter", inside, "--", "env", *words, str(tools.programs / argv[0]), *argv[1:]],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip


@pytest.fixture
def _addressed(cabled) -> None:
    """Nothing has booted: the node gets its address from the test."""
    layout = cabled.layout
    up = ["link set eth0 up", "address replace 10.66.0.11/16 dev eth0"]
    network._ip_batch(network.Batch(layout.namespace("node1"), tuple(up)))


def test_a_pulled_cable_shows_at_the_node_and_comes_back(cabled) -> None:
    """Down at once, Initialize when it is back, Active when the manager has heard of it."""
    lab.set_fault(cabled.settings, "cabled", Fault(Kind.CABLE_PULLED, "node1", hca="mlx5_1"))
    _becomes(cabled, "node1", "mlx5_1", DOWN)
    assert _state(cabled, "node2", "mlx5_1") == ACTIVE
    lab.clear_fault(cabled.settings, "cabled", "node1", Kind.CABLE_PULLED)
    _becomes(cabled, "node1", "mlx5_1", ACTIVE)


def test_a_switch_without_power_takes_its_rail_down(cabled) -> None:
    """The fault is the switch's, not a node's."""
    lab.set_fault(cabled.settings, "cabled", Fault(Kind.SWITCH_DOWN, "leaf2"))
    for node in ("node1", "node2"):
        _becomes(cabled, node, "mlx5_1", DOWN)
    assert _state(cabled, "node1", "mlx5_0") == ACTIVE
    assert lab.clear_fault(cabled.settings, "cabled", "leaf2")
    _becomes(cabled, "node2", "mlx5_1", ACTIVE)


@pytest.mark.usefixtures("_addressed")
def test_swapped_cables_are_seen_by_a_tool_on_a_node(cabled, built: Path, tmp_path: Path) -> None:
    """By no port's state, only by where the links end."""
    lab.set_fault(cabled.settings, "cabled", Fault(Kind.SWAPPED_CABLES, "node1", hca="mlx5_0", other="node2:mlx5_1"))
    swapped = {("node1 mlx5_0", "MF0;leaf2:MQM9700/U1", 2), ("node2 mlx5_1", "MF0;leaf1:MQM9700/U1", 1)}

    def ends() -> set[tuple[str, str, int]]:
        seen = ibnetdiscover.parse(_tool(cabled, built, tmp_path, "ibnetdiscover"))
        names = {node.guid: node.description for node in seen.nodes}
        return {
            (names[x.guid], names[y.guid], y.number)
            for link in seen.links
            for x, y in ((link.a, link.b), (link.b, link.a))
        }

    until(lambda: swapped <= ends(), "the links to be up in their new places")
    lab.clear_fault(cabled.settings, "cabled", "node1")


@pytest.mark.usefixtures("_addressed")
def test_without_its_manager_a_port_stays_in_initialize(cabled, built: Path, tmp_path: Path) -> None:
    """Nobody answers sminfo; cleared, the site's manager runs again."""
    lab.set_fault(cabled.settings, "cabled", Fault(Kind.NO_SUBNET_MANAGER, "leaf1"))
    lab.set_fault(cabled.settings, "cabled", Fault(Kind.CABLE_PULLED, "node2", hca="mlx5_0"))
    _becomes(cabled, "node2", "mlx5_0", DOWN)
    lab.clear_fault(cabled.settings, "cabled", "node2")
    _becomes(cabled, "node2", "mlx5_0", WAITING)
    with pytest.raises(subprocess.CalledProcessError):
        _tool(cabled, built, tmp_path, "sminfo")
    lab.clear_fault(cabled.settings, "cabled", "leaf1")
    _becomes(cabled, "node2", "mlx5_0", ACTIVE)
    assert "SMINFO_MASTER" in _tool(cabled, built, tmp_path, "sminfo")


def test_a_node_that_is_switched_off_has_no_link(cabled) -> None:
    """And has them again with its power."""
    _press(cabled, "node2", "FORCE_OFF")
    _becomes(cabled, "node2", "mlx5_0", DOWN)
    cabled.wait("node2", lambda now: now.power == "Off")
    _press(cabled, "node2", "ON")
    _becomes(cabled, "node2", "mlx5_0", ACTIVE)


def test_faults_that_the_fabric_cannot_have_are_refused(cabled) -> None:
    """With what it has; the ones that are set stay."""
    with pytest.raises(UsageError, match="leaf9 is no switch"):
        lab.set_fault(cabled.settings, "cabled", Fault(Kind.SWITCH_DOWN, "leaf9"))
    with pytest.raises(UsageError, match="needs --other"):
        lab.set_fault(cabled.settings, "cabled", Fault(Kind.SWAPPED_CABLES, "node1", hca="mlx5_0"))
    with pytest.raises(UsageError, match="no HCA mlx5_5"):
        lab.set_fault(cabled.settings, "cabled", Fault(Kind.CABLE_PULLED, "node1", hca="mlx5_5"))

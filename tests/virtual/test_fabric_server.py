"""The fabric's sockets, with the real tools at the other end: many, by UNIX sockets and by UDP, some of them dead."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fabric_bench import Manager, Node, OwnFabric, Shape, own_fabric, rack_of, until

from toolkit.facts import subnet
from toolkit.virtual.fabric.mad import (
    CONTROL_BYTES,
    FRAME_BYTES,
    MAD_BYTES,
    TIMED_OUT,
    Attribute,
    Control,
    ControlType,
    Frame,
    ManagementClass,
    Method,
)
from toolkit.virtual.fabric.model import PortState
from toolkit.virtual.fabric.server import UNANSWERED_S
from toolkit.virtual.fabric.tools import Tools, fetch
from toolkit.virtual.fabric.wiring import planned
from toolkit.virtual.faults import Fault
from toolkit.virtual.faults import FaultKind as Kind

pytestmark = pytest.mark.timeout(180)
LEAF1, SPINE1 = 0x5C25730300A00100, 0x5C25730300B00100
SMALL = Shape(nodes=4, rails=2, nodes_per_leaf=4, spines=1, uplinks=1)


@pytest.fixture(scope="module")
def tools(built: Path) -> Tools:
    return fetch(built, lambda _: None)


@pytest.fixture
def fabric(tools: Tools, tmp_path: Path) -> Iterator[OwnFabric]:
    """A small fabric without a manager."""
    with own_fabric(planned(rack_of(SMALL)), tools, f"server-{tmp_path.parent.name}-{tmp_path.name}"[:60]) as served:
        yield served


@pytest.fixture
def manager(fabric: OwnFabric, tmp_path: Path) -> Iterator[Manager]:
    running = Manager(fabric, tmp_path / "sm", "spine1")
    yield running
    running.stop()


def _state(fabric: OwnFabric, adapter: str) -> PortState:
    return fabric.server.fabric.nodes[adapter].own.state


@dataclass
class _Sweeping:
    """Whether it is done; while it is not, the manager sweeps every five seconds.

    Every real one does by itself, each ten: it hands over as it sweeps, and not to one that is still discovering.
    """

    manager: Manager
    done: Callable[[], bool]
    swept: float = field(default_factory=time.monotonic)

    def __call__(self) -> bool:
        if time.monotonic() - self.swept > 5:
            self.swept = time.monotonic()
            os.kill(self.manager.pid, signal.SIGHUP)
        return self.done()


def _roles(node: Node) -> dict[int, str]:
    """What every subnet manager says it is, by its GUID."""
    return {int(m.guid, 16): m.state for m in node.managers()}


def test_a_port_waits_in_initialize_until_a_manager_has_swept(fabric: OwnFabric, tmp_path: Path) -> None:
    """And gets its LID with it."""
    assert _state(fabric, "dgx001 mlx5_0") is PortState.INITIALIZE
    running = Manager(fabric, tmp_path / "sm", "spine1")
    running.stop()
    assert _state(fabric, "dgx001 mlx5_0") is PortState.ACTIVE
    assert fabric.server.fabric.nodes["dgx001 mlx5_0"].own.lid > 0


def test_a_trap_tells_the_manager_of_a_cable(fabric: OwnFabric, manager: Manager) -> None:
    """Nobody asks it to sweep: a cable that is put back is Active by itself."""
    pulled = Fault(Kind.CABLE_PULLED, "dgx002", hca="mlx5_1")
    fabric.become((pulled,))
    assert _state(fabric, "dgx002 mlx5_1") is PortState.DOWN
    fabric.become(())
    until(lambda: _state(fabric, "dgx002 mlx5_1") is PortState.ACTIVE, "the port to be Active")


def test_the_manager_with_the_lower_guid_takes_over_and_yields_when_it_dies(
    fabric: OwnFabric, manager: Manager, tmp_path: Path
) -> None:
    """Handover and its answer, and the answer to the trap that says so, find their way between managers."""
    node = Node(fabric, "dgx003 mlx5_0", tmp_path)
    second = Manager(fabric, tmp_path / "second", "leaf1", alone=False)
    try:
        # Not the states alone: before the handover there are a master and one in waiting too, the other way round.
        until(_Sweeping(manager, lambda: _roles(node) == {LEAF1: "MASTER", SPINE1: "STANDBY"}), "the handover")
        (master,) = subnet.parse_sminfo(node.run("sminfo")).managers
        assert int(master.guid, 16) == LEAF1
    finally:
        second.stop()
    until(lambda: _roles(node) == {SPINE1: "MASTER"}, "the one in waiting to be master again")


def test_more_clients_than_ibsim_has_places_for(fabric: OwnFabric, manager: Manager, tmp_path: Path) -> None:
    """Sixteen tools that stay, sixteen that are killed, and the seventeenth gets its answer."""
    name = fabric.tools.programs / "ibping"
    environment = dict(fabric.tools.environment(fabric.sockets, "dgx001 mlx5_0"))
    there = [
        subprocess.Popen([str(name), "5"], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
        for _ in range(16)
    ]  # fmt: skip
    try:
        for process in there[:8]:
            process.kill()
        assert "SMINFO_MASTER" in Node(fabric, "dgx004 mlx5_1", tmp_path).run("sminfo")
    finally:
        for process in there:
            process.kill()
            process.wait()


def test_a_node_in_another_network_comes_by_udp(fabric: OwnFabric, manager: Manager, tmp_path: Path) -> None:
    """The same fabric at an address; a client that is gone is forgotten."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] & ~1 or 7070
    fabric.do(lambda: fabric.server.listen_udp("127.0.0.1", port))
    environment = dict(fabric.tools.environment("nowhere", "dgx002 mlx5_0"))
    environment |= {"IBSIM_SERVER_NAME": "127.0.0.1", "IBSIM_SERVER_PORT": str(port)}
    for argv, wanted in ((["ibnetdiscover"], '"dgx004 mlx5_1"'), (["iblinkinfo", "-l"], "106.25 Gbps Active")):
        program = str(fabric.tools.programs / argv[0])
        done = subprocess.run(
            [program, *argv[1:]], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
        )
        assert wanted in done.stdout


def test_what_is_not_of_the_protocol_changes_nothing(fabric: OwnFabric, manager: Manager, tmp_path: Path) -> None:
    """Short, long and senseless datagrams at both sockets, and requests of a client that never said who it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind(f"\0{fabric.sockets}:in999999\0".encode())
        for place, size in (("ctl", CONTROL_BYTES), ("out0", FRAME_BYTES)):
            for raw in (b"", b"x", bytes(size), b"\xff" * size, os.urandom(size), bytes(size + 1)):
                stranger.sendto(raw, f"\0{fabric.sockets}:{place}\0".encode())
    assert "SMINFO_MASTER" in Node(fabric, "dgx001 mlx5_0", tmp_path).run("sminfo")


def test_what_a_manager_does_not_answer_comes_back_as_timed_out(fabric: OwnFabric, manager: Manager) -> None:
    """It is there, and stopped. A client's library would wait for ever, and an opensm send nothing else meanwhile."""
    with _Attached(fabric, "dgx001 mlx5_0") as client:
        sm_lid = fabric.server.fabric.nodes["dgx001 mlx5_0"].own.sm_lid
        assert client.ask(sm_lid, transaction=7) == (0, Method.GET_ANSWER, 7)
        os.kill(manager.pid, signal.SIGSTOP)
        try:
            asked = time.monotonic()
            assert client.ask(sm_lid, transaction=8) == (TIMED_OUT, Method.GET, 8)
            assert time.monotonic() - asked >= UNANSWERED_S
        finally:
            os.kill(manager.pid, signal.SIGCONT)
        # Its answer comes late, to nobody that waits.
        assert client.hear() == (0, Method.GET_ANSWER, 8)
        assert client.ask(sm_lid, transaction=9) == (0, Method.GET_ANSWER, 9)


class _Attached:
    """A client of the wire itself, which knows no time-outs."""

    def __init__(self, fabric: OwnFabric, adapter: str) -> None:
        number = os.getpid()
        self._name = fabric.sockets
        self._control, self._data = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        self._control.bind(f"\0{self._name}:ctl{number}\0".encode())
        self._data.bind(f"\0{self._name}:in{number}\0".encode())
        self._data.settimeout(60)
        who = struct.pack("=III", number, 0, 0) + adapter.encode().ljust(52, b"\0")
        asked = Control(0, ControlType.CONNECT, len(who), who).answer(who)
        self._control.sendto(asked, f"\0{self._name}:ctl\0".encode())
        assert Control.read(self._control.recv(CONTROL_BYTES)).type == ControlType.CONNECT

    def __enter__(self) -> _Attached:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        self._data.close()

    def ask(self, lid: int, transaction: int) -> tuple[int, int, int]:
        """SubnGet(SMInfo) to that LID; the next datagram that comes."""
        header = struct.pack(
            ">BBBBHBBQHHI", 1, ManagementClass.SUBNET, 1, Method.GET, 0, 0, 0, transaction, Attribute.SM_INFO, 0, 0
        )
        addresses = struct.pack(">H22xQ", lid, MAD_BYTES)
        self._data.sendto((addresses + header).ljust(FRAME_BYTES, b"\0"), f"\0{self._name}:out0\0".encode())
        return self.hear()

    def hear(self) -> tuple[int, int, int]:
        """Status of the frame, method and transaction of its datagram."""
        raw = self._data.recv(FRAME_BYTES)
        frame = Frame(raw)
        return int.from_bytes(raw[16:20], "big"), frame.method, frame.transaction & (1 << 48) - 1


def test_a_host_that_the_fabric_does_not_have_is_refused(fabric: OwnFabric, tmp_path: Path) -> None:
    """Unknown, and known but without power."""
    assert "connect failed" in Node(fabric, "dgx099 mlx5_0", tmp_path).run("ibnetdiscover")


def test_a_directed_path_that_begins_at_a_lid_is_followed(fabric: OwnFabric, manager: Manager, tmp_path: Path) -> None:
    """ibportstate looks at the peer of a port that way; ibsim does not."""
    node = Node(fabric, "dgx001 mlx5_0", tmp_path)
    said = node.run("ibportstate", str(node.lids()["MF0;leaf1:MQM9700/U1"]), "1")
    assert "Peer PortInfo" in said
    assert said.count("106.25 Gbps") >= 2


def test_a_manager_that_is_killed_is_no_manager(fabric: OwnFabric, manager: Manager, tmp_path: Path) -> None:
    """SIGKILL says nothing: the next datagram to it shows that it is gone, and the asker hears of a time-out."""
    os.kill(manager.pid, signal.SIGKILL)
    node = Node(fabric, "dgx001 mlx5_0", tmp_path)
    assert "MASTER" not in node.run("sminfo")
    until(lambda: not fabric.server.fabric.nodes["spine1"].own.is_sm, "the port to say so")

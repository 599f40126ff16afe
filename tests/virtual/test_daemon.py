"""The control socket, the fault table and the files of a node, without machines."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit.errors import UsageError
from toolkit.rack.model import Rack
from toolkit.redfish import Power
from toolkit.settings import Settings
from toolkit.virtual import control, description, hardware_files, lab
from toolkit.virtual.chassis import Lag
from toolkit.virtual.control import Answer, ControlServer, NodeStatus, Operation, Request
from toolkit.virtual.description import Description
from toolkit.virtual.fault_table import FaultTable
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.firmware import Phase

DRIP = Fault(FaultKind.ECC_DRIP, "node1", gpu=3, value=10.0)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    """Longer than a UNIX socket's address may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return folder / "control.sock"


@pytest.fixture
def server(socket_path: Path) -> Iterator[ControlServer]:
    def handle(request: Request) -> Answer:
        if request.operation is Operation.STATUS:
            return Answer(rack="bench", nodes=(NodeStatus("node1", Power.ON, Phase.RAMDISK, (DRIP,), 12_000_000),))
        raise UsageError(f"no {request.fault}", "try another")

    server = ControlServer(socket_path, handle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_question_is_answered_in_our_own_types(server: ControlServer, socket_path: Path) -> None:
    """Enums, faults and numbers arrive as they left."""
    (node,) = control.ask(socket_path, Request(Operation.STATUS)).nodes
    assert node == NodeStatus("node1", Power.ON, Phase.RAMDISK, (DRIP,), 12_000_000)


def test_a_refusal_reaches_the_operator_with_its_hint(server: ControlServer, socket_path: Path) -> None:
    """As the UsageError it was in the daemon."""
    with pytest.raises(UsageError, match="no ecc_drip gpu 3") as caught:
        control.ask(socket_path, Request(Operation.SET_FAULT, fault=DRIP))
    assert caught.value.hint == "try another"


def test_where_no_daemon_listens_the_rack_is_not_up(settings: Settings) -> None:
    """Status says so; setting a fault says what to do."""
    assert not lab.status(settings, "bench").running
    with pytest.raises(UsageError, match="virtual up bench"):
        lab.set_fault(settings, "bench", DRIP)


def test_the_daemon_reads_the_rack_it_was_told(tmp_path: Path, rack: Rack) -> None:
    """Every value object survives the file."""
    told = Description(rack, tmp_path, tmp_path / "provision", tmp_path / "secrets", Lag(0.1, 0.2, 0.3))
    description.write(tmp_path / "rack.json", told)
    assert description.read(tmp_path / "rack.json") == told


def test_a_fault_set_again_replaces_the_first(rack: Rack) -> None:
    """On the same part; on another part it is a second fault. Every change is told."""
    changes: list[str] = []
    table = FaultTable(rack, changes.append)
    for value, gpu in ((1.0, 3), (2.0, 3), (5.0, 4)):
        table.set(Fault(FaultKind.ECC_DRIP, "node1", gpu=gpu, value=value))
    assert [fault.value for fault in table.of("node1")] == [2.0, 5.0]
    assert table.of("node2") == ()
    assert len(table.clear("node1", FaultKind.ECC_DRIP)) == 2
    assert changes == ["node1"] * 4
    with pytest.raises(UsageError, match="node1 has no fault"):
        table.clear("node1")


def test_a_bad_image_is_used_up(rack: Rack) -> None:
    """After `value` downloads the fault is gone; without one, after the first."""
    table = FaultTable(rack, lambda _: None)
    assert not table.spoil_download("node1")
    table.set(Fault(FaultKind.BAD_IMAGE, "node1", value=2))
    assert [table.spoil_download("node1") for _ in range(3)] == [True, True, False]
    table.set(Fault(FaultKind.BAD_IMAGE, "node1"))
    assert [table.spoil_download("node1") for _ in range(2)] == [True, False]
    assert table.of("node1") == ()


def test_a_node_that_powers_on_has_moved_nothing_yet(tmp_path: Path, rack: Rack) -> None:
    """Serials stay, counters and kernel log start empty, and kmsg is the same file (it is bound into the machine)."""
    unit = rack.nodes[0]
    hardware_files.lay_out(tmp_path, unit, rack.profile)
    hardware_files.write_state(tmp_path, unit, rack.profile, (DRIP,))
    (tmp_path / "load/gpu0").write_text("123")
    (tmp_path / "kmsg").write_text("3,1,1,-;NVRM: Xid\n")
    inode = (tmp_path / "kmsg").stat().st_ino
    hardware_files.power_on(tmp_path)
    assert list((tmp_path / "load").iterdir()) == []
    assert (tmp_path / "kmsg").read_bytes() == b""
    assert (tmp_path / "kmsg").stat().st_ino == inode
    counted = sorted((tmp_path / "infiniband").glob("*/ports/1/counters/port_*_data"))
    assert [c.read_text() for c in counted] == ["0\n"] * 2 * len(unit.hcas), "a delta needs a value before"
    assert (tmp_path / "serial").read_text() == "VR00000001\n"
    assert (tmp_path / "disk-serial").read_text() == "VD00000001\n"
    assert "gpu3.ecc_corrected_per_gib 10" in (tmp_path / "state").read_text()

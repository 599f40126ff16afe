"""Datagrams to clients that read late, never, or are gone; real sockets. And what a real client makes of a table."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from fabric_bench import Manager, Node, Shape, own_fabric, plan_of

from toolkit.virtual.fabric import outbox
from toolkit.virtual.fabric.mad import FRAME_BYTES, KEPT_BYTES, Frame, Method, trap
from toolkit.virtual.fabric.model import FabricModel
from toolkit.virtual.fabric.outbox import Outbox
from toolkit.virtual.fabric.tools import fetch
from toolkit.virtual.fabric.wiring import Wiring

_MANY = 2_000  # a socket that is not connected to the sender takes net.unix.max_dgram_qlen of them, 10 by default


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """The sender's socket, a client's, and the client's address."""
    address = str(tmp_path / "in")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        sender.setblocking(False)
        client.settimeout(10)
        client.bind(address)
        yield sender, client, address


def test_a_client_that_reads_late_gets_every_datagram_in_order(
    wires: tuple[socket.socket, socket.socket, str],
) -> None:
    """What its socket has no room for waits, and goes out from the fabric's clock."""
    sender, client, address = wires
    fabric, gone = FabricModel(Wiring((), ())), []
    box = Outbox(fabric.after, gone.append)
    for number in range(_MANY):
        box.send(sender, struct.pack("=I", number), address.encode())
    assert box.waiting > 0
    got = []
    while len(got) < _MANY:
        fabric.tick()
        while len(got) + box.waiting < _MANY:
            got.append(struct.unpack("=I", client.recv(8))[0])
    assert got == list(range(_MANY))
    assert (box.waiting, gone) == (0, [])


def test_a_client_that_never_reads_is_told_of(
    wires: tuple[socket.socket, socket.socket, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its datagrams do not fill the memory, and what is lost is said."""
    sender, _, address = wires
    monkeypatch.setattr(outbox, "MOST_WAITING", 5)
    box = Outbox(FabricModel(Wiring((), ())).after, lambda _: None)
    for _ in range(_MANY):
        box.send(sender, b"frame", address.encode())
    assert box.waiting == 5
    assert "does not read: 5 datagrams wait, one more is lost" in capsys.readouterr().err


def test_a_client_that_is_gone_is_told_of_once_it_is_sent_to(
    wires: tuple[socket.socket, socket.socket, str],
) -> None:
    """Also when datagrams were waiting for it: they are done with."""
    sender, client, address = wires
    fabric, gone = FabricModel(Wiring((), ())), []
    box = Outbox(fabric.after, gone.append)
    for _ in range(100):
        box.send(sender, b"frame", address.encode())
    client.close()
    while box.waiting:
        fabric.tick()
    assert set(gone) == {address.encode()}


def test_a_table_is_as_long_as_the_clients_library_keeps_of_it() -> None:
    """Three path records of 64 bytes behind 56 of headers: the third's LID would be read from the client's heap."""
    frame = Frame(trap(128, 1, 2, 7, b""))
    frame.cut()
    assert struct.unpack_from(">Q", frame.raw, 24) == (KEPT_BYTES,)
    assert ((KEPT_BYTES - 56) // 64, len(frame.raw)) == (2, FRAME_BYTES)
    assert Method.TABLE_ANSWER & Method.ANSWER


@pytest.mark.timeout(180)
def test_no_record_of_a_table_is_made_up(built: Path, tmp_path: Path) -> None:
    """Every path that the manager is said to know leads to a LID of the fabric."""
    _, plan = plan_of(Shape(nodes=4, rails=2, nodes_per_leaf=4, spines=1, uplinks=1))
    with own_fabric(plan, fetch(built, lambda _: None), f"table-{tmp_path.parent.name}"[:60]) as fabric:
        manager = Manager(fabric, tmp_path / "sm", "spine1")
        try:
            said = Node(fabric, "dgx001 mlx5_0", tmp_path).run("saquery", "-p")
        finally:
            manager.stop()
        lids = {node.own.lid for node in fabric.server.fabric.nodes.values()}
    reached = [int(lid) for lid in re.findall(r"dlid\.+(\d+)", said)]
    assert reached, said
    assert set(reached) <= lids

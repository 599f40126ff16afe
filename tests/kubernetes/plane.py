"""A real control plane, one for each test process; `from tests.kubernetes.plane import api, control_plane`.

Tests share it: each uses nodes and namespaces of names of its own.
"""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.control_plane import binaries
from toolkit.virtual.control_plane.layout import PlaneOptions
from toolkit.virtual.control_plane.plane import ControlPlane


def require_binaries(cache: Path) -> binaries.Binaries:
    """The control plane's programs; the test is skipped, and that is said loudly, where there are none."""
    try:
        return binaries.find(cache)
    except binaries.NoBinariesError as missing:
        warnings.warn(f"NOT TESTED against Kubernetes: {missing}", stacklevel=2)
        pytest.skip(str(missing))


NOT_READY = "node.kubernetes.io/not-ready"
_SETTLED_S = 30.0


def settled(api: ApiServer, name: str) -> None:
    """Waits until the node lifecycle controller has taken its taint off a node, as it does once the node is ready.

    Before 1.26 it writes all the taints that it read a moment ago, whatever others wrote meanwhile.
    """
    end = time.monotonic() + _SETTLED_S
    while any(taint["key"] == NOT_READY for taint in _taints(api, name)):
        assert time.monotonic() < end, f"{name} has {NOT_READY} after {_SETTLED_S:g} s"
        time.sleep(0.02)


def _taints(api: ApiServer, name: str) -> list[dict[str, str]]:
    node = api.get("v1", "Node", name)
    assert node is not None, name
    return list(node["spec"].get("taints", ()))


def own_address() -> str:
    """A loopback address that no other process uses: test processes run side by side."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"


def free_ports(address: str, count: int) -> tuple[int, ...]:
    """Ports that nothing listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return tuple(each.getsockname()[1] for each in sockets)


def plane_options(**wanted: object) -> PlaneOptions:
    """A throw-away control plane at an address of this process."""
    address = own_address()
    (port,), (etcd, peer) = free_ports(address, 1), free_ports("127.0.0.1", 2)
    return PlaneOptions(address, port, etcd, peer, durable=False, tied=True, **wanted)


_shared: list[ControlPlane] = []  # pytest makes a fixture anew in every module that imports it


@pytest.fixture(scope="session")
def control_plane(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, API server, controllers and scheduler; a test that stops one starts it again."""
    if not _shared:
        _shared.append(ControlPlane(tmp_path_factory.mktemp("plane"), require_binaries(built), plane_options()))
    (plane,) = _shared
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[ApiServer]:
    """The cluster as its administrator."""
    server = control_plane.api()
    yield server
    server.close()

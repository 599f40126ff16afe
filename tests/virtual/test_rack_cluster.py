"""A virtual rack's Kubernetes cluster: up with the rack, back after a crash, gone without a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.plane import require_binaries
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.policy import PoolKind
from toolkit.pool.policy_file import load_policy
from toolkit.rack.model import Rack
from toolkit.settings import Settings
from toolkit.virtual import lab, network, rack_cluster, teardown
from toolkit.virtual.control_plane.processes import Processes
from toolkit.virtual.layout import layout_of

pytestmark = pytest.mark.root


@pytest.fixture(name="site")
def _site(settings: Settings, built: Path) -> Iterator[Settings]:
    """An installation with the control plane's programs in its cache."""
    require_binaries(built)
    settings = replace(settings, cache=built)
    try:
        yield settings
    finally:
        lab.down(settings)


def test_a_rack_with_a_cluster_is_a_pool_survives_a_crash_and_goes_without_a_trace(rack: Rack, site: Settings) -> None:
    """The door's login may read nodes and make no token; a dead API server and daemon are back with what there was."""
    layout, said = layout_of(site, rack.name), list[str]()
    found = rack_cluster.programs(site, said.append)
    lab.up(rack, site, said.append, kubernetes=found)
    assert load_policy(site, rack.site).kind is PoolKind.KUBERNETES
    secrets = site.secrets(rack.site)
    assert {path.stat().st_mode & 0o777 for path in secrets.glob("*kubeconfig")} == {0o600}

    def asked(ask: Any) -> Any:
        return network.inside(layout.controller, ask)

    door = ApiServer.connect(secrets / "kubeconfig")
    assert asked(lambda: door.list("v1", "Node")) == ()
    admin = ApiServer.connect(secrets / "join-kubeconfig")
    asked(lambda: admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "stays"}}))
    assert lab.run_inside(site, rack.name, ["sh", "-c", 'test -s "$KUBECONFIG"']) == 0

    running = Processes(layout.cluster).found()
    daemon = next(pid for pid in teardown._daemons(layout) if b"unshare" not in _words(pid)[0])
    for pid in (running["kube-apiserver"].pid, daemon):
        os.kill(pid, signal.SIGKILL)
    lab.up(rack, site, said.append, kubernetes=found)
    assert asked(lambda: ApiServer.connect(secrets / "kubeconfig").list("v1", "Node")) == ()
    assert asked(lambda: ApiServer.connect(secrets / "join-kubeconfig").get("v1", "Namespace", "stays")) is not None

    assert lab.down(site, rack.name) == (rack.name,)
    assert not teardown.find(layout)
    assert Processes(layout.cluster).found() == {}
    assert load_policy(site, rack.site).kind is PoolKind.FILE


def test_without_a_control_plane_the_pool_is_a_file_and_that_is_said_loudly(settings: Settings) -> None:
    """The notice names what is missing and how to get it."""
    said: list[str] = []
    assert rack_cluster.programs(replace(settings, cache=settings.home / "empty"), said.append) is None
    assert said[0].startswith("NO KUBERNETES: ")
    assert "make kubernetes-binaries" in said[1]


def test_an_operators_own_pool_file_is_never_touched(rack: Rack, settings: Settings) -> None:
    """One without our mark stays as it is, at `up` and at `down`."""
    path = settings.home / "pools" / f"{rack.site}.yml"
    path.parent.mkdir(parents=True)
    path.write_text("kind: file\n")
    said: list[str] = []
    rack_cluster._write_pool(settings, rack.site, said.append)
    rack_cluster.forget_pools(settings.home, ())
    assert path.read_text() == "kind: file\n"
    assert "is yours and stays" in said[0]


def _words(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")

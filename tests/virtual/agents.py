"""Virtual machines with a node agent, at a real control plane."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.kubernetes.plane import free_ports
from toolkit.kubernetes.client import ApiServer
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.node_agent import AgentOptions, NodeAgent

Object = dict[str, Any]
T = TypeVar("T")
MakeAgent = Callable[..., NodeAgent]
DEADLINE_S = 30.0


def until(ask: Callable[[], T | None], what: str) -> T:
    """The first answer that is not empty; the test fails where none comes."""
    end = time.monotonic() + DEADLINE_S
    while not (answer := ask()):
        assert time.monotonic() < end, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.05)
    return answer


@pytest.fixture
def agent(control_plane: ControlPlane, tmp_path: Path) -> Iterator[MakeAgent]:
    """Switches a machine on by name, with AgentOptions; all are off after the test."""
    with ExitStack() as stack:

        def make(name: str, **options: Any) -> NodeAgent:
            (port,) = free_ports("127.0.0.1", 1)
            chosen = AgentOptions(port=port, **options)
            return stack.enter_context(NodeAgent(control_plane, name, tmp_path / name, chosen))

        yield make


def a_pod(node: str, name: str, script: str, *, gpus: int = 0, **spec: Any) -> Object:
    """A pod on this node that runs a shell script once; `container`: more of its container."""
    container = {"name": "main", "image": "none", "command": ["/bin/sh", "-c", script], **spec.pop("container", {})}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            **spec,
        },
    }


def phase(api: ApiServer, name: str) -> str:
    """The pod's phase; empty where it is gone."""
    pod = api.get("v1", "Pod", name, "default")
    return str(pod["status"].get("phase", "")) if pod else ""


def ended(api: ApiServer, name: str) -> Object:
    """The pod's status, once it has ended."""
    return until(
        lambda: (
            pod["status"]
            if (pod := api.get("v1", "Pod", name, "default")) and pod["status"]["phase"] in ("Succeeded", "Failed")
            else None
        ),
        f"pod {name} ends",
    )


def condition(api: ApiServer, node: str, kind: str) -> str:
    """Status of a node's condition; empty where there is none."""
    found = api.get("v1", "Node", node)
    rows = found["status"].get("conditions", ()) if found else ()
    return next((str(row["status"]) for row in rows if row["type"] == kind), "")

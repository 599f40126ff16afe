"""Nodes and pods of a real API server, as kubelets and controllers would make them."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.kubernetes.plane import settled
from toolkit.kubernetes.client import ApiServer
from toolkit.pool.door import TAINT, rfc3339
from toolkit.pool.node_object import NodeObject, read_node

NOW = datetime.now(UTC).replace(microsecond=0)
DIGEST = "ab" * 32
EXPIRES = NOW + timedelta(days=30)
OURS = {"key": TAINT.key, "effect": TAINT.effect}
THEIRS = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}
_count = itertools.count(1)


class Nodes:
    """Nodes of one test, deleted at its end."""

    def __init__(self, api: ApiServer, prefix: str) -> None:
        self.api = api
        self._prefix = prefix
        self.names: list[str] = []

    def add(
        self,
        *,
        taints: tuple[Mapping[str, str], ...] = (OURS, THEIRS),
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        ready: bool = True,
        gpus: int = 8,
        machine: str = "00000000-0000-0000-0000-000000000001",
    ) -> str:
        """A node that registered with our taint and the GPU taint, and that its cluster knows to be ready."""
        name = f"{self._prefix}-{next(_count)}"
        meta = {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, **(labels or {})},
            "annotations": dict(annotations or {}),
        }
        spec = {"taints": [dict(t) for t in taints]}
        self.api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec})
        self.names.append(name)
        self.report(name, ready=ready, gpus=gpus, machine=machine)
        if ready:
            settled(self.api, name)
        return name

    def report(self, name: str, *, ready: bool = True, gpus: int = 8, machine: str = "", **more: Any) -> None:
        """What its kubelet says of it."""
        now = rfc3339(datetime.now(UTC))
        word = "True" if ready else "False"
        condition = {"type": "Ready", "status": word, "lastHeartbeatTime": now, "lastTransitionTime": now}
        resources = {"cpu": "32", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
        status = {"conditions": [condition], "capacity": resources, "allocatable": resources, **more}
        if machine:
            keys = ("machineID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion")
            keys += ("kubeletVersion", "kubeProxyVersion", "operatingSystem", "architecture")
            status["nodeInfo"] = dict.fromkeys(keys, "x") | {"systemUUID": machine}
        self.api.patch("v1", "Node", name, {"status": status}, how="strategic", subresource="status")

    def raw(self, name: str) -> Any:
        """The Node as the server has it."""
        found = self.api.get("v1", "Node", name)
        assert found is not None
        return found

    def seen(self, name: str) -> NodeObject:
        """The Node, read."""
        return read_node(self.raw(name))

    def pod(self, node: str, name: str, *, owner: str = "TrainingJob", namespace: str = "default", **meta: Any) -> Any:
        """A running pod on the node."""
        # Of a group that this cluster does not know: garbage collection takes pods whose owner it looks up in vain.
        owners = [{"apiVersion": "jobs.example.dev/v1", "kind": owner, "name": "o", "uid": "u-1", "controller": True}]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners if owner else [], **meta},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,  # a new namespace's account has none for a moment
                "containers": [{"name": "c", "image": "i"}],
                "tolerations": [{"operator": "Exists"}],
            },
        }
        made = self.api.create(body, namespace=namespace)
        ready = [{"type": "Ready", "status": "True"}]
        self.api.patch("v1", "Pod", name, {"status": {"phase": "Running", "conditions": ready}},
                       namespace=namespace, how="strategic", subresource="status")  # fmt: skip
        return made


@pytest.fixture
def nodes(api: ApiServer, request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """Nodes of this test's own."""
    prefix = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[:40].strip("-")
    made = Nodes(api, prefix)
    yield made
    for name in made.names:
        api.delete("v1", "Node", name)


def until(what: Callable[[], Any], deadline_s: float = 20.0) -> Any:
    """What the function answers, as soon as it is something."""
    end = time.monotonic() + deadline_s
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.05)

"""GPUs by claim at a real API server: what somebody else put under our claim's name is told before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runners.job_bench import Bench, small, task, unit

from tests.kubernetes.plane import api, control_plane
from tests.virtual.agents import until
from toolkit.errors import UndecidedError
from toolkit.kubernetes.client import ApiServer
from toolkit.runners.job_manifest import job_name
from toolkit.virtual.control_plane.plane import ControlPlane

__all__ = ["api", "control_plane"]

pytestmark = pytest.mark.root
GROUP, PLURAL = "resource.k8s.io", "resourceclaimtemplates"
KIND = "ResourceClaimTemplate"
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@pytest.fixture
def bench(api: ApiServer, control_plane: ControlPlane, tmp_path: Path) -> Iterator[Bench]:
    """A namespace of its own, on a server that has claims: an older one is given the kind, without what it does."""
    made = Bench(api, control_plane, tmp_path)
    if api.serves(f"{GROUP}/v1", KIND):
        yield made
        return
    names = {"plural": PLURAL, "singular": KIND.lower(), "kind": KIND, "listKind": f"{KIND}List"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": OPEN}}
    notes = {"api-approved.kubernetes.io": "unapproved, for a test"}
    api.create({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": notes},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    })  # fmt: skip
    until(lambda: control_plane.api().serves(f"{GROUP}/v1", KIND), "claims are served")
    made.api = control_plane.api()  # one that has not asked before, as the login's
    made.login = ApiServer.connect(made.plane.kubeconfig(f"system:serviceaccount:{made.namespace}:rackproof-door"))
    try:
        yield made
    finally:
        api.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", f"{PLURAL}.{GROUP}")


def put(bench: Bench, name: str, **change: Any) -> None:
    """A claim under that name, by somebody else: all GPUs, unless `change` says other."""
    exactly = {"deviceClassName": "gpu.nvidia.com", "allocationMode": "All", "adminAccess": False} | change
    spec = {"spec": {"devices": {"requests": [{"name": "gpus", "exactly": exactly}]}}}
    meta = {"name": name, "namespace": bench.namespace}
    bench.api.create({"apiVersion": f"{GROUP}/v1", "kind": KIND, "metadata": meta, "spec": spec})


def test_a_claim_on_fewer_gpus_under_our_name_is_refused_and_our_own_is_taken(bench: Bench) -> None:
    """A burn-in of one GPU would be taken for one of the node. What a server adds to ours changes nothing."""
    node = unit("nowhere")
    carrier = bench.carrier(by_claim=True)
    bench.ship(carrier, node, small("demo-claims-1"))
    put(bench, job_name("demo-claims-1"), allocationMode="ExactCount", count=1)
    with pytest.raises(UndecidedError, match=f"{KIND} {bench.namespace}/{job_name('demo-claims-1')} is not what we"):
        carrier.start(node, task("demo-claims-1"))
    assert bench.jobs() == []
    put(bench, job_name("demo-claims-2"))
    carrier.start(node, task("demo-claims-2"))
    assert bench.jobs() == [job_name("demo-claims-2")]
    carrier.stop(node, "demo-claims-2")
    assert bench.api.get(f"{GROUP}/v1", KIND, job_name("demo-claims-2"), bench.namespace) is None

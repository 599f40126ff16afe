"""A thousand nodes through the door of a real API server, and back out: requests, seconds, memory.

    .venv/bin/python benchmarks/admission.py [--nodes 1000] [--sample 8] [--batch 100]

Nodes are objects that the benchmark makes, as kubelets register them: with our taint and NVIDIA's, ready, eight GPUs.
Ours: the regulator with its waves, looks, ledger and lease over KubernetesPool, soak 0 and no smoke collective; what it
asks certificates and nodes over SSH is not in it. Then every certificate is revoked by the use case behind `rackproof
revoke`, for one node, for a rack of 32 and for all that are left; the time ends when the API server, asked by another
connection, shows the taint on the last of them.

Baselines, in the same run on the same server, by the kubectl of the dev extra:
  one process an act   what a shell loop does: label, annotate, patch the condition, lift the taint; on a sample, scaled
  one process for many label, annotate and lift the taint of a batch by one kubectl each, the condition node by node
Neither reads a node before it writes, neither is safe against another writer, neither can be cut off and gone on with.

Requests are counted where they are sent: ours by the client, kubectl's by its own log (-v=6). Memory of ours is the
growth of this process (its peak over what it had when the nodes were made); of the server, kube-apiserver and etcd.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from toolkit import settings as installed
from toolkit import withdrawal
from toolkit.kubernetes.client import ApiServer
from toolkit.ledger import EventKind, Ledger, NewEvent
from toolkit.ledger.holder import this_process
from toolkit.pool.desk import Entry, KeptOut, Site
from toolkit.pool.door import CERTIFIED, CONDITION, TAINT, rfc3339
from toolkit.pool.kubernetes import KubernetesPool
from toolkit.pool.model import Smoked
from toolkit.pool.node_object import read_node
from toolkit.pool.policy import KubernetesSite, Regulation
from toolkit.pool.regulator import Regulator
from toolkit.pool.waves import Candidate, plan_waves
from toolkit.virtual.control_plane import binaries
from toolkit.virtual.control_plane.layout import PlaneOptions
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.withdrawal import Order, Target

RACK_NODES = 32
GOAL_REQUESTS, GOAL_SECONDS = 6.0, 2.0
DIGEST = "ab" * 32
EXPIRES = datetime.now(UTC) + timedelta(days=30)
RACK = "benchmark"
AT_ONCE = 32
NEVER_S = 86_400  # no agents renew these nodes: the controllers are not to call them dead
LONGEST_S = 300.0
REGULATION = Regulation(soak_s=0.0, smoke=False)
NODE_INFO = (
    "machineID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion", "kubeProxyVersion",
    "operatingSystem", "architecture",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of admitting cost, for all the nodes; `of`: how many it was measured on."""

    name: str
    of: int
    requests_a_node: float
    seconds: float


# The cluster


@contextmanager
def cluster() -> Iterator[ControlPlane]:
    """A control plane of its own on loopback; its data are in memory where there is some."""
    found = binaries.find(installed.load().cache)
    memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own below it
    folder = Path(tempfile.mkdtemp(prefix="rackproof-admission-", dir=memory if os.access(memory, os.W_OK) else None))
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        port, etcd, peer = (each.getsockname()[1] for each in sockets)
    plane = ControlPlane(
        folder, found, PlaneOptions("127.0.0.1", port, etcd, peer, durable=False, tied=True, node_grace_s=NEVER_S)
    )
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)


def make_node(api: ApiServer, name: str) -> None:
    """A node as a kubelet registers it: tainted, and soon ready."""
    taints = [{"key": TAINT.key, "effect": TAINT.effect}, {"key": "nvidia.com/gpu", "effect": "NoSchedule"}]
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": taints}})
    now = rfc3339(datetime.now(UTC))
    resources = {"cpu": "224", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8"}
    status = {
        "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": now, "lastTransitionTime": now}],
        "capacity": resources,
        "allocatable": resources,
        "nodeInfo": dict.fromkeys(NODE_INFO, "x") | {"systemUUID": name},
    }
    api.patch("v1", "Node", name, {"status": status}, how="strategic", subresource="status")


def make_nodes(api: ApiServer, names: Sequence[str]) -> None:
    """All of them."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(lambda name: make_node(api, name), names))


def settle(api: ApiServer, deadline_s: float = 300.0) -> float:
    """Waits until the controllers have taken their own taint off the last node that came up; answers the seconds.

    Kubernetes before 1.21 writes a node's taints as a whole from what it remembers: of two writers one is undone.
    """
    began = time.monotonic()
    while any(t.key.startswith("node.kubernetes.io/") for n in api.list("v1", "Node") for t in read_node(n).taints):
        assert time.monotonic() - began < deadline_s, "the controllers do not come to rest"
        time.sleep(1.0)
    return time.monotonic() - began


def tainted(api: ApiServer, names: Sequence[str]) -> set[str]:
    """Which of them take no jobs, as the server says."""
    wanted = set(names)
    nodes = (read_node(node) for node in api.list("v1", "Node"))
    return {node.name for node in nodes if node.name in wanted and TAINT in node.taints}


# Ours


class Desk:
    """Everybody has the same certificate. The regulator's own threads do the rest."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, KeptOut]] = []
        self.count = 0

    def entry(self, node: str) -> Entry | None:
        """The certificate, taken as verified."""
        return Entry(DIGEST, EXPIRES, {"rackproof.dev/rack": RACK, "rackproof.dev/unit": node})

    def each(self, nodes: Sequence[str], do: Callable[[str], None]) -> None:
        """As a stage does it."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(do, nodes))

    def void(self, entries: Mapping[str, Entry]) -> Mapping[str, str]:
        """None."""
        return {}

    def admitted(self, node: str, entry: Entry, smoked: Smoked) -> None:
        """Counted."""
        self.count += 1

    def kept_out(self, node: str, why: KeptOut) -> None:
        """Kept, for the report: there must be none."""
        self.kept.append((node, why))

    def tell(self, node: str, text: str, done: float | None = None) -> None:
        """Nobody watches."""


def candidates(names: Sequence[str]) -> list[Candidate]:
    """In racks of 32, each a rail group of its own."""
    return [Candidate(name, f"unit{number // RACK_NODES}") for number, name in enumerate(names)]


def admit_ours(pool: KubernetesPool, ledger: Ledger, names: Sequence[str]) -> Row:
    """The regulator over all of them."""
    desk = Desk()
    site = Site(RACK, pool, REGULATION, ledger, this_process(), lambda: datetime.now(UTC), time.sleep)
    before, began = pool.api.requests, time.monotonic()
    Regulator(site, desk).run(candidates(names))
    seconds, sent = time.monotonic() - began, pool.api.requests - before
    assert not desk.kept, desk.kept[0]
    assert desk.count == len(names)
    return Row("rackproof", len(names), sent / len(names), seconds)


def revoke_ours(plane: ControlPlane, pool: KubernetesPool, ledger: Ledger, names: Sequence[str]) -> list[float]:
    """Seconds until the server shows each of them tainted, for one who watches it by another connection."""
    body = {"nodes": list(names), "expires": EXPIRES.isoformat()}
    ledger.append(NewEvent(EventKind.CERTIFICATE_ISSUED, RACK, body=body, what=DIGEST))
    watcher, wanted, seen = plane.api(timeout_s=60.0), set(names), dict[str, float]()
    since = watcher.listing("v1", "Node").version
    began = [0.0]

    def watch() -> None:
        version = since
        while len(seen) < len(wanted) and time.monotonic() - began[0] < LONGEST_S:  # a watch ends by itself, too
            for _, node in watcher.watch("v1", "Node", since=version):
                read = read_node(node)
                version = read.version
                if read.name in wanted and TAINT in read.taints:
                    seen.setdefault(read.name, time.monotonic() - began[0])
                if len(seen) == len(wanted):
                    break

    began[0] = time.monotonic()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    time.sleep(0.5)  # the watch is on its way before the clock starts
    order = Order("the benchmark ends it", REGULATION, 1.0, below_floor=True)
    began[0] = time.monotonic()
    rows = withdrawal.revoke(ledger, pool, [Target(RACK, name) for name in names], order)
    thread.join(LONGEST_S)
    assert all(row.shut for row in rows), next(row.trouble for row in rows if not row.shut)
    assert len(seen) == len(wanted), f"{len(wanted) - len(seen)} taints were never seen"
    watcher.close()
    return sorted(seen.values())


# kubectl


@dataclass(slots=True)
class Kubectl:
    """Runs kubectl and counts the requests that it logs."""

    kubeconfig: Path
    requests: int = 0

    def __call__(self, *words: str) -> None:
        """One process; raises where it fails."""
        done = subprocess.run(
            [_kubectl(), f"--kubeconfig={self.kubeconfig}", "-v=6", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        self.requests += len(re.findall(r"\b(?:GET|POST|PUT|PATCH|DELETE) https?://|verb=\"", done.stderr))


def _kubectl() -> str:
    beside = Path(sys.executable).parent / "kubectl"
    return str(beside) if beside.exists() else "kubectl"


def _condition() -> str:
    now = rfc3339(datetime.now(UTC))
    said = f'"type":"{CONDITION}","status":"True","reason":"CertificateInForce","message":"certificate {DIGEST[:12]}"'
    return f'{{"status":{{"conditions":[{{{said},"lastTransitionTime":"{now}","lastHeartbeatTime":"{now}"}}]}}}}'


LABELS = (f"{CERTIFIED}=true", f"rackproof.dev/rack={RACK}")
ANNOTATIONS = (f"rackproof.dev/certificate={DIGEST}", f"rackproof.dev/expires={rfc3339(EXPIRES)}")
LIFT, SHUT = f"{TAINT.key}:{TAINT.effect}-", f"{TAINT.key}=:{TAINT.effect}"


def admit_by_kubectl(kubectl: Kubectl, names: Sequence[str], whole: int, *, together: bool) -> Row:
    """One process an act and node, or one an act for all of them but the condition."""
    before, began = kubectl.requests, time.monotonic()
    for group in [names] if together else [[name] for name in names]:
        kubectl("label", "--overwrite", "node", *group, *LABELS)
        kubectl("annotate", "--overwrite", "node", *group, *ANNOTATIONS)
        for name in group:
            kubectl("patch", "node", name, "--subresource=status", "--type=strategic", "-p", _condition())
        kubectl("taint", "node", *group, LIFT)
    share = whole / len(names)
    seconds = (time.monotonic() - began) * share
    name = f"kubectl, one process {'for many' if together else 'an act'}"
    return Row(name, len(names), (kubectl.requests - before) / len(names), seconds)


def shut_by_kubectl(kubectl: Kubectl, names: Sequence[str], *, together: bool) -> float:
    """Seconds a node until its taint is back: one process a node, or one for all."""
    began = time.monotonic()
    for group in [names] if together else [[name] for name in names]:
        kubectl("taint", "--overwrite", "node", *group, SHUT)
    return (time.monotonic() - began) / len(names)


# The report


def _mib_of(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _own_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def admissions(rows: Sequence[Row], count: int) -> None:
    """The first table, with ratios to ours."""
    ours = rows[0]
    title = f"admission of {count} nodes"
    print(f"\n{title:<32}{'measured on':>12}{'requests/node':>15}{'seconds':>10}{'x ours':>9}")
    for row in rows:
        ratio = row.seconds / ours.seconds
        print(f"{row.name:<32}{row.of:>12}{row.requests_a_node:>15.2f}{row.seconds:>10.1f}{ratio:>9.1f}")


def main() -> int:
    """Measures, prints, and answers 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description="A thousand nodes through the door of a real API server.")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=8, help="nodes that a shell loop's kubectls are measured on")
    parser.add_argument("--batch", type=int, default=100, help="nodes that one kubectl for many is measured on")
    asked = parser.parse_args()
    names = [f"node{number:04d}" for number in range(asked.nodes)]
    samples = [f"sample{number}" for number in range(asked.sample)]
    batch = [f"batch{number}" for number in range(asked.batch)]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {asked.nodes} nodes, "
          f"{len(plan_waves(candidates(names), REGULATION))} waves, soak 0")  # fmt: skip
    with cluster() as plane, tempfile.TemporaryDirectory() as home:
        api = plane.api()
        major, minor = api.version()
        make_nodes(api, [*names, *samples, *batch])
        print(f"the controllers came to rest after {settle(api):.0f} s")
        pool = KubernetesPool(plane.api(timeout_s=60.0), KubernetesSite(namespace="default"))
        kubectl = Kubectl(plane.admin)
        kubectl("get", "nodes", samples[0])  # what it learns once of a server is not held against it
        with Ledger.open(
            f"sqlite:///{home}/ledger.db", Path(home) / "a", "benchmark", lambda: datetime.now(UTC)
        ) as ledger:
            memory, worked = _own_mib(), time.process_time()
            ours = admit_ours(pool, ledger, names)
            memory, worked = _own_mib() - memory, time.process_time() - worked
            assert not tainted(api, names)
            rows = [ours]
            rows.append(admit_by_kubectl(kubectl, samples, asked.nodes, together=False))
            rows.append(admit_by_kubectl(kubectl, batch, asked.nodes, together=True))
            assert not tainted(api, [*samples, *batch])
            print(f"Kubernetes {major}.{minor}")
            admissions(rows, asked.nodes)
            servers = {
                name: _mib_of(pid)
                for name, pid in plane.pids().items()
                if name in ("apiserver", "kube-apiserver", "etcd")
            }
            print(f"ours: {1000 * worked / asked.nodes:.1f} ms of CPU a node; load now {os.getloadavg()[0]:.1f}")
            print(f"memory: ours grew by {memory:.0f} MiB to {_own_mib():.0f} MiB; server at its peak "
                  + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in sorted(servers.items())))  # fmt: skip
            last = revocations(plane, pool, ledger, names, kubectl, samples, batch)
    met = {f"requests a node at most {GOAL_REQUESTS:g}": ours.requests_a_node <= GOAL_REQUESTS}
    met |= {f"revoked to tainted, the last of {n}, under {GOAL_SECONDS:g} s": s < GOAL_SECONDS for n, s in last.items()}
    for goal, reached in met.items():
        print(f"{'met   ' if reached else 'MISSED'}  {goal}")
    return 0 if all(met.values()) else 1


def revocations(
    plane: ControlPlane, pool: KubernetesPool, ledger: Ledger, names: Sequence[str], kubectl: Kubectl,
    samples: Sequence[str], batch: Sequence[str],
) -> dict[int, float]:  # fmt: skip
    """The second table; by how many were revoked at once, the seconds of the last of them."""
    alone = shut_by_kubectl(kubectl, samples, together=False)
    together = shut_by_kubectl(kubectl, batch, together=True)
    groups = (names[:1], names[1 : 1 + RACK_NODES], names[1 + RACK_NODES :])
    title = "certificate revoked to taint back"
    print(f"\n{title:<34}{'first':>9}{'median':>9}{'last':>9}{'loop':>10}{'one kubectl':>13}")
    last = {}
    for group in (g for g in groups if g):
        took = revoke_ours(plane, pool, ledger, group)
        last[len(group)] = took[-1]
        cells = f"{took[0]:>8.2f}s{statistics.median(took):>8.2f}s{took[-1]:>8.2f}s"
        scaled = f"{alone * len(group):>9.1f}s{together * len(group):>12.1f}s"
        ratios = f"   x {alone * len(group) / took[-1]:.1f}, x {together * len(group) / took[-1]:.1f}"
        print(f"{len(group):>4} nodes{'':<24}{cells}{scaled}{ratios}")
    print("loop: one kubectl taint a node; one kubectl: for all at once; both scaled from their samples")
    return last


if __name__ == "__main__":
    sys.exit(main())

"""The Node that a kubelet registers and keeps up to date: who it is, what it has, how it is, and its lease.

A condition of a health daemon beside the kubelet (as NVSentinel and node-problem-detector write them) is written here
too, under a field manager of its own.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .gpu_table import GPU, gpus, hardware
from .kubelet_config import Settings
from .kubelet_container import stamp
from .node_api import ApiError, NodeApi, segment
from .state import PLACE, State, folder, packed_version

Object = dict[str, Any]
XID_CONDITION = "GpuXidError"
_HEALTH_MANAGER = "nvsentinel"
# Xids after which a GPU serves no more work without a reset: docs.nvidia.com/deploy/xid-errors
_FATAL_XIDS = frozenset((48, 62, 64, 74, 79, 95, 119, 120, 140))
_XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+),")
_MAX_KMSG_BYTES = 4 << 20
_HEALTHY = {
    "MemoryPressure": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    "DiskPressure": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    "PIDPressure": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
}
_NOT_READY = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin "
    "returns error: cni plugin not initialized"
)
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


def mark() -> tuple[int, ...]:
    """Changes when the hardware says something else."""
    found = []
    for name in ("state", "kmsg"):
        try:
            told = (folder() / name).stat()
        except OSError:
            continue
        found += [told.st_mtime_ns, told.st_size]
    return tuple(found)


class Node:
    """This machine's Node. `tell` posts what has changed; `renew` renews the lease."""

    def __init__(self, settings: Settings, api: NodeApi, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._api = api
        self._say = say
        self._path = f"/api/v1/nodes/{segment(settings.name)}"
        self._since: dict[str, tuple[str, str]] = {}
        self._uid = ""

    def register(self) -> bool:
        """Creates the Node, with labels and taints, or finds its own of before: its taints are then left alone."""
        try:
            made = self._api.create("/api/v1/nodes", self._wanted())
            self._say(f'"Successfully registered node" node="{self._settings.name}"')
        except ApiError as error:
            if error.status != 409:
                self._say(f'"Unable to register node with API server" err="{error}" node="{self._settings.name}"')
                return False
            try:
                made = self._api.patch(self._path, {"metadata": {"labels": self._labels()}})
            except ApiError as failed:
                self._say(f'"Unable to reconcile node with API server" err="{failed}" node="{self._settings.name}"')
                return False
            self._say(f'"Node was previously registered" node="{self._settings.name}"')
        self._uid = str(made["metadata"]["uid"])
        for condition in (made.get("status") or {}).get("conditions") or ():
            self._since[condition["type"]] = (condition["status"], condition["lastTransitionTime"])
        return True

    def tell(self) -> bool:
        """Posts the node's status, and its health daemon's condition; False where it could not."""
        state = hardware()
        try:
            self._api.patch(f"{self._path}/status", {"status": self._status(state)})
            self._api.patch(
                f"{self._path}/status", {"status": {"conditions": [self._xid(state)]}}, manager=_HEALTH_MANAGER
            )
        except ApiError as error:
            self._say(f'"Error updating node status, will retry" err="{error}"')
            return False
        return True

    def renew(self) -> bool:
        """The lease says that the kubelet lives; False where it could not be renewed."""
        name = self._settings.name
        now = f"{stamp(time.time())[:-1]}.{time.time_ns() // 1000 % 10**6:06d}Z"
        spec = {"holderIdentity": name, "leaseDurationSeconds": self._settings.lease_s, "renewTime": now}
        owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": self._uid}
        meta = {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        try:
            try:
                self._api.patch(f"{_LEASES}/{segment(name)}", {"spec": spec})
            except ApiError as error:
                if error.status != 404:
                    raise
                self._api.create(_LEASES, body)
        except ApiError as error:
            self._say(f'"Failed to update lease" err="{error}"')
            return False
        return True

    def _wanted(self) -> Object:
        meta = {"name": self._settings.name, "labels": self._labels()}
        spec = {"taints": [dict(taint) for taint in self._settings.taints]}
        return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": self._status(hardware())}

    def _labels(self) -> dict[str, str]:
        machine = _architecture()
        own = {
            "kubernetes.io/hostname": self._settings.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
        }
        return own | {"beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": machine, **self._settings.labels}

    def _status(self, state: State | None) -> Object:
        all_gpus, healthy = gpus(state)
        capacity = {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki",
            "ephemeral-storage": f"{_kib(self._settings.root)}Ki",
            "pods": str(self._settings.max_pods),
        }
        plugin = {GPU: str(all_gpus)} if state is not None else {}
        return {
            "addresses": [
                {"type": "InternalIP", "address": self._settings.address},
                {"type": "Hostname", "address": self._settings.name},
            ],
            "capacity": capacity | plugin,
            "allocatable": capacity | ({GPU: str(healthy)} if plugin else {}),
            "conditions": self._conditions(state),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._settings.port}},
            "nodeInfo": _info(state),
        }

    def _conditions(self, state: State | None) -> list[Object]:
        found = [self._condition(kind, "False", *words) for kind, words in _HEALTHY.items()]
        if state is not None and state.values.get("kubelet.ready") == "0":
            return [*found, self._condition("Ready", "False", "KubeletNotReady", _NOT_READY)]
        return [*found, self._condition("Ready", "True", "KubeletReady", "kubelet is posting ready status")]

    def _xid(self, state: State | None) -> Object:
        said = xid(state)
        if said is None:
            return self._condition(XID_CONDITION, "False", "NoXid", "no fatal Xid since the machine started")
        return self._condition(XID_CONDITION, "True", "FatalXid", said)

    def _condition(self, kind: str, status: str, reason: str, message: str) -> Object:
        now = stamp(time.time())
        if self._since.get(kind, ("", ""))[0] != status:
            self._since[kind] = (status, now)
        when = {"lastHeartbeatTime": now, "lastTransitionTime": self._since[kind][1]}
        return {"type": kind, "status": status, "reason": reason, "message": message, **when}


def xid(state: State | None) -> str | None:
    """What a health daemon says of the worst Xid: the fault's own, or the last fatal one in the kernel log."""
    if state is None:
        return None
    for gpu in state.gpus:
        if gpu.text("health_xid"):
            return f"Xid {gpu.text('health_xid')} on GPU {gpu.index} ({gpu.need('uuid')})"
    try:
        with (state.home / "kmsg").open("rb") as log:
            text = log.read(_MAX_KMSG_BYTES).decode(errors="replace")
    except OSError:
        return None
    fatal = [match for match in _XID.finditer(text) if int(match[2]) in _FATAL_XIDS]
    return f"Xid {fatal[-1][2]} on GPU at PCI:{fatal[-1][1]}" if fatal else None


def _info(state: State | None) -> Object:
    version = packed_version("kubelet").replace("unpacked", "0.0.0-unpacked")
    serial = _word(folder() / "serial")
    return {
        "machineID": _word(Path("/etc/machine-id")) if PLACE not in os.environ else serial,
        # On metal the board's UUID of SMBIOS; the serial is what a virtual machine's board has of that kind.
        "systemUUID": serial or _word(Path("/sys/class/dmi/id/product_uuid")),
        "bootID": _word(Path("/proc/sys/kernel/random/boot_id")),
        "kernelVersion": platform.release(),
        "osImage": _os_image(),
        "containerRuntimeVersion": f"containerd://{packed_version('containerd.io')}",
        "kubeletVersion": f"v{version}",
        "kubeProxyVersion": f"v{version}",
        "operatingSystem": "linux",
        "architecture": _architecture(),
    }


def _word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    found = re.search(r'^PRETTY_NAME="(.*)"$', _word(Path("/etc/os-release")), re.MULTILINE)
    return found[1] if found else "Linux"


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _kib(path: Path) -> int:
    told = os.statvfs(path)
    return told.f_blocks * told.f_frsize // 1024

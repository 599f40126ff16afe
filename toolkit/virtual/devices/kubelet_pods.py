"""Pods of this node, from the API server's word to processes and back. A thread a pod.

Not done here: probes (a container that runs is ready), preStop hooks, images, limits of memory and processors, and a
network of the pod's own. A container without a command runs the script of its image, if the node has one; else it
runs until it is asked to end, as a pause container does.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import pod_status
from .gpu_table import GPU, GpuTable, hardware
from .kubelet_config import Settings
from .kubelet_container import Container
from .node_api import ApiError, NodeApi, segment
from .pod_process import Spec
from .pod_status import End
from .pod_volumes import NotYetError, PodSources, expand
from .state import PLACE

Object = dict[str, Any]
_TICK_S = 0.1
_AGAIN_S = 2.0
_SANDBOX_S = 0.3  # a pod's sandbox takes some time; an image's pull, more
# An image is a script of its name here: what its entry point would do, with the node's own programs.
_IMAGES = Path("/usr/lib/rackproof-virtual/images")
_PAUSE = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")
_BROKEN_RUNTIME = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error running prestart hook #0: exit status 1, "
    "stdout: , stderr: nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown"
)


_INITIALIZED = End("Pending")  # one of its init containers did what it is for


@dataclass(frozen=True)
class Site:
    """What all pods of the node share."""

    settings: Settings
    api: NodeApi
    gpus: GpuTable
    say: Callable[[str], None]


class Pod:
    """One pod: `update` tells what the API server has now, `vanished` that it has it no more."""

    def __init__(self, site: Site, pod: Object) -> None:
        self._site = site
        self._pod = pod
        self.uid = str(pod["metadata"]["uid"])
        self.folder = site.settings.root / "pods" / self.uid
        self._sources = PodSources(site.api, pod, self.folder, site.settings.name, site.settings.address)
        spec = pod["spec"]
        self._init = [self._container(c) for c in spec.get("initContainers") or ()]
        self._main = [self._container(c) for c in spec["containers"]]
        self._changed = threading.Event()
        self._vanished = False
        self._began = pod_status.seconds((pod.get("status") or {}).get("startTime"))
        self._posted: Object = {}
        self._due = self._post_due = 0.0
        self._volumes: dict[str, Path] = {}
        self._gpus: tuple[int, ...] = ()
        self.gone = False
        self._thread = threading.Thread(target=self._live, name=f"pod {pod['metadata']['name']}", daemon=True)
        self._thread.start()

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name."""
        return str(self._pod["metadata"]["namespace"]), str(self._pod["metadata"]["name"])

    @property
    def object(self) -> Object:
        """As the API server had it last."""
        return self._pod

    def update(self, pod: Object) -> None:
        """The API server's latest word on it."""
        self._pod = pod
        self._changed.set()

    def vanished(self) -> None:
        """It was deleted without waiting for us: it ends now."""
        self._vanished = True
        self._changed.set()

    def container(self, name: str) -> Container | None:
        """One of its containers."""
        return next((c for c in (*self._init, *self._main) if c.name == name), None)

    # --- its life ----------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        end = self._recall()
        if end is None:
            end = self._run()
        self._stop()  # also where it ended by itself: nothing of it is left running
        if end is not None:
            self._remember(end)
        self._site.gpus.give_back(self.uid)
        while not self._leaving:
            self._post(end)
            self._pause(_AGAIN_S)
        self._take_leave(end)

    @property
    def _leaving(self) -> bool:
        return self._vanished or bool(self._pod["metadata"].get("deletionTimestamp"))

    def _recall(self) -> End | None:
        """How it ended, where it did so before this kubelet was started, here or by the API server's word."""
        try:
            return End(**json.loads((self.folder / "end.json").read_text()))
        except (OSError, ValueError, TypeError):
            pass
        status = self._pod.get("status") or {}
        if status.get("phase") in ("Succeeded", "Failed"):
            self._posted = status  # it is said already
            return End(status["phase"], str(status.get("reason", "")), str(status.get("message", "")))
        return None

    def _remember(self, end: End) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self.folder / "end.new"
        aside.write_text(json.dumps({"phase": end.phase, "reason": end.reason, "message": end.message}))
        aside.replace(self.folder / "end.json")

    def _run(self) -> End | None:
        """From admission to its end; None when it is to leave before that."""
        refused = self._admit()
        if refused is not None:
            return refused
        self._post()
        self._pause(_SANDBOX_S)
        for container, told in zip(self._init, self._pod["spec"].get("initContainers") or (), strict=True):
            ended = self._until(partial(self._step_init, container, told))
            if ended is not _INITIALIZED:
                return ended
        return self._until(self._step)

    def _admit(self) -> End | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        record = self.folder / "gpus.json"
        count = sum(_gpu_count(c) for c in self._pod["spec"]["containers"])
        if record.exists():
            self._gpus = tuple(json.loads(record.read_text()))
            self._site.gpus.restore(self.uid, self._gpus)
        elif count:
            self._gpus, why = self._site.gpus.take(self.uid, count)
            if why:
                return End("Failed", "UnexpectedAdmissionError", why)
            record.write_text(json.dumps(self._gpus))
        return None

    def _until(self, step: Callable[[], End | None]) -> End | None:
        """Repeats a step until it has an end, or the pod has to go."""
        while not self._leaving:
            late = self._late()
            if late is not None:
                self._stop(self._grace())
                return late
            end = step()
            if end is not None:
                return end
            self._post()
            self._pause(_TICK_S)
        self._stop(self._grace())
        return None

    def _step_init(self, container: Container, told: Object) -> End | None:
        end = container.end
        if end is None:
            if container.attempts == 0:
                self._start(container, told)
            return None
        if end["code"] == 0:
            return _INITIALIZED
        if self._policy == "Never":
            return End("Failed")
        self._restart(container, told, end)
        return None

    def _step(self) -> End | None:
        ends = []
        for container, told in zip(self._main, self._pod["spec"]["containers"], strict=True):
            end = container.end
            if container.attempts == 0:
                self._start(container, told)
            elif end is not None:
                again = self._policy == "Always" or (self._policy == "OnFailure" and end["code"] != 0)
                if again:
                    self._restart(container, told, end)
                else:
                    ends.append(end["code"])
        if len(ends) < len(self._main):
            return None
        return End("Succeeded" if not any(ends) else "Failed")

    def _late(self) -> End | None:
        limit = self._pod["spec"].get("activeDeadlineSeconds")
        if limit is None or time.time() - self._began < float(limit):
            return None
        return End("Failed", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

    # --- its containers ----------------------------------------------------------------------------------------------

    def _container(self, told: Object) -> Container:
        return Container(self.folder / "containers" / str(told["name"]), str(told["name"]), str(told.get("image", "")))

    @property
    def _policy(self) -> str:
        return str(self._pod["spec"].get("restartPolicy", "Always"))

    def _restart(self, container: Container, told: Object, end: Object) -> None:
        if time.time() - end["at"] >= container.back_off_s:
            self._start(container, told)

    def _start(self, container: Container, told: Object) -> None:
        if time.monotonic() < self._due:
            return
        try:
            self._volumes = self._volumes or self._sources.volumes()
            spec = self._spec(told)
        except NotYetError as wait:
            container.wait_for(wait.reason, str(wait))
            self._due = time.monotonic() + _AGAIN_S
            return
        state = hardware()
        if state is not None and state.values.get("kubelet.containers") == "fail":
            container.refuse(spec, _BROKEN_RUNTIME)
        else:
            container.start(spec)

    def _spec(self, told: Object) -> Spec:
        pod, state = self._pod["spec"], hardware()
        variables = self._sources.environment(told)
        if _gpu_count(told) and state is not None:
            held = {gpu.index: gpu.need("uuid") for gpu in state.gpus}
            variables["NVIDIA_VISIBLE_DEVICES"] = ",".join(held[index] for index in self._gpus)
            # The NVIDIA container runtime's part: where the device stand-ins find their hardware.
            variables |= {name: os.environ[name] for name in (PLACE,) if name in os.environ}
        security = {**(pod.get("securityContext") or {}), **(told.get("securityContext") or {})}
        words = [*(told.get("command") or ()), *(told.get("args") or ())]
        given = state is not None and (_gpu_count(told) or security.get("privileged"))
        return Spec(
            argv=(*(() if told.get("command") else _entry_point(told)), *(expand(str(w), variables) for w in words)),
            environment=variables,
            folder=str(told.get("workingDir") or "/"),
            hostname="" if pod.get("hostNetwork") else str(pod.get("hostname") or self.place[1])[:63],
            host_pids=bool(pod.get("hostPID")),
            mounts=self._sources.mounts(told, self._volumes),
            hidden=(str(self._site.settings.root), *(() if given or state is None else (str(state.home),))),
            hardware=str(state.home) if given and state is not None else "",
            user=security.get("runAsUser"),
            group=security.get("runAsGroup"),
            read_only_root=bool(security.get("readOnlyRootFilesystem")),
        )

    def _grace(self) -> float:
        """Seconds from SIGTERM to SIGKILL."""
        if self._vanished:
            return 0.0
        told = self._pod["metadata"].get("deletionGracePeriodSeconds")
        return float(told if told is not None else self._pod["spec"].get("terminationGracePeriodSeconds", 30))

    def _stop(self, grace_s: float = 0.0) -> None:
        """Returns when no process of it is left."""
        everyone = (*self._init, *self._main)
        if grace_s > 0:
            for container in everyone:
                container.signal(kill=False)
        end = time.monotonic() + grace_s
        while any(container.alive for container in everyone):
            if self._vanished or time.monotonic() >= end:
                for container in everyone:
                    container.signal(kill=True)
            time.sleep(_TICK_S)

    # --- what the API server is told ---------------------------------------------------------------------------------

    def _take_leave(self, end: End | None) -> None:
        """Tells how it ended, and that it may be forgotten; then forgets it."""
        namespace, name = self.place
        path = f"/api/v1/namespaces/{segment(namespace)}/pods/{segment(name)}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        while not self._vanished and not self._told(end or self._as_stopped()):
            self._pause(_AGAIN_S)
        self._sources.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
        while not self._vanished:
            try:
                self._site.api.delete(path, {"apiVersion": "v1", "kind": "DeleteOptions", **body})
                break
            except ApiError as error:
                if error.status in (404, 409):  # it is gone, or another of its name is there
                    break
                self._pause(_AGAIN_S)
        self.gone = True

    def _told(self, end: End) -> bool:
        """Whether the API server has its end."""
        self._post(end)
        return bool(self._posted.get("phase") == end.phase)

    def _as_stopped(self) -> End:
        ends = [container.end for container in self._main]
        clean = all(end is not None and end["code"] == 0 for end in ends)
        return End("Succeeded" if clean else "Failed")

    def _pause(self, seconds: float) -> None:
        if self._changed.wait(seconds):
            self._changed.clear()
            if seconds < _AGAIN_S and not self._leaving:
                time.sleep(min(seconds, _TICK_S))

    def _post(self, end: End | None = None) -> None:
        """Posts the status where it is another than the last one that was taken."""
        init, main = [c.status() for c in self._init], [c.status() for c in self._main]
        status = pod_status.status(self._site.settings.address, self._began, init, main, end, self._posted)
        if time.monotonic() < self._post_due or all(self._posted.get(key) == value for key, value in status.items()):
            return
        namespace, name = self.place
        path = f"/api/v1/namespaces/{segment(namespace)}/pods/{segment(name)}/status"
        try:
            self._site.api.patch(path, {"metadata": {"uid": self.uid}, "status": status})
            self._posted = status
        except ApiError as error:
            if error.status != 404:
                self._site.say(f'"Failed to update status for pod" pod="{namespace}/{name}" err="{error}"')
            self._post_due = time.monotonic() + _AGAIN_S / 2


def _entry_point(told: Object) -> tuple[str, ...]:
    """What a container runs whose pod does not say: the script of its image, where the node has one of that name."""
    name = str(told.get("image", "")).rpartition("/")[2].partition(":")[0]
    script = _IMAGES / name
    return ("/bin/sh", str(script)) if name and script.is_file() else _PAUSE


def _gpu_count(container: Object) -> int:
    return int(((container.get("resources") or {}).get("limits") or {}).get(GPU, 0))

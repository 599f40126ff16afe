"""The node agent: a kubelet's side of the Kubernetes API, with processes of the node as its containers.

    kubelet --kubeconfig FILE [--bootstrap-kubeconfig FILE] --config FILE [--config-dir FOLDER] [--node-labels K=V,...]

Its modules: kubelet_config (what it is told), kubelet_identity (certificates), kubelet_node (the Node and its lease),
kubelet_pods, kubelet_container and pod_process (pods, as processes), pod_volumes, kubelet_server (logs). Without
--kubeconfig it runs for itself, as a kubelet does: there is no node then, and no pod.
Faults of the node's hardware file (`kubelet.KEY`, described in toolkit/virtual/hardware.py) are looked at all the time.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import kubelet_identity, kubelet_server
from .gpu_table import GpuTable, hardware
from .kube_files import KubeFileError
from .kubelet_config import ConfigError, Settings, load, parse
from .kubelet_container import Container
from .kubelet_node import Node, mark
from .kubelet_pods import Pod, Site
from .node_api import ApiError, NodeApi
from .services import Log, notify
from .state import packed_version

Object = dict[str, Any]
_WATCH_S = 240
_AGAIN_S = 1.0
_TICK_S = 0.5
_LEASE_SHARE = 0.25  # a lease is renewed when a quarter of it is over (KubeletConfiguration)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM. Pods go on without it."""
    flags = parse(arguments)
    if flags.version:
        sys.stdout.write(f"Kubernetes v{packed_version('kubelet')}\n")
        return 0
    log = Log()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load(flags)
        settings = replace(settings, name=_name(settings))
        _obey()
        settings.root.mkdir(parents=True, exist_ok=True)
        Kubelet(settings, log, stop).run()
    except (ConfigError, KubeFileError) as error:
        log(f'"command failed" err="{error}"')
        return 1
    return 0


def _obey() -> None:
    """A fault may keep the kubelet from running at all."""
    state = hardware()
    if state is not None and state.values.get("kubelet.runs") == "0":
        raise ConfigError("failed to run Kubelet: signal: killed")


def _name(settings: Settings) -> str:
    """The name it takes now: a fault may have renamed the machine."""
    state = hardware()
    return (state.values.get("kubelet.name") if state else None) or settings.name


class Kubelet:
    """All parts together."""

    def __init__(self, settings: Settings, log: Log, stop: threading.Event) -> None:
        self._settings = settings
        self._log = log
        self._stop = stop
        self._pods: dict[str, Pod] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Blocks until it is asked to stop, or a fault ends it."""
        settings = self._settings
        self._log(f'"Kubelet version" kubeletVersion="v{packed_version("kubelet")}"')
        self._serve_healthz()
        notify("READY=1")
        if settings.kubeconfig is None:
            self._log('"Standalone mode, no API client"')
            self._wait()
            return
        threading.Thread(target=self._join, name="join", daemon=True).start()
        self._wait()

    def _wait(self) -> None:
        """Until the end. A fault that kills it, or renames its machine, ends it: systemd starts it anew."""
        while not self._stop.wait(_TICK_S):
            _obey()
            if _name(self._settings) != self._settings.name:
                raise ConfigError(f"the machine's host name has changed to {_name(self._settings)}")

    def _join(self) -> None:
        try:
            self._live()
        except (ConfigError, KubeFileError, OSError) as error:
            self._log(f'"command failed" err="{error}"')
            os._exit(1)  # the main thread waits for a signal that does not come

    def _live(self) -> None:
        api = kubelet_identity.client(self._settings, self._log)
        node = Node(self._settings, api, self._log)
        while not node.register():
            time.sleep(_AGAIN_S)
        site = Site(self._settings, api, GpuTable(), self._log)
        for target, name in ((self._beat, "status"), (self._renew, "lease")):
            threading.Thread(target=target, args=(node,), name=name, daemon=True).start()
        threading.Thread(target=self._serve, args=(api,), name="server", daemon=True).start()
        self._log('"Started kubelet"')
        while True:
            try:
                self._follow(site)
            except ApiError as error:
                self._log(f'"Failed to watch pods" err="{error}"')
                time.sleep(_AGAIN_S)

    def _beat(self, node: Node) -> None:
        """Posts the status at its frequency, and at once when the hardware says something else."""
        while True:
            seen = mark()
            told = node.tell()
            end = time.monotonic() + (self._settings.heartbeat_s if told else _AGAIN_S)
            while time.monotonic() < end and mark() == seen:
                time.sleep(min(_TICK_S, self._settings.heartbeat_s))

    def _renew(self, node: Node) -> None:
        while True:
            renewed = node.renew()
            time.sleep(self._settings.lease_s * _LEASE_SHARE if renewed else _AGAIN_S)

    # --- pods --------------------------------------------------------------------------------------------------------

    def _follow(self, site: Site) -> None:
        """Lists the pods bound to this node, then follows what happens to them until the watch ends."""
        chosen = {"fieldSelector": f"spec.nodeName={self._settings.name}"}
        listed = site.api.get("/api/v1/pods", **chosen)
        here = {str(pod["metadata"]["uid"]) for pod in listed.get("items") or ()}
        for pod in listed.get("items") or ():
            self._apply("MODIFIED", pod, site)
        with self._lock:
            strangers = [pod for uid, pod in self._pods.items() if uid not in here]
        for pod in strangers:
            pod.vanished()
        since = str(listed["metadata"]["resourceVersion"])
        for event, pod in site.api.watch("/api/v1/pods", _WATCH_S, resourceVersion=since, **chosen):
            if event == "ERROR":
                raise ApiError(int(pod.get("code", 0)), str(pod.get("message", "")))
            if event != "BOOKMARK":
                self._apply(event, pod, site)

    def _apply(self, event: str, pod: Object, site: Site) -> None:
        uid = str(pod["metadata"]["uid"])
        with self._lock:
            self._pods = {key: one for key, one in self._pods.items() if not one.gone}
            known = self._pods.get(uid)
            if known is None and event != "DELETED":
                self._pods[uid] = Pod(site, pod)
        if known is not None:
            known.vanished() if event == "DELETED" else known.update(pod)

    def _find(self, namespace: str, pod: str, container: str) -> Container | None:
        with self._lock:
            found = [one for one in self._pods.values() if one.place == (namespace, pod)]
        return found[-1].container(container) if found else None

    def _listing(self) -> Object:
        with self._lock:
            return {"apiVersion": "v1", "kind": "PodList", "items": [pod.object for pod in self._pods.values()]}

    # --- servers -----------------------------------------------------------------------------------------------------

    def _serve_healthz(self) -> None:
        if not self._settings.healthz_port:
            return
        server = http.server.ThreadingHTTPServer(("127.0.0.1", self._settings.healthz_port), _Health)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def _serve(self, api: NodeApi) -> None:
        """Logs can be asked for once there is a certificate to serve them with."""
        try:
            pair = kubelet_identity.serving(self._settings, api, self._log)
            server = kubelet_server.KubeletServer(self._settings, pair, api, self._find, self._listing)
        except (ConfigError, KubeFileError, OSError) as error:
            self._log(f'"Failed to listen and serve" err="{error}"')
            return
        server.serve_forever()


class _Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/healthz"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b"ok" if known else b"404 page not found\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads a line for each probe."""


if __name__ == "__main__":
    sys.exit(main())

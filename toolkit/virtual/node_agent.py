"""Virtual machines that are nothing but a node agent: for a control plane without a rack, several on one host.

Each has process ids and mounts of its own, so that a power cut leaves nothing of its pods, and dies with the thread
that switched it on. Its kubelet and its pods are those of a virtual rack's nodes (toolkit/virtual/devices/kubelet.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from toolkit.errors import RackproofError, UsageError
from toolkit.pool import door
from toolkit.rack.model import Mode, Profile, Unit, UnitKind
from toolkit.virtual import hardware_files
from toolkit.virtual.control_plane.plane import ControlPlane
from toolkit.virtual.devices.state import PLACE
from toolkit.virtual.faults import Fault
from toolkit.virtual.programs import environment
from toolkit.virtual.tls import write_private

_DEADLINE_S = 20.0
_POLL_S = 0.02
_INIT = "while :; do sleep 86400 & wait; done"  # reaps what the kubelet leaves behind
_QUOTED_LINES = 15
TAINT: Mapping[str, str] = {"key": door.TAINT.key, "effect": door.TAINT.effect}


def virtual_profile(gpus: int) -> Profile:
    """A virtual DGX H100 with that many GPUs, and nothing else that a node agent asks for."""
    return Profile(
        name="virtual-dgx-h100",
        sku="virtual DGX H100",
        mode=Mode.NVSWITCH_GEN3,
        gpus_per_node=gpus,
        nvlinks_per_gpu=18,
        nvlink_gb_per_s=26.562,
        hcas_per_node=0,
        units=((UnitKind.NODE, 1),),
        image="none",
        expected=(),
        versions=(),
        gates=(),
        certificate_lifetime=timedelta(hours=1),
        virtual=True,
    )


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """How a machine's kubelet is to be.

    gpus         on the machine; 0: a machine without a driver
    serial       its serial: systemUUID of its Node; empty: made from its name
    address      of the machine, on this host; `port` of its kubelet
    taints       it registers with; the one of the uncertified unless told otherwise
    heartbeat_s  between two posts of its status; `lease_s`: for how long its lease is good
    """

    gpus: int = 8
    serial: str = ""
    address: str = "127.0.0.1"
    port: int = 10250
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Mapping[str, str]] = (TAINT,)
    heartbeat_s: float = 10.0
    lease_s: int = 40


class NodeAgent:
    """One machine. Needs root. `with` switches it on, waits until its Node is registered, and takes it away after."""

    def __init__(self, plane: ControlPlane, name: str, folder: Path, options: AgentOptions) -> None:
        """`folder`: of the machine's own."""
        self.name = name
        self.hardware = folder / "hardware"
        self.options = options
        self._plane = plane
        self._folder = folder
        self._unit = Unit(name=name, kind=UnitKind.NODE, serial=options.serial or f"VR-{name}", slot=1)
        self._profile = virtual_profile(options.gpus)
        self._machine: subprocess.Popen[bytes] | None = None
        self._kubelet: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeAgent:
        with ExitStack() as half_on:
            half_on.callback(self.power_off)
            self.power_on()
            half_on.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()

    def power_on(self) -> None:
        """Switches it on; returns when its Node is registered."""
        if os.geteuid() != 0:
            raise UsageError("a node agent needs root: mount and process namespaces", "run it under sudo")
        self._write_files()
        argv = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        self._machine = subprocess.Popen(
            [*argv, "--mount-proc", "--", "/bin/sh", "-c", _INIT],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        self.start_kubelet()

    def power_off(self) -> None:
        """Cuts its power: nothing of it runs any more. Its disk stays, and `power_on` boots it again."""
        for process in (self._machine, self._kubelet):
            if process is not None:
                process.kill()  # --kill-child: the kernel ends the machine's first process, and with it all others
                process.wait()
        self._machine = self._kubelet = None

    def start_kubelet(self, *, wait: bool = True) -> None:
        """Starts its kubelet, as systemd does after it has ended; returns when its Node is registered, or at once."""
        with (self._folder / "kubelet.log").open("ab") as log:
            seen = log.tell()
            self._kubelet = subprocess.Popen(
                ["nsenter", "--target", str(self._init_pid()), "--pid", "--mount", "--", *self._command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(PYTHONPATH=_import_path(), **{PLACE: str(self.hardware)}),
            )
        if wait:
            self._until(lambda: b'"Started kubelet"' in self.log.read_bytes()[seen:], "its kubelet to register it")

    def kill_kubelet(self, number: int = signal.SIGKILL) -> None:
        """Ends its kubelet; its pods go on."""
        if self._kubelet is not None:
            for pid in _children(self._kubelet.pid):
                os.kill(pid, number)
            self._kubelet.wait()
        self._kubelet = None

    def wait_for_kubelet_to_end(self) -> None:
        """Returns when it has ended by itself: a fault does that."""
        if self._kubelet is not None:
            self._kubelet.wait(_DEADLINE_S)

    def set_faults(self, *faults: Fault) -> None:
        """Makes the hardware what these faults say; none: it is healthy again."""
        hardware_files.write_state(self.hardware, self._unit, self._profile, faults)

    @property
    def log(self) -> Path:
        """What its kubelet says."""
        return self._folder / "kubelet.log"

    def _write_files(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        hardware_files.lay_out(self.hardware, self._unit, self._profile)
        if self.options.gpus:
            self.set_faults()
        user = f"system:node:{self.name}"
        kubeconfig = self._plane.kubeconfig(user, ("system:nodes",))
        served = self._plane.authority.server(user, (self.options.address, self.name))
        write_private(self._folder / "kubelet.conf", kubeconfig.read_bytes())
        write_private(self._folder / "serving.pem", served.certificate + served.key)
        write_private(self._folder / "config.yaml", json.dumps(self._configuration()).encode())

    def _configuration(self) -> dict[str, Any]:
        serving = str(self._folder / "serving.pem")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": self.options.port,
            "healthzPort": 0,
            "tlsCertFile": serving,
            "tlsPrivateKeyFile": serving,
            "authentication": {"x509": {"clientCAFile": str(self._plane.layout.ca)}},
            "authorization": {"mode": "Webhook"},
            "nodeStatusUpdateFrequency": f"{self.options.heartbeat_s:g}s",
            "nodeLeaseDurationSeconds": self.options.lease_s,
            "registerWithTaints": [dict(taint) for taint in self.options.taints],
        }

    def _command(self) -> list[str]:
        labels = ",".join(f"{key}={value}" for key, value in self.options.labels.items())
        return [
            sys.executable, "-m", "toolkit.virtual.devices.kubelet",
            f"--config={self._folder / 'config.yaml'}", f"--kubeconfig={self._folder / 'kubelet.conf'}",
            f"--root-dir={self._folder / 'kubelet'}", f"--hostname-override={self.name}",
            f"--node-ip={self.options.address}", f"--node-labels={labels}",
        ]  # fmt: skip

    def _init_pid(self) -> int:
        machine = self._machine
        if machine is None:
            raise RackproofError(f"node agent {self.name}: the machine is off", "power_on() first")
        self._until(lambda: bool(_children(machine.pid)), "its machine to start")
        return _children(machine.pid)[0]

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _DEADLINE_S
        while not holds():
            ended = self._kubelet is not None and self._kubelet.poll() is not None
            if ended or time.monotonic() > end:
                said = self.log.read_text(errors="replace").splitlines()[-_QUOTED_LINES:]
                why = "it ended" if ended else f"not within {_DEADLINE_S:g} s"
                raise RackproofError(f"node agent {self.name}: waiting for {what}: {why}\n  " + "\n  ".join(said))
            time.sleep(_POLL_S)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _import_path() -> str:
    """Where this `toolkit` was imported from: the agent must be of the same one."""
    import toolkit

    return str(Path(toolkit.__path__[0]).parent)

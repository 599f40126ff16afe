"""The NVLink switch trays of a virtual rack: what is configured, what is running, and how long one takes to follow.

Nothing here speaks HTTP; `toolkit.virtual.nvue` does. Shapes and words: NVIDIA NVOS User Manual for NVLink Switches
v25.02, cluster, SDN and link diagnostics chapters.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from toolkit.judge.nvlink.seen import CLUSTER_APPS, CONTROLLER
from toolkit.rack.model import LinkKind, Rack, Unit, UnitKind

RELEASE = "25.02.2342"
Json = dict[str, object]
_WORDS = {0: "No issue was observed", 2: "Negotiation failure", 15: "Bad signal integrity", 18: "Internal error",
          34: "Speed degradation", 128: "Troubleshooting in process", 1024: "Cable is unplugged"}  # fmt: skip
_VERSIONS = {
    CONTROLLER: "sm:2025.03.5, gfm:R570.133, fib-fe:1.0.3",
    "nmx-telemetry": "telemetry-collector:1.20.4, gnmi-aggregator:1.0.3",
}


class SwitchTrouble(StrEnum):
    """What can be wrong with a virtual switch tray. The comment says how it shows."""

    DENIED = "denied"  # HTTP 401 whatever the password
    FORBIDDEN = "forbidden"  # HTTP 403
    BROKEN = "broken"  # HTTP 500
    WEB_PAGE = "web_page"  # HTML with HTTP 200
    SLOW = "slow"  # every answer takes `value` seconds (20)
    TORN = "torn"  # the connection ends in the middle of an answer
    REDIRECT = "redirect"  # HTTP 302 to a web page
    APPLIED = "applied"  # `rev=operational` is dropped: configuration instead of state
    PORT = "port"  # link diagnostics of `port` show code `value` (2)
    APP_FAILED = "app_failed"  # nmx-controller is not ok
    UNMAPPED = "unmapped"  # `Chassis mapping is missing`, until a chassis id is given
    SHORT_PARTITION = "short_partition"  # the partition lacks `value` GPUs (1)
    SECOND_CLUSTER = "second_cluster"  # the cluster is enabled here, whoever else has it
    UNHEALTHY = "unhealthy"  # `system health` is not OK
    OTHER_FIRMWARE = "other_firmware"  # of another release than the other trays


@dataclass(frozen=True, slots=True)
class SwitchFault:
    """Trouble of a switch tray."""

    kind: SwitchTrouble
    unit: str
    port: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True)
class NvosLag:
    """Seconds between asking and having."""

    apply_s: float = 0.5
    app_s: float = 3.0
    action_s: float = 0.3


@dataclass(slots=True)
class _Tray:
    """One tray's memory. Times are of the rack's clock; None: never."""

    enabled_at: float | None = None
    started_at: dict[str, float] = field(default_factory=dict)
    chassis: int | None = None
    saved: bool = False


@dataclass(slots=True)
class _Pending:
    """A revision or an action: when it is done, and what it then has done."""

    done_at: float
    tray: str
    patch: Json = field(default_factory=dict)
    applied: bool = False


class VirtualNvos:
    """All switch trays of a rack. Faults may be set and cleared while it runs; safe between threads."""

    def __init__(
        self,
        rack: Rack,
        lag: NvosLag | None = None,
        clock: Callable[[], float] = time.monotonic,
        links_down: Callable[[str], Iterable[tuple[int, int]]] = lambda _node: (),
    ) -> None:
        """`links_down` says which (GPU, link) of a node are down: what goes through them is seen here too."""
        self.rack = rack
        self.lag = lag or NvosLag()
        self.asked: list[tuple[str, str, str]] = []  # unit, method, path with query; no bodies, no headers
        self._clock = clock
        self._links_down = links_down
        self._lock = threading.RLock()
        self._faults: dict[tuple[SwitchTrouble, str, str], SwitchFault] = {}
        self._trays = {unit.name: _Tray() for unit in trays(rack)}
        self._pending: dict[str, _Pending] = {}
        self._numbers = itertools.count(1)

    def set(self, fault: SwitchFault) -> None:
        """Breaks something, now."""
        with self._lock:
            self._faults[(fault.kind, fault.unit, fault.port)] = fault

    def replace(self, faults: Iterable[SwitchFault]) -> None:
        """Breaks these, and repairs everything else."""
        with self._lock:
            self._faults = {(fault.kind, fault.unit, fault.port): fault for fault in faults}

    def fault(self, unit: str, kind: SwitchTrouble) -> SwitchFault | None:
        """The tray's trouble of that kind, if it has it."""
        return next((f for f in self._faults.values() if f.unit == unit and f.kind is kind), None)

    def enable(self, unit: str, chassis: int = 1) -> None:
        """As if an operator had done it long ago."""
        with self._lock:
            tray = self._trays[unit]
            tray.enabled_at, tray.chassis = self._clock() - 3600, chassis

    def enabled(self) -> tuple[str, ...]:
        """Trays whose cluster is enabled by configuration, and whether or not it has come up."""
        return tuple(name for name, tray in self._trays.items() if tray.enabled_at is not None)

    def saved(self, unit: str) -> bool:
        """Whether the configuration would survive a reboot."""
        return self._trays[unit].saved

    def shown(self, unit: str, path: str, *, operational: bool) -> object | None:
        """What a GET answers; None for 404."""
        with self._lock:
            self._settle()
            kind, _, rest = path.partition("/")
            if kind == "revision":
                return self._revision(rest)
            if kind == "action":
                return self._action(rest)
            operational = operational and self.fault(unit, SwitchTrouble.APPLIED) is None
            state, configured = self._sources(path)
            source = state if operational else configured
            return source(unit) if source else None

    def _sources(self, path: str) -> tuple[Callable[[str], object] | None, Callable[[str], object] | None]:
        """By path: what is, and what was configured."""
        return {
            "system/health": (self._health, lambda _: {}),
            "cluster": (self._cluster, self._cluster_applied),
            "cluster/apps": (self._apps, lambda _: {name: {} for name in CLUSTER_APPS}),
            "sdn/partition": (self._partitions, lambda _: {"32766": {"name": "Default Partition"}}),
            "interface": (self._interfaces, self._interfaces_applied),
            "platform/firmware": (self._firmware, lambda _: {name: {} for name in ("ASIC", "BMC", "BIOS")}),
            "platform/chassis-location": (self._location, lambda _: {}),
        }.get(path, (None, None))

    # Changes

    def make_revision(self, unit: str) -> Json:
        """POST /revision."""
        with self._lock:
            identity = f"{next(self._numbers)}"
            self._pending[f"revision/{identity}"] = _Pending(float("inf"), unit)
            return {identity: {"state": "pending", "transition": {"issue": {}, "progress": ""}}}

    def patch(self, identity: str, body: Json) -> bool:
        """PATCH of a resource under a revision; False where there is no such revision."""
        with self._lock:
            pending = self._pending.get(f"revision/{identity}")
            if pending is None:
                return False
            pending.patch |= body
            return True

    def apply(self, identity: str) -> Json | None:
        """PATCH of a revision to `apply`, or `save` of the applied one."""
        with self._lock:
            if identity == "applied":
                for tray in self._trays.values():
                    tray.saved = tray.saved or tray.enabled_at is not None
                return {"state": "save", "transition": {"progress": ""}}
            pending = self._pending.get(f"revision/{identity}")
            if pending is None:
                return None
            pending.done_at = self._clock() + self.lag.apply_s
            return {"state": "apply", "transition": {"progress": ""}}

    def act(self, unit: str, path: str, action: str, parameters: Json) -> str | None:
        """POST of an action; its id, None for one that the resource does not have."""
        with self._lock:
            tray, now = self._trays[unit], self._clock()
            match path.split("/"), action:
                case ["cluster"], "@update" if isinstance(parameters.get("chassis-id"), int):
                    tray.chassis = int(str(parameters["chassis-id"]))
                case ["cluster", "apps", name], "@start" if name in CLUSTER_APPS:
                    tray.started_at[name] = now
                case ["cluster", "apps", name], "@stop" if name in CLUSTER_APPS:
                    tray.started_at[name] = float("inf")
                case ["sdn", "factory-default"], "@reset":
                    tray.chassis = None
                case _:
                    return None
            identity = f"{next(self._numbers)}"
            self._pending[f"action/{identity}"] = _Pending(now + self.lag.action_s, unit)
            return identity

    def _settle(self) -> None:
        """Revisions whose time has come take effect."""
        now = self._clock()
        for pending in self._pending.values():
            if pending.applied or now < pending.done_at or not pending.patch:
                continue
            pending.applied = True
            tray = self._trays[pending.tray]
            if pending.patch.get("state") == "enabled" and tray.enabled_at is None:
                tray.enabled_at = now
            elif pending.patch.get("state") == "disabled":
                tray.enabled_at = None

    def _revision(self, identity: str) -> Json | None:
        pending = self._pending.get(f"revision/{identity}")
        if pending is None:
            return None
        asked = pending.done_at != float("inf")
        state = "applied" if self._clock() >= pending.done_at else "apply" if asked else "pending"
        return {"state": state, "transition": {"issue": {}, "progress": ""}}

    def _action(self, identity: str) -> Json | None:
        pending = self._pending.get(f"action/{identity}")
        if pending is None:
            return None
        done = self._clock() >= pending.done_at
        return {"state": "action_success" if done else "running", "status": "Action succeeded" if done else "..."}

    # State

    def _running_since(self, unit: str) -> float | None:
        if self.fault(unit, SwitchTrouble.SECOND_CLUSTER):
            return self._clock() - 3600
        return self._trays[unit].enabled_at

    def _health(self, unit: str) -> Json:
        if self.fault(unit, SwitchTrouble.UNHEALTHY):
            return {"status": "Not OK", "status-led": "amber", "issues": {"FAN2/1": {"issue": "out of range"}}}
        return {"status": "OK", "status-led": "green", "issues": {}}

    def _cluster(self, unit: str) -> Json:
        since = self._running_since(unit)
        if since is None:
            return {"state": "disabled", "nmxc-conn": "n/a"}
        return {"state": "enabled", "nmxc-conn": "up" if self._clock() >= since + self.lag.app_s else "down"}

    def _cluster_applied(self, unit: str) -> Json:
        return {"state": "disabled" if self._running_since(unit) is None else "enabled"}

    def _apps(self, unit: str) -> Json:
        return {name: self._app(unit, name) for name in CLUSTER_APPS}

    def _app(self, unit: str, name: str) -> Json:
        tray, since = self._trays[unit], self._running_since(unit)
        begun = max(since if since is not None else float("inf"), tray.started_at.get(name, float("-inf")))
        status, reason, info = "ok", "", "CONTROL_PLANE_STATE_CONFIGURED" if name == CONTROLLER else ""
        if begun == float("inf"):
            status, reason, info = "not ok", "stopped by user" if since is not None else "", ""
        elif self._clock() < begun + self.lag.app_s:
            status, reason, info = "not ok", "GFM: UNINITIALIZED", "CONTROL_PLANE_STATE_UNCONFIGURED"
        elif name == CONTROLLER and self.fault(unit, SwitchTrouble.APP_FAILED):
            status, reason, info = "not ok", "GFM: UNCONFIGURED", "CONTROL_PLANE_STATE_UNCONFIGURED"
        elif name == CONTROLLER and tray.chassis is None:
            status, info = "ok", "Chassis mapping is missing"
        return {
            "app-id": "nmx-c-nvos" if name == CONTROLLER else name, "app-ver": "1.0.3", "status": status,
            "reason": reason, "addition-info": info, "components-ver": _VERSIONS[name],
        }  # fmt: skip

    def _partitions(self, unit: str) -> Json:
        since = self._running_since(unit)
        if since is None or self._clock() < since + self.lag.app_s:
            return {}
        short = self.fault(unit, SwitchTrouble.SHORT_PARTITION)
        planned = len(self.rack.nodes) * self.rack.profile.gpus_per_node
        lost = int(1 if short.value is None else short.value) if short else 0
        shown: Json = {
            "name": "Default Partition", "num-gpus": planned - lost, "health": "degraded" if lost else "healthy",
            "resiliency-mode": "adaptive_bandwidth", "mcast-limit": 1024, "partition-type": "gpuuid_based",
        }  # fmt: skip
        return {"32766": shown}

    def _interfaces(self, unit: str) -> Json:
        broken = {f.port: int(2 if f.value is None else f.value) for f in self._faults.values()
                  if f.unit == unit and f.kind is SwitchTrouble.PORT}  # fmt: skip
        down = {node.name: set(self._links_down(node.name)) for node in self.rack.nodes}
        found: Json = {}
        for port, node, gpu, link in self._ports(unit):
            code = broken.get(port, 2 if (gpu, link) in down.get(node, ()) else 0)
            found[port] = _port(code)
        return found | {f"fnm{number}": _port(0) for number in (1, 2)}

    def _interfaces_applied(self, unit: str) -> Json:
        return {port: {"type": "nvl"} for port, *_ in self._ports(unit)}

    def _ports(self, unit: str) -> Iterable[tuple[str, str, int, int]]:
        for cable in self.rack.links:
            if cable.kind is LinkKind.NVLINK and unit in (cable.a.unit, cable.b.unit):
                near, far = (cable.b, cable.a) if cable.a.unit == unit else (cable.a, cable.b)
                gpu, _, link = near.port.partition(".")
                yield far.port, near.unit, int(gpu.removeprefix("gpu")), int(link.removeprefix("nvlink"))

    def _firmware(self, unit: str) -> Json:
        release = "25.02.1884" if self.fault(unit, SwitchTrouble.OTHER_FIRMWARE) else RELEASE
        return {
            name: {"actual-firmware": version, "part-number": "N/A"}
            for name, version in (("ASIC", f"35.{release[3:]}"), ("BMC", "88.0002.1252"), ("BIOS", "0ACTV_00.01.012"))
        }

    def _location(self, unit: str) -> Json:
        slots = sorted(tray.slot for tray in trays(self.rack))
        found = self.rack.unit(unit)
        return {
            "chassis-sn": self.rack.name, "slot-number": str(found.slot), "tray-index": str(slots.index(found.slot)),
            "topology-id": "128",
        }  # fmt: skip


def trays(rack: Rack) -> tuple[Unit, ...]:
    """The rack's NVLink switch trays."""
    return tuple(unit for unit in rack.units if unit.kind is UnitKind.NVLINK_SWITCH)


def _port(code: int) -> Json:
    words = _WORDS.get(code, "Information not available")
    return {"type": "nvl", "link": {"diagnostics": {str(code): {"status": words}}}}

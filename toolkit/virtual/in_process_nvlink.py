"""NVLink of the rack of files: services by mode, the IMEX domain, and what the switch trays made of the fabric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from toolkit.errors import UndecidedError
from toolkit.facts.imex import ABSENT
from toolkit.judge.nvlink.seen import CONTROLLER
from toolkit.nvue.rest import RestNvue
from toolkit.rack.model import MNNVL, Mode, Rack, Unit
from toolkit.virtual.nvos import NvosLag, VirtualNvos, trays

_LOCAL = (Mode.NVSWITCH_GEN3, Mode.NVLINK5_SINGLE)
_SERVICES = "nvidia-fabricmanager", "nvidia-persistenced", "nvidia-imex", "containerd", "kubelet"


@dataclass(frozen=True, slots=True)
class Nvlink:
    """What the nodes of a rack show of it. `nvos` is None where the rack has no switch trays."""

    rack: Rack
    nvos: VirtualNvos | None
    driver: str

    def services(self) -> str:
        """`systemctl show` of a node whose roles have run."""
        return "\n".join(self._service(name) for name in _SERVICES)

    def _service(self, name: str) -> str:
        mode = self.rack.profile.mode
        wanted = {"nvidia-fabricmanager": mode in _LOCAL, "nvidia-imex": mode is Mode.MNNVL_HOST_IMEX}
        if wanted.get(name, True):
            return f"Id={name}.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
        load = "masked" if name == "nvidia-imex" and mode is Mode.MNNVL_DRA else "not-found"
        return f"Id={name}.service\nLoadState={load}\nActiveState=inactive\nUnitFileState={load}\n"

    def state(self) -> str:
        """Keys of a node's hardware state that the fabric's control plane decides."""
        if self.nvos is None or self.rack.profile.mode not in MNNVL:
            return ""
        return "" if self._managed() else "gpu.fabric_state In Progress\ngpu.fabric_clique 0\n"

    def _managed(self) -> bool:
        """Whether a controller that is ok has taken the GPUs in."""
        if self.nvos is None:
            return False
        for tray in self.nvos.enabled():
            apps = self.nvos.shown(tray, "cluster/apps", operational=True)
            controller = apps.get(CONTROLLER) if isinstance(apps, dict) else None
            if (
                isinstance(controller, dict)
                and controller["status"] == "ok"
                and "missing" not in controller["addition-info"]
            ):
                return True
        return False

    def imex(self, shut: Iterable[str], up: Callable[[str], bool]) -> str:
        """`nvidia-imex-ctl -N -j`. `shut`: nodes whose command port nobody reaches; `up`: whether a node runs."""
        if self.rack.profile.mode is not Mode.MNNVL_HOST_IMEX:
            return f"{ABSENT}\n"
        hosts = {node.name: node.host.address for node in self.rack.nodes if node.host}
        away = {name for name in hosts if name in set(shut) or not up(name)}
        nodes = {}
        for number, (name, host) in enumerate(hosts.items()):
            word = "INVALID" if name in away else "CONNECTED"
            connections = {str(n): {"host": h, "status": word} for n, h in enumerate(hosts.values())}
            nodes[str(number)] = {
                "host": host, "status": "UNAVAILABLE" if name in away else "READY",
                "version": "" if name in away else self.driver, "connections": connections,
            }  # fmt: skip
        return json.dumps({"nodes": nodes, "status": "DEGRADED" if away else "UP"})

    def nodes_config(self) -> str:
        """`sha256sum FILE; cat FILE` of nodes_config.cfg."""
        text = "".join(f"{node.host.address}\n" for node in self.rack.nodes if node.host)
        return f"{hashlib.sha256(text.encode()).hexdigest()}  /etc/nvidia-imex/nodes_config.cfg\n{text}"


@dataclass(frozen=True, slots=True)
class LocalRequests:
    """Requests to a switch tray of the rack of files: no network, the same answers."""

    nvos: VirtualNvos
    unit: str

    @property
    def url(self) -> str:
        """Where it would be."""
        return f"https://{self.unit}"

    def get(self, path: str, query: tuple[tuple[str, str], ...] = (), *, operational: bool = True) -> object:
        """JSON at the path."""
        self.nvos.asked.append((self.unit, "GET", f"{path}?{urlencode(query)}"))
        found = self.nvos.shown(self.unit, path.strip("/"), operational=operational)
        return self._found("GET", path, found)

    def send(
        self, method: str, path: str, body: Mapping[str, object] | None, query: tuple[tuple[str, str], ...] = ()
    ) -> object:
        """A change."""
        self.nvos.asked.append((self.unit, method, f"{path}?{urlencode(query)}"))
        told = dict(body or {})
        if path == "/revision":
            return self.nvos.make_revision(self.unit)
        if path.startswith("/revision/"):
            return self._found(method, path, self.nvos.apply(path.rpartition("/")[2]))
        if method == "PATCH":
            return self._found(method, path, told if self.nvos.patch(dict(query).get("rev", ""), told) else None)
        name, asked = next(iter(told.items()), ("", None))
        parameters = asked.get("parameters", {}) if isinstance(asked, dict) else {}
        return self._found(method, path, self.nvos.act(self.unit, path.strip("/"), name, parameters))

    def _found(self, method: str, path: str, found: object | None) -> object:
        if found is None:
            raise UndecidedError(f"NVUE of {self.unit}: {method} {path}: no such resource", "is it an NVLink switch?")
        return found


def client(nvos: VirtualNvos, unit: Unit) -> RestNvue:
    """NVUE of a switch tray of the rack of files."""
    return RestNvue(LocalRequests(nvos, unit.name))


def nvos_of(rack: Rack) -> VirtualNvos | None:
    """The rack's switch trays, the cluster off as they are delivered; None where it has none."""
    return VirtualNvos(rack, NvosLag(0.0, 0.0, 0.0)) if trays(rack) else None

"""What trays and NVLink switch trays showed of the NVLink fabric, as values. Everything here is untrusted text parsed.

None always means "not read" or "not said", never 0 and never healthy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

ZERO_UUID = "00000000-0000-0000-0000-000000000000"
CONTROLLER, TELEMETRY = "nmx-controller", "nmx-telemetry"
CLUSTER_APPS = (CONTROLLER, TELEMETRY)


@dataclass(frozen=True, slots=True)
class FabricBlock:
    """The `fabric` block of one GPU, in the words of `nvidia-smi -q -x` (N/A and absent: None).

    configuration   health/incorrect_configuration: `None` (the word) where there is nothing wrong
    """

    state: str | None = None
    status: str | None = None
    clique: str | None = None
    cluster: str | None = None
    summary: str | None = None
    bandwidth: str | None = None
    route_recovery: str | None = None
    route_unhealthy: str | None = None
    access_timeout: str | None = None
    configuration: str | None = None

    @property
    def domain(self) -> str | None:
        """`UUID.clique`, the NVLink domain and partition the GPU is in; None where either was not said."""
        return f"{self.cluster}.{self.clique}" if self.cluster and self.clique else None


@dataclass(frozen=True, slots=True)
class GpuSeen:
    """One GPU of a tray that answers. `rates`: GB/s one way by link, None for an inactive link; None: not read."""

    index: int
    fabric: FabricBlock
    rates: tuple[tuple[int, float | None], ...] | None = None
    all_inactive: bool = False


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A systemd unit as `systemctl show` has it."""

    load: str = ""
    active: str = ""
    file: str = ""

    @property
    def running(self) -> bool:
        """Whether it works, or is on its way to or from it."""
        return self.active in ("active", "activating", "reloading", "deactivating")

    @property
    def blocked(self) -> bool:
        """Whether nothing can start it: it is not installed, or masked."""
        return self.load in ("not-found", "masked") or self.file in ("masked", "masked-runtime")


@dataclass(frozen=True, slots=True)
class ImexPeer:
    """A node of the IMEX domain as one tray sees it. `connections`: (host, status), as that peer reports its own."""

    host: str
    status: str
    version: str
    connections: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ImexSeen:
    """`nvidia-imex-ctl -N -j` on one tray. status: UP, DEGRADED, DOWN."""

    status: str
    peers: tuple[ImexPeer, ...]


@dataclass(frozen=True, slots=True)
class TraySeen:
    """One node.

    gpus        every GPU that answers; None: nvidia-smi was not read
    services    by unit name; None: not read
    manager     version of the fabric manager that is installed
    nodes       entries of nodes_config.cfg in their order, nodes_sha256 of its bytes
    modules     names of the loaded kernel modules; packages: names of what is installed
    manager_log patterns found in the fabric manager's log: (code, the line)
    problems    why something above is None
    """

    node: str
    driver: str | None = None
    gpus: tuple[GpuSeen, ...] | None = None
    services: tuple[tuple[str, ServiceSeen], ...] | None = None
    manager: str | None = None
    imex: ImexSeen | None = None
    nodes: tuple[str, ...] | None = None
    nodes_sha256: str | None = None
    modules: frozenset[str] | None = None
    packages: frozenset[str] | None = None
    manager_log: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    def service(self, name: str) -> ServiceSeen | None:
        """The unit of that name; None where it was not read."""
        return dict(self.services or ()).get(name)


class ClusterState(StrEnum):
    """Whether a switch tray runs the cluster's applications."""

    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class ClusterSeen:
    """`nv show cluster`. connection: `up`, `down`, `n/a`, of NMX-C; None where it was not shown."""

    state: ClusterState
    connection: str | None


@dataclass(frozen=True, slots=True)
class AppSeen:
    """A cluster application. status: `ok`, `not ok`, `stopped`; versions as printed: `sm:..., gfm:...`."""

    name: str
    status: str
    reason: str = ""
    info: str = ""
    versions: str = ""


@dataclass(frozen=True, slots=True)
class PartitionSeen:
    """A partition of the NVLink domain. health: healthy, degraded, unhealthy; resiliency: full_bandwidth, ..."""

    number: str
    name: str
    gpus: int
    health: str
    resiliency: str = ""
    kind: str = ""
    multicast_limit: int | None = None


@dataclass(frozen=True, slots=True)
class PortSeen:
    """A port of a switch tray and the codes of its link diagnostics, with the switch's words. Code 0: nothing wrong."""

    name: str
    codes: tuple[tuple[int, str], ...]

    @property
    def trouble(self) -> tuple[tuple[int, str], ...]:
        """The codes that say that something is wrong."""
        return tuple(c for c in self.codes if c[0] != 0)


@dataclass(frozen=True, slots=True)
class LocationSeen:
    """Where a tray believes it is."""

    chassis_serial: str = ""
    slot: str = ""
    tray_index: str = ""
    topology: str = ""


@dataclass(frozen=True, slots=True)
class SwitchSeen:
    """One NVLink switch tray. A field is None where it could not be read; `problems` say why.

    issues     (component, what is wrong) of `system health`; healthy is its summary
    firmware   (component, version)
    """

    unit: str
    healthy: bool | None = None
    issues: tuple[tuple[str, str], ...] = ()
    cluster: ClusterSeen | None = None
    apps: tuple[AppSeen, ...] | None = None
    partitions: tuple[PartitionSeen, ...] | None = None
    ports: tuple[PortSeen, ...] | None = None
    firmware: tuple[tuple[str, str], ...] | None = None
    location: LocationSeen | None = None
    problems: tuple[str, ...] = ()

    @property
    def controls(self) -> bool:
        """Whether the cluster is enabled here, by its own word."""
        return self.cluster is not None and self.cluster.state is ClusterState.ENABLED


@dataclass(frozen=True, slots=True)
class NvlinkSeen:
    """One look at a rack. `switches` None: the switch side was not looked at."""

    trays: tuple[TraySeen, ...]
    switches: tuple[SwitchSeen, ...] | None = None

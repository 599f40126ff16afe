"""The rack as designed: value objects only. `loading` makes them from YAML; everything else reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from toolkit.rack.gate import Gate


class Mode(StrEnum):
    """Platform mode: who manages NVLink. Stated in the profile, never guessed from a product name."""

    NVSWITCH_GEN3 = "nvswitch_gen3"
    NVLINK5_SINGLE = "nvlink5_single"
    MNNVL_HOST_IMEX = "mnnvl_host_imex"
    MNNVL_DRA = "mnnvl_dra"
    PCIE = "pcie"


class UnitKind(StrEnum):
    """What stands in a slot."""

    NODE = "node"
    NVLINK_SWITCH = "nvlink_switch"
    POWER_SHELF = "power_shelf"
    LEAF = "leaf"
    SPINE = "spine"


class LinkKind(StrEnum):
    """What a cable or trace carries."""

    INFINIBAND = "infiniband"
    NVLINK = "nvlink"
    ETHERNET = "ethernet"


@dataclass(frozen=True, slots=True)
class Bmc:
    """Where the unit's BMC answers. `credentials` names an entry of the site's secret file, never a secret."""

    address: str
    credentials: str
    port: int = 443


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk an image may be written to, named by its serial."""

    device: str
    serial: str


@dataclass(frozen=True, slots=True)
class Host:
    """The operating system's side of a node: in-band address, boot NIC and system disk."""

    address: str
    mac: str
    disk: Disk
    ssh_port: int = 22


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by position. `serial` is None where the designer does not know it yet."""

    index: int
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class Hca:
    """A host channel adapter port on a rail."""

    name: str
    guid: str
    rail: int


@dataclass(frozen=True, slots=True)
class Unit:
    """One thing in the rack that has a serial and can be pulled."""

    name: str
    kind: UnitKind
    serial: str
    slot: int
    bmc: Bmc | None = None
    host: Host | None = None
    gpus: tuple[Gpu, ...] = ()
    hcas: tuple[Hca, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One end of a link: `node3:mlx5_0`, `leaf1:7`."""

    unit: str
    port: str

    def __str__(self) -> str:
        return f"{self.unit}:{self.port}"


@dataclass(frozen=True, slots=True)
class Link:
    """Two ends and the cable, cartridge or trace between them. Rate is one way."""

    a: Port
    b: Port
    kind: LinkKind
    rate_gb_per_s: float
    part: str


class Suite(StrEnum):
    """How much burn-in, by the names the node's program knows them under."""

    REHEARSAL = "rehearsal"  # every workload once, on virtual racks only: it proves the way, not the hardware
    QUICK = "quick"  # a minute
    STANDARD = "standard"  # ten minutes
    LONG = "long"  # two hours


@dataclass(frozen=True, slots=True)
class Profile:
    """What a SKU should be.

    expected   facts a healthy node shows, by metric name (`driver_version: 580.95.05`)
    versions   the version lock of the rack, by package name
    image      operating system image: file name in the provisioning root and its sha256
    units      how many of each kind make a whole rack
    left_out   codes of inherited gates that are not asked, each with the reason
    power_ramp_kw_per_s   how fast the load of a rack's GPUs may grow when a burn-in begins; 0: as fast as it will
    node_power_watts      what a whole node takes at most, its GPUs included; 0: not stated
    rail_test  whether the burn-in measures the rails between its nodes, and finds the part that is slow
    """

    name: str
    sku: str
    mode: Mode
    gpus_per_node: int
    nvlinks_per_gpu: int
    nvlink_gb_per_s: float
    hcas_per_node: int
    units: tuple[tuple[UnitKind, int], ...]
    image: str
    expected: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    gates: tuple[Gate, ...]
    certificate_lifetime: timedelta
    virtual: bool = False
    # Policy, not physics: evidence older than a day says nothing of a rack that was touched since.
    evidence_max_age: timedelta = timedelta(days=1)
    suite: Suite = Suite.QUICK  # the burn-in a node takes before it may be certified
    left_out: tuple[tuple[str, str], ...] = ()
    power_ramp_kw_per_s: float = 0.0
    node_power_watts: float = 0.0
    rail_test: bool = False


@dataclass(frozen=True, slots=True)
class Rack:
    """A rack as designed. `digest` is the sha256 of its canonical form: the topology a certificate binds.

    `partial` says that the designer declared fewer units than the profile's whole rack.
    """

    name: str
    site: str
    profile: Profile
    units: tuple[Unit, ...]
    links: tuple[Link, ...]
    digest: str
    provision_url: str = ""  # of the provisioning server, as the nodes reach it; needed to image them
    partial: bool = False

    @property
    def nodes(self) -> tuple[Unit, ...]:
        """Units that run an operating system, in slot order."""
        return tuple(u for u in self.units if u.kind is UnitKind.NODE)

    def unit(self, name: str) -> Unit:
        """The unit of that name; KeyError if the rack has none."""
        for unit in self.units:
            if unit.name == name:
                return unit
        raise KeyError(name)

"""The rack as designed: value objects only. `loading` makes them from YAML; everything else reads them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from toolkit.rack.bmc_policy import NOTHING_ASKED, BmcPolicy
from toolkit.rack.gate import Gate
from toolkit.rack.imaging import BY_DEFAULT, ImagingPolicy
from toolkit.rack.unit_kind import UnitKind as UnitKind  # noqa: PLC0414 - everybody takes it from here


class Mode(StrEnum):
    """Platform mode: who manages NVLink. Stated in the profile, never guessed from a product name."""

    NVSWITCH_GEN3 = "nvswitch_gen3"
    NVLINK5_SINGLE = "nvlink5_single"
    MNNVL_HOST_IMEX = "mnnvl_host_imex"
    MNNVL_DRA = "mnnvl_dra"
    PCIE = "pcie"


# NVLink across the trays of a rack, managed on one of its switch trays.
MNNVL = frozenset({Mode.MNNVL_HOST_IMEX, Mode.MNNVL_DRA})


class LinkKind(StrEnum):
    """What a cable or trace carries."""

    INFINIBAND = "infiniband"
    NVLINK = "nvlink"
    ETHERNET = "ethernet"


@dataclass(frozen=True, slots=True)
class Bmc:
    """Where the unit's BMC answers. `credentials` names an entry of the site's secret file, never a secret.

    certificate_sha256  of the BMC's own certificate (DER, lower-case hexadecimal): it is believed by that, not by the
                        site's CA. Empty: by the CA.
    """

    address: str
    credentials: str
    port: int = 443
    certificate_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Nvos:
    """Where a switch tray's operating system answers NVUE; its BMC is another machine. `credentials` as of a BMC."""

    address: str
    credentials: str
    port: int = 443


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that may be written to. It is known by its serial or its WWN, and must have the size, where one is given.

    device  the name a kernel once gave it, for readers: no identity
    wwn     its World Wide Name: EUI-64, NGUID or NAA
    """

    device: str = ""
    serial: str = ""
    wwn: str = ""
    size_bytes: int = 0

    def __str__(self) -> str:
        return " ".join(part for part in (self.device, f"({self.serial or self.wwn})") if part)


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """The in-band interface's configuration where no DHCP server gives it: gateway and name servers may be missing."""

    prefix_length: int
    gateway: str = ""
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """The operating system's side of a node: in-band address, boot NIC and system disk.

    A rented node, which nobody images, may lack the latter two: "" and None.
    """

    address: str
    mac: str = ""
    disk: Disk | None = None
    ssh_port: int = 22
    mirror_disk: Disk | None = None  # second half of a mirrored system disk
    data_disks: tuple[Disk, ...] = ()
    network: HostNetwork | None = None  # None: by DHCP


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
    """One thing in the rack that has a serial and can be pulled.

    `guid` is an InfiniBand switch's own; empty where the designer does not know it: it then goes by its name.
    `nvos` is an NVLink switch tray's; None where the designer gives no access to it.
    """

    name: str
    kind: UnitKind
    serial: str
    slot: int
    bmc: Bmc | None = None
    host: Host | None = None
    gpus: tuple[Gpu, ...] = ()
    hcas: tuple[Hca, ...] = ()
    guid: str = ""
    nvos: Nvos | None = None


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


class WideLevel(StrEnum):
    """Tests among many nodes that a burn-in ends with. Rack to rack is none of them: it takes two racks."""

    DOMAIN = "domain"  # all GPUs of an NVLink domain of several nodes
    LEAF = "leaf"  # one GPU and one HCA of every node on a leaf
    UNIT = "unit"  # every GPU and every HCA of the scalable unit


@dataclass(frozen=True, slots=True)
class Profile:
    """What a SKU should be.

    expected   facts a healthy node shows, by metric name (`driver_version: 580.95.05`)
    versions   the version lock of the rack, by package name
    firmware   the rest of that lock: adapter firmware by device type as ibstat prints it, lower case (`mt4129`)
    image      operating system image: file name in the provisioning root and its sha256
    units      how many of each kind make a whole rack
    left_out   codes of inherited gates that are not asked, each with the reason
    power_ramp_kw_per_s   how fast the load of a rack's GPUs may grow when a burn-in begins; 0: as fast as it will
    node_power_watts      what a whole node takes at most, its GPUs included; 0: not stated
    rail_test  whether the burn-in measures the rails between its nodes, and finds the part that is slow
    levels     what it measures among many nodes after that; a level that the rack cannot have is left out by itself
    fabric_wait   how long an NVLink fabric may be In Progress before that is a failure
    imaging    how disks are erased and laid out, and how patient imaging is
    certificate_lifetime_source   why a certificate holds that long; empty: nobody wrote it down
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
    firmware: tuple[tuple[str, str], ...] = ()
    levels: tuple[WideLevel, ...] = ()
    # Policy, no vendor figure: a whole NVL72 domain comes up in minutes; one that is not up after ten does not come.
    fabric_wait: timedelta = timedelta(minutes=10)
    certificate_lifetime_source: str = ""
    imaging: ImagingPolicy = BY_DEFAULT
    bmc: BmcPolicy = NOTHING_ASKED


@dataclass(frozen=True, slots=True)
class Partition:
    """Nodes that share one NVLink partition (`UUID.clique`)."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Slurm:
    """Slurm starts the ranks of collectives over many nodes, not mpirun over SSH. It knows nodes by the rack's names.

    allocation  name of a running job that holds the nodes: collectives are steps of it, several at once; empty: each
                collective takes its nodes for itself
    gres        the generic resource that GPUs are given out as (`gpu`); empty: Slurm does not give them out
    partition, account, reservation  as salloc takes them; empty: the site's default
    programs    folder of srun on the nodes; `config`: path of slurm.conf there, empty: where Slurm looks by itself
    """

    allocation: str = ""
    gres: str = ""
    partition: str = ""
    account: str = ""
    reservation: str = ""
    programs: str = "/usr/bin"
    config: str = ""


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
    partitions: tuple[Partition, ...] = ()  # of the NVLink domain; none written: one of all nodes
    slurm: Slurm | None = None  # starts collectives over many nodes; None: mpirun over SSH does

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

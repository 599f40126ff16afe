"""What a rack file and a profile file may say: their fields. Rules between fields are in `checks`.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from toolkit.rack.bmc_schema import BmcPolicyFile
from toolkit.rack.document import shown
from toolkit.rack.fields import (
    Address,
    Code,
    Day,
    Device,
    DeviceType,
    Duration,
    File,
    Flag,
    Folder,
    Guid,
    HcaName,
    Line,
    Mac,
    Name,
    Package,
    Port,
    Rate,
    Serial,
    Sha256,
    SlurmName,
    UnitName,
    Version,
    Word,
    Written,
    nearest,
    number_from,
    one_of,
    refuse,
    text_like,
)
from toolkit.rack.gate import Operator, Scope, WithoutPeers
from toolkit.rack.imaging import EraseMethod, OnFailure
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.model import LinkKind, Mode, Suite, UnitKind, WideLevel

PARTS = (
    "gpu", "tray", "switch_tray", "cable", "cartridge", "optic", "hca", "leaf_port", "slot", "cooling",
    "software", "symptom", "evidence",
)  # fmt: skip


def _limit(value: object) -> object:
    """None, one text or a list of texts; `checks` types it by the metric's unit."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        refuse("is neither a value nor a list of values", "null where nobody has sourced one")
    return tuple(value)


def _metric(value: str) -> str:
    if value not in METRICS:
        refuse(f"{shown(value)} is not a known metric", nearest(value, tuple(METRICS)))
    return value


def _part(value: str) -> str:
    if value not in PARTS:
        refuse(f"{shown(value)} is not a known part", nearest(value, PARTS))
    return value


WrittenLimit = Annotated[Any, BeforeValidator(_limit)]
MetricName = Annotated[str, text_like(r"[a-z][a-z0-9_]*", "a metric's name"), AfterValidator(_metric)]


Wwn = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9.:-]{7,127}", "a WWN: 0x5002538e00000001, eui.0025384111b0ab12")]
# The schema's numbers end at twelve digits, and disks do not.
DiskBytes = Annotated[
    int, AfterValidator(int), text_like(r"[1-9]\d{5,15}", "the disk's size in bytes, as `lsblk -b` prints it")
]
Console = Annotated[str, text_like(r"tty[A-Za-z0-9]{1,16}(,[0-9]{3,7}[noe]?[78]?)?", "a console: ttyS0,115200n8")]


class BmcFile(Written):
    """A unit's BMC. `certificate_sha256`: of one that signs its own, as `openssl x509 -fingerprint -sha256` says."""

    address: Address
    credentials: Name
    port: Port = 443
    certificate_sha256: Sha256 | None = None


class NvosFile(Written):
    """Where a switch tray's operating system answers NVUE."""

    address: Address
    credentials: Name
    port: Port = 443


class DiskFile(Written):
    """A disk that may be written to. `device` is a hint for readers."""

    device: Device | None = None
    serial: Serial | None = None
    wwn: Wwn | None = None
    size_bytes: DiskBytes | None = None


class HostNetworkFile(Written):
    """A static configuration of the in-band interface."""

    prefix_length: Annotated[int, number_from(int, 1, 128)]
    gateway: Address | None = None
    dns: tuple[Address, ...] = ()


class HostFile(Written):
    """A node's operating system side."""

    address: Address
    mac: Mac | None = None
    disk: DiskFile | None = None
    ssh_port: Port = 22
    mirror_disk: DiskFile | None = None
    data_disks: tuple[DiskFile, ...] = ()
    network: HostNetworkFile | None = None


class GpuFile(Written):
    """A GPU whose serial the designer knows."""

    index: Annotated[int, number_from(int, 0, 255)]
    serial: Serial


class HcaFile(Written):
    """An HCA port on a rail."""

    name: HcaName
    guid: Guid
    rail: Annotated[int, number_from(int, 0, 255)]


class UnitFile(Written):
    """One thing with a serial."""

    name: UnitName
    kind: Annotated[UnitKind, one_of(UnitKind)]
    slot: Annotated[int, number_from(int, 1, 10_000)]
    serial: Serial
    bmc: BmcFile | None = None
    host: HostFile | None = None
    gpus: tuple[GpuFile, ...] | None = None
    hcas: tuple[HcaFile, ...] = ()
    guid: Guid | None = None
    nvos: NvosFile | None = None


class LinkFile(Written):
    """One cable, or as many as its folded ends unfold to."""

    a: Line
    b: Line
    kind: Annotated[LinkKind, one_of(LinkKind)]
    rate_gb_per_s: Rate
    part: Annotated[str, text_like(r"[a-z][a-z0-9_]{0,62}", nearest("", PARTS)), AfterValidator(_part)] = "cable"


class PartitionFile(Written):
    """Nodes that share one NVLink partition, folded: `tray[01-09]`."""

    name: Name
    nodes: Line


class SlurmFile(Written):
    """Collectives over many nodes are started by Slurm; `slurm: {}` takes every default."""

    allocation: SlurmName | None = None
    gres: SlurmName | None = None
    partition: SlurmName | None = None
    account: SlurmName | None = None
    reservation: SlurmName | None = None
    programs: Folder | None = None
    config: Folder | None = None


class RackFile(Written):
    """inventory/racks/<rack>.yml."""

    rack: Name
    site: Name
    profile: Name
    mode: Annotated[Mode | None, one_of(Mode)] = None
    partial: Flag = False
    provision: Annotated[str | None, text_like(r"http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?", "an http:// URL")] = (
        None
    )
    units: Annotated[tuple[UnitFile, ...], Field(min_length=1)]
    links: tuple[LinkFile, ...] = ()
    partitions: tuple[PartitionFile, ...] = ()
    slurm: SlurmFile | None = None


class GateFile(Written):
    """One rule. All fields are required but `limit: null` is allowed: nobody has sourced one yet."""

    code: Code
    metric: MetricName
    unit: Annotated[MetricUnit, one_of(MetricUnit)]
    scope: Annotated[Scope, one_of(Scope)]
    operator: Annotated[Operator, one_of(Operator)]
    limit: WrittenLimit
    stage: Annotated[Stage, one_of(Stage)]
    required: Flag
    part: Annotated[str, text_like(r"[a-z][a-z0-9_]{0,62}", nearest("", PARTS)), AfterValidator(_part)]
    why: Line
    source: Line
    date: Day
    without_peers: Annotated[WithoutPeers, one_of(WithoutPeers)] = WithoutPeers.INCONCLUSIVE


class LeftOutFile(Written):
    """An inherited gate that this profile does not ask, and why."""

    code: Code
    why: Line


class EraseFile(Written):
    """How disks are erased before they are written."""

    methods: Annotated[tuple[Annotated[EraseMethod, one_of(EraseMethod)], ...], Field(min_length=1)]
    data_disks: Flag = False
    source: Line


class StorageFile(Written):
    """What the disks become."""

    mirrored: Flag = False
    grow_root: Flag = False
    data_mount: Folder | None = None
    source: Line


class ImagingFile(Written):
    """How patient imaging is, and what a node does that failed."""

    on_failure: Annotated[OnFailure, one_of(OnFailure)] = OnFailure.POWER_OFF
    silence: Duration = timedelta(minutes=15)
    console: Console | None = None


class ProfileFile(Written):
    """inventory/profiles/<profile>.yml."""

    profile: Name
    sku: Line
    mode: Annotated[Mode, one_of(Mode)]
    virtual: Flag = False
    units: Annotated[
        dict[Annotated[UnitKind, one_of(UnitKind)], Annotated[int, number_from(int, 1, 1024)]], Field(min_length=1)
    ]
    gpus_per_node: Annotated[int, number_from(int, 0, 64)]
    nvlinks_per_gpu: Annotated[int, number_from(int, 0, 64)]
    nvlink_gb_per_s: Annotated[float, number_from(float, 0, 10_000)]
    hcas_per_node: Annotated[int, number_from(int, 0, 64)]
    image: File
    suite: Annotated[Suite, one_of(Suite)] = Suite.QUICK
    power_ramp_kw_per_s: Annotated[float, number_from(float, 0, 10_000)] = 0.0
    node_power_watts: Annotated[float, number_from(float, 0, 1_000_000)] = 0.0
    rail_test: Flag = False
    levels: tuple[Annotated[WideLevel, one_of(WideLevel)], ...] = ()
    fabric_wait: Duration = timedelta(minutes=10)
    certificate_lifetime: Duration
    certificate_lifetime_source: Line = ""
    evidence_max_age: Duration = timedelta(days=1)
    expected: dict[Word, Line]
    versions: dict[Package, Version]
    firmware: dict[DeviceType, Version] = Field(default_factory=dict)
    erase: EraseFile | None = None
    storage: StorageFile | None = None
    imaging: ImagingFile | None = None
    bmc: BmcPolicyFile | None = None
    gates_from: Name | None = None
    gates_left_out: tuple[LeftOutFile, ...] = ()
    gates: tuple[GateFile, ...] = ()

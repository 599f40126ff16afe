"""Documents of `--json` about keys, gates, files, machines and BMCs, as verbs put them together: see document_types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from toolkit.judge.ceilings import Ceiling
from toolkit.netboot.probe import DhcpServer
from toolkit.rack.firmware_plan import FirmwareRow
from toolkit.rack.gate import Gate
from toolkit.rack.model import Rack
from toolkit.rack.power_sequence import PowerPlan
from toolkit.redfish.event_log import Harvest
from toolkit.redfish.rotation import Rotated
from toolkit.stages.bmc_care import BiosReport, SensorReport, UnitLook
from toolkit.stages.rack_firmware import FirmwareDone
from toolkit.stages.rack_power import PowerDone
from toolkit.virtual.faults import Fault


@dataclass(frozen=True)
class KeyRow:
    """A key that certificates are believed by. `until`: what it signed later is not; empty: it is in use."""

    keyid: str
    name: str
    until: str
    stamped: bool
    signs: bool


@dataclass(frozen=True)
class KeysDocument:
    """`keys list`."""

    keys: tuple[KeyRow, ...]
    signer: str


@dataclass(frozen=True)
class KeyRotationDocument:
    """`keys rotate`: ids, and the new public key's file."""

    old: str
    new: str
    public: str


@dataclass(frozen=True)
class RevocationListDocument:
    """`keys revocations`."""

    file: str
    revocations: int
    days: int


@dataclass(frozen=True)
class LintFinding:
    """What is wrong with a gate."""

    code: str
    warning: bool
    place: str
    gate: str
    sku: str
    test: str
    scope: str
    why: str
    formula: str
    right: str


@dataclass(frozen=True)
class UncheckedClaim:
    """A gate of which only the source was checked, and why."""

    place: str
    gate: str
    test: str
    why: str


@dataclass(frozen=True)
class GatesLintDocument:
    """`gates lint`."""

    claims: int
    defects: int
    findings: tuple[LintFinding, ...]
    unchecked: tuple[UncheckedClaim, ...]


@dataclass(frozen=True)
class GateRow:
    """A gate, where it is written, and its share of its ceiling."""

    gate: Gate
    place: str
    ceiling: Ceiling | None
    share: float | None


@dataclass(frozen=True)
class GatesDocument:
    """`gates show`."""

    profile: str
    gates: tuple[GateRow, ...]


@dataclass(frozen=True)
class Sample:
    """A sample of a metric, as Prometheus names it."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class MetricsDocument:
    """`metrics`."""

    at: datetime
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class ExportDocument:
    """`export -o FILE`: what was written. `cases`: how many ended each way."""

    rack: str
    format: str
    file: Path
    answer: str
    cases: Mapping[str, int]


@dataclass(frozen=True)
class InventoryDocument:
    """`inventory`: racks as designed, those that could be read."""

    racks: tuple[Rack, ...]


@dataclass(frozen=True)
class IntakeDocument:
    """`intake`."""

    rack: str
    file: str
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class VirtualDownDocument:
    """`virtual down`: racks that were switched off."""

    down: tuple[str, ...]


@dataclass(frozen=True)
class VirtualFaultDocument:
    """`virtual fault`. `set` false: it was cleared."""

    fault: Fault
    set: bool


@dataclass(frozen=True)
class ImageOfferDocument:
    """`image publish`: what is offered from now on. `location`: in the provision root."""

    name: str
    digest: str
    location: str


@dataclass(frozen=True)
class NetbootPlanDocument:
    """`netboot plan`: racks whose file changed, or was taken away, and how many nodes may boot."""

    changed: tuple[str, ...]
    forgotten: tuple[str, ...]
    nodes: int


@dataclass(frozen=True)
class NetbootServiceDocument:
    """`netboot serve`, once it listens. `socket`: where the web server finds it; `root`: what it decides over."""

    root: str
    socket: str


@dataclass(frozen=True)
class NetbootForgottenDocument:
    """`netboot forget`: nodes of the rack boot from the network no longer."""

    forgotten: str


@dataclass(frozen=True)
class NetbootConfigurationDocument:
    """`netboot render`: a configuration for `program`, word for word."""

    program: str
    text: str


@dataclass(frozen=True)
class NetbootProbeDocument:
    """`netboot probe`. `code` empty: nobody answers who should not."""

    code: str
    rogues: tuple[DhcpServer, ...]
    servers: tuple[DhcpServer, ...]


@dataclass(frozen=True)
class PowerDocument:
    """`power on` and `power off`. `done` is null where only the plan was asked for."""

    plan: PowerPlan
    done: PowerDone | None
    exit_code: int


@dataclass(frozen=True)
class UnitPower:
    """A unit's power, as its BMC says it; empty where it did not answer, and `problem` says why."""

    unit: str
    kind: str
    power: str
    problem: str


@dataclass(frozen=True)
class PowerStatusDocument:
    """`power status`."""

    rack: str
    units: tuple[UnitPower, ...]


@dataclass(frozen=True)
class FirmwarePlanDocument:
    """`firmware plan`, in the order of update."""

    rack: str
    rows: tuple[FirmwareRow, ...]
    exit_code: int


@dataclass(frozen=True)
class FirmwareUpdateDocument:
    """`firmware update`."""

    done: FirmwareDone
    exit_code: int


@dataclass(frozen=True)
class BmcCheckDocument:
    """`bmc check`."""

    rack: str
    units: tuple[UnitLook, ...]
    exit_code: int


@dataclass(frozen=True)
class BmcLogDocument:
    """`bmc log`. `artifact`: sha256 of what was kept; `severities`: how many of each."""

    unit: str
    artifact: str
    log: Harvest
    severities: Mapping[str, int]


@dataclass(frozen=True)
class BmcSensorsDocument:
    """`bmc sensors`."""

    report: SensorReport
    exit_code: int


@dataclass(frozen=True)
class BmcBiosDocument:
    """`bmc bios`."""

    report: BiosReport
    exit_code: int


@dataclass(frozen=True)
class BmcRotationDocument:
    """`bmc rotate-password`."""

    unit: str
    end: Rotated


@dataclass(frozen=True)
class BmcBootDocument:
    """`bmc boot`."""

    unit: str
    image: str
    said: str


@dataclass(frozen=True)
class ServeAddressDocument:
    """`serve`, one line once it listens. `token_file`: where the token is; null: none is asked for."""

    address: str
    token_file: str | None


@dataclass(frozen=True)
class ListedDocument:
    """A document: `identity` is what stands in its field `schema`, `verbs` are those that print it."""

    name: str
    identity: str
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class SchemasDocument:
    """`schema`: every document there is."""

    documents: tuple[ListedDocument, ...]

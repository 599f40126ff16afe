"""Racks and profiles from `inventory/`: every problem at once, each with file, line, field and what would be right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from toolkit.errors import UsageError
from toolkit.rack.document import Document, Problems, peek, read, read_bytes, shown
from toolkit.rack.gate import Gate, Operator
from toolkit.rack.imaging import ErasePolicy, ImagingPolicy, StoragePolicy
from toolkit.rack.metric import COLLECTIVES, collective_metric
from toolkit.rack.model import Bmc, Disk, Gpu, Hca, Host, HostNetwork, Nvos, Profile, Rack, Slurm, Unit, UnitKind

if TYPE_CHECKING:
    from toolkit.rack.schema import DiskFile, GateFile, HostFile, ProfileFile, RackFile, SlurmFile, UnitFile

_File = TypeVar("_File", "RackFile", "ProfileFile")
_SUFFIX = ".yml"


def list_racks(inventory: Path) -> tuple[str, ...]:
    """Names of the racks in the inventory, sorted. Their files are not read."""
    return _names(inventory / "racks")


def list_profiles(inventory: Path) -> tuple[str, ...]:
    """Names of the profiles in the inventory, sorted. Their files are not read."""
    return _names(inventory / "profiles")


def profile_named(rack: str, inventory: Path) -> str | None:
    """The profile that the rack's file names, without reading all of it; None where it names none.

    Raises UsageError where there is no such rack.
    """
    return peek(read_bytes(_file(rack, inventory)), "profile")


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in folder.glob(f"*{_SUFFIX}") if not file.name.startswith(".")))


def load_rack(name_or_path: str, inventory: Path, profiles: dict[str, Profile] | None = None) -> Rack:
    """The rack of that name in the inventory, or of that file; its profile is always the inventory's.

    profiles  those read before, by name, for who reads many racks: a profile is taken from there, and put there
    Raises InputError with everything that is wrong in the file, UsageError where there is no such rack.
    """
    from toolkit.rack.cabling import unfold
    from toolkit.rack.checks import check_counts, check_units
    from toolkit.rack.partitions import unfold_partitions

    file = _file(name_or_path, inventory)
    document = read(file)
    problems = Problems(document)
    written = _read_rack(document, inventory, problems)
    if file.parent == inventory / "racks" and written.rack != file.stem:
        problems.add(("rack",), f"{written.rack} in the file {file.name}", f"rack: {file.stem}, or rename the file")
    known = {} if profiles is None else profiles
    profile = known.get(written.profile) or known.setdefault(written.profile, load_profile(written.profile, inventory))
    check_counts(written, profile, problems)
    if len(written.units) > sum(count for _, count in profile.units):
        problems.raise_any()  # far too many: what else is wrong with them would only hide it
    check_units(written, profile, problems)
    units = tuple(_unit(unit, profile) for unit in written.units)
    links = unfold(written.links, units, profile, problems)
    partitions = unfold_partitions(written.partitions, units, profile, problems)
    problems.raise_any()
    rack = Rack(
        name=written.rack,
        site=written.site,
        profile=profile,
        units=tuple(sorted(units, key=lambda unit: unit.slot)),
        links=tuple(sorted(links, key=lambda link: (link.kind, link.a, link.b))),
        digest="",
        partial=written.partial,
        partitions=partitions,
        provision_url=(written.provision or "").rstrip("/"),
        slurm=_slurm(written.slurm) if written.slurm else None,
    )
    return replace(rack, digest=topology_digest(rack))


def _read_rack(document: Document, inventory: Path, problems: Problems) -> RackFile:
    """The file in its schema, its profile known to exist. Raises InputError."""
    from toolkit.rack.checks import check_duplicates
    from toolkit.rack.fields import nearest
    from toolkit.rack.schema import RackFile

    written = _typed(RackFile, document, problems)
    raw = document.data.get("profile") if isinstance(document.data, dict) else None
    profiles = list_profiles(inventory)
    if isinstance(raw, str) and raw not in profiles:
        problems.add(("profile",), f"there is no profile {shown(raw)}", nearest(raw[:60], profiles) if profiles else "")
    if written is None:
        check_duplicates(_sound_units(document.data), problems)
    if written is None or problems.count:
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    return written


def _sound_units(data: object) -> Iterator[tuple[int, UnitFile]]:
    """Units that fit the schema in a file that does not, so that a duplicate is told beside a misspelt word."""
    from toolkit.rack.fields import validate
    from toolkit.rack.schema import UnitFile

    units = data.get("units") if isinstance(data, dict) else None
    for number, raw in enumerate(units if isinstance(units, list) else ()):
        unit = validate(UnitFile, raw)
        if not isinstance(unit, list):
            yield number, unit


def load_profile(name: str, inventory: Path) -> Profile:
    """The profile of that name. Raises InputError with everything that is wrong in it, UsageError if there is none."""
    from toolkit.rack.bmc_schema import policy_of

    written, document = _read_profile(name, inventory)
    problems = Problems(document)
    gates = {(g.code, g.metric): _gate(g) for g in written.gates}
    if written.gates_from is not None:
        gates = _inherited(written, inventory, problems) | gates
    elif written.gates_left_out:
        problems.add(("gates_left_out",), "nothing is inherited", "leave a gate of this file out by not writing it")
    _check_gates(gates.values(), written, problems)
    _check_suite(gates.values(), written, problems)
    problems.raise_any()
    return Profile(
        name=written.profile,
        sku=written.sku,
        mode=written.mode,
        gpus_per_node=written.gpus_per_node,
        nvlinks_per_gpu=written.nvlinks_per_gpu,
        nvlink_gb_per_s=written.nvlink_gb_per_s,
        hcas_per_node=written.hcas_per_node,
        units=tuple(sorted(written.units.items())),
        image=written.image,
        expected=tuple(sorted(written.expected.items())),
        versions=tuple(sorted(written.versions.items())),
        firmware=tuple(sorted(written.firmware.items())),
        gates=tuple(gates.values()),
        certificate_lifetime=written.certificate_lifetime,
        virtual=written.virtual,
        evidence_max_age=written.evidence_max_age,
        suite=written.suite,
        left_out=tuple((left.code, left.why) for left in written.gates_left_out),
        power_ramp_kw_per_s=written.power_ramp_kw_per_s,
        node_power_watts=written.node_power_watts,
        rail_test=written.rail_test,
        levels=tuple(dict.fromkeys(written.levels)),
        fabric_wait=written.fabric_wait,
        certificate_lifetime_source=written.certificate_lifetime_source,
        imaging=_imaging(written),
        bmc=policy_of(written.bmc),
    )


def _read_profile(name: str, inventory: Path) -> tuple[ProfileFile, Document]:
    """The file in its schema, checked by itself. Raises InputError or UsageError."""
    from toolkit.rack.checks import check_profile
    from toolkit.rack.schema import ProfileFile

    profiles = list_profiles(inventory)
    if name not in profiles:
        raise UsageError(f"there is no profile {name}", f"profiles: {', '.join(profiles) or 'none'} in {inventory}")
    document = read(inventory / "profiles" / f"{name}{_SUFFIX}")
    problems = Problems(document)
    written = _typed(ProfileFile, document, problems)
    if written is not None:
        if written.profile != name:
            problems.add(("profile",), f"{written.profile} in the file {name}{_SUFFIX}", f"profile: {name}")
        check_profile(written, problems)
    problems.raise_any()
    if written is None:
        raise AssertionError("a file that does not fit its schema has problems")
    return written, document


def _inherited(written: ProfileFile, inventory: Path, problems: Problems) -> dict[tuple[str, str], Gate]:
    """Gates of the profile named by `gates_from`: one level, so that a reader opens two files at most."""
    base_name = written.gates_from or ""
    others = [name for name in list_profiles(inventory) if name != written.profile]
    if base_name not in others:
        problems.add(("gates_from",), f"there is no other profile {base_name}", f"profiles: {', '.join(others)}")
        return {}
    base, _ = _read_profile(base_name, inventory)
    if base.gates_from is not None:
        right = f"gates_from: {base.gates_from}"
        problems.add(("gates_from",), f"{base_name} takes its own gates from {base.gates_from}", right)
    left_out = {left.code for left in written.gates_left_out}
    for number, left in enumerate(written.gates_left_out):
        if left.code not in {g.code for g in base.gates}:
            problems.add(("gates_left_out", number, "code"), f"{base_name} has no gate {left.code}", "remove it")
    return {(g.code, g.metric): _gate(g) for g in base.gates if g.code not in left_out}


def _check_gates(gates: Iterable[Gate], written: ProfileFile, problems: Problems) -> None:
    """At least one gate is required, and none contradicts what the profile expects."""
    gates = tuple(gates)
    if not any(gate.required for gate in gates):
        problems.add(
            ("gates",), "no gate is required: nothing could ever pass", "required: true on what must hold", True
        )
    for gate in gates:
        expected = written.expected.get(gate.metric)
        if gate.operator is Operator.EQUALS and expected is not None and str(gate.limit) != expected:
            wrong = f"{shown(expected)}, and {gate.code} demands {shown(gate.limit)}"
            problems.add(("expected", gate.metric), wrong, "one of the two is wrong")


def _check_suite(gates: Iterable[Gate], written: ProfileFile, problems: Problems) -> None:
    """A suite that leaves out what a required gate reads never certifies anything: bringup would burn in for ever."""
    from toolkit.rack.burnin_plan import BUDGETS

    planned = {collective.kind for collective in BUDGETS[written.suite].collectives}
    for kind in (c for c in COLLECTIVES if c not in planned):
        prefix = collective_metric(kind, "")
        codes = sorted({g.code for g in gates if g.required and g.metric.startswith(prefix)})
        if codes:
            wrong = f"{written.suite} runs no {kind}, and {', '.join(codes[:3])} are required of it: nothing could pass"
            problems.add(("suite",), wrong, "suite: standard or long; quick is for `rackproof burnin` by hand")
    if written.rail_test and not written.hcas_per_node:
        problems.add(("rail_test",), "its nodes have no HCA", "rail_test: false")


def _typed(model: type[_File], document: Document, problems: Problems) -> _File | None:
    """The document in its schema; None if it does not fit, with the reasons in `problems`."""
    from toolkit.rack.fields import validate

    typed = validate(model, document.data)
    if not isinstance(typed, list):
        return typed
    for loc, wrong, right, of_key in typed:
        problems.add(loc, wrong, right, of_key)
    return None


def _file(name_or_path: str, inventory: Path) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yml", ".yaml")):
        return Path(name_or_path)
    racks = list_racks(inventory)
    if name_or_path not in racks:
        raise UsageError(
            f"there is no rack {shown(name_or_path)} in {inventory / 'racks'}",
            f"racks: {', '.join(racks) or 'none'}; or give the path of a rack file",
        )
    return inventory / "racks" / f"{name_or_path}{_SUFFIX}"


def _unit(written: UnitFile, profile: Profile) -> Unit:
    bmc = None
    if written.bmc:
        told = written.bmc
        bmc = Bmc(told.address, told.credentials, told.port, told.certificate_sha256 or "")
    host = None
    if written.host:
        host = _host(written.host)
    serials = {gpu.index: gpu.serial for gpu in written.gpus or ()}
    count = profile.gpus_per_node if written.kind is UnitKind.NODE else 0
    return Unit(
        name=written.name,
        kind=written.kind,
        serial=written.serial,
        slot=written.slot,
        bmc=bmc,
        host=host,
        gpus=tuple(Gpu(index, serials.get(index)) for index in range(count)),
        hcas=tuple(Hca(hca.name, hca.guid, hca.rail) for hca in written.hcas),
        guid=written.guid or "",
        nvos=Nvos(written.nvos.address, written.nvos.credentials, written.nvos.port) if written.nvos else None,
    )


def _host(written: HostFile) -> Host:
    network = None
    if written.network:
        told = written.network
        network = HostNetwork(told.prefix_length, told.gateway or "", told.dns)
    return Host(
        address=written.address,
        mac=written.mac or "",
        disk=_disk(written.disk) if written.disk else None,
        ssh_port=written.ssh_port,
        mirror_disk=_disk(written.mirror_disk) if written.mirror_disk else None,
        data_disks=tuple(_disk(disk) for disk in written.data_disks),
        network=network,
    )


def _disk(written: DiskFile) -> Disk:
    return Disk(written.device or "", written.serial or "", written.wwn or "", written.size_bytes or 0)


def _imaging(written: ProfileFile) -> ImagingPolicy:
    erase, storage, rest = written.erase, written.storage, written.imaging
    defaults = ImagingPolicy()
    return ImagingPolicy(
        erase=ErasePolicy(erase.methods, erase.data_disks, erase.source) if erase else defaults.erase,
        storage=(
            StoragePolicy(storage.mirrored, storage.grow_root, storage.data_mount or "", storage.source)
            if storage
            else defaults.storage
        ),
        on_failure=rest.on_failure if rest else defaults.on_failure,
        silence=rest.silence if rest else defaults.silence,
        console=(rest.console or "") if rest else defaults.console,
    )


def _slurm(written: SlurmFile) -> Slurm:
    return Slurm(**{name: value for name, value in written.model_dump().items() if value is not None})


def _gate(written: GateFile) -> Gate:
    from toolkit.rack.checks import UnfitLimit, typed_limit

    limit = typed_limit(written, written.unit)
    if isinstance(limit, UnfitLimit):
        raise AssertionError(f"the limit of {written.code} was checked before")
    return Gate(
        code=written.code,
        metric=written.metric,
        unit=written.unit.value,
        scope=written.scope,
        operator=written.operator,
        limit=limit,
        stage=written.stage.value,
        required=written.required,
        part=written.part,
        why=written.why,
        source=written.source,
        date=written.date,
        without_peers=written.without_peers,
    )


def topology_digest(rack: Rack) -> str:
    """sha256 of the rack's canonical form: site, profile's name, units, links, whatever order the file has them in."""
    body = {
        "rack": rack.name,
        "site": rack.site,
        "profile": rack.profile.name,
        "units": [_canonical(unit) for unit in sorted(rack.units, key=lambda unit: unit.name)],
        "links": sorted(
            (sorted((str(link.a), str(link.b))), str(link.kind), link.rate_gb_per_s, link.part) for link in rack.links
        ),
        **({"partitions": [asdict(p) for p in rack.partitions]} if rack.partitions else {}),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _canonical(unit: Unit) -> dict[str, object]:
    """All that is said of the unit. What nobody wrote is left out: certificates older than a field stay in force."""
    body = asdict(unit)
    for field in ("guid", "nvos"):
        if not getattr(unit, field):
            del body[field]
    if unit.bmc is not None:
        del body["bmc"]["certificate_sha256"]  # how a BMC is believed: a renewed certificate is no other rack
    host = body["host"]
    if host is not None:
        _drop_unwritten(host, "mirror_disk", "data_disks", "network")
        for disk in filter(None, (host["disk"], host.get("mirror_disk"), *host.get("data_disks", ()))):
            _drop_unwritten(disk, "wwn", "size_bytes")
    return body


def _drop_unwritten(body: dict[str, object], *fields: str) -> None:
    for field in fields:
        if not body[field]:
            del body[field]

"""Racks and profiles from `inventory/`: every problem at once, each with file, line, field and what would be right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from toolkit.errors import UsageError
from toolkit.rack.document import Document, Problems, read, shown
from toolkit.rack.gate import Gate, Operator
from toolkit.rack.model import Bmc, Disk, Gpu, Hca, Host, Profile, Rack, Unit, UnitKind

if TYPE_CHECKING:
    from toolkit.rack.schema import GateFile, ProfileFile, RackFile, UnitFile

_File = TypeVar("_File", "RackFile", "ProfileFile")
_SUFFIX = ".yml"


def list_racks(inventory: Path) -> tuple[str, ...]:
    """Names of the racks in the inventory, sorted. Their files are not read."""
    return _names(inventory / "racks")


def list_profiles(inventory: Path) -> tuple[str, ...]:
    """Names of the profiles in the inventory, sorted. Their files are not read."""
    return _names(inventory / "profiles")


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in folder.glob(f"*{_SUFFIX}") if not file.name.startswith(".")))


def load_rack(name_or_path: str, inventory: Path) -> Rack:
    """The rack of that name in the inventory, or of that file; its profile is always the inventory's.

    Raises InputError with everything that is wrong in the file, UsageError where there is no such rack.
    """
    from toolkit.rack.cabling import unfold
    from toolkit.rack.checks import check_counts, check_units

    file = _file(name_or_path, inventory)
    document = read(file)
    problems = Problems(document)
    written = _read_rack(document, inventory, problems)
    if file.parent == inventory / "racks" and written.rack != file.stem:
        problems.add(("rack",), f"{written.rack} in the file {file.name}", f"rack: {file.stem}, or rename the file")
    profile = load_profile(written.profile, inventory)
    check_counts(written, profile, problems)
    if len(written.units) > sum(count for _, count in profile.units):
        problems.raise_any()  # far too many: what else is wrong with them would only hide it
    check_units(written, profile, problems)
    units = tuple(_unit(unit, profile) for unit in written.units)
    links = unfold(written.links, units, profile, problems)
    problems.raise_any()
    rack = Rack(
        name=written.rack,
        site=written.site,
        profile=profile,
        units=tuple(sorted(units, key=lambda unit: unit.slot)),
        links=tuple(sorted(links, key=lambda link: (link.kind, link.a, link.b))),
        digest="",
        partial=written.partial,
        provision_url=(written.provision or "").rstrip("/"),
    )
    return replace(rack, digest=topology_digest(rack))


def _read_rack(document: Document, inventory: Path, problems: Problems) -> RackFile:
    """The file in its schema, its profile known to exist. Raises InputError."""
    from toolkit.rack.checks import check_duplicates
    from toolkit.rack.schema import RackFile, nearest

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
    from toolkit.rack.schema import UnitFile, validate

    units = data.get("units") if isinstance(data, dict) else None
    for number, raw in enumerate(units if isinstance(units, list) else ()):
        unit = validate(UnitFile, raw)
        if not isinstance(unit, list):
            yield number, unit


def load_profile(name: str, inventory: Path) -> Profile:
    """The profile of that name. Raises InputError with everything that is wrong in it, UsageError if there is none."""
    written, document = _read_profile(name, inventory)
    problems = Problems(document)
    gates = {(g.code, g.metric): _gate(g) for g in written.gates}
    if written.gates_from is not None:
        gates = _inherited(written, inventory, problems) | gates
    elif written.gates_left_out:
        problems.add(("gates_left_out",), "nothing is inherited", "leave a gate of this file out by not writing it")
    _check_gates(gates.values(), written, problems)
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
        gates=tuple(gates.values()),
        certificate_lifetime=written.certificate_lifetime,
        virtual=written.virtual,
        evidence_max_age=written.evidence_max_age,
        suite=written.suite,
        left_out=tuple((left.code, left.why) for left in written.gates_left_out),
        power_ramp_kw_per_s=written.power_ramp_kw_per_s,
        node_power_watts=written.node_power_watts,
        rail_test=written.rail_test,
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


def _typed(model: type[_File], document: Document, problems: Problems) -> _File | None:
    """The document in its schema; None if it does not fit, with the reasons in `problems`."""
    from toolkit.rack.schema import validate

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
    bmc = Bmc(written.bmc.address, written.bmc.credentials, written.bmc.port) if written.bmc else None
    host = None
    if written.host:
        disk = Disk(written.host.disk.device, written.host.disk.serial)
        host = Host(written.host.address, written.host.mac, disk, written.host.ssh_port)
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
    )


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
    )


def topology_digest(rack: Rack) -> str:
    """sha256 of the rack's canonical form: site, profile's name, units, links, whatever order the file has them in."""
    body = {
        "rack": rack.name,
        "site": rack.site,
        "profile": rack.profile.name,
        "units": [asdict(unit) for unit in sorted(rack.units, key=lambda unit: unit.name)],
        "links": sorted(
            (sorted((str(link.a), str(link.b))), str(link.kind), link.rate_gb_per_s, link.part) for link in rack.links
        ),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

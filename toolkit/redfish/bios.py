"""BIOS attributes: as they are, as they will be after the next reset, and how others are asked for (Bios, DSP0268)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from toolkit.errors import UndecidedError, UsageError
from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Document, Wire, is_board, link

_MAX_ATTRIBUTES = 4096
_ON_RESET = "OnReset"


class BiosState(StrEnum):
    """One attribute against what is wanted."""

    AS_WANTED = "as wanted"
    PENDING = "pending until the next reset"
    DIFFERS = "differs"
    NOT_THERE = "not there"  # this BIOS has no such attribute: another version, or a misspelt name


@dataclass(frozen=True, slots=True)
class BiosAttribute:
    """One attribute: what is wanted, what is in force, what is staged (empty: nothing)."""

    name: str
    wanted: str
    found: str
    state: BiosState
    staged: str = ""


@dataclass(frozen=True, slots=True)
class Bios:
    """A system's BIOS: attributes in force and staged, as text by name, and where others are asked for."""

    path: str
    attributes: Mapping[str, Any]
    staged: Mapping[str, Any]
    settings: str
    apply_times: tuple[str, ...]
    registry: str


def read_bios(wire: Wire, system: str) -> Bios:
    """The BIOS of that system (its path). UndecidedError where the BMC shows none."""
    doing = "reading the BIOS attributes"
    path = link(wire.get(system, doing), "Bios")
    document = wire.get(path, doing) if path else {}
    attributes = document.get("Attributes")
    if not isinstance(attributes, Mapping) or not attributes or len(attributes) > _MAX_ATTRIBUTES:
        raise UndecidedError(f"BMC {wire.url}: {doing}: it shows none", f"look at {system}/Bios")
    settings = document.get("@Redfish.Settings")
    where = link(settings, "SettingsObject")
    times = settings.get("SupportedApplyTimes") if isinstance(settings, Mapping) else None
    future = (wire.get_or_none(where, doing) or {}) if where else {}
    staged = future.get("Attributes")
    return Bios(
        path, attributes, staged if isinstance(staged, Mapping) else {}, where,
        tuple(str(time) for time in times) if isinstance(times, list) else (),
        printable(document.get("AttributeRegistry")),
    )  # fmt: skip


def compare(bios: Bios, wanted: Iterable[tuple[str, str]]) -> tuple[BiosAttribute, ...]:
    """Each wanted attribute, in the order given. A staged value that is the one in force is nothing staged."""
    found = []
    for name, value in wanted:
        now = written(bios.attributes.get(name))
        later = written(bios.staged.get(name))
        staged = later if later != now else ""
        if name not in bios.attributes:
            state = BiosState.NOT_THERE
        elif staged:
            state = BiosState.PENDING if staged == value else BiosState.DIFFERS
        else:
            state = BiosState.AS_WANTED if now == value else BiosState.DIFFERS
        found.append(BiosAttribute(name, value, now, state, staged))
    return tuple(found)


def stage(wire: Wire, bios: Bios, changes: Mapping[str, str]) -> None:
    """Asks for these attributes from the next reset on. UsageError, and nothing sent, for one this BIOS has not got."""
    unknown = sorted(name for name in changes if name not in bios.attributes)
    read_only = _read_only(wire, bios) & changes.keys()
    if unknown or read_only:
        raise UsageError(
            f"BMC {wire.url}: no BIOS attribute to set: {', '.join([*unknown, *sorted(read_only)])}",
            f"its registry is {bios.registry or 'not named'}; correct `bios` in the profile",
        )
    if not bios.settings:
        raise UsageError(
            f"BMC {wire.url}: its BIOS attributes cannot be set over Redfish", "set them in the BIOS setup"
        )
    if bios.apply_times and _ON_RESET not in bios.apply_times:
        raise UsageError(f"BMC {wire.url}: its BIOS takes {', '.join(bios.apply_times)}, not {_ON_RESET}", "")
    body: dict[str, object] = {"Attributes": {name: _typed(bios, name, value) for name, value in changes.items()}}
    if bios.apply_times:
        applied = {"@odata.type": "#Settings.v1_3_0.PreferredApplyTime", "ApplyTime": _ON_RESET}
        body["@Redfish.SettingsApplyTime"] = applied
    wire.patch(bios.settings, body, "staging BIOS attributes")


def system_path(wire: Wire) -> str:
    """The one host system: an HGX machine also lists its GPU baseboard as one. UndecidedError where it is not one."""
    systems = link(wire.get(ROOT, "looking for its system"), "Systems") or f"{ROOT}/Systems"
    paths = [path for path in wire.members(systems) if not is_board(path)]
    if len(paths) != 1:
        text = f"BMC {wire.url}: it lists {len(paths)} host systems, one was expected"
        raise UndecidedError(text, "check the unit's BMC address: this may be a chassis manager")
    return paths[0]


def _typed(bios: Bios, name: str, value: str) -> object:
    """The value as the attribute is: a number or a boolean where it is one now."""
    now = bios.attributes[name]
    if isinstance(now, bool):
        return value.lower() == "true"
    if isinstance(now, int):
        return int(value) if value.lstrip("-").isdecimal() else value
    return value


def _read_only(wire: Wire, bios: Bios) -> frozenset[str]:
    """Attributes that the registry says cannot be written; none where the registry is not served."""
    if not bios.registry:
        return frozenset()
    file = wire.get_or_none(f"{ROOT}/Registries/{bios.registry}", "reading the BIOS registry")
    places = file.get("Location") if file else None
    uri = places[0].get("Uri") if isinstance(places, list) and places and isinstance(places[0], Mapping) else ""
    registry = wire.get_or_none(str(uri), "reading the BIOS registry") if str(uri).startswith(ROOT) else None
    entries = registry.get("RegistryEntries") if registry else None
    listed = entries.get("Attributes") if isinstance(entries, Mapping) else None
    found = listed[:_MAX_ATTRIBUTES] if isinstance(listed, list) else []
    return frozenset(
        str(one.get("AttributeName")) for one in found if isinstance(one, Mapping) and one.get("ReadOnly") is True
    )


def written(value: object) -> str:
    """An attribute's value as profiles write it: `true`, a number, a word; empty for what is not there."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else printable(value)


def as_document(bios: Bios) -> Document:
    """What a record of it keeps."""
    return {"registry": bios.registry, "attributes": dict(bios.attributes)}

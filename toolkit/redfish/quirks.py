"""What is known of BMCs beyond the standard, as data with sources: `quirks.yml`, checked when it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.redfish.text import printable
from toolkit.redfish.wire import ROOT, Wire, is_board, last, link

if TYPE_CHECKING:
    from toolkit.redfish.quirk_schema import ShapeFile

_FILE = Path(__file__).with_name("quirks.yml")


class Quirk(StrEnum):
    """What a BMC does that a reader of the standard does not expect."""

    BOARDS_ARE_LISTED = "boards_are_listed"  # its GPU baseboard stands beside the host as a system of its own
    MAC_IS_SPELLED_OTHERWISE = "mac_is_spelled_otherwise"  # MacAddress
    DISABLED_NIC_HAS_NO_MAC = "disabled_nic_has_no_mac"  # it makes one up
    SERIAL_IS_PADDED = "serial_is_padded"
    AC_CYCLE_ACTIVATES = "ac_cycle_activates"  # firmware is in force after standby power was away, not after a reset
    OVERRIDE_SHOWS_CONTINUOUS = "override_shows_continuous"  # whatever it was asked
    NO_SESSIONS = "no_sessions"
    READ_ONLY = "read_only"  # it shows, and changes nothing


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of machine, as its BMC shows it. `kind` is a unit's; `leak_detectors`: how many, by chassis."""

    name: str
    kind: str
    chassis: tuple[str, ...]
    system: str
    manager: str
    leak_detectors: tuple[tuple[str, int], ...]
    quirks: frozenset[Quirk]
    source: str
    root: str = ""
    vendor: str = ""
    product: str = ""
    firmware: str = ""


@dataclass(frozen=True, slots=True)
class FactoryLogin:
    """What a maker ships, by its own document."""

    vendor: str
    username: str
    source: str
    password: str = field(repr=False, default="")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a BMC says it is, read once."""

    vendor: str
    product: str
    root: str
    firmware: str
    chassis: tuple[str, ...]
    shape: Shape | None

    @property
    def quirks(self) -> frozenset[Quirk]:
        """Of a shape that is known; none of one that is not."""
        return self.shape.quirks if self.shape else frozenset()


def look(wire: Wire) -> Seen:
    """Which machine it is. One that is in no table is told as that: nothing is assumed of it."""
    doing = "looking what it is"
    root = wire.get(ROOT, doing)
    place = link(root, "Chassis")
    chassis = tuple(last(path) for path in wire.members(place, doing)) if place else ()
    firmware = _manager_firmware(wire, link(root, "Managers"), doing)
    vendor, product = printable(root.get("Vendor")), printable(root.get("Product"))
    identity = printable(root.get("Id"))
    return Seen(vendor, product, identity, firmware, chassis, shape_of(vendor, product, identity, firmware, chassis))


def shape_of(vendor: str, product: str, root: str, firmware: str, chassis: tuple[str, ...]) -> Shape | None:
    """The first shape of the table that fits."""
    for shape in shapes():
        ids = {word.lower() for word in chassis}
        if shape.chassis and not any(word.lower() in ids for word in shape.chassis):
            continue
        if shape.root and shape.root != root:
            continue
        told = ((shape.vendor, vendor), (shape.product, product), (shape.firmware, firmware))
        if all(not pattern or re.search(pattern, text) for pattern, text in told):
            return shape
    return None


def _manager_firmware(wire: Wire, managers: str, doing: str) -> str:
    for path in wire.members(managers, doing) if managers else ():
        if not is_board(path):
            return printable((wire.get_or_none(path, doing) or {}).get("FirmwareVersion"))
    return ""


def shapes() -> tuple[Shape, ...]:
    """The table, in its order."""
    return _read()[0]


def factory_logins(vendor: str, product: str) -> tuple[FactoryLogin, ...]:
    """Those of this maker; all where a BMC does not say whose it is."""
    known = _read()[1]
    said = f"{vendor} {product}".strip()
    return tuple(one for one in known if not said or re.search(one.vendor, said))


@lru_cache(maxsize=1)
def _read() -> tuple[tuple[Shape, ...], tuple[FactoryLogin, ...]]:
    return read_table(_FILE)


def read_table(path: Path) -> tuple[tuple[Shape, ...], tuple[FactoryLogin, ...]]:
    """The table of a file. Raises InputError with file:line of everything that is wrong in it."""
    from toolkit.rack.document import Problems, read
    from toolkit.rack.fields import validate
    from toolkit.redfish.quirk_schema import TableFile

    document = read(path)
    problems = Problems(document)
    typed = validate(TableFile, document.data)
    if isinstance(typed, list):
        for loc, wrong, right, of_key in typed:
            problems.add(loc, wrong, right, of_key)
    problems.raise_any()
    if isinstance(typed, list):
        raise AssertionError("a file that does not fit its schema has problems")
    return (
        tuple(_shape(one) for one in typed.shapes),
        tuple(FactoryLogin(**one.model_dump()) for one in typed.logins),
    )


def _shape(told: ShapeFile) -> Shape:
    return Shape(
        name=told.name,
        kind=told.kind,
        chassis=told.chassis,
        system=told.system,
        manager=told.manager,
        leak_detectors=tuple(sorted(told.leak_detectors.items())),
        quirks=frozenset(told.quirks),
        source=told.source,
        root=told.root,
        vendor=told.vendor,
        product=told.product,
        firmware=told.firmware,
    )

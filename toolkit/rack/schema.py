"""What a rack file and a profile file may say: fields, types, formats. Rules between fields are in `checks`.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, NoReturn, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from toolkit.rack.document import shown
from toolkit.rack.gate import Operator, Scope
from toolkit.rack.lifecycle import Stage
from toolkit.rack.metric import METRICS
from toolkit.rack.metric import Unit as MetricUnit
from toolkit.rack.model import LinkKind, Mode, Suite, UnitKind

PARTS = (
    "gpu", "tray", "switch_tray", "cable", "cartridge", "optic", "hca", "leaf_port", "slot", "cooling",
    "software", "symptom", "evidence",
)  # fmt: skip
_DURATION = re.compile(r"([1-9]\d{0,3})([mhd])")


def _wrong(wrong: str, right: str = "") -> NoReturn:
    raise PydanticCustomError("rackproof", "{wrong}", {"wrong": wrong, "right": right})


def nearest(name: str, known: tuple[str, ...]) -> str:
    """`did you mean x?`, or the whole list where nothing is near."""
    close = get_close_matches(name, known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else "one of: " + ", ".join(known)


def _text(pattern: str, meant: str) -> Any:
    def check(value: object) -> str:
        if not isinstance(value, str):
            _wrong("is empty" if value is None else "is not plain text", meant)
        if not re.fullmatch(pattern, value):
            _wrong(f"{shown(value)} is not valid here", meant)
        return value

    return BeforeValidator(check)


def _number(kind: type[int] | type[float], low: float, high: float) -> Any:
    pattern = r"-?(0|[1-9]\d{0,11})" if kind is int else r"-?(0|[1-9]\d{0,11})(\.\d{1,9})?"
    meant = f"a {'whole ' if kind is int else ''}number from {low:g} to {high:g}"

    def check(value: object) -> float:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            _wrong("is empty" if value is None else f"{shown(value)} is not a number", meant)
        number = kind(value)
        if not low <= number <= high:
            _wrong(f"{value} is out of range", meant)
        return number

    return BeforeValidator(check)


def _flag(value: object) -> bool:
    if value not in ("true", "false"):
        _wrong(f"{shown(value)} is neither true nor false", "write true or false")
    return value == "true"


def _choice(kind: Any) -> Any:
    known = tuple(str(member.value) for member in kind)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()

    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in known:
            _wrong(f"{shown(value)} is not a known {name}", nearest(str(value)[:60], known))
        return kind(value)

    return BeforeValidator(check)


def _address(value: str) -> str:
    try:
        address = ip_address(value)
    except ValueError:
        _wrong(f"{shown(value)} is not an IP address", "four numbers from 0 to 255, or an IPv6 address")
    if address.is_multicast or address.is_unspecified or "%" in value:
        _wrong(f"{value} cannot be a host's address", "a unicast address without a zone")
    return str(address)


def _mac(value: str) -> str:
    octets = bytes.fromhex(value.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        _wrong(f"{value} cannot be a NIC's address", "a unicast MAC: the first octet is even")
    return value.lower()


def _guid(value: str) -> str:
    if int(value, 16) == 0:
        _wrong("the GUID is zero", "the port's GUID, as ibstat prints it")
    return value.lower()


def _duration(value: str) -> timedelta:
    found = _DURATION.fullmatch(value)
    if found is None:
        _wrong(f"{shown(value)} is not a duration", "a number and m, h or d: 30d")
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: int(found[1])})


def _day(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        _wrong(f"{shown(value)} is not a date", "the day the source was published or read: 2026-11-23")


def _limit(value: object) -> object:
    """None, one text or a list of texts; `checks` types it by the metric's unit."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return tuple(value)
    _wrong("is neither a value nor a list of values", "null where nobody has sourced one")


def _metric(value: str) -> str:
    if value not in METRICS:
        _wrong(f"{shown(value)} is not a known metric", nearest(value, tuple(METRICS)))
    return value


def _part(value: str) -> str:
    if value not in PARTS:
        _wrong(f"{shown(value)} is not a known part", nearest(value, PARTS))
    return value


Name = Annotated[str, _text(r"[a-z][a-z0-9-]{0,62}", "a lower-case letter, then letters, digits and -")]
UnitName = Annotated[str, _text(r"[a-z][a-z0-9-]{0,62}", "a host name: lower-case letters, digits and -, no dot")]
Serial = Annotated[str, _text(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", "the serial on the label: letters, digits, . _ / -")]
Address = Annotated[str, _text(r"[0-9A-Fa-f:.]{2,45}", "an IP address"), AfterValidator(_address)]
Mac = Annotated[
    str, _text(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}", 'six octets: "52:54:00:66:00:01"'), AfterValidator(_mac)
]
Guid = Annotated[str, _text(r"(?i)0x[0-9a-f]{16}", "0x and sixteen hexadecimal digits"), AfterValidator(_guid)]
Device = Annotated[str, _text(r"/dev/[a-z0-9]+(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", "a device: /dev/nvme0n1")]
HcaName = Annotated[str, _text(r"[a-z][a-z0-9_]{0,31}", "an InfiniBand device: mlx5_0")]
Line = Annotated[str, _text(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,400}", "one line of text")]
Package = Annotated[str, _text(r"[a-z0-9][a-z0-9.+_-]{1,80}", "a package name")]
Version = Annotated[str, _text(r"[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,60}", "a version: 580.95.05")]
File = Annotated[str, _text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", "a file name, no folders")]
Code = Annotated[str, _text(r"[A-Z][A-Z0-9_]{2,63}", "an upper-case code: NCCL_BUSBW_LOW")]
Word = Annotated[str, _text(r"[a-z][a-z0-9_]{0,62}", "lower-case letters, digits and _")]
Port = Annotated[int, _number(int, 1, 65535)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Day = Annotated[str, _text(r"\d{4}-\d\d-\d\d", "a date: 2026-11-23"), AfterValidator(_day)]
Rate = Annotated[float, _number(float, 0.001, 10_000)]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BmcFile(_Written):
    """A unit's BMC."""

    address: Address
    credentials: Name
    port: Port = 443


class DiskFile(_Written):
    """The disk an image may be written to."""

    device: Device
    serial: Serial


class HostFile(_Written):
    """A node's operating system side."""

    address: Address
    mac: Mac
    disk: DiskFile
    ssh_port: Port = 22


class GpuFile(_Written):
    """A GPU whose serial the designer knows."""

    index: Annotated[int, _number(int, 0, 255)]
    serial: Serial


class HcaFile(_Written):
    """An HCA port on a rail."""

    name: HcaName
    guid: Guid
    rail: Annotated[int, _number(int, 0, 255)]


class UnitFile(_Written):
    """One thing with a serial."""

    name: UnitName
    kind: Annotated[UnitKind, _choice(UnitKind)]
    slot: Annotated[int, _number(int, 1, 10_000)]
    serial: Serial
    bmc: BmcFile | None = None
    host: HostFile | None = None
    gpus: tuple[GpuFile, ...] | None = None
    hcas: tuple[HcaFile, ...] = ()


class LinkFile(_Written):
    """One cable, or as many as its folded ends unfold to."""

    a: Line
    b: Line
    kind: Annotated[LinkKind, _choice(LinkKind)]
    rate_gb_per_s: Rate
    part: Annotated[str, _text(r"[a-z][a-z0-9_]{0,62}", nearest("", PARTS)), AfterValidator(_part)] = "cable"


class RackFile(_Written):
    """inventory/racks/<rack>.yml."""

    rack: Name
    site: Name
    profile: Name
    mode: Annotated[Mode | None, _choice(Mode)] = None
    partial: Flag = False
    provision: Annotated[str | None, _text(r"http://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._/-]*)?", "an http:// URL")] = None
    units: Annotated[tuple[UnitFile, ...], Field(min_length=1)]
    links: tuple[LinkFile, ...] = ()


class GateFile(_Written):
    """One rule. All fields are required but `limit: null` is allowed: nobody has sourced one yet."""

    code: Code
    metric: Annotated[str, _text(r"[a-z][a-z0-9_]*", "a metric's name"), AfterValidator(_metric)]
    unit: Annotated[MetricUnit, _choice(MetricUnit)]
    scope: Annotated[Scope, _choice(Scope)]
    operator: Annotated[Operator, _choice(Operator)]
    limit: Annotated[Any, BeforeValidator(_limit)]
    stage: Annotated[Stage, _choice(Stage)]
    required: Flag
    part: Annotated[str, _text(r"[a-z][a-z0-9_]{0,62}", nearest("", PARTS)), AfterValidator(_part)]
    why: Line
    source: Line
    date: Day


class LeftOutFile(_Written):
    """An inherited gate that this profile does not ask, and why."""

    code: Code
    why: Line


class ProfileFile(_Written):
    """inventory/profiles/<profile>.yml."""

    profile: Name
    sku: Line
    mode: Annotated[Mode, _choice(Mode)]
    virtual: Flag = False
    units: Annotated[
        dict[Annotated[UnitKind, _choice(UnitKind)], Annotated[int, _number(int, 1, 1024)]], Field(min_length=1)
    ]
    gpus_per_node: Annotated[int, _number(int, 0, 64)]
    nvlinks_per_gpu: Annotated[int, _number(int, 0, 64)]
    nvlink_gb_per_s: Annotated[float, _number(float, 0, 10_000)]
    hcas_per_node: Annotated[int, _number(int, 0, 64)]
    image: File
    suite: Annotated[Suite, _choice(Suite)] = Suite.QUICK
    power_ramp_kw_per_s: Annotated[float, _number(float, 0, 10_000)] = 0.0
    node_power_watts: Annotated[float, _number(float, 0, 1_000_000)] = 0.0
    rail_test: Flag = False
    certificate_lifetime: Duration
    evidence_max_age: Duration = timedelta(days=1)
    expected: dict[Word, Line]
    versions: dict[Package, Version]
    gates_from: Name | None = None
    gates_left_out: tuple[LeftOutFile, ...] = ()
    gates: tuple[GateFile, ...] = ()


Misfit = tuple[tuple[str | int, ...], str, str, bool]


T = TypeVar("T", bound=BaseModel)


def validate(model: type[T], data: object) -> T | list[Misfit]:
    """The typed file, or every problem as (place, what is wrong, what would be right, whether the key is meant)."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        return [_translate(model, detail) for detail in error.errors(include_url=False)]


def _translate(model: type[BaseModel], detail: ErrorDetails) -> Misfit:
    loc = tuple(step for step in detail["loc"] if step != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "rackproof":
        return loc, context["wrong"], context["right"], "[key]" in detail["loc"]
    if kind == "extra_forbidden":
        return loc, "there is no such field", nearest(str(loc[-1])[:60], tuple(_fields(model, loc[:-1]))), True
    if kind == "missing":
        return loc, "is missing", "add it; this entry needs " + ", ".join(_required(model, loc[:-1])), False
    if kind in ("tuple_type", "list_type"):
        return loc, "is not a list", "write `- ...` entries", False
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return loc, "is not a mapping", "write `name: value` entries", False
    if kind == "too_short":
        return loc, "is empty", "at least one entry", False
    return loc, str(detail["msg"]), "", False


def _model_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that describes the mapping at `loc`."""
    current: type[BaseModel] | None = model
    for step in loc:
        if current is None or isinstance(step, int):
            continue
        found = current.model_fields.get(step)
        current = next(_models(found.annotation), None) if found else None
    return current


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _fields(model: type[BaseModel], loc: tuple[str | int, ...]) -> Iterator[str]:
    found = _model_at(model, loc)
    return iter(found.model_fields) if found else iter(())


def _required(model: type[BaseModel], loc: tuple[str | int, ...]) -> Iterator[str]:
    found = _model_at(model, loc)
    return (n for n, f in found.model_fields.items() if f.is_required()) if found else iter(())

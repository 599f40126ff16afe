"""The fields of operator-written files: what each may say, and how a misfit is told with what would be right.

Imported inside functions only: pydantic costs more start-up time than most commands run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, Any, NoReturn, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from toolkit.rack.document import shown

_DURATION = re.compile(r"([1-9]\d{0,3})([mhd])")


def refuse(wrong: str, right: str = "") -> NoReturn:
    """Says of the value at hand what is wrong with it and what would be right."""
    raise PydanticCustomError("rackproof", "{wrong}", {"wrong": wrong, "right": right})


def nearest(name: str, known: tuple[str, ...]) -> str:
    """`did you mean x?`, or the whole list where nothing is near."""
    close = get_close_matches(name, known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else "one of: " + ", ".join(known)


def text_like(pattern: str, meant: str) -> Any:
    """Text that is like this as a whole; `meant` tells what would be right."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            refuse("is empty" if value is None else "is not plain text", meant)
        if not re.fullmatch(pattern, value):
            refuse(f"{shown(value)} is not valid here", meant)
        return value

    return BeforeValidator(check)


def number_from(kind: type[int] | type[float], low: float, high: float) -> Any:
    """A decimal number of the kind, both bounds included."""
    pattern = r"-?(0|[1-9]\d{0,11})" if kind is int else r"-?(0|[1-9]\d{0,11})(\.\d{1,9})?"
    meant = f"a {'whole ' if kind is int else ''}number from {low:g} to {high:g}"

    def check(value: object) -> float:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            refuse("is empty" if value is None else f"{shown(value)} is not a number", meant)
        number = kind(value)
        if not low <= number <= high:
            refuse(f"{value} is out of range", meant)
        return number

    return BeforeValidator(check)


def _flag(value: object) -> bool:
    if value not in ("true", "false"):
        refuse(f"{shown(value)} is neither true nor false", "write true or false")
    return value == "true"


def one_of(kind: Any) -> Any:
    """A member of the enum, by its value."""
    known = tuple(str(member.value) for member in kind)
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()

    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in known:
            refuse(f"{shown(value)} is not a known {name}", nearest(str(value)[:60], known))
        return kind(value)

    return BeforeValidator(check)


def _address(value: str) -> str:
    try:
        address = ip_address(value)
    except ValueError:
        refuse(f"{shown(value)} is not an IP address", "four numbers from 0 to 255, or an IPv6 address")
    if address.is_multicast or address.is_unspecified or "%" in value:
        refuse(f"{value} cannot be a host's address", "a unicast address without a zone")
    return str(address)


def _mac(value: str) -> str:
    octets = bytes.fromhex(value.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        refuse(f"{value} cannot be a NIC's address", "a unicast MAC: the first octet is even")
    return value.lower()


def _guid(value: str) -> str:
    if int(value, 16) == 0:
        refuse("the GUID is zero", "the port's GUID, as ibstat prints it")
    return value.lower()


def _duration(value: str) -> timedelta:
    found = _DURATION.fullmatch(value)
    if found is None:
        refuse(f"{shown(value)} is not a duration", "a number and m, h or d: 30d")
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: int(found[1])})


def _day(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        refuse(f"{shown(value)} is not a date", "the day the source was published or read: 2026-11-23")


Name = Annotated[str, text_like(r"[a-z][a-z0-9-]{0,62}", "a lower-case letter, then letters, digits and -")]
UnitName = Annotated[str, text_like(r"[a-z][a-z0-9-]{0,62}", "a host name: lower-case letters, digits and -, no dot")]
Serial = Annotated[
    str, text_like(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}", "the serial on the label: letters, digits, . _ / -")
]
Address = Annotated[str, text_like(r"[0-9A-Fa-f:.]{2,45}", "an IP address"), AfterValidator(_address)]
Mac = Annotated[
    str, text_like(r"(?i)[0-9a-f]{2}(:[0-9a-f]{2}){5}", 'six octets: "52:54:00:66:00:01"'), AfterValidator(_mac)
]
Guid = Annotated[str, text_like(r"(?i)0x[0-9a-f]{16}", "0x and sixteen hexadecimal digits"), AfterValidator(_guid)]
Sha256 = Annotated[
    str,
    text_like(r"(?i)([0-9a-f]{64}|[0-9a-f]{2}(:[0-9a-f]{2}){31})", "a sha256: 64 hexadecimal digits, colons or not"),
    AfterValidator(lambda value: value.replace(":", "").lower()),
]
Device = Annotated[str, text_like(r"/dev/[a-z0-9]+(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", "a device: /dev/nvme0n1")]
HcaName = Annotated[str, text_like(r"[a-z][a-z0-9_]{0,31}", "an InfiniBand device: mlx5_0")]
Line = Annotated[str, text_like(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,400}", "one line of text")]
Package = Annotated[str, text_like(r"[a-z0-9][a-z0-9.+_-]{1,80}", "a package name")]
DeviceType = Annotated[str, text_like(r"mt\d{4,6}", "an adapter's type as ibstat prints it, lower case: mt4129")]
Version = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9.+~:_-]{0,60}", "a version: 580.95.05")]
File = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}", "a file name, no folders")]
Code = Annotated[str, text_like(r"[A-Z][A-Z0-9_]{2,63}", "an upper-case code: NCCL_BUSBW_LOW")]
Word = Annotated[str, text_like(r"[a-z][a-z0-9_]{0,62}", "lower-case letters, digits and _")]
Port = Annotated[int, number_from(int, 1, 65535)]
Flag = Annotated[bool, BeforeValidator(_flag)]
# What Slurm lets an account, a partition or a reservation be called is less than this, or as much.
SlurmName = Annotated[str, text_like(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,62}", "a name as Slurm has it")]
Folder = Annotated[str, text_like(r"/[A-Za-z0-9._/-]{1,200}", "a path from / on")]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
Day = Annotated[str, text_like(r"\d{4}-\d\d-\d\d", "a date: 2026-11-23"), AfterValidator(_day)]
Rate = Annotated[float, number_from(float, 0.001, 10_000)]


class Written(BaseModel):
    """A mapping with these keys and no others."""

    # Built when it is read first, once, with all that it holds: most verbs start before they read a file, or read one.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


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

"""What a neutral file of gates and inventory/skus.yml may say. Imported inside functions only, like `schema`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from toolkit.rack.claim import Span
from toolkit.rack.document import shown
from toolkit.rack.fields import Day, Flag, Line, Name, Word, nearest
from toolkit.rack.gate import Operator

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)(i?B)?", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)


def _wrong(wrong: str, right: str) -> NoReturn:
    raise PydanticCustomError("rackproof", "{wrong}", {"wrong": wrong, "right": right})


def _amount(value: object) -> float:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value) or not math.isfinite(float(value)):
        _wrong(f"{shown(value)} is not a number", "digits, with a point where needed: 440")
    return float(value)


def _limit(value: object) -> float | None:
    return None if value is None else _amount(value)


def _whole(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,7}", value, re.ASCII):
        _wrong(f"{shown(value)} is not a whole number", "a count: 16")
    return int(value)


def _rate(value: object) -> float:
    number = _amount(value)
    if not 0 <= number <= 1e6:
        _wrong(f"{shown(value)} is out of range", "GB/s, one way")
    return number


def _tolerance(value: object) -> float:
    number = _amount(value)
    if not 0 < number <= 1:
        _wrong(f"{shown(value)} is out of range", "the factor the limit is multiplied by: above 0, at most 1")
    return number


def _bytes(value: object) -> int:
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        _wrong(f"{shown(value)} is not a size", "bytes, or powers of two as nccl-tests takes them: 8G")
    return int(found[1]) << _UNITS[found[2]]


def _choice(kind: Any, what: str) -> Any:
    known = tuple(str(member.value) for member in kind)

    def check(value: object) -> Any:
        if not isinstance(value, str) or value not in known:
            _wrong(f"{shown(value)} is not a known {what}", nearest(str(value)[:60], known))
        return kind(value)

    return BeforeValidator(check)


def _source(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        _wrong("is not plain text", "the document or measurement the limit comes from")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Rate = Annotated[float, BeforeValidator(_rate)]
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,63}$")]


class _Written(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimFile(_Written):
    """One gate of anybody's."""

    sku: Line
    test: Word
    scope: Annotated[Span, _choice(Span, "scope")]
    operator: Annotated[Operator, _choice(Operator, "operator")] = Operator.AT_LEAST
    limit: Annotated[float | None, BeforeValidator(_limit)]
    unit: Line
    source: Annotated[str, BeforeValidator(_source)] = ""
    ranks: Whole = 0
    nodes: Whole = 0
    environment: dict[Variable, Line] = Field(default_factory=dict)
    message_bytes: Annotated[int, BeforeValidator(_bytes)] = 0
    nics: Whole = 0
    nic_gb_per_s: Rate = 0.0
    tolerance: Annotated[float, BeforeValidator(_tolerance)] = 1.0
    publisher: Line = ""
    code: Line = ""


class ClaimsFile(_Written):
    """A neutral file of gates."""

    gates: Annotated[tuple[ClaimFile, ...], Field(min_length=1)]


class ReferenceFile(_Written):
    """What healthy hardware measured."""

    test: Word
    route: Word
    gb_per_s: Rate
    source: Line
    date: Day
    nodes: Whole = 0
    ring: Flag = False


class SkuFile(_Written):
    """One SKU's data sheet."""

    name: Name
    aliases: tuple[Line, ...] = ()
    gpus_per_node: Annotated[Whole, Field(ge=1)]
    domain_gpus: Annotated[Whole, Field(ge=1)]
    nvlinks: Whole
    nvlink_gb_per_s: Rate
    nvlink_trained_gb_per_s: Rate
    in_switch_reduction: Flag
    nics: Whole
    nic_gb_per_s: Rate
    hbm_gb_per_s: Rate
    host: Line
    host_gb_per_s: Rate
    not_slower_than: str = ""
    source: Line
    date: Day
    references: tuple[ReferenceFile, ...] = ()


class SkusFile(_Written):
    """inventory/skus.yml."""

    skus: Annotated[tuple[SkuFile, ...], Field(min_length=1)]

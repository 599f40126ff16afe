"""The fields of `quirks.yml`. Imported inside functions only: pydantic costs start-up time."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from toolkit.rack.fields import Line, Word, Written, number_from, one_of, refuse, text_like
from toolkit.rack.model import UnitKind
from toolkit.redfish.quirks import Quirk


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        refuse(f"is no regular expression: {error}", "as Python's re has them")
    return value


Expression = Annotated[str, text_like(r".{1,200}", "a regular expression"), AfterValidator(_expression)]
ResourceId = Annotated[str, text_like(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a Redfish Id: BMC_0")]


class ShapeFile(Written):
    """A kind of machine."""

    name: Word
    kind: Annotated[UnitKind, one_of(UnitKind)]
    chassis: tuple[ResourceId, ...] = ()
    system: ResourceId | str = ""
    manager: ResourceId | str = ""
    leak_detectors: dict[ResourceId, Annotated[int, number_from(int, 1, 256)]]
    quirks: tuple[Annotated[Quirk, one_of(Quirk)], ...]
    source: Line
    root: Line | str = ""
    vendor: Expression | str = ""
    product: Expression | str = ""
    firmware: Expression | str = ""


class LoginFile(Written):
    """What a maker ships."""

    vendor: Expression
    username: Line
    password: Line
    source: Line


class TableFile(Written):
    """The whole table."""

    shapes: Annotated[tuple[ShapeFile, ...], Field(min_length=1)]
    logins: tuple[LoginFile, ...]

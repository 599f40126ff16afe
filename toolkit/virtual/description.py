"""What a rack's daemon is told at its start, in a file: the rack as designed, where things are, how slow they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.rack.model import Rack
from toolkit.virtual.chassis import Lag

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Description:
    """`home` is the installation's, `provision` the document root, `secrets` the site's folder. No secret in it.

    `infiniband` is the folder of the tools that its fabric is managed with; None where it has no fabric.
    """

    rack: Rack
    home: Path
    provision: Path
    secrets: Path
    lag: Lag
    infiniband: Path | None = None


def write(path: Path, description: Description) -> None:
    """Writes it for the daemon to read."""
    path.write_bytes(_adapter().dump_json(description, indent=1))


def read(path: Path) -> Description:
    """Reads what `write` wrote."""
    return _adapter().validate_json(path.read_bytes())


def _adapter() -> TypeAdapter[Description]:
    from pydantic import TypeAdapter

    return TypeAdapter(Description)

"""Which packages an image holds: name, version and the hash of the archive that each came from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from toolkit.errors import UndecidedError

_LISTS = "var/lib/apt/lists"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """An installed package; sha256 of its .deb as the repository's signed index has it."""

    name: str
    version: str
    architecture: str
    sha256: str


def parse_stanzas(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """Stanzas of a deb822 file; continuation lines are left out, no field of ours has any."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.strip() == "":
            if fields:
                yield fields
            fields = {}
        elif line[0] not in " \t" and ":" in line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def installed(root: Path) -> tuple[Package, ...]:
    """What is installed in the tree, by name. UndecidedError for one that no index of the tree knows."""
    with (root / "var/lib/dpkg/status").open(errors="replace") as file:
        stanzas = [s for s in parse_stanzas(file) if s.get("Status", "").endswith(" installed")]
    wanted = {(s["Package"], s["Version"], s["Architecture"]) for s in stanzas}
    sums = _sums(root, frozenset(wanted))
    missing = sorted(name for name, version, architecture in wanted - sums.keys())
    if missing:
        raise UndecidedError(
            f"no index of the mirrors knows the installed {', '.join(missing[:5])}",
            "the mirror changed while it was read: build it again",
        )
    return tuple(sorted(Package(*key, sums[key]) for key in wanted))


def _sums(root: Path, wanted: frozenset[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    found = {}
    for index in sorted((root / _LISTS).glob("*_Packages")):
        with index.open(errors="replace") as file:
            for stanza in parse_stanzas(file):
                key = (stanza.get("Package", ""), stanza.get("Version", ""), stanza.get("Architecture", ""))
                if key in wanted and re.fullmatch(r"[0-9a-f]{64}", stanza.get("SHA256", "")):
                    found[key] = stanza["SHA256"]
    return found


def written(packages: Iterable[Package]) -> bytes:
    """The part `packages`: JSON, one line a package."""
    lines = ",\n".join(json.dumps(asdict(package), sort_keys=True) for package in packages)
    return f"[\n{lines}\n]\n".encode()


def names(raw: bytes) -> frozenset[str]:
    """The packages that a part `packages` names. ValueError for what is no such list."""
    told = json.loads(raw)
    if not isinstance(told, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in told
    ):
        raise ValueError("not a list of packages")
    return frozenset(one["name"] for one in told)

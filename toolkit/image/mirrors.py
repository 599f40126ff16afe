"""Where this machine gets Debian from: read from its own apt configuration, so that a site's mirror is used."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UsageError

RELEASE = "bookworm"
_LINE = re.compile(r"deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")
# Ways to reach the mirror (proxies, certificates, patience); the rest of apt's settings are this machine's business.
_ACCESS = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")


@dataclass(frozen=True, slots=True)
class Mirrors:
    """apt sources of Debian's own repositories: one-line entries and deb822 stanzas."""

    lines: tuple[str, ...]
    stanzas: tuple[str, ...]


def suites(release: str) -> tuple[str, ...]:
    """Names under which Debian serves a release: as released, its updates, its security fixes."""
    return (release, f"{release}-updates", f"{release}-security")


def debian_mirrors(apt: Path = Path("/etc/apt"), release: str = RELEASE) -> Mirrors:
    """Debian's own sources of this release among those of `apt`; third-party repositories are left out.

    UsageError if there are none.
    """
    lists = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    lines = tuple(found for path in lists if path.is_file() for found in parse_lines(path.read_text(), release))
    deb822 = sorted((apt / "sources.list.d").glob("*.sources"))
    stanzas = tuple(found for path in deb822 for found in parse_stanzas(path.read_text(), release))
    if not lines and not stanzas:
        raise UsageError(
            f"building the node image: {apt} names no mirror of Debian {release}",
            f"add one to {apt / 'sources.list.d'}: `deb https://MIRROR/debian {release} main`",
        )
    return Mirrors(lines, stanzas)


def parse_lines(text: str, release: str = RELEASE) -> Iterator[str]:
    """`deb` entries of a sources.list that are Debian's own, cut down to component main."""
    for line in text.splitlines():
        entry = _LINE.fullmatch(line.split("#")[0].strip())
        if entry and entry["suite"].rstrip("/") in suites(release) and "main" in entry["components"].split():
            yield f"deb {entry['options'] or ''}{entry['uri']} {entry['suite']} main"


def parse_stanzas(text: str, release: str = RELEASE) -> Iterator[str]:
    """Stanzas of a deb822 file that are Debian's own, cut down to our suites and component main."""
    for block in re.split(r"\n\s*\n", text):
        fields = _fields(block)
        known = [suite for suite in fields.get("suites", "").split() if suite in suites(release)]
        wanted = "deb" in fields.get("types", "").split() and "main" in fields.get("components", "").split()
        if wanted and known and fields.get("enabled", "yes").strip() != "no":
            fields |= {"types": "deb", "suites": " ".join(known), "components": "main"}
            yield "".join(f"{name.title()}: {value}\n" for name, value in fields.items())


def _fields(block: str) -> dict[str, str]:
    """Fields of one stanza by lower-case name; continuation lines (an inline key) stay with their field."""
    fields: dict[str, str] = {}
    name = ""
    for line in block.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in (" ", "\t") and name:
            fields[name] += "\n" + line
        elif ":" in line:
            name, value = line.split(":", 1)
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def access_options() -> str:
    """apt.conf text of how this machine reaches its mirrors. May hold a proxy's password: never on a command line."""
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True, timeout=30)
    return "".join(f"{line}\n" for line in dump.stdout.splitlines() if line.startswith(_ACCESS) and '""' not in line)

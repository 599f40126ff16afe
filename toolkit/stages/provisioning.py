"""What the image stage and the deploy ramdisk say to each other: boot script, seed, reports; and where it is published.

The other end is `toolkit/virtual/image/ramdisk/init`, and `first_boot.py` of the image. On metal the same files are
offered by any HTTP server over `Settings.provision` that appends what is posted to `/report/TOKEN` to a file.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UsageError
from toolkit.rack.model import Host, Unit

KERNEL_NAME = "vmlinuz"  # a virtual node boots the kernel that carries it, and does not ask for this file
RAMDISK_NAME = "deploy.cpio.zst"

MAX_REPORTS = 64
MAX_REPORT_BYTES = 4096
_MAX_TEXT = 300
_TOKEN = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ARGUMENT = re.compile(r"[A-Za-z0-9._:/+-]+")  # no blank, no ${: iPXE and the kernel would read them their own way


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a node fetches the image, its hash, and what writes it."""

    url: str
    sha256: str
    kernel_url: str
    ramdisk_url: str


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A file planted into the written image, owned by root."""

    mode: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Seed:
    """A published seed."""

    url: str
    sha256: str


class ReportEvent(StrEnum):
    """What a node reports, in the order a good imaging does. REFUSED, HASH_MISMATCH, FAILED and BOOTED end one."""

    STARTED = "started"  # the ramdisk is up and has an address
    REFUSED = "refused"  # not the planned machine or disk; nothing was written
    HASH_MISMATCH = "hash_mismatch"  # what was downloaded is not the image; the disk was wiped
    FAILED = "failed"  # anything else
    WRITTEN = "written"  # image and seed are on the disk; it reboots
    BOOTED = "booted"  # the image runs and sshd is up


ENDINGS = frozenset({ReportEvent.REFUSED, ReportEvent.HASH_MISMATCH, ReportEvent.FAILED, ReportEvent.BOOTED})


@dataclass(frozen=True, slots=True)
class Report:
    """A node's word, bounded and printable; what it did not say is empty.

    code, message    of FAILED and REFUSED
    expected, found  serials of REFUSED, hashes of HASH_MISMATCH
    image, host_key  of BOOTED
    """

    event: ReportEvent
    serial: str = ""
    code: str = ""
    message: str = ""
    expected: str = ""
    found: str = ""
    image: str = ""
    host_key: str = ""


class ImageSite(Protocol):
    """The provisioning server, as the image stage uses it. `token` names one attempt on one node, 32 hex digits."""

    def image(self, name: str) -> ImageSource:
        """The image of that name; UsageError if it or the ramdisk is not published."""
        ...

    def report_url(self, token: str) -> str:
        """Where the node posts."""
        ...

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        """Offers the files, by absolute path on the node, as one archive."""
        ...

    def publish_boot(self, node: Unit, script: str) -> None:
        """From now on the node's network boot runs this script."""
        ...

    def withdraw(self, node: Unit, token: str) -> None:
        """Takes script and seed away; nothing happens if they are not there."""
        ...

    def reports(self, token: str) -> tuple[Report, ...]:
        """What the node posted so far, oldest first."""
        ...


def render_boot_script(node: Unit, image: ImageSource, seed: Seed, report_url: str, token: str) -> str:
    """The node's iPXE script. Raises UsageError for a name or serial that would change its meaning."""
    host = host_of(node)
    arguments = {
        "url": image.url,
        "sha256": image.sha256,
        "disk": host.disk.device,
        "disk_serial": host.disk.serial,
        "serial": node.serial,
        "mac": host.mac.lower(),
        "seed": seed.url,
        "seed_sha256": seed.sha256,
        "report": report_url,
        "token": token,
    }
    for name, value in arguments.items():
        if not _ARGUMENT.fullmatch(value):
            raise UsageError(
                f"boot script of {node.name}: {name} is {value!r}: letters, digits and ._:/+- only",
                "correct the rack file",
            )
    told = " ".join(f"deploy.{name}={value}" for name, value in arguments.items())
    return (
        "#!ipxe\n"
        f"echo rackproof: imaging {node.name}\n"
        f"kernel {image.kernel_url} initrd={RAMDISK_NAME} {told}\n"
        f"initrd {image.ramdisk_url}\n"
        "boot\n"
    )


def seed_files(node: Unit, image_sha256: str, report_url: str, login_keys: Sequence[str]) -> dict[str, SeedFile]:
    """What makes the image this node: host name, who may log in, and where to report the first boot."""
    told = {"name": node.name, "serial": node.serial, "image": image_sha256, "report": report_url}
    return {
        "/etc/hostname": SeedFile(0o644, f"{node.name}\n".encode()),
        "/etc/rackproof/node.json": SeedFile(0o600, json.dumps(told).encode() + b"\n"),
        "/root/.ssh/authorized_keys": SeedFile(0o600, "".join(f"{k.strip()}\n" for k in login_keys).encode()),
    }


def pack_seed(files: Mapping[str, SeedFile]) -> bytes:
    """A tar archive of the files, the same for the same files. Folders of private files are private too."""
    folders: dict[str, int] = {}
    for name, file in files.items():
        for parent in PurePosixPath(name).parents:
            if parent.name:
                folders[str(parent)] = 0o700 if parent.name == ".ssh" else 0o755
        if not name.startswith("/") or ".." in name.split("/") or not _ARGUMENT.fullmatch(name) or file.mode > 0o777:
            raise RackproofError(f"seed file {name!r} with mode {file.mode:o} cannot be planted")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder, mode in sorted(folders.items()):
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, file in sorted(files.items()):
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(file.content), file.mode
            tar.addfile(entry, io.BytesIO(file.content))
    return packed.getvalue()


def parse_reports(lines: Iterable[str]) -> Iterator[Report]:
    """Reports of untrusted lines. A line that is none is passed over: whoever knows the token may write one."""
    for number, line in enumerate(lines):
        if number >= MAX_REPORTS:
            return
        try:
            raw = json.loads(line[:MAX_REPORT_BYTES])
            event = ReportEvent(raw["event"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        fields = ("serial", "code", "message", "expected", "found", "image", "host_key")
        yield Report(event, **{name: _text(raw.get(name)) for name in fields})


def _text(value: Any) -> str:
    return "".join(c if c.isprintable() else " " for c in value[:_MAX_TEXT]).strip() if isinstance(value, str) else ""


def host_of(node: Unit) -> Host:
    """The node's host side; UsageError for a unit that has none."""
    if node.host is None:
        raise UsageError(f"{node.name} has no host: it cannot be imaged", "add `host` to the unit in the rack file")
    return node.host


@dataclass(frozen=True, slots=True)
class ProvisionSite:
    """`ImageSite` over a folder that an HTTP server offers at `url` (no slash at its end)."""

    root: Path
    url: str

    def image(self, name: str) -> ImageSource:
        """See ImageSite."""
        if not self.url.startswith("http://"):
            raise UsageError(
                f"the provisioning server's URL is {self.url!r}: boot firmware needs one with http://",
                "set `provision` in the rack file",
            )
        self._published_sum("boot", RAMDISK_NAME)
        boot = f"{self.url}/boot"
        sha256 = self._published_sum("images", name)
        return ImageSource(f"{self.url}/images/{name}", sha256, f"{boot}/{KERNEL_NAME}", f"{boot}/{RAMDISK_NAME}")

    def report_url(self, token: str) -> str:
        """See ImageSite."""
        return f"{self.url}/report/{_checked(token)}"

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        """See ImageSite."""
        packed = pack_seed(files)
        write_whole(self._seed(token), packed)
        return Seed(f"{self.url}/seeds/{token}.tar", hashlib.sha256(packed).hexdigest())

    def publish_boot(self, node: Unit, script: str) -> None:
        """See ImageSite."""
        write_whole(self._boot(node), script.encode())

    def withdraw(self, node: Unit, token: str) -> None:
        """See ImageSite."""
        self._boot(node).unlink(missing_ok=True)
        self._seed(token).unlink(missing_ok=True)

    def reports(self, token: str) -> tuple[Report, ...]:
        """See ImageSite."""
        try:
            with (self.root / "reports" / f"{_checked(token)}.jsonl").open("rb") as file:
                text = file.read(MAX_REPORTS * MAX_REPORT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            return ()
        complete = text[: text.rfind("\n") + 1]
        return tuple(parse_reports(complete.split("\n")))

    def _published_sum(self, folder: str, name: str) -> str:
        path = self.root / folder / f"{name}.sha256"
        try:
            words = path.read_text()[:256].split()
        except (OSError, UnicodeDecodeError):
            words = []
        if not words or not _SHA256.fullmatch(words[0]) or not path.with_name(name).is_file():
            raise UsageError(
                f"{name} is not published: {path} and the file beside it are needed",
                "put it there, or `rackproof virtual up` for a virtual rack",
            )
        return words[0]

    def _boot(self, node: Unit) -> Path:
        return self.root / "boot" / f"{host_of(node).mac.lower().replace(':', '-')}.ipxe"

    def _seed(self, token: str) -> Path:
        return self.root / "seeds" / f"{_checked(token)}.tar"


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise RackproofError(f"{token!r} is no attempt's token", "this is a defect of rackproof")
    return token

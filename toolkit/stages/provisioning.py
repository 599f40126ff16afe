"""The provisioning server as the image stage uses it: signed images, boot scripts served once, seeds, reports, logs.

What is said is in `boot_script`, `seeds` and `deploy_reports`; here is where it lies. The other end is the deploy
ramdisk (`toolkit/image/deploy`), `first_boot.py` of the image, and the boot service (`toolkit/netboot`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from toolkit.durable import write_whole
from toolkit.errors import RackproofError, UsageError
from toolkit.image import packages
from toolkit.image.manifest import ManifestError, Role
from toolkit.image.release import Published, published
from toolkit.netboot.offers import BootOffers, Offer
from toolkit.netboot.site import LOGS, REPORTS
from toolkit.rack.model import Unit
from toolkit.stages.boot_script import ImageSource, Places, Seed, disk_of, host_of
from toolkit.stages.deploy_reports import MAX_PROGRESS, MAX_REPORT_BYTES, MAX_REPORTS, Report, parse_reports
from toolkit.stages.seeds import SeedFile, pack_seed

if TYPE_CHECKING:
    from toolkit.certificate.trust import Trust, TrustedKey

__all__ = ["ImageSite", "ImageSource", "Offer", "ProvisionSite", "disk_of", "host_of"]

KERNEL = "boot/vmlinuz"  # of an image without a kernel: a virtual node boots the one that carries it and asks for none
MAX_LOG_BYTES = 1024 * 1024
_TOKEN = re.compile(r"[0-9a-f]{32}")
# An Ed25519 key's SubjectPublicKeyInfo is these bytes and the key (RFC 8410, section 4).
_ED25519_INFO = bytes.fromhex("302a300506032b6570032100")


class ImageSite(Protocol):
    """The provisioning server, as the image stage uses it. `token` names one attempt on one node, 32 hex digits."""

    def image(self, name: str) -> ImageSource:
        """The image of that name, its signature verified; UsageError if it is not published as it was signed."""
        ...

    def places(self, token: str, signed: bool) -> Places:
        """Where the node posts and fetches under the token. `signed`: its host key gets a certificate."""
        ...

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        """Offers the files, by absolute path on the node, as one archive."""
        ...

    def publish_certificate(self, token: str, certificate: str) -> None:
        """Offers the SSH certificate of the node's host key."""
        ...

    def publish_boot(self, node: Unit, token: str, script: str) -> None:
        """The node's next network boot runs this script: that one and no later one."""
        ...

    def offer(self, node: Unit) -> Offer | None:
        """What became of the script that was published last; None: there never was one."""
        ...

    def withdraw(self, node: Unit, token: str) -> None:
        """Takes script, seed and certificate away; nothing happens if they are not there."""
        ...

    def reports(self, token: str) -> tuple[Report, ...]:
        """What the node posted so far, oldest first."""
        ...

    def log(self, token: str) -> bytes:
        """The ramdisk's log as it was posted last, bounded; empty where none came."""
        ...


@dataclass(frozen=True, slots=True)
class ProvisionSite:
    """`ImageSite` over a folder that an HTTP server offers at `url` (no slash at its end).

    trust  whose signatures on images are believed; asked at each use
    """

    root: Path
    url: str
    trust: Callable[[], Trust]

    def image(self, name: str) -> ImageSource:
        """See ImageSite."""
        if not self.url.startswith("http://"):
            raise UsageError(
                f"the provisioning server's URL is {self.url!r}: boot firmware needs one with http://",
                "set `provision` in the rack file",
            )
        trust = self.trust()
        release = published(self.root, name, trust)
        manifest = release.manifest
        try:
            disk, ramdisk = manifest.part(Role.DISK), manifest.part(Role.RAMDISK)
        except ManifestError as wrong:
            raise UsageError(f"{name} cannot be written to a disk: {wrong.message}", wrong.hint) from wrong
        if manifest.root_partition is None:
            raise UsageError(
                f"{name} does not say where its root file system is: nothing could be planted in it", "build it again"
            )
        kernel = manifest.find(Role.KERNEL)
        return ImageSource(
            url=f"{self.url}/{release.path(disk)}",
            sha256=disk.sha256,
            kernel_url=f"{self.url}/{release.path(kernel) if kernel else KERNEL}",
            ramdisk_url=f"{self.url}/{release.path(ramdisk)}",
            manifest_url=f"{self.url}/{release.signed_manifest}",
            keys=tuple(_der(known) for known in trust.keys),
            command_line=manifest.command_line,
            packages=self._packages(release),
        )

    def _packages(self, release: Published) -> frozenset[str] | None:
        """What the image lists as installed. UsageError where the list is not the signed one."""
        listed = release.manifest.find(Role.PACKAGES)
        if listed is None:
            return None
        raw = (self.root / release.path(listed)).read_bytes()
        try:
            if hashlib.sha256(raw).hexdigest() != listed.sha256:
                raise ValueError("it has another hash than the signed one")
            return packages.names(raw)
        except ValueError as wrong:
            raise UsageError(
                f"{release.manifest.name}: its list of packages cannot be believed: {wrong}",
                "publish the release again: rackproof image publish RELEASE",
            ) from wrong

    def places(self, token: str, signed: bool) -> Places:
        """See ImageSite."""
        certificate = f"{self.url}/seeds/{_checked(token)}.cert" if signed else ""
        return Places(token, f"{self.url}/report/{_checked(token)}", f"{self.url}/log/{token}", certificate)

    def publish_seed(self, token: str, files: Mapping[str, SeedFile]) -> Seed:
        """See ImageSite."""
        packed = pack_seed(files)
        write_whole(self._seed(token, "tar"), packed)
        return Seed(f"{self.url}/seeds/{token}.tar", hashlib.sha256(packed).hexdigest())

    def publish_certificate(self, token: str, certificate: str) -> None:
        """See ImageSite."""
        write_whole(self._seed(token, "cert"), f"{certificate.strip()}\n".encode())

    def publish_boot(self, node: Unit, token: str, script: str) -> None:
        """See ImageSite."""
        host = host_of(node)
        BootOffers(self.root).arm(host.mac, host.address, _checked(token), script)

    def offer(self, node: Unit) -> Offer | None:
        """See ImageSite."""
        return BootOffers(self.root).look(host_of(node).mac)

    def withdraw(self, node: Unit, token: str) -> None:
        """See ImageSite."""
        BootOffers(self.root).disarm(host_of(node).mac, token)
        for suffix in ("tar", "cert"):
            self._seed(token, suffix).unlink(missing_ok=True)

    def reports(self, token: str) -> tuple[Report, ...]:
        """See ImageSite."""
        text = _read(
            self.root / REPORTS / f"{_checked(token)}.jsonl", (MAX_REPORTS + MAX_PROGRESS) * MAX_REPORT_BYTES
        ).decode("utf-8", "replace")
        complete = text[: text.rfind("\n") + 1]
        return tuple(parse_reports(complete.split("\n")))

    def log(self, token: str) -> bytes:
        """See ImageSite."""
        return _read(self.root / LOGS / f"{_checked(token)}.log", MAX_LOG_BYTES)

    def _seed(self, token: str, suffix: str) -> Path:
        return self.root / "seeds" / f"{_checked(token)}.{suffix}"


def _der(known: TrustedKey) -> str:
    """The key as the boot script tells it: its padding is always one `=`, which iPXE need not see."""
    public = bytes.fromhex(str(known.key.to_dict()["keyval"]["public"]))
    return base64.b64encode(_ED25519_INFO + public).decode().rstrip("=")


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


def _checked(token: str) -> str:
    if not _TOKEN.fullmatch(token):
        raise RackproofError(f"{token!r} is no attempt's token", "this is a defect of rackproof")
    return token

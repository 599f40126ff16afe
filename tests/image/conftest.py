"""A small release, signed, and those who believe it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import SigningKey, load_or_create
from toolkit.certificate.trust import Trust
from toolkit.image.manifest import Architecture, Content, Firmware, Manifest, Role, RootPartition
from toolkit.image.release import describe, sign_release, write_manifest

BUILT_AT = datetime(2026, 11, 23, 18, tzinfo=UTC)
DISK = b"the disk's bytes, compressed"


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder to make releases in, and the site's image key."""

    folder: Path
    key: SigningKey
    built_at: datetime = BUILT_AT

    @property
    def trust(self) -> Trust:
        """The site's own key alone."""
        return Trust.of((trusted_key(self.key.public_pem),))

    def manifest(self, folder: Path, name: str = "debian-12-node", later: timedelta = timedelta()) -> Manifest:
        """Of the files that lie in the folder."""
        disk = describe(folder / "disk.img.zst", Role.DISK, Content(hashlib.sha256(b"disk").hexdigest(), 1 << 30))
        return Manifest(
            name=name,
            architecture=Architecture.AMD64,
            created_at=BUILT_AT + later,
            recipe_sha256="ab" * 32,
            parts=(
                disk,
                describe(folder / "vmlinuz", Role.KERNEL),
                describe(folder / "deploy.cpio.zst", Role.RAMDISK),
            ),
            root_partition=RootPartition(3, 66 << 20, (1 << 30) - (67 << 20)),
            kernel_release="6.1.0-56-cloud-amd64",
            command_line="console=ttyS0,115200n8",
            boots=(Firmware.BIOS, Firmware.UEFI),
            inputs=(("packages", "cd" * 32),),
        )

    def release(self, where: str = "release", content: bytes = DISK, **told: object) -> Path:
        """A signed release; its disk has this content."""
        folder = self.folder / where
        folder.mkdir()
        for name, body in (("disk.img.zst", content), ("vmlinuz", b"kernel"), ("deploy.cpio.zst", b"ramdisk")):
            (folder / name).write_bytes(body)
        write_manifest(folder, self.manifest(folder, **told))  # type: ignore[arg-type]
        sign_release(folder, self.key)
        return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """An empty bench and a new key."""
    return Bench(tmp_path, load_or_create(tmp_path / "keys", purpose=Purpose.IMAGE))

"""A signed release of a few bytes, for racks whose nodes boot nothing."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from toolkit.certificate.public_key import trusted_key
from toolkit.certificate.purpose import Purpose
from toolkit.certificate.sign import load_or_create
from toolkit.certificate.trust import Trust
from toolkit.image.manifest import Architecture, Content, Manifest, Role, RootPartition
from toolkit.image.release import Published, describe, publish, sign_release, write_manifest

_DISK_BYTES = 4096


def publish_blank(provision: Path, keys: Path, name: str) -> Published:
    """Signs it with the image key of `keys`, which is made if there is none, and offers it under `name`."""
    key = load_or_create(keys, None, Purpose.IMAGE)
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder)
        disk, ramdisk = release / "disk.img.zst", release / "deploy.cpio.zst"
        for file in (disk, ramdisk):
            file.write_bytes(b"blank")
        content = Content(sha256(bytes(_DISK_BYTES)).hexdigest(), _DISK_BYTES)
        manifest = Manifest(
            name=name,
            architecture=Architecture.AMD64,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            recipe_sha256=sha256(b"blank").hexdigest(),
            parts=(describe(disk, Role.DISK, content), describe(ramdisk, Role.RAMDISK)),
            root_partition=RootPartition(1, 2048, 2048),
        )
        write_manifest(release, manifest)
        sign_release(release, key)
        return publish(release, provision, Trust.of([trusted_key(key.public_pem)]))

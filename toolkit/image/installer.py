"""A vendor's installer as a signed release: its kernel, initial ramdisk and ISO, taken in as they are."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from toolkit.certificate.canonical import digest
from toolkit.errors import UsageError
from toolkit.image.manifest import NAME, Architecture, Manifest, Role
from toolkit.image.release import describe, write_manifest

KERNEL, INITRD, ISO = "vmlinuz", "initrd", "installer.iso"
_ISO_MAGIC_AT, _ISO_MAGIC = 0x8001, b"CD001"  # ECMA-119, 8.1: the first volume descriptor


def import_installer(
    name: str, architecture: Architecture, kernel: Path, initrd: Path, iso: Path, output: Path, now: datetime
) -> Manifest:
    """Makes the release, unsigned, in the new folder `output`: there whole, or not at all.

    The files are copied: nobody else may write to what is signed. Raises UsageError for a file that cannot be read or
    is no ISO, and where the folder is there.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{ascii(name)[:80]} is no name of an image", "small letters, digits and ._-")
    if output.exists():
        raise UsageError(f"{output} is there already", "name a new folder: --output DIR")
    _check_iso(iso)
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        parts = []
        for source, target, role in (
            (kernel, KERNEL, Role.KERNEL),
            (initrd, INITRD, Role.INITRD),
            (iso, ISO, Role.ISO),
        ):
            _copy(source, aside / target)
            parts.append(describe(aside / target, role))
        sums = {part.role.value: part.sha256 for part in parts}
        manifest = Manifest(name, architecture, now.replace(microsecond=0), digest(sums), tuple(parts))
        write_manifest(aside, manifest)
        aside.chmod(0o755)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as exc:
        raise UsageError(f"{source} cannot be taken in: {exc.strerror}", "check its path and the disk's room") from exc
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _check_iso(iso: Path) -> None:
    try:
        with iso.open("rb") as file:
            file.seek(_ISO_MAGIC_AT)
            found = file.read(len(_ISO_MAGIC))
    except OSError as exc:
        raise UsageError(f"{iso} cannot be read: {exc.strerror}", "check its path") from exc
    if found != _ISO_MAGIC:
        raise UsageError(f"{iso} is no ISO image", "give the ISO as the vendor has it, not an archive of it")

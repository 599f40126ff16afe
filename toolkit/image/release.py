"""Releases of images: a folder of parts with a signed manifest; verified, and published where nodes fetch them.

    RELEASE/manifest.json        the statement, for readers: exactly the bytes that are signed
    RELEASE/manifest.dsse.json   the same, signed with the site's image key
    RELEASE/<part>               as the manifest names them, and nothing else

Published: the parts lie under `images/NAME/<digest of the manifest>/`, so that a node in the middle of one release is
not disturbed by the next, and `images/NAME/manifest.dsse.json` is written last: it says which of them is offered.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path

from toolkit.certificate.envelope import MAX_ENVELOPE_BYTES, sealed, unsealed
from toolkit.certificate.refusal import CertificateRefusedError, Refusal
from toolkit.certificate.sign import PAYLOAD_TYPE, SigningKey
from toolkit.certificate.trust import Trust
from toolkit.durable import write_whole
from toolkit.errors import UsageError
from toolkit.image.manifest import NAME, Content, Manifest, ManifestError, Part, Role, check, read_statement
from toolkit.image.refusal import ImageRefusal, ImageRefusedError

MANIFEST, SIGNED = "manifest.json", "manifest.dsse.json"
IMAGES = "images"  # folder of the provisioning root
_KEPT = 2  # releases of one name that stay published: the one that is offered and the one before it

_REFUSALS = {
    Refusal.UNTRUSTED: ImageRefusal.UNTRUSTED,
    Refusal.ALTERED: ImageRefusal.ALTERED,
    Refusal.REVOKED: ImageRefusal.REVOKED,
}


@dataclass(frozen=True, slots=True)
class Published:
    """A release as nodes find it. `location`: of its folder below the server's root, no slash at either end."""

    manifest: Manifest
    location: str

    def path(self, part: Part) -> str:
        """Where the part lies below the server's root."""
        return f"{self.location}/{part.name}"

    @property
    def signed_manifest(self) -> str:
        """Where the signed manifest of this very release lies below the server's root."""
        return f"{self.location}/{SIGNED}"


def describe(file: Path, role: Role, content: Content | None = None) -> Part:
    """The part that this file is. Raises UsageError where it cannot be read."""
    with _opened(file) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Part(role, file.name, digest, os.fstat(stream.fileno()).st_size, content)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Puts the manifest, unsigned, beside its parts. ManifestError for one that no release can have."""
    check(manifest)
    write_whole(folder / MANIFEST, manifest.payload())


def sign_release(folder: Path, key: SigningKey) -> Manifest:
    """Signs what the folder holds now. ImageRefusedError where its parts are not those of its manifest."""
    manifest = read_unsigned(folder)
    _check_parts(folder, manifest)
    write_whole(folder / SIGNED, sealed(manifest.statement(), PAYLOAD_TYPE, key))
    return manifest


def verify(folder: Path, trust: Trust, now: datetime | None = None) -> Manifest:
    """What the release is, if a trusted key signed it and every part is there, whole and as it was signed.

    Reads every byte. Raises ImageRefusedError, which names the part; UndecidedError where the trust's list of
    revocations is too old at `now` (the default is this machine's clock).
    """
    manifest = read_signed(folder / SIGNED, trust, now)
    plain = folder / MANIFEST
    if plain.exists() and plain.read_bytes() != manifest.payload():
        raise ImageRefusedError(ImageRefusal.ALTERED, f"{plain} is not what was signed", MANIFEST)
    _check_parts(folder, manifest)
    return manifest


def read_signed(file: Path, trust: Trust, now: datetime | None = None) -> Manifest:
    """The manifest in this envelope; its parts are not looked at. Raises as `verify` does."""
    try:
        with file.open("rb") as stream:
            envelope = stream.read(MAX_ENVELOPE_BYTES + 1)
    except FileNotFoundError as exc:
        raise ImageRefusedError(ImageRefusal.UNSIGNED, f"there is no {file}") from exc
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}", "check its permissions") from exc
    try:
        found = unsealed(envelope, PAYLOAD_TYPE, tuple(known.key for known in trust.keys))
        manifest = read_statement(found.body)
    except CertificateRefusedError as refused:
        code = _REFUSALS.get(refused.refusal, ImageRefusal.MALFORMED)
        raise ImageRefusedError(code, f"{file}: {_detail(refused)}", SIGNED) from refused
    except ManifestError as wrong:
        raise ImageRefusedError(ImageRefusal.MALFORMED, f"{file}: {wrong.message}", SIGNED) from wrong
    try:
        trust.refusal_of(found.keyid, found.digest, manifest.created_at, now or datetime.now(UTC))
    except CertificateRefusedError as refused:
        code = ImageRefusal.REVOKED if refused.refusal is Refusal.REVOKED else ImageRefusal.KEY_EXPIRED
        raise ImageRefusedError(code, f"{file}: {_detail(refused)}", SIGNED) from refused
    return manifest


def publish(release: Path, provision: Path, trust: Trust, *, allow_older: bool = False) -> Published:
    """Verifies the release and offers it under its name. Publishing the same again changes nothing.

    ImageRefusedError where it does not verify, and where a newer one is offered now, unless `allow_older`. Killed at
    any instant, what was offered before is offered still, or this one is, whole.
    """
    manifest = verify(release, trust)
    images = provision / IMAGES
    offered = images / manifest.name
    if not allow_older:
        _check_not_older(manifest, offered / SIGNED, trust)
    _clear_single_file(offered)
    target = offered / manifest.digest
    envelope = (release / SIGNED).read_bytes()
    _place(release, target, manifest, envelope)
    write_whole(offered / SIGNED, envelope)
    _forget_old(offered, target)
    return Published(manifest, f"{IMAGES}/{manifest.name}/{manifest.digest}")


def published(provision: Path, name: str, trust: Trust) -> Published:
    """The release that is offered under this name, its signature verified and its parts there in their sizes.

    Quick: the parts are not read, whoever writes them to a disk hashes them. Raises ImageRefusedError; UsageError
    where there is none of that name.
    """
    offered = provision / IMAGES / name
    if not NAME.fullmatch(name) or not (offered / SIGNED).is_file():
        raise UsageError(
            f"no image {ascii(name)[:80]} is published: there is no {offered / SIGNED}",
            "rackproof image publish RELEASE, or `rackproof virtual up` for a virtual rack",
        )
    manifest = read_signed(offered / SIGNED, trust)
    if manifest.name != name:
        raise ImageRefusedError(
            ImageRefusal.OTHER_NAME, f"what is published as {name} was signed as {manifest.name}", SIGNED
        )
    folder = offered / manifest.digest
    for part in manifest.parts:
        _check_size(folder, part)
    return Published(manifest, f"{IMAGES}/{name}/{manifest.digest}")


def _detail(refused: CertificateRefusedError) -> str:
    return refused.message.partition(": ")[2]


def read_unsigned(folder: Path) -> Manifest:
    """The manifest as it was built; its parts are not looked at. ImageRefusedError where it is none."""
    file = folder / MANIFEST
    try:
        with file.open("rb") as stream:
            written = stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as exc:
        raise ImageRefusedError(ImageRefusal.MALFORMED, f"{file} cannot be read: {exc.strerror}", MANIFEST) from exc
    try:
        statement = json.loads(written)
        manifest = read_statement(statement if isinstance(statement, dict) else {})
    except (ValueError, RecursionError, ManifestError) as exc:
        raise ImageRefusedError(ImageRefusal.MALFORMED, f"{file}: {str(exc)[:300]}", MANIFEST) from exc
    if written != manifest.payload():
        raise ImageRefusedError(ImageRefusal.MALFORMED, f"{file} is not in canonical form", MANIFEST)
    return manifest


def _check_parts(folder: Path, manifest: Manifest) -> None:
    """Every part is there and is what was named, and nothing lies beside them."""
    known = {part.name for part in manifest.parts} | {MANIFEST, SIGNED}
    for extra in sorted(entry.name for entry in folder.iterdir() if entry.name not in known):
        raise ImageRefusedError(
            ImageRefusal.PART_EXTRA, f"{folder} holds {ascii(extra)[:80]}, which the manifest does not name", extra
        )
    for part in manifest.parts:
        _check_size(folder, part)
    for part in manifest.parts:
        with _opened(folder / part.name) as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != part.sha256:
            raise ImageRefusedError(
                ImageRefusal.PART_ALTERED,
                f"{part.role} {folder / part.name} has sha256 {found[:16]}…, {part.sha256[:16]}… was signed",
                part.name,
            )


def _check_size(folder: Path, part: Part) -> None:
    """The part is a file of ours (no link that leads elsewhere) with its size."""
    file = folder / part.name
    try:
        found = file.lstat()
    except FileNotFoundError as exc:
        raise ImageRefusedError(ImageRefusal.PART_MISSING, f"{part.role} {file} is not there", part.name) from exc
    if not stat.S_ISREG(found.st_mode):
        raise ImageRefusedError(ImageRefusal.PART_ALTERED, f"{part.role} {file} is no plain file", part.name)
    if found.st_size != part.size_bytes:
        cut = found.st_size < part.size_bytes
        raise ImageRefusedError(
            ImageRefusal.PART_TRUNCATED if cut else ImageRefusal.PART_ALTERED,
            f"{part.role} {file} has {found.st_size:,} bytes, {part.size_bytes:,} were signed",
            part.name,
        )


def _opened(file: Path) -> BufferedReader:
    try:
        return os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    except OSError as exc:
        raise UsageError(f"{file} cannot be read: {exc.strerror}", "check its path and permissions") from exc


def _check_not_older(manifest: Manifest, offered: Path, trust: Trust) -> None:
    """An older release is as well signed as a newer one: only the order keeps a known hole from coming back."""
    if not offered.is_file():
        return
    try:
        now = read_signed(offered, trust)
    except ImageRefusedError:
        return  # what is offered now is nobody's: this one is better whatever its age
    if manifest.created_at < now.created_at:
        raise ImageRefusedError(
            ImageRefusal.OLDER,
            f"{manifest.name} is offered as of {now.created_at.isoformat()}, this release is of "
            f"{manifest.created_at.isoformat()}",
        )


def _clear_single_file(offered: Path) -> None:
    """Before releases an image was one file with its sum beside it."""
    if offered.is_file():
        offered.unlink()
        offered.with_name(f"{offered.name}.sha256").unlink(missing_ok=True)


def _place(release: Path, target: Path, manifest: Manifest, envelope: bytes) -> None:
    """The parts in their folder, by hard links where the file system allows: they are large."""
    target.mkdir(parents=True, exist_ok=True)
    for part in manifest.parts:
        placed, aside = target / part.name, target / f".{part.name}.new"
        if placed.exists() and placed.samefile(release / part.name):
            continue  # renaming one link over another to the same file does nothing, and leaves both
        aside.unlink(missing_ok=True)
        try:
            aside.hardlink_to(release / part.name)
        except OSError:
            shutil.copyfile(release / part.name, aside)
        aside.replace(placed)
    write_whole(target / SIGNED, envelope)


def _forget_old(offered: Path, target: Path) -> None:
    """Takes away what no node can be in the middle of any more: all but the newest two."""
    releases = sorted((f for f in offered.iterdir() if f.is_dir()), key=lambda f: (f == target, f.stat().st_mtime))
    for gone in releases[:-_KEPT]:
        shutil.rmtree(gone)

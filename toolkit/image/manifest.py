"""What an image is: an in-toto statement that names every part of it with its hash. Pure.

The statement is what is signed (`toolkit.image.release`) and what the deploy ramdisk reads before it touches a disk:
it is small on purpose, one object a part, and the long list of packages is a part of its own.
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import NoReturn

from toolkit.certificate.canonical import canonical
from toolkit.certificate.statement import STATEMENT_TYPE
from toolkit.errors import RackproofError

PREDICATE_TYPE = "https://rackproof.dev/attestation/image/v1"
VERSION = 1
MAX_PARTS = 16
MAX_PART_BYTES = 1 << 40
MAX_DISK_BYTES = 1 << 44
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SECTOR_BYTES = 512


class Role(StrEnum):
    """What a part is for."""

    DISK = "disk"  # the whole disk, partition table first, compressed by zstd
    KERNEL = "kernel"  # booted over the network
    INITRD = "initrd"  # of a vendor's installer
    RAMDISK = "ramdisk"  # the deploy ramdisk, with the kernel's modules where there is a kernel
    EFI = "efi"  # a UEFI application
    SEED = "seed"  # planted on the disk of every node alike
    ISO = "iso"  # a vendor's installer
    PACKAGES = "packages"  # every package with its version and the hash of its archive


SINGLE = frozenset({Role.DISK, Role.KERNEL, Role.INITRD, Role.RAMDISK, Role.ISO, Role.PACKAGES})


class Architecture(StrEnum):
    """Debian's names."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class Firmware(StrEnum):
    """What can boot the disk."""

    BIOS = "bios"
    UEFI = "uefi"


class ManifestError(RackproofError):
    """A statement that is no image's, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a compressed part is when it is unpacked: the bytes that stand on the disk afterwards."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the image. `content`: of a disk, what is written; None for a part that is used as it is."""

    role: Role
    name: str
    sha256: str
    size_bytes: int
    content: Content | None = None


@dataclass(frozen=True, slots=True)
class RootPartition:
    """Where the root file system (ext4) lies on the disk: what is planted there goes in without a partition scan."""

    number: int
    start_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image.

    created_at      orders the releases of one name: an older one is not put in place of a newer one by mistake
    recipe_sha256   of everything that went in: two builds with the same recipe have the same parts
    kernel_release  `uname -r` of the part `kernel`; empty where there is none
    command_line    the kernel's own arguments, before those of one boot; empty where there is none
    boots           firmware that boots the disk by itself; none for one that only a virtual rack boots
    inputs          (what, sha256) of what it was made from
    """

    name: str
    architecture: Architecture
    created_at: datetime
    recipe_sha256: str
    parts: tuple[Part, ...]
    root_partition: RootPartition | None = None
    kernel_release: str = ""
    command_line: str = ""
    boots: tuple[Firmware, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()

    def find(self, role: Role) -> Part | None:
        """The part with this role; None where the image has none. Of EFI and SEED the first."""
        return next((part for part in self.parts if part.role is role), None)

    def part(self, role: Role) -> Part:
        """The part with this role. ManifestError where there is none."""
        found = self.find(role)
        if found is None:
            raise ManifestError(f"image {self.name} has no {role}", "use an image that was built with one")
        return found

    def statement(self) -> dict[str, object]:
        """The in-toto statement."""
        predicate: dict[str, object] = {
            "version": VERSION,
            "image": self.name,
            "architecture": self.architecture.value,
            "createdAt": _written(self.created_at),
            "recipe": {"sha256": self.recipe_sha256},
            "parts": [_part_document(part) for part in self.parts],
            "kernelRelease": self.kernel_release,
            "commandLine": self.command_line,
            "boots": [firmware.value for firmware in self.boots],
            "inputs": [{"name": name, "sha256": digest} for name, digest in self.inputs],
        }
        if self.root_partition is not None:
            root = self.root_partition
            predicate["rootPartition"] = {
                "number": root.number, "startBytes": root.start_bytes, "sizeBytes": root.size_bytes,
            }  # fmt: skip
        subjects = [{"name": part.name, "digest": {"sha256": part.sha256}} for part in self.parts]
        return {
            "_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE, "subject": subjects, "predicate": predicate,
        }  # fmt: skip

    def payload(self) -> bytes:
        """The statement's one text: what is signed, and what `manifest.json` holds."""
        return canonical(self.statement())

    @property
    def digest(self) -> str:
        """sha256 of the payload: the name of this very release."""
        return sha256(self.payload()).hexdigest()


def _part_document(part: Part) -> dict[str, object]:
    document: dict[str, object] = {
        "role": part.role.value, "name": part.name, "sha256": part.sha256, "sizeBytes": part.size_bytes,
    }  # fmt: skip
    if part.content is not None:
        document["content"] = {"sha256": part.content.sha256, "sizeBytes": part.content.size_bytes}
    return document


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_statement(statement: Mapping[str, object]) -> Manifest:
    """The image that the statement tells of. ManifestError where it is of another kind or contradicts itself."""
    if (statement.get("_type"), statement.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        _refuse(f"it is a statement of {ascii(statement.get('predicateType'))[:120]}, not of an image")
    predicate = _object(statement, "predicate")
    if predicate.get("version") != VERSION or isinstance(predicate.get("version"), bool):
        _refuse(f"it is version {ascii(predicate.get('version'))[:20]} of an image's manifest, {VERSION} is read here")
    root = predicate.get("rootPartition")
    manifest = Manifest(
        name=_name(predicate, "image"),
        architecture=Architecture(_one_of(predicate, "architecture", Architecture)),
        created_at=_time(predicate, "createdAt"),
        recipe_sha256=_digest(_object(predicate, "recipe")),
        parts=tuple(_part(entry) for entry in _objects(predicate, "parts")),
        root_partition=None if root is None else _root(_object(predicate, "rootPartition")),
        kernel_release=_words(predicate, "kernelRelease"),
        command_line=_words(predicate, "commandLine"),
        boots=tuple(Firmware(_known(word, Firmware, "boots")) for word in _list(predicate, "boots")),
        inputs=tuple((_words(entry, "name"), _digest(entry)) for entry in _objects(predicate, "inputs")),
    )
    check(manifest)
    if manifest.statement() != statement:
        _refuse("its subjects are not its parts, or it says more than is known of an image")
    return manifest


def check(manifest: Manifest) -> None:
    """ManifestError for a manifest that no release can have: names twice, two disks, a root outside of the disk."""
    names = [part.name for part in manifest.parts]
    if not 1 <= len(names) <= MAX_PARTS:
        _refuse(f"it has {len(names)} parts, between 1 and {MAX_PARTS} are possible")
    for name in [manifest.name, *names]:
        if not NAME.fullmatch(name):
            _refuse(f"{ascii(name)[:80]} is no name: small letters, digits and ._- are")
    if len(set(names)) != len(names):
        _refuse("two of its parts have one name")
    roles = [part.role for part in manifest.parts if part.role in SINGLE]
    if len(set(roles)) != len(roles):
        _refuse("two of its parts have one role")
    disk, root = manifest.find(Role.DISK), manifest.root_partition
    if disk is not None and disk.content is None:
        _refuse(f"{disk.name} does not say what it unpacks to")
    if root is not None and (disk is None or disk.content is None or not _inside(root, disk.content)):
        _refuse("its root partition does not lie on its disk")


def _inside(root: RootPartition, disk: Content) -> bool:
    whole = root.start_bytes % _SECTOR_BYTES == 0 and root.size_bytes % _SECTOR_BYTES == 0
    return whole and root.start_bytes > 0 and root.start_bytes + root.size_bytes <= disk.size_bytes


def _part(entry: Mapping[str, object]) -> Part:
    content = entry.get("content")
    unpacked = None
    if content is not None:
        inner = _object(entry, "content")
        unpacked = Content(_digest(inner), _size(inner, "sizeBytes", MAX_DISK_BYTES))
    role = Role(_one_of(entry, "role", Role))
    return Part(role, _name(entry, "name"), _digest(entry), _size(entry, "sizeBytes", MAX_PART_BYTES), unpacked)


def _root(entry: Mapping[str, object]) -> RootPartition:
    number = _size(entry, "number", 128)
    return RootPartition(number, _size(entry, "startBytes", MAX_DISK_BYTES), _size(entry, "sizeBytes", MAX_DISK_BYTES))


def _object(document: Mapping[str, object], key: str) -> dict[str, object]:
    value = document.get(key)
    return value if isinstance(value, dict) else _refuse(f"'{key}' is no object")


def _list(document: Mapping[str, object], key: str) -> list[object]:
    value = document.get(key)
    return value if isinstance(value, list) else _refuse(f"'{key}' is no list")


def _objects(document: Mapping[str, object], key: str) -> list[dict[str, object]]:
    return [
        entry if isinstance(entry, dict) else _refuse(f"'{key}' holds no objects") for entry in _list(document, key)
    ]


def _words(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    fits = isinstance(value, str) and len(value) <= 2048 and value.isprintable()
    return str(value) if fits else _refuse(f"'{key}' is no printable text")


def _name(document: Mapping[str, object], key: str) -> str:
    value = _words(document, key)
    return value if NAME.fullmatch(value) else _refuse(f"'{key}' is {ascii(value)[:80]}: small letters, digits and ._-")


def _digest(document: Mapping[str, object]) -> str:
    value = _words(document, "sha256")
    return value if _SHA256.fullmatch(value) else _refuse("'sha256' is no sha256")


def _size(document: Mapping[str, object], key: str, most: int) -> int:
    value = document.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        _refuse(f"'{key}' is no number from 1 to {most}")
    return value


def _one_of(document: Mapping[str, object], key: str, kind: type[StrEnum]) -> str:
    return _known(document.get(key), kind, key)


def _known(value: object, kind: type[StrEnum], key: str) -> str:
    words = [member.value for member in kind]
    return str(value) if value in words else _refuse(f"'{key}' is {ascii(value)[:40]}: one of {', '.join(words)}")


def _time(document: Mapping[str, object], key: str) -> datetime:
    try:
        at = datetime.fromisoformat(_words(document, key))
    except ValueError:
        _refuse(f"'{key}' is no time")
    return at if at.tzinfo is not None else _refuse(f"'{key}' has no time zone")


def _refuse(detail: str) -> NoReturn:
    raise ManifestError(f"the image's manifest is wrong: {detail}", "build the image again, or ask who signed it")

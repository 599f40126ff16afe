"""The iPXE script of one attempt: what the node's network boot starts, and all that the deploy ramdisk is told. Pure.

The other end is `toolkit/image/deploy/lib/arguments.sh`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from toolkit.errors import UsageError
from toolkit.rack.imaging import BY_DEFAULT, ImagingPolicy, StoragePolicy
from toolkit.rack.model import Disk, Host, Unit

RAMDISK_NAME = "deploy.cpio.zst"
# What a kernel for x86 takes (COMMAND_LINE_SIZE, arch/x86/include/asm/setup.h); arm64 takes as much.
MAX_COMMAND_LINE = 2048
_ARGUMENT = re.compile(r"[A-Za-z0-9._:/+,-]+")  # no blank, no ${: iPXE and the kernel would read them their own way


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a node fetches the image, its hash, and what writes it.

    manifest_url  of the signed manifest, which the ramdisk verifies before it touches a disk
    keys          the site's image keys: base64 of their DER forms, without padding
    command_line  the kernel's own arguments
    packages      names of what is installed in it; None where the image does not list them
    """

    url: str
    sha256: str
    kernel_url: str
    ramdisk_url: str
    manifest_url: str
    keys: tuple[str, ...]
    command_line: str = ""
    packages: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Seed:
    """A published seed."""

    url: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where the node posts and fetches under the attempt's token. `certificate` empty: nobody signs its host key."""

    token: str
    report: str
    log: str
    certificate: str = ""


def host_of(node: Unit) -> Host:
    """The node's host side; UsageError for a unit that has none."""
    if node.host is None:
        raise UsageError(f"{node.name} has no host: it cannot be imaged", "add `host` to the unit in the rack file")
    return node.host


def disk_of(node: Unit) -> Disk:
    """The disk that its image goes to; UsageError for a rented node, which has none that is ours to write."""
    disk = host_of(node).disk
    if disk is None:
        raise UsageError(f"{node.name} cannot be imaged: its host has no disk", "add `disk` to it in the rack file")
    return disk


def render_boot_script(
    node: Unit, image: ImageSource, seed: Seed, places: Places, policy: ImagingPolicy = BY_DEFAULT
) -> str:
    """The node's iPXE script. UsageError for a name or serial that would change its meaning, or for lost arrays."""
    _refuse_lost_arrays(node, image, policy.storage)
    arguments = {
        "url": image.url,
        "sha256": image.sha256,
        "manifest": image.manifest_url,
        "image_key": ",".join(image.keys),
        **dict(_disk_arguments(node, policy)),
        "serial": node.serial,
        "mac": host_of(node).mac.lower(),
        "seed": seed.url,
        "seed_sha256": seed.sha256,
        "report": places.report,
        "log_url": places.log,
        "token": places.token,
        **dict(_policy_arguments(policy)),
    }
    if places.certificate:
        arguments |= {"host_key": "signed", "certificate": places.certificate}
    for name, value in arguments.items():
        if not _ARGUMENT.fullmatch(value):
            raise UsageError(
                f"boot script of {node.name}: {name} is {value!r}: letters, digits and ._:/+,- only",
                "correct the rack file",
            )
    told = " ".join(f"deploy.{name}={value}" for name, value in arguments.items())
    own = " ".join(filter(None, (image.command_line, policy.console and f"console={policy.console}")))
    line = " ".join(filter(None, (f"initrd={RAMDISK_NAME}", own, told)))
    if len(line) > MAX_COMMAND_LINE:
        raise UsageError(
            f"boot script of {node.name}: its kernel would be given {len(line)} characters, {MAX_COMMAND_LINE} is most",
            "a shorter `provision` URL or image name in the rack file, or fewer data disks",
        )
    return (
        "#!ipxe\n"
        f"echo rackproof: imaging {node.name}\n"
        f"kernel {image.kernel_url} {line}\n"
        f"initrd {image.ramdisk_url}\n"
        "boot\n"
    )


def _refuse_lost_arrays(node: Unit, image: ImageSource, storage: StoragePolicy) -> None:
    """A system without mdadm mounts one half of its mirror, and the other half falls behind without a word."""
    arrays = ["its mirror"] if storage.mirrored else []
    arrays += [f"the array at {storage.data_mount}"] if storage.data_mount else []
    if arrays and image.packages is not None and "mdadm" not in image.packages:
        raise UsageError(
            f"boot script of {node.name}: its image has no mdadm, so its system would not see {' and '.join(arrays)}",
            "add mdadm to `packages` of the image's recipe, then: rackproof image build, sign, publish",
        )


def _disk_arguments(node: Unit, policy: ImagingPolicy) -> Iterator[tuple[str, str]]:
    host, disk = host_of(node), disk_of(node)
    if disk.device:
        yield "disk", disk.device
    if disk.serial or not disk.wwn:
        yield "disk_serial", disk.serial
    if disk.wwn:
        yield "disk_wwn", disk.wwn
    if disk.size_bytes:
        yield "disk_size", str(disk.size_bytes)
    if policy.storage.mirrored and host.mirror_disk is not None:
        yield "raid", "raid1"
        yield "mirror", _known_by(host.mirror_disk)
        if host.mirror_disk.size_bytes:
            yield "mirror_size", str(host.mirror_disk.size_bytes)
    if host.data_disks and (policy.storage.data_mount or policy.erase.data_disks):
        yield "data", ",".join(_known_by(disk) for disk in host.data_disks)
        if any(disk.size_bytes for disk in host.data_disks):
            yield "data_size", ",".join(str(disk.size_bytes) for disk in host.data_disks)  # 0: any


def _known_by(disk: Disk) -> str:
    """A serial, or `wwn:` and a WWN: a serial has no colon."""
    return disk.serial or f"wwn:{disk.wwn}"


def _policy_arguments(policy: ImagingPolicy) -> Iterator[tuple[str, str]]:
    yield "erase", ",".join(policy.erase.methods)
    if policy.erase.data_disks:
        yield "erase_data", "1"
    if policy.storage.grow_root:
        yield "grow", "1"
    if policy.storage.data_mount:
        yield "data_mount", policy.storage.data_mount
    yield "on_failure", policy.on_failure.value

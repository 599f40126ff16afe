"""A recipe of a node's image: an operator-written file, read with every mistake at its line.

    image: debian-12-node                 # the name it is published under
    release: bookworm
    epoch: "2026-11-01T00:00:00Z"         # no file of the image is younger: two builds have the same times
    packages: [openssh-server, ...]       # beside the smallest Debian
    sources: ["deb ... main"]             # left out: this machine's own mirrors of that release
    disk_mib: 2048
    kernel: {package: linux-image-ARCH, arguments: "iommu=pt"}    # left out: an image that only a virtual rack boots
    boot: [bios, uefi]
    files: [{path: /etc/motd, content: "..."}, {path: /etc/x.conf, source: x.conf, mode: "0600"}]
    enable: [x.service]
    mask: [apt-daily.timer]

ARCH in a package's name stands for the architecture in Debian's words.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.certificate.canonical import canonical
from toolkit.image.manifest import Architecture, Firmware
from toolkit.rack.document import Problems, read

if TYPE_CHECKING:
    from toolkit.image.recipe_schema import PlantedFile, RecipeFile

ARCH = "ARCH"
MAX_FILE_BYTES = 16 << 20
_CONSOLES = {Architecture.AMD64: "ttyS0,115200n8", Architecture.ARM64: "ttyAMA0,115200n8"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel's package, its arguments (consoles first), and the modules that the deploy ramdisk takes along."""

    package: str
    command_line: str
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Planted:
    """A file of the image, owned by root."""

    path: str
    mode: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made of, for one architecture.

    epoch  the time of every file that would otherwise be younger
    boots  firmware that must boot the disk by itself; empty for a virtual rack's
    """

    name: str
    release: str
    architecture: Architecture
    epoch: datetime
    packages: tuple[str, ...]
    sources: tuple[str, ...]
    disk_mib: int
    kernel: Kernel | None
    boots: tuple[Firmware, ...]
    files: tuple[Planted, ...]
    enable: tuple[str, ...]
    mask: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of all that the operator asked for."""
        kernel = self.kernel
        return hashlib.sha256(
            canonical(
                {
                    "name": self.name,
                    "release": self.release,
                    "architecture": self.architecture.value,
                    "epoch": self.epoch.isoformat(),
                    "packages": list(self.packages),
                    "sources": list(self.sources),
                    "disk_mib": self.disk_mib,
                    "kernel": [kernel.package, kernel.command_line, *kernel.modules] if kernel else [],
                    "boots": [firmware.value for firmware in self.boots],
                    "files": [[f.path, f.mode, hashlib.sha256(f.content).hexdigest()] for f in self.files],
                    "enable": list(self.enable),
                    "mask": list(self.mask),
                }
            )
        ).hexdigest()


def load_recipe(file: Path, architecture: Architecture) -> Recipe:
    """The recipe in this file. Raises InputError with all that is wrong in it, UsageError where there is none."""
    from toolkit.image.recipe_schema import RecipeFile
    from toolkit.rack.fields import validate

    document = read(file)
    problems = Problems(document)
    written = validate(RecipeFile, document.data)
    if isinstance(written, list):
        for loc, wrong, right, of_key in written:
            problems.add(loc, wrong, right, of_key)
        problems.raise_any()
        raise AssertionError("a file that does not fit its schema has problems")
    _check(written, architecture, problems)
    files = tuple(_planted(entry, number, file.parent, problems) for number, entry in enumerate(written.files))
    problems.raise_any()
    return _recipe(written, architecture, tuple(f for f in files if f is not None))


def _check(written: RecipeFile, architecture: Architecture, problems: Problems) -> None:
    if written.boot and written.kernel is None:
        problems.add(("boot",), "no firmware boots an image without a kernel", "add `kernel`, or leave `boot` out")
    if written.kernel is not None and not written.boot:
        problems.add(("kernel",), "nothing would boot it", "boot: [bios, uefi]")
    if architecture is Architecture.ARM64 and written.boot == (Firmware.BIOS,):
        problems.add(("boot",), "an arm64 machine has no BIOS", "boot: [uefi]")
    for name in ("packages", "boot", "enable", "mask"):
        values = getattr(written, name)
        for number, value in enumerate(values):
            if value in values[:number]:
                problems.add((name, number), f"{value} is named twice", "once")
    for number, entry in enumerate(written.files):
        if entry.path in [earlier.path for earlier in written.files[:number]]:
            problems.add(("files", number, "path"), f"{entry.path} is planted twice", "once")


def _planted(entry: PlantedFile, number: int, folder: Path, problems: Problems) -> Planted | None:
    loc = ("files", number)
    if (entry.content is None) == (entry.source is None):
        problems.add(
            loc, "a file has either `content` or `source`", "content: the text; source: a file beside this one"
        )
        return None
    mode = int(entry.mode, 8)
    if entry.content is not None:
        return Planted(entry.path, mode, entry.content.encode())
    try:
        with (folder / str(entry.source)).open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.add((*loc, "source"), f"{folder / str(entry.source)} cannot be read: {error.strerror}")
        return None
    if len(content) > MAX_FILE_BYTES:
        problems.add((*loc, "source"), f"is larger than {MAX_FILE_BYTES:,} bytes", "ship it as a package")
        return None
    return Planted(entry.path, mode, content)


def _recipe(written: RecipeFile, architecture: Architecture, files: tuple[Planted, ...]) -> Recipe:
    def named(package: str) -> str:
        return package.replace(ARCH, architecture.value)

    kernel = written.kernel
    console = written.console or _CONSOLES[architecture]
    arguments = f"console=tty0 console={console} {kernel.arguments if kernel else ''}".strip()
    return Recipe(
        name=written.image,
        release=written.release,
        architecture=architecture,
        epoch=written.epoch.astimezone(UTC),
        packages=tuple(sorted(named(package) for package in written.packages)),
        sources=written.sources,
        disk_mib=written.disk_mib,
        kernel=Kernel(named(kernel.package), arguments, kernel.modules) if kernel else None,
        boots=tuple(f for f in written.boot if f is Firmware.UEFI or architecture is Architecture.AMD64),
        files=files,
        enable=written.enable,
        mask=written.mask,
    )

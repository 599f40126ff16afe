"""Builds a release from a recipe. The same recipe, packages and tools make the same parts, to the last bit."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from toolkit.certificate.canonical import digest
from toolkit.errors import UndecidedError, UsageError
from toolkit.image import boot, disk, modules, packages, ramdisk, tree
from toolkit.image.file_system import make_ext4, make_fat
from toolkit.image.manifest import Architecture, Content, Manifest, Part, Role
from toolkit.image.programs import PATH, Workshop, remove_tree, require, require_root
from toolkit.image.recipe import Recipe
from toolkit.image.release import describe, write_manifest

DISK, KERNEL, RAMDISK, PACKAGES = "disk.img.zst", "vmlinuz", "deploy.cpio.zst", "packages.json"
_PROGRAMS = ("unshare", "mmdebstrap", "mke2fs", "debugfs", "dumpe2fs", "zstd", "cpio")
# One level and one number of workers: zstd's output depends on the first, and on whether there are any of the second.
_ZSTD = ("zstd", "-q", "-9", "-T2")
_BLOCK_BYTES = 1 << 20
_MACHINES = {"x86_64": Architecture.AMD64, "aarch64": Architecture.ARM64}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Made:
    """What a disk's making told."""

    content: Content
    layout: disk.Layout
    kernel_release: str


def build(recipe: Recipe, output: Path, now: datetime, say: Say, lock: int = -1, keys: Sequence[str] = ()) -> Manifest:
    """Makes the release, unsigned, in the new folder `output`: there whole, or not at all. Needs root.

    now   the release's place in the order of its name
    lock  a file that every program holds open; -1: none
    keys  image keys (PEM) that the deploy ramdisk believes, whatever its boot script says; none: those of the script
    Raises UsageError where this machine cannot build or the folder is there, UndecidedError where a mirror or the
    disk failed it.
    """
    require_root("building the image")
    _require_own(recipe)
    require((*_PROGRAMS, *boot.needs(recipe.boots)), "building the image")
    if output.exists():
        raise UsageError(f"{output} is there already", "name a new folder: --output DIR")
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        shop = Workshop(aside, recipe.epoch, lock)
        done = aside / "done"
        done.mkdir()
        manifest = _build(recipe, shop, done, now, say, keys)
        write_manifest(done, manifest)
        for path in done.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # what the rename below promises must be on the disk
        done.rename(output)
    finally:
        remove_tree(aside)
    return manifest


def _require_own(recipe: Recipe) -> None:
    """The deploy ramdisk holds this machine's own programs (busybox, zstd, openssl and their libraries)."""
    own = _MACHINES.get(platform.machine())
    if own is not recipe.architecture:
        raise UsageError(
            f"an image for {recipe.architecture} cannot be built on {platform.machine()}",
            f"run the same command on a machine of {recipe.architecture}; its release can be published here",
        )


def _build(recipe: Recipe, shop: Workshop, done: Path, now: datetime, say: Say, keys: Sequence[str]) -> Manifest:
    root = shop.folder / "root"
    say("installing Debian packages")
    tree.install(recipe, tree.sources_of(recipe), root, shop, say)
    (done / PACKAGES).write_bytes(packages.written(packages.installed(root)))
    tree.settle(recipe, root, shop.seconds)
    made = make_disk(recipe, root, shop, done, say)
    say("packing the deploy ramdisk")
    _make_ramdisk(recipe, root, shop, done, made.kernel_release, keys)
    parts = [describe(done / DISK, Role.DISK, made.content)]
    if recipe.kernel is not None:
        shutil.copyfile(root / "boot" / f"vmlinuz-{made.kernel_release}", done / KERNEL)
        parts.append(describe(done / KERNEL, Role.KERNEL))
    parts += [describe(done / RAMDISK, Role.RAMDISK), describe(done / PACKAGES, Role.PACKAGES)]
    return _manifest(recipe, tuple(parts), made, now)


def _manifest(recipe: Recipe, parts: tuple[Part, ...], made: _Made, now: datetime) -> Manifest:
    sums = {part.role: part.sha256 for part in parts}
    inputs = (
        ("recipe", recipe.digest),
        ("packages", sums[Role.PACKAGES]),
        ("ramdisk", sums[Role.RAMDISK]),
        ("settings", settings_digest()),
    )
    return Manifest(
        name=recipe.name,
        architecture=recipe.architecture,
        created_at=now.replace(microsecond=0),
        recipe_sha256=digest({name: value for name, value in inputs}),
        parts=parts,
        root_partition=made.layout.root_partition,
        kernel_release=made.kernel_release,
        command_line=recipe.kernel.command_line if recipe.kernel else "",
        boots=recipe.boots,
        inputs=inputs,
    )


def settings_digest() -> str:
    """sha256 of the files of ours that go into every image."""
    found = hashlib.sha256()
    for path in sorted(p for p in tree.NODE.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        found.update(f"\0{path.relative_to(tree.NODE)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def make_disk(recipe: Recipe, root: Path, shop: Workshop, done: Path, say: Say) -> _Made:
    """The disk's image from the settled tree, compressed, in the folder `done`."""
    raw = shop.folder / "disk.img"
    say("making the disk image")
    layout = disk.bootable(recipe.disk_mib) if recipe.boots else disk.plain(recipe.disk_mib)
    disk.make_blank(raw, layout)
    release = ""
    if recipe.boots:
        release = _make_bootable(recipe, root, shop, raw, layout)
    else:
        disk.write_mbr(raw, layout)
        make_ext4(raw, layout.root, root, recipe.digest, shop)
    say("compressing it")
    content = Content(_sha256(raw), layout.disk_bytes)
    shop.run([*_ZSTD, str(raw), "-o", str(done / DISK)], "compressing the node image")
    raw.unlink()
    return _Made(content, layout, release)


def _make_bootable(recipe: Recipe, root: Path, shop: Workshop, raw: Path, layout: disk.Layout) -> str:
    kernel = recipe.kernel
    if kernel is None or layout.esp is None:
        raise UsageError(f"image {recipe.name} has no kernel to boot", "add `kernel` to its recipe")
    uuid = disk.root_uuid(recipe.digest)
    boot.plant_menu(root, uuid, kernel)
    core = boot.bios_core(root, uuid, shop) if "bios" in recipe.boots else None
    esp = shop.folder / "esp"
    esp.mkdir()
    if "uefi" in recipe.boots:
        boot.fill_esp(esp, root, uuid, recipe.architecture)
    tree.clamp_times(esp, shop.seconds)
    disk.write_gpt(raw, layout, recipe.architecture, recipe.digest, shop)
    if core is not None:
        disk.embed_bios_loader(raw, *core)
    serial = make_fat(raw, layout.esp, esp, recipe.digest, shop)
    (root / "boot/efi").mkdir(exist_ok=True)
    (root / "etc/fstab").write_text(disk.fstab(uuid, serial))
    tree.clamp_times(root, shop.seconds)
    make_ext4(raw, layout.root, root, recipe.digest, shop)
    return boot.kernel_release(root)


def _make_ramdisk(recipe: Recipe, root: Path, shop: Workshop, done: Path, release: str, keys: Sequence[str]) -> None:
    """The deploy ramdisk; behind it, in archives of their own, the kernel's modules and the site's image keys. Kernels
    unpack one after the other (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    base = shop.folder / "ramdisk"
    base.mkdir()
    ramdisk.make_tree(base)
    _append(base, done / RAMDISK, shop)
    if recipe.kernel is not None:
        extra = shop.folder / "modules"
        extra.mkdir()
        modules.lay_out(root, release, recipe.kernel.modules, extra)
        _append(extra, done / RAMDISK, shop)
    if keys:
        believed = shop.folder / "keys"
        for name, content in ramdisk.key_files(keys).items():
            (believed / name).parent.mkdir(parents=True, exist_ok=True)
            (believed / name).write_bytes(content)
        _append(believed, done / RAMDISK, shop)


def _append(folder: Path, whole: Path, shop: Workshop) -> None:
    """The folder as an archive at the end of the ramdisk, its files at the epoch."""
    packed = shop.folder / "segment.cpio.zst"
    tree.clamp_times(folder, shop.seconds)
    ramdisk.pack(folder, packed)
    with whole.open("ab") as out, packed.open("rb") as more:
        out.write(b"\0" * (-out.tell() % 4))
        shutil.copyfileobj(more, out)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpacked(part: Path) -> Content:
    """What a disk compressed by zstd unpacks to. UndecidedError where it is cut off or no such file."""
    found, size = hashlib.sha256(), 0
    with subprocess.Popen(
        ["zstd", "-dcq", str(part)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PATH": PATH}
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - for the type checker: pipes
        while block := process.stdout.read(_BLOCK_BYTES):
            found.update(block)
            size += len(block)
        said = process.stderr.read(500).decode("utf-8", "replace").strip()
    if process.returncode != 0:
        raise UndecidedError(f"{part} does not unpack: {said}", "build the image again")
    return Content(found.hexdigest(), size)

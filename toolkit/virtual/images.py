"""The virtual rack's node image: built once for a machine, then signed by each site and offered under its own names."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from toolkit.certificate.canonical import digest
from toolkit.certificate.sign import SigningKey
from toolkit.certificate.trust import Trust
from toolkit.errors import UndecidedError
from toolkit.image import build, mirrors, ramdisk
from toolkit.image.manifest import Architecture, Manifest, Role
from toolkit.image.programs import remove_tree, require_root
from toolkit.image.recipe import Recipe, load_recipe
from toolkit.image.release import MANIFEST, Published, publish, read_unsigned, sign_release, write_manifest

RECIPE = Path(__file__).parent / "image/virtual-node.yml"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A release, unsigned, in the cache, and the digest of what it was made from."""

    folder: Path
    manifest: Manifest
    recipe: str

    @property
    def path(self) -> Path:
        """The disk, compressed by zstd."""
        return self.folder / self.manifest.part(Role.DISK).name

    @property
    def sha256(self) -> str:
        """Of the compressed disk."""
        return self.manifest.part(Role.DISK).sha256


def build_image(cache: Path, say: Callable[[str], None], recipe_file: Path = RECIPE) -> BuiltImage:
    """Builds it under `cache`/images, or finds it there; under 90 s the first time on two cores. Needs root.

    Raises UsageError where this machine cannot build, UndecidedError where a mirror or the disk failed it.
    """
    cache = cache / "images"
    recipe = load_recipe(recipe_file, Architecture.AMD64)
    key = _key(recipe)
    found = _cached(cache, key)
    if found:
        return found
    require_root("building the node image")
    cache.mkdir(parents=True, exist_ok=True)
    with _building(cache) as lock:
        found = _cached(cache, key)  # another process may have built it while we waited for the lock
        if found:
            return found
        shutil.rmtree(cache / key, ignore_errors=True)  # what is there was judged damaged
        build.build(recipe, cache / key, datetime.now(UTC), say, lock)
    built = _cached(cache, key)
    if built is None:
        raise UndecidedError(f"the node image vanished from {cache} while it was built", "build it again")
    return built


def offer(built: BuiltImage, releases: Path, provision: Path, name: str, key: SigningKey, trust: Trust) -> Published:
    """Signs the image under this name, as a site does with what it builds, and publishes it.

    releases  where signed releases are kept; the parts are hard links to the cache
    """
    folder = releases / name
    aside = releases / f".{name}.new"
    for left in (aside, folder):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    manifest = replace(built.manifest, name=name)
    for part in manifest.parts:
        _link(built.folder / part.name, aside / part.name)
    write_manifest(aside, manifest)
    sign_release(aside, key)
    aside.rename(folder)
    # A rehearsal's image is built anew on every change of its recipe, back and forth: no order to keep.
    return publish(folder, provision, trust, allow_older=True)


def _link(source: Path, target: Path) -> None:
    """A hard link where the file system allows one: the image is large."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _key(recipe: Recipe) -> str:
    """Of everything that goes in: recipe, mirrors, settings of nodes, the ramdisk's files and the builder itself."""
    found = hashlib.sha256(repr(mirrors.debian_mirrors()).encode())
    sources = [*Path(build.__file__).parent.glob("*.py"), *(p for p in ramdisk.SOURCE.rglob("*") if p.is_file())]
    for path in sorted(sources):
        found.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest({"recipe": recipe.digest, "settings": build.settings_digest(), "sources": found.hexdigest()})[:32]


def _cached(cache: Path, key: str) -> BuiltImage | None:
    folder = cache / key
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_unsigned(folder)
    for part in manifest.parts:
        file = folder / part.name
        if not file.is_file() or file.stat().st_size != part.size_bytes:
            return None
    return BuiltImage(folder, manifest, key)


@contextmanager
def _building(cache: Path) -> Iterator[int]:
    """The lock that keeps other builders out; leftovers of killed builds are removed.

    Programs inherit the lock: those that outlive a killed builder keep the next one waiting, not working beside them.
    """
    lock = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in (*cache.glob(".building-*"), *cache.glob(".????????????????????????????????.*")):
            remove_tree(left)
        yield lock
    finally:
        os.close(lock)

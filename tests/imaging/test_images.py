"""The virtual rack's node image: what is in it, that it is built once, signed by each site, never used half-built."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolkit import settings
from toolkit.errors import UsageError
from toolkit.image.manifest import Architecture, Content, Manifest, Role, RootPartition
from toolkit.image.recipe import load_recipe
from toolkit.image.refusal import ImageRefusedError
from toolkit.image.release import describe, published, write_manifest
from toolkit.image.site import image_key, image_trust
from toolkit.stages.provisioning import ProvisionSite
from toolkit.virtual.images import RECIPE, BuiltImage, build_image, offer

IMAGE = "node.img.zst"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture
def made(tmp_path: Path) -> BuiltImage:
    """Something that looks like a built image."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("disk.img.zst", "deploy.cpio.zst"):
        (folder / name).write_bytes(name.encode())
    disk = describe(folder / "disk.img.zst", Role.DISK, Content(hashlib.sha256(b"x").hexdigest(), 1 << 30))
    parts = (disk, describe(folder / "deploy.cpio.zst", Role.RAMDISK))
    manifest = Manifest(
        "virtual-node", Architecture.AMD64, NOW, "ab" * 32, parts, RootPartition(1, 1 << 20, (1 << 30) - (1 << 20))
    )
    write_manifest(folder, manifest)
    return BuiltImage(folder, manifest, "recipe")


def offered(made: BuiltImage, root: Path) -> ProvisionSite:
    """The image as a site with a key of its own publishes it."""
    key, trust = image_key(root / "keys", {}), image_trust(root / "keys", NOW)
    offer(made, root / "releases", root / "provision", IMAGE, key, trust)
    return ProvisionSite(root / "provision", "http://10.66.255.1", lambda: trust)


def test_what_is_offered_is_what_the_stage_finds(made, tmp_path):
    """Both ends agree on names and sums; the name is the profile's, and the site signed it."""
    source = offered(made, tmp_path).image(IMAGE)
    assert source.sha256 == made.sha256
    ramdisk = tmp_path / "provision" / source.ramdisk_url.removeprefix("http://10.66.255.1/")
    assert ramdisk.read_bytes() == b"deploy.cpio.zst"
    assert published(tmp_path / "provision", IMAGE, image_trust(tmp_path / "keys", NOW)).manifest.name == IMAGE


def test_offering_again_replaces(made, tmp_path):
    """A newer image under the same name; no leftovers beside it."""
    site = offered(made, tmp_path)
    (made.folder / "disk.img.zst").unlink()
    (made.folder / "disk.img.zst").write_bytes(b"newer")
    disk = describe(made.folder / "disk.img.zst", Role.DISK, made.manifest.part(Role.DISK).content)
    newer = replace(made, manifest=replace(made.manifest, parts=(disk, made.manifest.part(Role.RAMDISK))))
    offered(newer, tmp_path)
    assert site.image(IMAGE).sha256 == newer.sha256 != made.sha256
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [IMAGE]
    names = sorted(path.name for path in (tmp_path / "provision/images" / IMAGE).iterdir())
    assert len(names) == 3 and names[-1] == "manifest.dsse.json"


def test_another_sites_image_is_not_ours(made, tmp_path):
    """Two sites on one machine share the cache, not the key."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    offered(made, theirs)
    image_key(ours / "keys", {})
    with pytest.raises(ImageRefusedError, match="IMAGE_UNTRUSTED"):
        published(theirs / "provision", IMAGE, image_trust(ours / "keys", NOW))


def test_the_recipe_of_the_virtual_rack_is_sound():
    """A container boots it: no kernel, no boot loader, a plain disk."""
    recipe = load_recipe(RECIPE, Architecture.AMD64)
    assert recipe.kernel is None and recipe.boots == ()


@pytest.fixture(scope="module")
def built() -> BuiltImage:
    """The real image, from this installation's cache; the first time this takes a minute."""
    return build_image(settings.load().cache, lambda _: None)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.root
@pytest.mark.rack
@needs_root
def test_the_second_build_is_a_look(built):
    """Same recipe, same files, at once."""
    began = time.monotonic()
    assert build_image(settings.load().cache, lambda _: None) == built
    assert time.monotonic() - began < 1


@pytest.mark.root
@pytest.mark.rack
@needs_root
def test_a_damaged_cache_is_not_used(built, tmp_path, monkeypatch):
    """A file cut short, or a build without its manifest, is built anew: without root that is refused."""
    folder = tmp_path / "images" / built.recipe
    folder.mkdir(parents=True)
    for path in built.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert build_image(tmp_path, lambda _: None).sha256 == built.sha256
    os.truncate(folder / built.path.name, 1000)
    with pytest.raises(UsageError, match="needs root"):
        build_image(tmp_path, lambda _: None)
    (folder / "manifest.json").unlink()
    with pytest.raises(UsageError, match="needs root"):
        build_image(tmp_path, lambda _: None)


@pytest.mark.root
@pytest.mark.rack
@needs_root
def test_two_nodes_from_one_image_share_no_identity_and_no_secret(built, tmp_path):
    """No host key, no machine id, no mirror, no proxy password of the machine that built it; and it is small."""
    raw = tmp_path / "disk.img"
    subprocess.run(["zstd", "-dq", "--sparse", str(built.path), "-o", str(raw)], check=True)
    root = built.manifest.root_partition
    assert root is not None

    def look(command: str) -> str:
        argv = ["debugfs", "-R", command, f"{raw}?offset={root.start_bytes}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert "ssh_host" not in look("ls -p /etc/ssh")
    assert look("cat /etc/machine-id") == ""
    assert look("cat /etc/resolv.conf") == ""
    assert ".sources" not in look("ls -p /etc/apt/sources.list.d")
    assert "99mmdebstrap" not in look("ls -p /etc/apt/apt.conf.d")
    assert look("cat /etc/rackproof/image").split()[0] == built.manifest.name
    assert built.path.stat().st_size < 120_000_000
    assert raw.stat().st_blocks * 512 < 400_000_000

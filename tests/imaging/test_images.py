"""The node image: what is in it, that it is built once, and that nothing half-built is ever used."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from toolkit import settings
from toolkit.errors import UsageError
from toolkit.stages.provisioning import ProvisionSite
from toolkit.virtual.images import BuiltImage, build_image, publish

IMAGE = "node.img.zst"


@pytest.fixture
def made(tmp_path: Path) -> BuiltImage:
    """Something that looks like a built image."""
    for name in ("image", "ramdisk"):
        (tmp_path / name).write_bytes(name.encode())
    sums = [hashlib.sha256(name).hexdigest() for name in (b"image", b"ramdisk")]
    return BuiltImage(tmp_path / "image", sums[0], tmp_path / "ramdisk", sums[1], "recipe")


def test_what_is_published_is_what_the_stage_finds(made, tmp_path):
    """Both ends agree on names and sums."""
    publish(made, tmp_path / "provision", IMAGE)
    source = ProvisionSite(tmp_path / "provision", "http://10.66.255.1").image(IMAGE)
    assert source.sha256 == made.sha256
    assert (tmp_path / "provision/boot/deploy.cpio.zst").read_bytes() == b"ramdisk"


def test_publishing_again_replaces(made, tmp_path):
    """A newer image under the same name; no leftovers beside it."""
    publish(made, tmp_path / "provision", IMAGE)
    newer = tmp_path / "newer"
    newer.write_bytes(b"newer")
    publish(replace(made, path=newer, sha256="cd" * 32), tmp_path / "provision", IMAGE)
    assert (tmp_path / "provision/images" / IMAGE).read_bytes() == b"newer"
    assert sorted(p.name for p in (tmp_path / "provision/images").iterdir()) == [IMAGE, f"{IMAGE}.sha256"]


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
    for path in built.path.parent.iterdir():
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

    def look(command: str) -> str:
        argv = ["debugfs", "-R", command, f"{raw}?offset={1024 * 1024}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert "ssh_host" not in look("ls -p /etc/ssh")
    assert look("cat /etc/machine-id") == ""
    assert look("cat /etc/resolv.conf") == ""
    assert ".sources" not in look("ls -p /etc/apt/sources.list.d")
    assert "99mmdebstrap" not in look("ls -p /etc/apt/apt.conf.d")
    assert look("cat /etc/rackproof/image").split()[1] == built.recipe[:12]
    assert built.path.stat().st_size < 120_000_000
    assert raw.stat().st_blocks * 512 < 400_000_000

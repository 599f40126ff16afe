"""From a recipe to a release, twice: the same inputs make the same parts. Minutes: Debian is installed."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from toolkit import settings
from toolkit.image.build import build, unpacked
from toolkit.image.manifest import Architecture, Firmware, Manifest, Role
from toolkit.image.programs import PATH
from toolkit.image.recipe import load_recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mmdebstrap makes device nodes"),
]
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def twice(tmp_path_factory) -> tuple[Path, Manifest, Manifest]:
    """The recipe that ships, built twice: other folders, another time of the day."""
    recipe = load_recipe(settings.load().inventory / "images/debian-12-node.yml", Architecture.AMD64)
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two") / "deeper"
    keys = ("-----BEGIN PUBLIC KEY-----\n",)
    first = build(recipe, one / "release", NOW, lambda _: None, keys=keys)
    second = build(recipe, two / "release", NOW + timedelta(hours=1), lambda _: None, keys=keys)
    return one / "release", first, second


def test_the_same_inputs_make_the_same_parts(twice):
    """To the last bit: disk, kernel, ramdisk, list of packages. Only the time of the manifest is another."""
    _, first, second = twice
    assert first.parts == second.parts
    assert first.recipe_sha256 == second.recipe_sha256
    assert {part.role for part in first.parts} == {Role.DISK, Role.KERNEL, Role.RAMDISK, Role.PACKAGES}
    assert first.boots == (Firmware.BIOS, Firmware.UEFI)


def test_the_release_says_what_its_disk_unpacks_to(twice):
    """That is what whoever wrote it reads back."""
    folder, manifest, _ = twice
    disk = manifest.part(Role.DISK)
    assert unpacked(folder / disk.name) == disk.content


def test_the_disk_boots_by_itself_and_names_nobody(twice, tmp_path):
    """Boot loader for both firmwares, the menu's kernel, no host key, no machine id, a root that grows."""
    folder, manifest, _ = twice
    raw = tmp_path / "disk.img"
    subprocess.run(["zstd", "-dq", "--sparse", str(folder / manifest.part(Role.DISK).name), "-o", str(raw)], check=True)
    root = manifest.root_partition
    assert root is not None

    def look(command: str) -> str:
        argv = ["debugfs", "-R", command, f"{raw}?offset={root.start_bytes}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True, env={"PATH": PATH}).stdout

    esp = subprocess.run(
        ["mdir", "-b", "-/", "-i", f"{raw}@@{2 << 20}", "::/"], capture_output=True, text=True, check=True
    ).stdout
    assert {"::/EFI/BOOT/BOOTX64.EFI", "::/EFI/BOOT/grubx64.efi", "::/EFI/debian/grub.cfg"} <= set(esp.split())
    assert f"vmlinuz-{manifest.kernel_release}" in look("cat /boot/grub/grub.cfg")
    assert f"initrd.img-{manifest.kernel_release}" in look("ls -p /boot")
    assert "x-systemd.growfs" in look("cat /etc/fstab")
    assert "Type=root" in look("cat /etc/repart.d/50-root.conf")
    assert "ssh_host" not in look("ls -p /etc/ssh")
    assert look("cat /etc/machine-id") == ""
    with raw.open("rb") as file:
        assert file.read(440).strip(b"\0")


def test_the_ramdisk_carries_the_modules_of_that_kernel(twice, tmp_path):
    """Behind the base, in an archive of its own."""
    folder, manifest, _ = twice
    packed = (folder / manifest.part(Role.RAMDISK).name).read_bytes()
    whole = subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=False).stdout
    for name in ("init", f"lib/modules/{manifest.kernel_release}/modules.dep", "virtio_net.ko", "mlx5_core.ko"):
        assert name.encode() in whole
    assert b"-----BEGIN PUBLIC KEY-----" in whole

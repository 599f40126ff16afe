"""Disks: what lies where, that firmware finds its way, and that the same tree makes the same disk to the last bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from toolkit.errors import RackproofError, UndecidedError
from toolkit.image import disk
from toolkit.image.boot import first_menu, kernel_release, menu
from toolkit.image.file_system import MIB, identifier, make_ext4, make_fat
from toolkit.image.manifest import Architecture
from toolkit.image.programs import PATH, Workshop
from toolkit.image.recipe import Kernel
from toolkit.image.tree import clamp_times

EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
RECIPE = "ab" * 32
LAYOUT = disk.bootable(104)
BOOT, CORE = bytes(range(256)) * 2, b"\xaa" * 1000


def plant(tree: Path, names: list[str]) -> None:
    """Some files, made in this order."""
    for name in names:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    (tree / "link").symlink_to("etc/hosts")
    os.link(tree / "etc/hosts", tree / "etc/hosts.bak")


def make(folder: Path, names: list[str]) -> Path:
    """A bootable disk with these files on both file systems, made in `folder`."""
    shop = Workshop(folder, EPOCH, -1)
    root, esp, raw = folder / "root", folder / "esp", folder / "disk.img"
    for tree in (root, esp):
        tree.mkdir(parents=True)
    plant(root, names)
    (esp / "EFI/BOOT").mkdir(parents=True)
    (esp / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"shim" * 5000)
    for tree in (root, esp):
        clamp_times(tree, shop.seconds)
    disk.make_blank(raw, LAYOUT)
    disk.write_gpt(raw, LAYOUT, Architecture.AMD64, RECIPE, shop)
    disk.embed_bios_loader(raw, BOOT, CORE)
    assert LAYOUT.esp is not None
    make_fat(raw, LAYOUT.esp, esp, RECIPE, shop)
    make_ext4(raw, LAYOUT.root, root, RECIPE, shop)
    return raw


NAMES = [f"usr/share/doc{n}/file{n}" for n in range(40)] + ["etc/hosts", "zz"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """One such disk."""
    return make(tmp_path_factory.mktemp("one") / "here", NAMES)


def sha256(path: Path) -> str:
    """Of the whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_same_tree_makes_the_same_disk(made, tmp_path):
    """In another folder, at another time, with files made in another order: the same to the last bit."""
    again = make(tmp_path / "somewhere" / "else", list(reversed(NAMES)))
    assert sha256(again) == sha256(made)


def test_another_byte_makes_another_disk(made, tmp_path):
    """Else the test above would prove nothing."""
    assert sha256(make(tmp_path / "other", [*NAMES, "etc/more"])) != sha256(made)


def table(raw: Path) -> list[dict[str, object]]:
    """The partitions as sfdisk reads them."""
    ran = subprocess.run(["sfdisk", "--json", str(raw)], capture_output=True, check=True, env={"PATH": PATH})
    rows: list[dict[str, object]] = json.loads(ran.stdout)["partitiontable"]["partitions"]
    return rows


def test_the_partitions_are_where_the_manifest_says(made):
    """BIOS boot, EFI system, root: the last one, so that it can grow; both copies of the table are good."""
    rows = table(made)
    assert [row["name"] for row in rows] == ["bios", "esp", "root"]
    root = LAYOUT.root_partition
    assert (root.number, root.start_bytes) == (3, int(str(rows[2]["start"])) * 512)
    assert root.size_bytes == int(str(rows[2]["size"])) * 512
    verified = subprocess.run(["sfdisk", "--verify", str(made)], capture_output=True, check=False, env={"PATH": PATH})
    assert verified.returncode == 0, verified.stderr


def test_what_is_planted_at_the_roots_place_is_in_the_root(made):
    """The deploy ramdisk reaches the file system by its place alone; it is whole, and its times are the epoch's."""
    place = f"{made}?offset={LAYOUT.root.start_bytes}"

    def ask(*argv: str) -> str:
        return subprocess.run([*argv, place], capture_output=True, text=True, check=True, env={"PATH": PATH}).stdout

    assert ask("debugfs", "-R", "cat /etc/hosts") == "etc/hosts"
    stat = ask("debugfs", "-R", "stat /etc/hosts")
    assert stat.count(f"0x{int(EPOCH.timestamp()):x}:00000000") == 4  # changed, read, written, made
    subprocess.run(["e2fsck", "-fn", place], capture_output=True, check=True, env={"PATH": PATH})
    told = ask("dumpe2fs", "-h")
    assert str(disk.root_uuid(RECIPE)) in told and str(identifier(RECIPE, "hash")) in told


def test_firmware_finds_its_boot_loader(made):
    """A BIOS by the first sector's word for the next one, UEFI by the file's name on the FAT."""
    with made.open("rb") as file:
        first = file.read(512)
        file.seek(disk.BIOS_BOOT.start_bytes)
        core = file.read(len(CORE))
    assert first[510:] == b"\x55\xaa" and first[446 + 4] == 0xEE  # the table of the GPT's protective MBR stays
    assert struct.unpack_from("<Q", first, 0x5C) == (disk.BIOS_BOOT.start_bytes // 512,)
    assert struct.unpack_from("<QHH", core, 500) == (disk.BIOS_BOOT.start_bytes // 512 + 1, 1, 0x820)
    assert core[:500] == CORE[:500] and core[512:] == CORE[512:]
    assert disk.ESP.start_bytes == 2 * MIB
    listed = subprocess.run(
        ["mdir", "-b", "-i", f"{made}@@{disk.ESP.start_bytes}", "::/EFI/BOOT"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "BOOTX64.EFI" in listed.stdout


def test_a_boot_loader_of_another_make_is_not_embedded(made, tmp_path):
    """Too large for its partition, or not the sector we know: nothing is written."""
    raw = tmp_path / "disk.img"
    shutil.copyfile(made, raw)
    before = sha256(raw)
    for boot, core in ((BOOT[:100], CORE), (BOOT, b"x" * 100), (BOOT, b"x" * (disk.BIOS_BOOT.size_bytes + 1))):
        with pytest.raises(RackproofError, match="not what we know"):
            disk.embed_bios_loader(raw, boot, core)
    assert sha256(raw) == before


def test_a_virtual_racks_disk_is_an_mbr_with_one_partition(tmp_path):
    """The firmware of a virtual node reads that and no more."""
    from toolkit.virtual.disk import Extent, first_partition

    layout = disk.plain(8)
    disk.make_blank(tmp_path / "d", layout)
    disk.write_mbr(tmp_path / "d", layout)
    root = layout.root_partition
    assert first_partition(tmp_path / "d") == Extent(root.start_bytes, root.size_bytes)
    assert root.number == 1


def test_a_full_disk_is_told_with_what_was_done(tmp_path):
    """Not a traceback: what failed, doing what."""
    shop = Workshop(tmp_path, EPOCH, -1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/big").write_bytes(os.urandom(6 * MIB))
    disk.make_blank(tmp_path / "d", disk.plain(4))
    with pytest.raises(UndecidedError, match="making the node's file system: mke2fs exited with"):
        make_ext4(tmp_path / "d", disk.plain(4).root, tmp_path / "root", RECIPE, shop)


def test_the_menu_boots_the_kernel_that_is_there(tmp_path):
    """By the root's UUID, on the consoles of the recipe; two kernels, or one without its initramfs, are refused."""
    boot = tmp_path / "boot"
    boot.mkdir()
    with pytest.raises(UndecidedError, match="has the kernels none"):
        kernel_release(tmp_path)
    (boot / "vmlinuz-6.1").touch()
    with pytest.raises(UndecidedError, match="with its initramfs"):
        kernel_release(tmp_path)
    (boot / "initrd.img-6.1").touch()
    assert kernel_release(tmp_path) == "6.1"
    uuid = disk.root_uuid(RECIPE)
    text = menu(uuid, "6.1", Kernel("linux-image-amd64", "console=ttyS0,115200n8", ()))
    assert f"linux /boot/vmlinuz-6.1 root=UUID={uuid} ro console=ttyS0,115200n8\n" in text
    assert f"--set=root {uuid}\n" in first_menu(uuid)
    assert f"UUID={uuid} / ext4" in disk.fstab(uuid, "ABCD-1234")

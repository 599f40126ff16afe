"""What the deploy ramdisk is proven with: Debian's kernel, the ramdisk over it, and an image small enough for a minute.

The image boots as a real one does: a GPT, an EFI system partition, a root file system as the last partition. What
firmware starts from it says so on the serial line, and does no more: for a BIOS a boot sector, for UEFI iPXE.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from toolkit.image import modules, ramdisk
from toolkit.image.file_system import MIB, Area, make_ext4, make_fat
from toolkit.image.manifest import RootPartition
from toolkit.image.programs import Workshop
from toolkit.image.recipe_schema import DEPLOY_MODULES
from toolkit.settings import load
from toolkit.virtual.programs import run as sh

PACKAGE = "linux-image-cloud-amd64"
BOOTED = "RACKPROOF TINY IMAGE BOOTS"  # what the boot sector says
BOOTED_BY_UEFI = "iPXE initialising devices"
ESP, ROOT = Area(2 * MIB, 8 * MIB), Area(10 * MIB, 40 * MIB)
DISK_BYTES = 51 * MIB
ROOT_PARTITION = RootPartition(3, ROOT.start_bytes, ROOT.size_bytes)
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_SHA256 = "ab" * 32
# xor ax,ax; mov ds,ax; mov si,7C15h; L: lodsb; test al,al; jz E; mov dx,3F8h; out dx,al; jmp L; E: hlt; jmp E
_BOOT_CODE = (
    bytes.fromhex("31c0 8ed8 be157c ac 84c0 7406 baf803 ee ebf5 f4 ebfd") + f"\r\n{BOOTED}\r\n".encode() + b"\0"
)
_TABLE = f"""label: gpt
unit: sectors
start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios
start={ESP.start_bytes // 512}, size={ESP.size_bytes // 512}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp
start={ROOT.start_bytes // 512}, size={ROOT.size_bytes // 512}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name=root
"""


@dataclass(frozen=True, slots=True)
class Netboot:
    """What is booted over the network: a kernel and the deploy ramdisk with its modules."""

    kernel: Path
    ramdisk: Path


def kernel_package() -> tuple[str, Path]:
    """`uname -r` of Debian's cloud kernel and its unpacked package, with modprobe's tables; kept in the cache."""
    told = sh(["apt-cache", "depends", PACKAGE])
    found = re.search(r"Depends: (linux-image-(\S+))", told)
    assert found, f"apt-cache knows no {PACKAGE}: {told}"
    name, release = found[1], found[2]
    folder = load().cache / f"deploy-kernel-{release}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            aside = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            subprocess.run(["apt-get", "download", "-q", name], cwd=aside, check=True, capture_output=True)
            (package,) = aside.glob("*.deb")
            sh(["dpkg-deb", "-x", str(package), str(aside / "root")])
            sh(["depmod", "-b", str(aside / "root"), release])
            package.unlink()
            (aside / "root").rename(folder)
            aside.rmdir()
    return release, folder


def make_netboot(folder: Path) -> Netboot:
    """The kernel, and the ramdisk of this tree as `toolkit.image.build` packs it, compressed less."""
    release, package = kernel_package()
    base, extra = folder / "base", folder / "modules"
    base.mkdir()
    extra.mkdir()
    ramdisk.make_tree(base)
    modules.lay_out(package, release, DEPLOY_MODULES, extra)
    packed, segment = folder / "deploy.cpio.zst", folder / "segment.cpio.zst"
    ramdisk.pack(base, packed, level=3)
    ramdisk.pack(extra, segment, level=3)
    with packed.open("ab") as whole:
        whole.write(b"\0" * (-whole.tell() % 4) + segment.read_bytes())
    return Netboot(package / "boot" / f"vmlinuz-{release}", packed)


def make_image(folder: Path, noise_bytes: int = 8 * MIB) -> tuple[bytes, bytes]:
    """The disk of the image: compressed, and as it stands on a node's disk.

    noise_bytes  of files that no compression makes smaller
    """
    shop = Workshop(folder, _EPOCH, -1)
    raw, esp, root = folder / "disk.img", folder / "esp", folder / "root"
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    sh(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(raw)], text=_TABLE)
    with raw.open("r+b") as file:
        file.write(_BOOT_CODE)
    for name in ("etc/rackproof", "etc/ssh", "root", "var/log"):
        (root / name).mkdir(parents=True)
    (root / "etc/hostname").write_text("unnamed\n")
    (root / "etc/noise").write_bytes(os.urandom(noise_bytes))
    (esp / "EFI/BOOT").mkdir(parents=True)
    shutil.copyfile("/usr/lib/ipxe/snponly.efi", esp / "EFI/BOOT/BOOTX64.EFI")
    make_fat(raw, ESP, esp, _SHA256, shop)
    make_ext4(raw, ROOT, root, _SHA256, shop)
    wire = subprocess.run(["zstd", "-q", "-3", "-c", str(raw)], capture_output=True, check=True).stdout
    return wire, raw.read_bytes()

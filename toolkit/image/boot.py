"""What makes a tree bootable: GRUB's menu, its image for a BIOS, the files of the EFI system partition."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID

from toolkit.errors import UndecidedError
from toolkit.image.manifest import Architecture, Firmware
from toolkit.image.programs import Workshop
from toolkit.image.recipe import Kernel

# In the core image, so that a BIOS needs nothing of the disk but the menu.
_CORE_MODULES = (
    "biosdisk", "part_gpt", "ext2", "search", "search_fs_uuid", "configfile", "normal", "linux", "serial", "terminal",
    "echo", "test", "minicmd", "reboot", "halt",
)  # fmt: skip
# (shim, GRUB, MokManager) as Debian signs them -> names that firmware and shim look for on a disk it never saw
_SIGNED = {
    Architecture.AMD64: (
        ("usr/lib/shim/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
        ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "EFI/BOOT/grubx64.efi"),
        ("usr/lib/shim/mmx64.efi.signed", "EFI/BOOT/mmx64.efi"),
    ),
    Architecture.ARM64: (
        ("usr/lib/shim/shimaa64.efi.signed", "EFI/BOOT/BOOTAA64.EFI"),
        ("usr/lib/grub/arm64-efi-signed/grubaa64.efi.signed", "EFI/BOOT/grubaa64.efi"),
        ("usr/lib/shim/mmaa64.efi.signed", "EFI/BOOT/mmaa64.efi"),
    ),
}


def kernel_release(root: Path) -> str:
    """`uname -r` of the one kernel in the tree. UndecidedError unless there is exactly one, with its initramfs."""
    found = sorted(path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*"))
    if len(found) != 1 or not (root / "boot" / f"initrd.img-{found[0]}").is_file():
        raise UndecidedError(
            f"the image has the kernels {', '.join(found) or 'none'}, one with its initramfs is needed",
            "name one kernel in the recipe, and initramfs-tools among its packages",
        )
    return found[0]


def menu(root_uuid: UUID, release: str, kernel: Kernel) -> str:
    """GRUB's menu until a kernel is installed on the node, when update-grub writes it anew."""
    return (
        "# Written with the image; update-grub replaces it.\n"
        "set timeout=1\n"
        "serial --unit=0 --speed=115200\n"
        "terminal_input console serial\n"
        "terminal_output console serial\n"
        "set gfxpayload=text\n"
        f"search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        f"menuentry 'Debian GNU/Linux, {release}' {{\n"
        f"  linux /boot/vmlinuz-{release} root=UUID={root_uuid} ro {kernel.command_line}\n"
        f"  initrd /boot/initrd.img-{release}\n"
        "}\n"
    )


def first_menu(root_uuid: UUID) -> str:
    """What GRUB reads before it knows the root file system."""
    return (
        f"search --no-floppy --fs-uuid --set=root {root_uuid}\n"
        "set prefix=($root)/boot/grub\n"
        "configfile $prefix/grub.cfg\n"
    )


def plant_menu(root: Path, root_uuid: UUID, kernel: Kernel) -> None:
    """The menu, and what update-grub needs to write one like it."""
    folder = root / "boot/grub"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grub.cfg").write_text(menu(root_uuid, kernel_release(root), kernel))
    defaults = (
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\n"
        f'GRUB_CMDLINE_LINUX_DEFAULT=""\nGRUB_CMDLINE_LINUX="{kernel.command_line}"\n'
        'GRUB_TERMINAL="console serial"\nGRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"\n'
        "GRUB_GFXPAYLOAD_LINUX=text\nGRUB_DISABLE_OS_PROBER=true\n"
    )
    (root / "etc/default").mkdir(exist_ok=True)
    (root / "etc/default/grub").write_text(defaults)
    repart = root / "etc/repart.d/50-root.conf"
    repart.parent.mkdir(exist_ok=True)
    repart.write_text(
        "# The root partition is the last one and grows to the end of the node's disk.\n[Partition]\nType=root\n"
    )


def bios_core(root: Path, root_uuid: UUID, shop: Workshop) -> tuple[bytes, bytes]:
    """boot.img and the core image for a BIOS, made by the GRUB that the image holds."""
    inside = Path("tmp/grub-core")
    work = root / inside
    work.mkdir()
    try:
        (work / "early.cfg").write_text(first_menu(root_uuid))
        shop.run(
            ["chroot", str(root), "grub-mkimage", "-O", "i386-pc", "-p", "/boot/grub", "-c", f"/{inside}/early.cfg",
             "-o", f"/{inside}/core.img", *_CORE_MODULES],
            "making the boot loader for a BIOS",
        )  # fmt: skip
        return (root / "usr/lib/grub/i386-pc/boot.img").read_bytes(), (work / "core.img").read_bytes()
    finally:
        shutil.rmtree(work)


def fill_esp(esp: Path, root: Path, root_uuid: UUID, architecture: Architecture) -> None:
    """The files of the EFI system partition in the empty folder `esp`. UndecidedError where a package lacks one."""
    for source, target in _SIGNED[architecture]:
        if not (root / source).is_file():
            raise UndecidedError(f"the image has no /{source}", f"is Debian's boot loader for {architecture} complete?")
        (esp / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / source, esp / target)
    # Where Debian's signed GRUB looks: the folder is built into it.
    (esp / "EFI/debian").mkdir()
    (esp / "EFI/debian/grub.cfg").write_text(first_menu(root_uuid))


def needs(boots: tuple[Firmware, ...]) -> tuple[str, ...]:
    """Programs of this machine that a bootable disk is made with."""
    return ("sfdisk", "mkfs.vfat", "mmd", "mcopy", "chroot") if boots else ()

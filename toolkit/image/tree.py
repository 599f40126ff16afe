"""The root file system of an image: Debian's packages, our settings, and nothing that makes two builds differ."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.image import mirrors
from toolkit.image.manifest import Architecture, Firmware
from toolkit.image.programs import APART, Workshop
from toolkit.image.recipe import Recipe

NODE = Path(__file__).parent / "node"  # what every node's image holds: settings, and the program of its first boot
_LEAVE_OUT = ("man", "doc", "locale", "info", "lintian", "bug")
_ENABLED = {
    "multi-user.target.wants": (
        ("/lib/systemd/system", "systemd-networkd.service"),
        ("/etc/systemd/system", "rackproof-hostkey.service"),
        ("/etc/systemd/system", "rackproof-first-boot.service"),
    ),
    "sockets.target.wants": (("/lib/systemd/system", "systemd-networkd.socket"),),
}
# What belongs to one machine, or tells when and where the image was built.
_SECRETS_AND_IDENTITIES = (
    "etc/ssh/ssh_host_*", "etc/hostname", "etc/apt/sources.list", "etc/apt/sources.list.d/*",
    "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed", "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache", "var/log/*.log",
    "var/log/apt/*", "var/lib/apt/lists/*_*", "var/lib/apt/extended_states", "var/cache/apt/*.bin",
    "var/lib/dpkg/*-old", "etc/*-", "tmp/*", "run/*",
)  # fmt: skip
_TEN = 10  # lines of a program's last words


def bootstrap_argv(recipe: Recipe, sources: mirrors.Mirrors, root: Path, access: Path, deb822: Path) -> list[str]:
    """The command that installs the packages. `access`: apt.conf of how this machine reaches its mirrors."""
    packages = [*recipe.packages, *([recipe.kernel.package] if recipe.kernel else []), *_boot_packages(recipe)]
    return [
        *APART, "mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory",
        f"--architectures={recipe.architecture}", f"--include={','.join(sorted(set(packages)))}",
        f"--aptopt={access}", "--dpkgopt=force-unsafe-io", "--skip=cleanup/apt/lists",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEAVE_OUT),
        recipe.release, str(root), *sources.lines, *([str(deb822)] if sources.stanzas else []),
    ]  # fmt: skip


def _boot_packages(recipe: Recipe) -> tuple[str, ...]:
    """Debian's signed boot loader; grub2-common writes a new menu when a kernel is installed on the node."""
    if not recipe.boots:
        return ()
    by_firmware: dict[tuple[Architecture, Firmware], tuple[str, ...]] = {
        (Architecture.AMD64, Firmware.BIOS): ("grub-pc-bin",),
        (Architecture.AMD64, Firmware.UEFI): ("grub-efi-amd64-bin", "grub-efi-amd64-signed", "shim-signed"),
        (Architecture.ARM64, Firmware.UEFI): ("grub-efi-arm64-bin", "grub-efi-arm64-signed", "shim-signed"),
    }
    return ("grub2-common", *(name for firmware in recipe.boots for name in by_firmware[recipe.architecture, firmware]))


def sources_of(recipe: Recipe) -> mirrors.Mirrors:
    """The recipe's own sources, else this machine's mirrors of the release. UsageError if there are none."""
    if recipe.sources:
        return mirrors.Mirrors(recipe.sources, ())
    return mirrors.debian_mirrors(release=recipe.release)


def install(recipe: Recipe, sources: mirrors.Mirrors, root: Path, shop: Workshop, say: Callable[[str], None]) -> None:
    """Installs the packages into the new folder `root`. UndecidedError where a mirror or the disk failed it."""
    access, deb822 = root.with_name("access.conf"), root.with_name("mirrors.sources")
    access.touch(mode=0o600)
    access.write_text(mirrors.access_options() + 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n')
    deb822.write_text("\n".join(sources.stanzas))
    argv = bootstrap_argv(recipe, sources, root, access, deb822)
    held = (shop.lock,) if shop.lock >= 0 else ()
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, errors="replace", pass_fds=held, env=os.environ | shop.environment()
    ) as process:
        assert process.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        said: list[str] = []
        for line in process.stderr:
            said = [*said[1 - _TEN :], line.rstrip()]
            if line.startswith("I: "):
                say(line[3:].strip())
    if process.returncode != 0:
        raise UndecidedError(
            "installing Debian into the node image: mmdebstrap said:\n  " + "\n  ".join(said),
            "check that `apt-get update` works on this machine and that its disk has 4 GiB free, then again",
        )


def settle(recipe: Recipe, root: Path, seconds: int) -> None:
    """Our settings, the recipe's files and units; then every trace of this build goes, and every file gets a time
    that is not after `seconds`.
    """
    _overlay(NODE / "rootfs", root)
    program = root / "usr/lib/rackproof/first_boot.py"
    program.parent.mkdir(parents=True)
    shutil.copyfile(NODE / "first_boot.py", program)
    (root / "etc/rackproof").mkdir(exist_ok=True)
    (root / "etc/rackproof/image").write_text(f"{recipe.name} {recipe.digest[:12]}\n")
    for file in recipe.files:
        _plant(root, file.path, file.content, file.mode)
    _set_units(recipe, root)
    for pattern in _SECRETS_AND_IDENTITIES:
        for path in root.glob(pattern):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
    (root / "etc/machine-id").write_text("")  # empty: systemd makes one at first boot
    for name in ("etc/resolv.conf", "etc/fstab"):
        (root / name).unlink(missing_ok=True)
        (root / name).write_text("")
    clamp_times(root, seconds)


def _set_units(recipe: Recipe, root: Path) -> None:
    system = root / "etc/systemd/system"
    for target, units in _ENABLED.items():
        for folder, unit in units:
            _link(system / target / unit, f"{folder}/{unit}")
    for unit in recipe.enable:
        found = [f for f in ("/etc/systemd/system", "/lib/systemd/system") if _is_in(root, f, unit)]
        if not found:
            raise UsageError(f"image {recipe.name} has no unit {unit} to enable", "install its package, or plant it")
        _link(system / "multi-user.target.wants" / unit, f"{found[0]}/{unit}")
    for unit in recipe.mask:
        _link(system / unit, "/dev/null")


def _is_in(root: Path, folder: str, unit: str) -> bool:
    return (root / folder.lstrip("/") / unit).is_file()


def _link(link: Path, target: str) -> None:
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _plant(root: Path, path: str, content: bytes, mode: int) -> None:
    """Writes a file inside the tree. A folder of the tree that is a link is not followed out of it."""
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{path} cannot be planted: a folder in it leads out of the image", "give its real path")
    target.unlink(missing_ok=True)
    target.write_bytes(content)
    target.chmod(mode)


def _overlay(source: Path, root: Path) -> None:
    for path in sorted(source.rglob("*")):
        target = root / path.relative_to(source)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, target)
            target.chmod(0o644)


def clamp_times(root: Path, seconds: int) -> None:
    """No file is younger than `seconds`; the others keep their packages' times."""
    for path in _everything(root):
        found = path.lstat()
        if found.st_mtime > seconds or stat.S_ISDIR(found.st_mode):
            os.utime(path, (seconds, seconds), follow_symlinks=False)


def _everything(root: Path) -> Iterable[Path]:
    yield root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)

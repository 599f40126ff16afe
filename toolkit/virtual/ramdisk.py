"""The deploy ramdisk: busybox, the few real tools `init` needs with their libraries, and `init` itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from toolkit.errors import UsageError

_SOURCE = Path(__file__).parent / "image" / "ramdisk"
_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "etc", "dev", "proc", "sys", "run", "tmp")
# busybox unpacks no zstd, its dd cannot write sparsely, its blkdiscard cannot zero; name in the ramdisk -> program
_TOOLS = {
    "usr/bin/zstd": "zstd",
    "usr/bin/dd.coreutils": "dd",
    "usr/sbin/blkdiscard": "blkdiscard",
    "usr/sbin/debugfs": "debugfs",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_tree(root: Path) -> None:
    """Lays out the ramdisk in the empty folder `root`. UsageError names a program that this machine lacks."""
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    busybox = _program("busybox")
    _install(busybox, root / "bin/busybox", root)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=30).stdout
    for applet in applets.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for target, name in _TOOLS.items():
        _replace(root / "bin" / Path(target).name)
        _install(_program(name), root / target, root)
    _copy(_SOURCE / "init", root / "init")
    _copy(_SOURCE / "udhcpc.script", root / "etc/udhcpc.script")


def pack(root: Path, target: Path) -> None:
    """Packs the tree as an initrd: a zstd-compressed cpio archive owned by root."""
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with target.open("wb") as out:
        cpio = subprocess.Popen(
            ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0", "--reproducible"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        zstd = subprocess.Popen(["zstd", "-q", "-19", "-T0"], stdin=cpio.stdout, stdout=out)
        assert cpio.stdin is not None and cpio.stdout is not None  # noqa: S101 - for the type checker: both are pipes
        cpio.stdout.close()
        with cpio.stdin as names_in:
            names_in.write(names.encode())
        statuses = cpio.wait(60), zstd.wait(60)
    if statuses != (0, 0):
        raise UsageError(f"packing the deploy ramdisk: cpio and zstd exited with {statuses}", "is the disk full?")


def _program(name: str) -> str:
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise UsageError(
            f"building the deploy ramdisk: this machine has no {name}", "run `make setup` as root, then again"
        )
    return path


def _install(program: str, target: Path, root: Path) -> None:
    """The program and every library the loader would load for it."""
    _copy(Path(program), target)
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=30)
    if listing.returncode != 0:
        return  # "not a dynamic executable"
    for library in re.findall(r"(?:=>\s*|^\s*)(/\S+)", listing.stdout, flags=re.MULTILINE):
        inside = root / library.lstrip("/")
        if not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            _copy(Path(library), inside)


def _replace(applet: Path) -> None:
    """A real tool takes the place of busybox's applet of that name."""
    applet.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o755)

"""The deploy ramdisk: busybox, the few real tools that `deploy/init` needs with their libraries, and `init` itself."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.errors import UsageError

SOURCE = Path(__file__).parent / "deploy"
IMAGE_KEYS = "etc/rackproof/image-keys"  # folder of the ramdisk; a key there outranks the boot script's
_FOLDERS = (
    "bin", "sbin", "usr/bin", "usr/sbin", "etc", "dev", "proc", "sys", "run", "tmp", "lib/deploy", IMAGE_KEYS,
)  # fmt: skip
# Name in the ramdisk -> program. busybox unpacks no zstd, its dd cannot write sparsely, its tee takes 1 KiB at a time,
# its blkdiscard cannot zero.
_TOOLS = {
    "usr/bin/zstd": "zstd",
    "usr/bin/dd.coreutils": "dd",
    "usr/bin/tee.coreutils": "tee",
    "usr/bin/openssl": "openssl",
    "usr/bin/ssh-keygen": "ssh-keygen",
    "usr/bin/efibootmgr": "efibootmgr",
    "usr/sbin/blkdiscard": "blkdiscard",
    "usr/sbin/debugfs": "debugfs",
    "usr/sbin/e2fsck": "e2fsck",
    "usr/sbin/mke2fs": "mke2fs",
    "usr/sbin/resize2fs": "resize2fs",
    "usr/sbin/sfdisk": "sfdisk",
    "usr/sbin/mdadm": "mdadm",
    "usr/sbin/nvme": "nvme",
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
    # ssh-keygen asks who runs it.
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    _copy(SOURCE / "init", root / "init")
    _copy(SOURCE / "udhcpc.script", root / "etc/udhcpc.script")
    for part in sorted((SOURCE / "lib").glob("*.sh")):
        _copy(part, root / "lib/deploy" / part.name)


def pack(root: Path, target: Path, level: int = 19) -> None:
    """Packs the tree as an initrd: a zstd-compressed cpio archive owned by root; the same bytes for the same tree.

    level  of zstd: every node fetches it over TFTP or HTTP before anything else, so it is worth the seconds
    """
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with target.open("wb") as out:
        cpio = subprocess.Popen(
            ["cpio", "--quiet", "--create", "--format=newc", "--owner=0:0", "--reproducible"],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        zstd = subprocess.Popen(["zstd", "-q", f"-{level}", "-T2"], stdin=cpio.stdout, stdout=out)
        assert cpio.stdin is not None and cpio.stdout is not None  # noqa: S101 - for the type checker: both are pipes
        cpio.stdout.close()
        with cpio.stdin as names_in:
            names_in.write(names.encode())
        statuses = cpio.wait(600), zstd.wait(600)
    if statuses != (0, 0):
        raise UsageError(f"packing the deploy ramdisk: cpio and zstd exited with {statuses}", "is the disk full?")


def segment(files: Mapping[str, bytes], target: Path) -> None:
    """An archive to append to a packed ramdisk; `files`: contents by path without a leading slash.

    Kernels unpack one after the other (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        pack(root, target)


def key_files(keys: Sequence[str]) -> dict[str, bytes]:
    """Files for `segment`: the site's image keys (PEM), by which the ramdisk then trusts manifests, and no others."""
    return {f"{IMAGE_KEYS}/{number}.pem": key.encode() for number, key in enumerate(keys)}


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

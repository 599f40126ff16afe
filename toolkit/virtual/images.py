"""Builds what the image stage deploys: a Debian disk image for the nodes and the ramdisk that writes it.

A recipe (these sources, the files under `image/`, the mirrors) has a digest; what it made is kept under that name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError
from toolkit.virtual import mirrors, ramdisk

NAME = "debian-12-node"
RAMDISK_NAME = "deploy.cpio.zst"

_HERE = Path(__file__).parent
_FILES = _HERE / "image"
_SOURCES = (Path(__file__), _HERE / "mirrors.py", _HERE / "ramdisk.py")
_PACKAGES = (
    "ca-certificates", "dbus", "iproute2", "kmod", "openmpi-bin", "openssh-client", "openssh-server", "procps",
    "python3", "python3-apt", "systemd-sysv", "udev",
)  # fmt: skip
_LEAVE_OUT = ("man", "doc", "locale", "info", "lintian", "bug")
_ENABLED = {
    "multi-user.target.wants": (
        ("/lib/systemd/system", "systemd-networkd.service"),
        ("/etc/systemd/system", "rackproof-hostkey.service"),
        ("/etc/systemd/system", "rackproof-first-boot.service"),
    ),
    "sockets.target.wants": (("/lib/systemd/system", "systemd-networkd.socket"),),
}
# They cost boot time and do nothing for a machine that is imaged, not maintained.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty.target", "console-getty.service", "systemd-firstboot.service",
    "systemd-networkd-wait-online.service",
)  # fmt: skip
_SECRETS_AND_IDENTITIES = (
    "etc/ssh/ssh_host_*", "etc/hostname", "etc/apt/sources.list", "etc/apt/sources.list.d/*",
    "etc/apt/apt.conf.d/99mmdebstrap", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed",
    "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache", "var/log/*.log", "var/log/apt/*",
)  # fmt: skip

_MIB = 1024 * 1024
_DISK_MIB = 1024
_PARTITION_AT_MIB = 1
_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """A disk image (zstd) and the deploy ramdisk (zstd cpio) with their sha256, and the digest of their recipe."""

    path: Path
    sha256: str
    ramdisk: Path
    ramdisk_sha256: str
    recipe: str


def build_image(cache: Path, say: Callable[[str], None]) -> BuiltImage:
    """Builds both under `cache`/images, or finds them there; under 90 s the first time on two cores. Needs root.

    Raises UsageError where this machine cannot build, UndecidedError where a mirror or the disk failed it.
    """
    cache = cache / "images"
    sources = mirrors.debian_mirrors()
    recipe = _recipe(sources)
    found = _cached(cache, recipe)
    if found:
        return found
    if os.geteuid() != 0:
        raise UsageError("building the node image needs root: mmdebstrap makes device nodes", "run it under sudo")
    cache.mkdir(parents=True, exist_ok=True)
    with _building(cache) as (aside, lock):
        found = _cached(cache, recipe)  # another process may have built it while we waited for the lock
        if found:
            return found
        _build(aside, sources, recipe, lock, say)
        shutil.rmtree(cache / recipe, ignore_errors=True)  # what is there was judged damaged
        (aside / "done").rename(cache / recipe)
    built = _cached(cache, recipe)
    if built is None:
        raise UndecidedError(f"the node image vanished from {cache} while it was built", "build it again")
    return built


def publish(built: BuiltImage, provision: Path, name: str) -> None:
    """Puts the image (as `name`) and the ramdisk where the provisioning server offers them; the sums last."""
    for source, target, digest in (
        (built.path, provision / "images" / name, built.sha256),
        (built.ramdisk, provision / "boot" / RAMDISK_NAME, built.ramdisk_sha256),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        _place(source, target)
        aside = target.with_name(f".{target.name}.sha256.new")
        aside.write_text(f"{digest}  {target.name}\n")
        aside.replace(target.with_name(f"{target.name}.sha256"))


def _place(source: Path, target: Path) -> None:
    """A hard link where the file system allows one: the image is large."""
    aside = target.with_name(f".{target.name}.new")
    aside.unlink(missing_ok=True)
    try:
        aside.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, aside)
    aside.replace(target)


def _recipe(sources: mirrors.Mirrors) -> str:
    digest = hashlib.sha256(repr(sources).encode())
    files = [path for path in _FILES.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted([*_SOURCES, *files]):
        digest.update(f"\0{path.relative_to(_HERE)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def _cached(cache: Path, recipe: str) -> BuiltImage | None:
    folder = cache / recipe
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except OSError:
        return None
    image, initrd = folder / f"{NAME}.img.zst", folder / RAMDISK_NAME
    if [image.stat().st_size, initrd.stat().st_size] != manifest["bytes"]:
        return None
    return BuiltImage(image, manifest["image"], initrd, manifest["ramdisk"], recipe)


@contextmanager
def _building(cache: Path) -> Iterator[tuple[Path, int]]:
    """An empty folder aside, and the lock that keeps other builders out; leftovers of killed builds are removed.

    Programs inherit the lock: those that outlive a killed builder keep the next one waiting, not working beside them.
    """
    lock = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob(".building-*"):
            shutil.rmtree(left)
        aside = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
        try:
            yield aside, lock
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(lock)


def _build(aside: Path, sources: mirrors.Mirrors, recipe: str, lock: int, say: Callable[[str], None]) -> None:
    root, tree, done = aside / "root", aside / "ramdisk", aside / "done"
    done.mkdir()
    say("installing Debian packages")
    _bootstrap(root, sources, lock, say)
    _configure(root, recipe)
    raw, image, initrd = aside / "disk.img", done / f"{NAME}.img.zst", done / RAMDISK_NAME
    say("making the disk image")
    _make_disk(raw, root, lock)
    say("compressing it")
    _run(["zstd", "-q", "-9", "-T0", str(raw), "-o", str(image)], "compressing the node image", lock)
    say("packing the deploy ramdisk")
    tree.mkdir()
    ramdisk.make_tree(tree)
    ramdisk.pack(tree, initrd)
    manifest = {
        "image": _sha256(image),
        "ramdisk": _sha256(initrd),
        "bytes": [image.stat().st_size, initrd.stat().st_size],
    }
    (done / "manifest.json").write_text(json.dumps(manifest))
    for path in (image, initrd, done / "manifest.json"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what the rename below promises must be on the disk


def _bootstrap(root: Path, sources: mirrors.Mirrors, lock: int, say: Callable[[str], None]) -> None:
    access, deb822 = root.with_name("access.conf"), root.with_name("mirrors.sources")
    access.touch(mode=0o600)
    access.write_text(mirrors.access_options() + 'Acquire::Languages "none";\nAPT::Install-Recommends "false";\n')
    deb822.write_text("\n".join(sources.stanzas))
    argv = [
        "mmdebstrap", "--variant=minbase", "--mode=root", "--format=directory", f"--include={','.join(_PACKAGES)}",
        f"--aptopt={access}", "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEAVE_OUT),
        mirrors.RELEASE, str(root), *sources.lines, *([str(deb822)] if sources.stanzas else []),
    ]  # fmt: skip
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, errors="replace", pass_fds=(lock,)) as process:
        assert process.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        said: list[str] = []
        for line in process.stderr:
            said = [*said[-9:], line.rstrip()]
            if line.startswith("I: "):
                say(line[3:].strip())
    if process.returncode != 0:
        raise UndecidedError(
            "installing Debian into the node image: mmdebstrap said:\n  " + "\n  ".join(said),
            "check that `apt-get update` works on this machine and that its disk has 2 GiB free, then again",
        )


def _configure(root: Path, recipe: str) -> None:
    """Settings of every node, and nothing that would make two nodes the same machine."""
    _overlay(_FILES / "rootfs", root)
    program = root / "usr/lib/rackproof/first_boot.py"
    program.parent.mkdir(parents=True)
    shutil.copyfile(_FILES / "first_boot.py", program)
    (root / "etc/rackproof").mkdir()
    (root / "etc/rackproof/image").write_text(f"{NAME} {recipe[:12]}\n")
    system = root / "etc/systemd/system"
    for target, units in _ENABLED.items():
        (system / target).mkdir(exist_ok=True)
        for folder, unit in units:
            link = system / target / unit
            link.unlink(missing_ok=True)
            link.symlink_to(f"{folder}/{unit}")
    for unit in _MASKED:
        (system / unit).unlink(missing_ok=True)
        (system / unit).symlink_to("/dev/null")
    for pattern in _SECRETS_AND_IDENTITIES:
        for path in root.glob(pattern):
            path.unlink() if not path.is_dir() else shutil.rmtree(path)
    (root / "etc/machine-id").write_text("")  # empty: systemd makes one at first boot
    for name in ("etc/resolv.conf", "etc/fstab"):
        (root / name).unlink(missing_ok=True)
        (root / name).write_text("")


def _overlay(source: Path, root: Path) -> None:
    for path in sorted(source.rglob("*")):
        target = root / path.relative_to(source)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(path, target)
            target.chmod(0o644)


def _make_disk(raw: Path, root: Path, lock: int) -> None:
    """MBR with one Linux partition holding ext4, filled without a mount: this works where loop devices do not."""
    start, sectors = (mib * _MIB // _SECTOR_BYTES for mib in (_PARTITION_AT_MIB, _DISK_MIB - _PARTITION_AT_MIB))
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x83, b"\xfe\xff\xff", start, sectors)
    with raw.open("wb") as disk:
        disk.truncate(_DISK_MIB * _MIB)
        disk.seek(446)
        disk.write(entry)
        disk.seek(510)
        disk.write(b"\x55\xaa")
    # Nothing lazy: a node's first mount would otherwise fill its sparse disk in the background.
    extended = f"offset={_PARTITION_AT_MIB * _MIB},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    kib = (_DISK_MIB - _PARTITION_AT_MIB) * 1024
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-E", extended, "-J", "size=16"]
    _run([*argv, "-d", str(root), str(raw), f"{kib}k"], "making the node's file system", lock)


def _run(argv: Sequence[str], doing: str, lock: int) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, pass_fds=(lock,))
    if done.returncode != 0:
        raise UndecidedError(
            f"{doing}: {argv[0]} exited with {done.returncode}: {done.stderr.strip()[-500:]}",
            "check that the disk has 2 GiB free, then again",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

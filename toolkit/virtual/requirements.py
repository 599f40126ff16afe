"""What the host must offer before a virtual rack can be brought up: root, and programs of named Debian packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from toolkit.errors import UsageError

# program -> Debian package it comes in
PROGRAMS = {
    "ip": "iproute2",
    "systemd-nspawn": "systemd-container",
    "dnsmasq": "dnsmasq-base",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "losetup": "mount",
    "zstd": "zstd",
    "cpio": "cpio",
}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages(path: str = SEARCH_PATH) -> tuple[str, ...]:
    """Debian packages to install before a rack can be brought up, sorted."""
    return tuple(sorted({package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)}))


def require(path: str = SEARCH_PATH, loop_control: Path = Path("/dev/loop-control")) -> None:
    """Raises UsageError that names everything missing: root, packages, loop devices."""
    require_root()
    packages = missing_packages(path)
    if packages:
        raise UsageError(
            f"cannot bring up a virtual rack: Debian packages are missing: {' '.join(packages)}",
            f"apt-get install {' '.join(packages)}",
        )
    if not loop_control.exists():
        raise UsageError(
            f"cannot bring up a virtual rack: no loop devices ({loop_control} is missing)",
            "modprobe loop; in a container, give it /dev/loop-control and /dev/loop*",
        )


def require_root() -> None:
    """Raises UsageError when the process may not make namespaces."""
    if os.geteuid() != 0:
        raise UsageError(
            "a virtual rack needs root: network namespaces, systemd-nspawn machines, loop devices",
            "run the same command with sudo; README.md says what works without root",
        )

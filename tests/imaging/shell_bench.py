"""Runs functions of the deploy ramdisk's `init` without a machine: busybox and the real tools, over files."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.image.ramdisk import SOURCE

LIB = SOURCE / "lib"
_PARTS = tuple(sorted(path.name for path in LIB.glob("*.sh")))
_REAL = ("zstd", "openssl", "ssh-keygen", "blkdiscard", "debugfs", "e2fsck", "mke2fs", "resize2fs", "sfdisk", "mdadm")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class ShellBench:
    """A folder in which the functions find their hardware, their devices and their tools.

    Powering off ends the shell with 86; whatever was reported is in `said`, because nobody listens at the report's URL.
    """

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("bin", "hardware/block", "dev", "work"):
            (self.folder / name).mkdir(parents=True)
        busybox = shutil.which("busybox", path=_PATH)
        assert busybox is not None
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in applets:
            (self.folder / "bin" / applet).symlink_to(busybox)
        for tool in (*_REAL, "dd.coreutils", "tee.coreutils"):
            path = shutil.which(tool.removesuffix(".coreutils"), path=_PATH)
            assert path is not None, tool
            link = self.folder / "bin" / tool
            link.unlink(missing_ok=True)
            link.symlink_to(path)

    def plug(self, name: str, device: Path | None = None, **told: str) -> None:
        """A disk as /sys/block tells it; `device` is its node."""
        block = self.folder / "hardware/block" / name
        block.mkdir()
        for attribute, text in told.items():
            (block / attribute).write_text(f"{text}\n")
        if device is not None:
            (self.folder / "dev" / name).symlink_to(device)

    def run(self, script: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs the script after all of the init's parts."""
        parts = "".join(f". {LIB / name}\n" for name in _PARTS)
        ending = 'poweroff() { exit 86; }\nreboot() { exit 87; }\nreport() { echo "REPORT $*"; }\npost_log() { :; }\n'
        assigned = "".join(f"{name}='{value}'\n" for name, value in self.variables.items())
        env = {
            "PATH": str(self.folder / "bin"), "DEPLOY_WORK": str(self.folder / "work"),
            "DEPLOY_HARDWARE": str(self.folder / "hardware"), "DEPLOY_DEV": str(self.folder / "dev"),
            "DEPLOY_KEYS": str(self.folder / "keys"), "DEPLOY_IDLE_S": "3",
        }  # fmt: skip
        return subprocess.run(
            [str(self.folder / "bin/sh"), "-c", f"{parts}{ending}on_failure=power_off\n{assigned}{script}"],
            env=env, capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

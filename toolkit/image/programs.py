"""Runs the programs that make an image, and says in words when one failed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from toolkit.errors import UndecidedError, UsageError

# A mount namespace of its own: what a killed mmdebstrap leaves mounted in its tree (it binds the machine's /dev/shm)
# is gone with it, and whoever removes the tree meets plain folders. unshare(1): propagation is private by default.
APART = ("unshare", "--mount")
# mke2fs, debugfs and their kind lie outside of an ordinary user's path.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STEP_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where an image is made.

    epoch  the time that programs are told is now
    lock   a file that every program holds open: those that outlive a killed builder keep the next one waiting
    """

    folder: Path
    epoch: datetime
    lock: int

    @property
    def seconds(self) -> int:
        """The epoch as programs want it."""
        return int(self.epoch.timestamp())

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's but what programs need; the same time, words and order of words everywhere."""
        return {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "HOME": "/root",
            "SOURCE_DATE_EPOCH": str(self.seconds),
            "E2FSPROGS_FAKE_TIME": str(self.seconds),  # e2fsprogs 1.47.0, lib/ext2fs/initialize.c
        }

    def run(
        self, argv: Sequence[str], doing: str, text: str = "", more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, `text` on its standard input. UndecidedError where it fails."""
        try:
            done = subprocess.run(
                argv, input=text, capture_output=True, text=True, errors="replace", check=False,
                pass_fds=(self.lock,) if self.lock >= 0 else (), env=self.environment() | dict(more or {}),
                timeout=_STEP_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired as exc:
            raise UndecidedError(f"{doing}: {argv[0]} ran for over {_STEP_SECONDS} s", "look at the machine") from exc
        if done.returncode != 0:
            raise UndecidedError(
                f"{doing}: {argv[0]} exited with {done.returncode}: {done.stderr.strip()[-500:]}",
                "check that the disk has 4 GiB free, then again",
            )
        return done


def require(programs: Sequence[str], doing: str) -> None:
    """UsageError that names the programs that this machine lacks."""
    missing = [name for name in programs if shutil.which(name, path=PATH) is None]
    if missing:
        raise UsageError(f"{doing}: this machine has no {', '.join(missing)}", "run `make setup` as root, then again")


def require_root(doing: str) -> None:
    """UsageError for anybody but root."""
    if os.geteuid() != 0:
        raise UsageError(f"{doing} needs root: mmdebstrap makes device nodes", "run it under sudo")


def mounts_below(folder: Path, mountinfo: str) -> tuple[Path, ...]:
    """Mount points inside the folder (itself included), by the text of /proc/self/mountinfo (proc(5))."""
    inside = []
    for line in mountinfo.splitlines():
        told = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split(" ")[4])
        if Path(told).is_relative_to(folder):
            inside.append(Path(told))
    return tuple(inside)


def remove_tree(folder: Path) -> None:
    """Removes a builder's folder. UndecidedError, and nothing is removed, where something is mounted in it: it may be
    the machine's own /dev/shm, and removing through a mount would empty that.
    """
    mounted = mounts_below(folder.resolve(), Path("/proc/self/mountinfo").read_text())
    if mounted:
        raise UndecidedError(
            f"{folder} is not removed: {', '.join(str(path) for path in mounted[:4])} is mounted in it",
            "umount each of them, then remove the folder",
        )
    shutil.rmtree(folder, ignore_errors=True)

"""Hosts for Ansible that share this machine: what each writes under /etc, /var/lib and /var/log is its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.playbooks.local_plays import local

OWN = ("etc", "var/lib", "var/log")
_WORK = ".work"


@contextmanager
def own_hosts(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """`folder`/NAME/etc and so on hold what the host has beyond this machine; programs in NAME/bin go first.

    Needs root. Only Ansible's modules see it, not `raw`.
    """
    # A file system of its own: /tmp may be an overlay, which cannot be a layer of another.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        for name in names:
            _make(folder / name)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def seen_as(folder: Path, name: str, **more: object) -> dict[str, object]:
    """The host's variables."""
    return local(**{"ansible_python_interpreter": str(folder / name / "python"), **more})


def _make(home: Path) -> None:
    """An interpreter for Ansible's modules, in a mount namespace of its own; a slave keeps nothing else mounted."""
    mounts = []
    for own in OWN:
        (home / own).mkdir(parents=True, exist_ok=True)
        (home / _WORK / own).mkdir(parents=True)
        layers = f"lowerdir=/{own},upperdir={home}/{own},workdir={home}/{_WORK}/{own}"
        mounts.append(f"mount -t overlay overlay -o {layers} /{own}")
    (home / "bin").mkdir()
    script = "; ".join([*mounts, 'exec "$@"'])
    interpreter = home / "python"
    inside = f"unshare --mount --propagation slave sh -ec '{script}' sh {sys.executable}"
    interpreter.write_text(f'#!/bin/sh\nexport PATH={home}/bin:$PATH\nexec {inside} "$@"\n')
    interpreter.chmod(0o755)

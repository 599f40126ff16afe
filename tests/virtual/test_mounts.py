"""A process with mounts of its own keeps nobody else's disk and network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from toolkit.errors import RackproofError
from toolkit.virtual import disk, mounts

pytestmark = pytest.mark.root
FORGET = """
import sys
from pathlib import Path
from toolkit.virtual import mounts
if "forget" in sys.argv:
    mounts.forget_others(lambda name: name == sys.argv[1], [Path(sys.argv[2])])
print(*(mount.point for mount in mounts.current()), flush=True)
sys.stdin.read()
"""


def a_disk(folder: Path, stack: ExitStack) -> Path:
    """A loop device, mounted at `folder`/root until the stack is closed."""
    folder.mkdir()
    with (folder / "disk").open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.ext4", "-q", folder / "disk"], check=True)
    device = stack.enter_context(disk.attached(folder / "disk"))
    stack.enter_context(disk.mounted(str(device), folder / "root", "ext4", "rw"))
    return device


@contextmanager
def a_network(name: str) -> Iterator[str]:
    """A named network namespace."""
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@contextmanager
def living_apart(*arguments: object) -> Iterator[list[str]]:
    """A process with a copy of our mounts; where it still has something mounted."""
    argv = ["unshare", "--mount", sys.executable, "-c", FORGET, *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()
        process.communicate()


def test_what_others_had_mounted_is_let_go_and_what_is_ours_stays(tmp_path: Path) -> None:
    """The host's own mounts are as they were; the disk is free as soon as its owner unmounts it."""
    ours, others = f"rpm{os.getpid()}a", f"rpm{os.getpid()}b"
    with ExitStack() as held, ExitStack() as let_go, a_network(ours), a_network(others):
        a_disk(tmp_path / "ours", held)
        device = a_disk(tmp_path / "others", let_go)
        with living_apart(ours, tmp_path / "ours/root/home", "forget") as left:
            assert str(tmp_path / "ours/root") in left
            assert f"/run/netns/{ours}" in left
            assert str(tmp_path / "others/root") not in left
            assert f"/run/netns/{others}" not in left
            assert tmp_path / "others/root" in {mount.point for mount in mounts.current()}
            let_go.close()
            assert disk.backing_file(device) is None


def test_without_that_a_copy_holds_a_disk_that_its_owner_unmounted(tmp_path: Path) -> None:
    """What the test above would see if nothing were forgotten."""
    with ExitStack() as stack:
        device = a_disk(tmp_path / "others", stack)
        left = stack.enter_context(living_apart("", "/"))
        assert str(tmp_path / "others/root") in left
        subprocess.run(["umount", tmp_path / "others/root"], check=True)
        with pytest.raises(RackproofError, match="still holds"):
            disk.wait_released(device, tmp_path / "others/disk", 0.5)
        subprocess.run(["mount", device, tmp_path / "others/root"], check=True)  # for the stack to unmount

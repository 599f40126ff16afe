"""A killed build leaves nothing behind that a later one could harm the machine through."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError
from toolkit.image.manifest import Architecture
from toolkit.image.mirrors import Mirrors
from toolkit.image.programs import APART, mounts_below, remove_tree
from toolkit.image.recipe import load_recipe
from toolkit.image.tree import bootstrap_argv
from toolkit.virtual.images import RECIPE

MOUNTINFO = """\
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
433 27 0:27 / /cache/.a\\040b/root/dev/shm rw,relatime - tmpfs tmpfs rw
434 27 0:22 / /cache/.a\\040b/root/sys ro - sysfs sys rw
435 27 0:22 / /cache/.a\\040bc/root/sys ro - sysfs sys rw
"""


def test_mounts_inside_a_folder_are_found_by_their_whole_names():
    """A blank in a name is written in octal; a folder whose name merely begins alike is another."""
    found = mounts_below(Path("/cache/.a b"), MOUNTINFO)
    assert found == (Path("/cache/.a b/root/dev/shm"), Path("/cache/.a b/root/sys"))
    assert mounts_below(Path("/cache/.x"), MOUNTINFO) == ()


def test_the_installer_of_packages_works_in_a_mount_namespace_of_its_own(tmp_path):
    """What it mounts in the tree dies with it."""
    recipe = load_recipe(RECIPE, Architecture.AMD64)
    argv = bootstrap_argv(recipe, Mirrors(("deb http://m bookworm main",), ()), tmp_path, Path("a"), Path("b"))
    assert tuple(argv[: len(APART) + 1]) == (*APART, "mmdebstrap")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
def test_a_tree_with_a_mount_in_it_is_never_removed(tmp_path):
    """What is mounted there belongs to somebody else; unmounted, the tree goes."""
    others, tree = tmp_path / "others", tmp_path / "tree"
    (tree / "dev/shm").mkdir(parents=True)
    others.mkdir()
    (others / "precious").write_text("kept")
    subprocess.run(["mount", "--bind", str(others), str(tree / "dev/shm")], check=True)
    try:
        with pytest.raises(UndecidedError, match="is mounted in it"):
            remove_tree(tree)
        assert (others / "precious").read_text() == "kept" and (tree / "dev/shm").is_dir()
    finally:
        subprocess.run(["umount", str(tree / "dev/shm")], check=True)
    remove_tree(tree)
    assert not tree.exists() and (others / "precious").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts")
def test_what_a_program_mounts_apart_is_not_seen_outside(tmp_path):
    """The way that packages are installed: mounts are there inside, and nobody's outside."""
    (tmp_path / "tree").mkdir()
    script = 'mount --bind "$0" "$1" && grep -c " $1 " /proc/self/mountinfo'
    argv = [*APART, "sh", "-c", script, str(tmp_path), str(tmp_path / "tree")]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "1"
    assert mounts_below(tmp_path, Path("/proc/self/mountinfo").read_text()) == ()

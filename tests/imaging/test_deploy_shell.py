"""The deploy ramdisk's shell: clean by shellcheck, plain POSIX, and small enough to be read."""

from __future__ import annotations

import subprocess

from toolkit.image.ramdisk import SOURCE

FILES = (SOURCE / "init", SOURCE / "udhcpc.script", *sorted((SOURCE / "lib").glob("*.sh")))


def test_shellcheck_finds_nothing():
    """All parts as one program, as init sources them: a variable that no part sets is found too."""
    options = ("--check-sourced", "--external-sources", "--shell=sh", f"--source-path={SOURCE}")
    argv = ["shellcheck", *options, str(SOURCE / "init")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_busybox_reads_every_part():
    """`sh -n`: the shell that runs it has the last word on its syntax."""
    for file in FILES:
        done = subprocess.run(["busybox", "sh", "-n", str(file)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), file


def test_init_sources_every_part_and_each_has_one_subject():
    """A part that is not sourced would be missed on the machine only; a long one is two."""
    init = (SOURCE / "init").read_text()
    for file in sorted((SOURCE / "lib").glob("*.sh")):
        assert f'. "$lib/{file.name}"' in init
        assert len(file.read_text().splitlines()) < 220

"""A recipe is read whole or refused with the line of every mistake; what it says decides what is built."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from toolkit import settings
from toolkit.errors import InputError, UsageError
from toolkit.image import tree
from toolkit.image.build import build
from toolkit.image.manifest import Architecture, Firmware
from toolkit.image.mirrors import Mirrors
from toolkit.image.recipe import Recipe, load_recipe

SHIPPED = settings.load().inventory / "images"
SMALL = """\
image: small
release: bookworm
epoch: "2026-11-01T00:00:00Z"
packages: [openssh-server]
disk_mib: 256
"""


def read(folder: Path, text: str, architecture: Architecture = Architecture.AMD64) -> Recipe:
    """The recipe of this text."""
    file = folder / "recipe.yml"
    file.write_text(text)
    return load_recipe(file, architecture)


@pytest.mark.parametrize("architecture", Architecture)
@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yml")), ids=lambda file: file.stem)
def test_the_recipes_that_ship_are_sound(file, architecture):
    """On both architectures; the name is the file's."""
    recipe = load_recipe(file, architecture)
    assert recipe.name == file.stem
    assert (Firmware.BIOS in recipe.boots) == (architecture is Architecture.AMD64)


WRONG = {
    "a misspelt field": ("pakages: [x]\n", 6, "there is no such field", "did you mean packages"),
    "a package that is none": ("files: []\nenable: [ssh]\n", 7, "is not valid here", "ssh.service"),
    "a kernel that nothing boots": ("kernel: {package: linux-image-ARCH}\n", 6, "nothing would boot it", "boot:"),
    "firmware without a kernel": ("boot: [uefi]\n", 6, "without a kernel", "add `kernel`"),
    "an unknown firmware": ("boot: [coreboot]\n", 6, "not a known firmware", "one of: bios, uefi"),
    "a path that climbs": ("files: [{path: /etc/../x, content: a}]\n", 6, "leads upwards", "without .."),
    "a file twice": (
        "files:\n- {path: /x, content: a}\n- {path: /x, content: b}\n", 8, "planted twice", "once"
    ),
    "a file of nothing": ("files:\n- {path: /x}\n", 7, "either `content` or `source`", "content"),
    "a source that is not there": ("files:\n- {path: /x, source: gone}\n", 7, "cannot be read", ""),
    "a number for a mode": ("files:\n- {path: /x, content: a, mode: 644}\n", 7, "is not valid here", "0644"),
    "a command in the kernel's arguments": (
        'kernel: {package: linux-image-ARCH, arguments: "a;b"}\nboot: [uefi]\n', 6, "is not valid here", "arguments"
    ),
    "a source that is no line of apt's": ("sources: [http://x]\n", 6, "is not valid here", "deb URL"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_with_its_line(tmp_path, case):
    """File, line, and what would be right."""
    more, line, wrong, right = WRONG[case]
    with pytest.raises(InputError) as told:
        read(tmp_path, SMALL + more)
    problem = told.value.problems[0]
    assert (problem.line, problem.file) == (line, str(tmp_path / "recipe.yml"))
    assert wrong in problem.wrong and right in problem.right


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("epoch", '"2026-11-01T00:00:00"', "has no zone"),
        ("epoch", "yesterday", "is no time"),
        ("disk_mib", "16", "out of range"),
        ("packages", "[]", "is empty"),
        ("packages", '["x;rm"]', "is not valid here"),
        ("packages", "[a-b, a-b]", "named twice"),
        ("image", "../x", "is not valid here"),
        ("release", "bookworm/main", "is not valid here"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path, field, value, told):
    """Each in its field."""
    lines = [line if not line.startswith(field) else f"{field}: {value}" for line in SMALL.splitlines()]
    with pytest.raises(InputError, match=told):
        read(tmp_path, "\n".join(lines))


def test_a_grace_machine_boots_by_uefi_and_talks_on_its_own_console(tmp_path):
    """Boot loader, kernel and console of arm64; the same file makes both."""
    text = SMALL + "kernel: {package: linux-image-ARCH, arguments: iommu.passthrough=1}\nboot: [bios, uefi]\n"
    grace, x86 = (read(tmp_path, text, architecture) for architecture in (Architecture.ARM64, Architecture.AMD64))
    assert grace.kernel and grace.kernel.package == "linux-image-arm64"
    assert grace.kernel.command_line == "console=tty0 console=ttyAMA0,115200n8 iommu.passthrough=1"
    argv = tree.bootstrap_argv(grace, Mirrors(("deb http://m x main",), ()), tmp_path, Path("a"), Path("b"))
    assert "--architectures=arm64" in argv
    included = next(word for word in argv if word.startswith("--include=")).partition("=")[2].split(",")
    assert {"grub-efi-arm64-signed", "shim-signed", "linux-image-arm64", "openssh-server"} <= set(included)
    assert not any("pc" in name or "amd64" in name for name in included)
    argv = tree.bootstrap_argv(x86, Mirrors((), ("stanza",)), tmp_path, Path("a"), Path("/tmp/mirrors.sources"))
    assert "grub-pc-bin" in str(argv) and argv[-1] == "/tmp/mirrors.sources"
    with pytest.raises(InputError, match="has no BIOS"):
        read(tmp_path, text.replace("[bios, uefi]", "[bios]"), Architecture.ARM64)


def test_every_word_of_a_recipe_changes_its_digest(tmp_path):
    """Else the cache would give an image of another recipe."""
    (tmp_path / "beside").write_text("one")
    text = SMALL + "files: [{path: /x, source: beside}]\n"
    digests = [read(tmp_path, text).digest]
    for old, new in (("small", "other"), ("256", "257"), ("openssh-server", "dbus"), ("2026-11", "2026-10")):
        digests.append(read(tmp_path, text.replace(old, new)).digest)
    (tmp_path / "beside").write_text("two")
    digests.append(read(tmp_path, text).digest)
    digests.append(read(tmp_path, text, Architecture.ARM64).digest)
    assert len(set(digests)) == len(digests)
    (tmp_path / "beside").write_text("one")
    assert read(tmp_path, text).digest == digests[0]


def test_no_recipe_is_told(tmp_path):
    """With its path."""
    with pytest.raises(UsageError, match="no such file"):
        load_recipe(tmp_path / "gone.yml", Architecture.AMD64)


def test_another_machines_image_is_not_built_here(tmp_path, monkeypatch):
    """Its deploy ramdisk would hold programs that it cannot run: said before anything is installed."""
    # Should the guard ever go, no mirror answers: nothing is installed, nothing is mounted.
    recipe = read(tmp_path, SMALL + 'sources: ["deb http://127.0.0.1:9 bookworm main"]\n', Architecture.ARM64)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(UsageError, match="arm64 cannot be built on x86_64"):
        build(recipe, tmp_path / "out", recipe.epoch, lambda _: None)
    assert not (tmp_path / "out").exists()

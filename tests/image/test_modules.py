"""What goes into an image beside its disk: the ramdisk's modules, the list of packages, the settings of every node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from toolkit.errors import UndecidedError, UsageError
from toolkit.image import ramdisk
from toolkit.image.manifest import Architecture
from toolkit.image.modules import closure, lay_out, only, parse_dependencies
from toolkit.image.packages import Package, installed, written
from toolkit.image.programs import PATH
from toolkit.image.recipe import Recipe, load_recipe
from toolkit.image.tree import clamp_times, settle

RELEASE = "6.1.0-56-cloud-amd64"
DEPENDENCIES = """\
kernel/drivers/net/virtio_net.ko: kernel/net/failover.ko kernel/drivers/net/net_failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/fs/nls/nls_iso8859-1.ko.xz:
kernel/drivers/gpu/nouveau.ko: kernel/net/failover.ko
"""
ALIASES = (
    "# made by depmod\nalias virtio:d00000001v* virtio_net\nalias pci:v000010DEd* nouveau\nalias nls_x nls_iso8859_1\n"
)


def test_a_module_comes_with_all_that_it_needs():
    """By its name, however it is spelt; one that the kernel has not is no mistake: it may be built in."""
    found = closure(parse_dependencies(DEPENDENCIES), ["virtio-net", "nls_iso8859_1", "nvme"])
    assert [path.rpartition("/")[2] for path in found] == [
        "net_failover.ko", "virtio_net.ko", "nls_iso8859-1.ko.xz", "failover.ko",
    ]  # fmt: skip


def test_a_device_leads_to_no_module_that_is_not_there():
    """modprobe would complain for each."""
    assert only(ALIASES, frozenset({"virtio_net"})) == "# made by depmod\nalias virtio:d00000001v* virtio_net\n"


def kernel_tree(root: Path) -> None:
    """An image's folder of modules."""
    folder = root / "lib/modules" / RELEASE
    for path in parse_dependencies(DEPENDENCIES):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    (folder / "modules.dep").write_text(DEPENDENCIES)
    (folder / "modules.alias").write_text(ALIASES)
    (folder / "modules.builtin").write_text("kernel/drivers/nvme/host/nvme.ko\n")


def test_the_archive_holds_what_modprobe_reads(tmp_path):
    """The modules under their paths, their dependencies, the aliases of devices, and what is built in."""
    kernel_tree(tmp_path / "image")
    extra = tmp_path / "extra"
    assert lay_out(tmp_path / "image", RELEASE, ["virtio_net", "nvme"], extra) == (
        "failover", "net_failover", "virtio_net",
    )  # fmt: skip
    ramdisk.pack(extra, tmp_path / "modules.cpio.zst")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    packed = subprocess.run(["zstd", "-dcq", str(tmp_path / "modules.cpio.zst")], capture_output=True, check=True)
    subprocess.run(["cpio", "-id", "--quiet"], cwd=unpacked, input=packed.stdout, check=True, env={"PATH": PATH})
    folder = unpacked / "lib/modules" / RELEASE
    assert parse_dependencies((folder / "modules.dep").read_text()).keys() == {
        str(path.relative_to(folder)) for path in folder.rglob("*.ko*")
    }
    assert "virtio:d00000001v* virtio_net" in (folder / "modules.alias").read_text()
    assert "nvme.ko" in (folder / "modules.builtin").read_text()


def test_the_same_modules_make_the_same_archive(tmp_path):
    """Made in two folders, at two times."""
    sums = []
    for name in ("one", "two"):
        kernel_tree(tmp_path / name / "image")
        lay_out(tmp_path / name / "image", RELEASE, ["virtio_net"], tmp_path / name / "extra")
        clamp_times(tmp_path / name / "extra", 1_700_000_000)
        ramdisk.pack(tmp_path / name / "extra", tmp_path / f"{name}.cpio.zst")
        sums.append((tmp_path / f"{name}.cpio.zst").read_bytes())
    assert sums[0] == sums[1]


STATUS = """\
Package: openssh-server
Status: install ok installed
Architecture: amd64
Version: 1:9.2p1-2+deb12u7
Description: secure shell
 more of it

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
INDEX = f"""\
Package: openssh-server
Architecture: amd64
Version: 1:9.2p1-2+deb12u6
SHA256: {"00" * 32}

Package: openssh-server
Architecture: amd64
Version: 1:9.2p1-2+deb12u7
SHA256: {"ab" * 32}
"""


def test_packages_are_recorded_with_the_hash_of_their_archive(tmp_path):
    """Of the very version that is installed; one that no index knows is told, not left out."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/apt/lists").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    index = tmp_path / "var/lib/apt/lists/m_debian_dists_bookworm_main_binary-amd64_Packages"
    index.write_text(INDEX)
    found = installed(tmp_path)
    assert found == (Package("openssh-server", "1:9.2p1-2+deb12u7", "amd64", "ab" * 32),)
    assert json.loads(written(found))[0]["version"] == "1:9.2p1-2+deb12u7"
    index.write_text(INDEX.replace("u7", "u8"))
    with pytest.raises(UndecidedError, match="openssh-server"):
        installed(tmp_path)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    """With a file and units of its own."""
    file = tmp_path / "recipe.yml"
    file.write_text(
        'image: x\nrelease: bookworm\nepoch: "2026-11-01T00:00:00Z"\npackages: [dbus]\ndisk_mib: 256\n'
        'files: [{path: /etc/motd, content: "hello", mode: "0600"}]\nenable: [own.service]\nmask: [apt-daily.timer]\n'
    )
    return load_recipe(file, Architecture.AMD64)


def debian(root: Path) -> Path:
    """As much of an installed tree as the settings touch."""
    for folder in ("etc/ssh", "etc/apt/sources.list.d", "etc/systemd/system", "usr/lib/systemd/system", "var/log/apt"):
        (root / folder).mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    for file in ("etc/ssh/ssh_host_rsa_key", "etc/shadow-", "etc/apt/sources.list.d/m.sources", "var/log/apt/term.log"):
        (root / file).write_text("of this build")
    (root / "etc/systemd/system/own.service").write_text("[Unit]\n")
    return root


def test_nothing_of_the_builder_stays_in_the_tree(recipe, tmp_path):
    """No key, no mirror, no log, no backup with a date; what the recipe asks for is there."""
    root = debian(tmp_path / "root")
    settle(recipe, root, int(recipe.epoch.timestamp()))
    for gone in ("etc/ssh/ssh_host_rsa_key", "etc/shadow-", "etc/apt/sources.list.d/m.sources", "var/log/apt/term.log"):
        assert not (root / gone).exists()
    assert (root / "etc/machine-id").read_text() == ""
    assert ((root / "etc/motd").read_text(), (root / "etc/motd").stat().st_mode & 0o777) == ("hello", 0o600)
    system = root / "etc/systemd/system"
    assert str((system / "apt-daily.timer").readlink()) == "/dev/null"
    assert str((system / "multi-user.target.wants/own.service").readlink()) == "/etc/systemd/system/own.service"
    assert (root / "usr/lib/rackproof/first_boot.py").is_file()
    youngest = max(path.lstat().st_mtime for path in root.rglob("*"))
    assert youngest <= recipe.epoch.timestamp()


def test_a_unit_that_nobody_installed_is_told(recipe, tmp_path):
    """Before an image without it is signed."""
    root = debian(tmp_path / "root")
    (root / "etc/systemd/system/own.service").unlink()
    with pytest.raises(UsageError, match=r"no unit own\.service"):
        settle(recipe, root, 0)


def test_a_file_is_not_planted_outside_of_the_image(recipe, tmp_path):
    """A package may bring a folder that is a link to somewhere else."""
    root = debian(tmp_path / "root")
    (root / "etc").rename(root / "etc.real")
    (tmp_path / "outside").mkdir()
    (root / "etc").symlink_to(tmp_path / "outside")
    with pytest.raises((UsageError, FileNotFoundError)):
        settle(recipe, root, 0)
    assert not (tmp_path / "outside/motd").exists()

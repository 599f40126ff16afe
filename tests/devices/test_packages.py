"""The .debs and their repository: what is in them, and that apt takes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from toolkit.virtual.fabric.tools import fetch
from toolkit.virtual.package_table import PACKAGES
from toolkit.virtual.packages import build_repository

LOCK = (("nvidia-driver-580-open", "580.95.05"), ("nvidia-fabricmanager", "1:580.82.07-1"), ("kubelet", "1.34.9"))


@pytest.fixture(name="cache", scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(name="repository", scope="module")
def _repository(cache: Path, built: Path) -> Path:
    return build_repository(cache, LOCK, lambda _: None, fetch(built, lambda _: None))


def _run(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def test_a_second_call_builds_nothing(cache: Path, built: Path, repository: Path) -> None:
    """The same contents are the same folder, and nobody says that anything is built."""
    said: list[str] = []
    assert build_repository(cache, dict(LOCK), said.append, fetch(built, said.append)) == repository
    assert said == []


def test_every_package_has_the_locks_version_or_its_own(repository: Path) -> None:
    """The names of the metal, the versions of the rack's lock."""
    fields = [_run("dpkg-deb", "-W", str(path)).split() for path in repository.glob("*.deb")]
    found = {name: version for name, version in fields}
    assert found.keys() == {package.name for package in PACKAGES} | {"rackproof-virtual-devices"}
    assert {name: found[name] for name, _ in LOCK} == dict(LOCK)


def test_a_package_asks_for_the_modules_it_was_built_with_or_newer_ones(repository: Path) -> None:
    """A node that has older modules gets these with the first program that needs them."""
    runtime = next(repository.glob("rackproof-virtual-devices_*.deb"))
    version = _run("dpkg-deb", "-f", str(runtime), "Version").strip()
    driver = next(repository.glob("nvidia-driver-*.deb"))
    assert f"rackproof-virtual-devices (>= {version})" in _run("dpkg-deb", "-f", str(driver), "Depends")
    assert (
        subprocess.run(["dpkg", "--compare-versions", version, "gt", "1.0+0123456789abcdef"], check=False).returncode
        == 0
    )


def test_the_driver_package_holds_the_libraries_and_the_tools(repository: Path) -> None:
    """Everything owned by root, programs executable, no loose files."""
    lines = _run("dpkg", "-c", str(next(repository.glob("nvidia-driver-*.deb")))).splitlines()
    names = {line.split()[-1].rpartition("/")[2]: line.split()[:2] for line in lines}
    assert {"libnvidia-ml.so.1", "libcuda.so.1", "nvidia-smi", "nvidia-persistenced.service"} <= names.keys()
    assert names["nvidia-smi"] == ["-rwxr-xr-x", "root/root"]


def test_apt_verifies_the_signature_and_takes_a_package(repository: Path, tmp_path: Path) -> None:
    """apt-get update and download with signed-by, in folders of its own; a changed index is refused."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc"):
        (tmp_path / folder).mkdir(parents=True)
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [signed-by={repository}/archive-key.asc] file:{repository} ./\n")
    options = {
        "Dir::State": tmp_path / "state", "Dir::Cache": tmp_path / "cache", "Dir::Etc": tmp_path / "etc",
        "Dir::Etc::SourceList": sources, "Dir::Etc::SourceParts": "-", "Dir::Etc::Parts": "-",
        "APT::Sandbox::User": "", "APT::Get::List-Cleanup": "0",
    }  # fmt: skip
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    _run("apt-get", *words, "update")
    offered = _run("apt-cache", *words, "policy", "kubelet")
    assert "Candidate: 1.34.9" in offered
    _run("apt-get", *words, "download", "kubelet", cwd=tmp_path)
    fetched = next(tmp_path.glob("kubelet_1.34.9_*.deb"))
    assert fetched.read_bytes() == (repository / fetched.name).read_bytes()
    forged = tmp_path / "forged"
    forged.mkdir()
    for path in repository.glob("Packages*"):
        os.link(path, forged / path.name)
    text = (repository / "InRelease").read_text()
    (forged / "InRelease").write_text(text.replace("Suite: virtual", "Suite: forged"))
    sources.write_text(f"deb [signed-by={repository}/archive-key.asc] file:{forged} ./\n")
    done = subprocess.run(["apt-get", *words, "update"], capture_output=True, text=True, check=False)
    assert "BADSIG" in done.stderr + done.stdout


def test_infiniband_tools_are_the_real_ones_behind_a_launcher(repository: Path, tmp_path: Path) -> None:
    """Each with its libraries; scripts that only call a tool are as they were; ibstat stays the stand-in."""
    for name in ("infiniband-diags", "opensm"):
        _run("dpkg-deb", "-x", str(next(repository.glob(f"{name}_*.deb"))), str(tmp_path))
    home = tmp_path / "usr/lib/rackproof-virtual/infiniband"
    for tool in ("ibnetdiscover", "opensm"):
        assert "infiniband_tools" in (tmp_path / "usr/sbin" / tool).read_text()
        linked = _run("env", f"LD_LIBRARY_PATH={home}/lib", "ldd", str(home / "bin" / tool))
        assert f"{home}/lib/libib" in linked
        assert "not found" not in linked
    assert (home / "lib/umad2sim/libumad2sim.so").stat().st_size > 0
    assert (tmp_path / "usr/sbin/ibswitches").read_text().startswith("#!/bin/sh")
    assert "ibstat:main" not in (tmp_path / "usr/sbin/ibnetdiscover").read_text()
    assert "devices.ibstat" in (tmp_path / "usr/sbin/ibstat").read_text()
    unit = (tmp_path / "lib/systemd/system/opensm.service").read_text()
    assert "ExecStart=/usr/sbin/opensm " in unit


def test_an_installed_tree_runs(repository: Path, tmp_path: Path) -> None:
    """Unpacked as dpkg would, a program finds its module and reports the version dpkg installed."""
    for name in ("rackproof-virtual-devices", "kubelet", "nvidia-fabricmanager"):
        _run("dpkg-deb", "-x", str(next(repository.glob(f"{name}_*.deb"))), str(tmp_path))
    launcher = (tmp_path / "usr/bin/kubelet").read_text()
    assert launcher.startswith("#!/usr/bin/python3\n")
    moved = launcher.replace("/usr/lib/rackproof-virtual", f"{tmp_path}/usr/lib/rackproof-virtual")
    assert _run("/usr/bin/env", "python3", "-c", f"import sys; sys.argv[1:] = ['--version']\n{moved}") == (
        "Kubernetes v1.34.9\n"
    )
    assert (tmp_path / "usr/lib/rackproof-virtual/devices/versions/nvidia-fabricmanager").read_text() == "580.82.07\n"

"""burnin.pyz: one file, the same bytes from the same sources, running wherever there is a python3."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import burnin
import toolkit
from toolkit.stages.archive import build_archive


def test_the_same_sources_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: Path, request: pytest.FixtureRequest
) -> None:
    """The digest does not depend on when, where and under which umask it was built."""
    kernels = request.config.cache.mkdir("burnin")
    first = build_archive(tmp_path / "a.pyz", kernels)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == first
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    before = os.umask(0o077)
    try:
        assert build_archive(tmp_path / "new/b.pyz", kernels) == first
    finally:
        os.umask(before)
    assert hashlib.sha256((tmp_path / "new/b.pyz").read_bytes()).hexdigest() == first
    assert os.access(tmp_path / "new/b.pyz", os.X_OK)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["b.pyz"], "no half-written file is left"


def test_the_archive_holds_the_burnin_and_its_one_dependency(archive: Path) -> None:
    """Python's sources and the kernels' images only, and pynvml's licence."""
    with zipfile.ZipFile(archive) as members:
        names = members.namelist()
        licence = members.read("LICENSE.pynvml").decode()
    assert {
        "__main__.py",
        "pynvml.py",
        "burnin/__main__.py",
        "burnin/hbm/sweeps.py",
        "burnin/kernels/hbm.fatbin",
    } <= set(names)
    assert all(n.endswith((".py", ".fatbin")) or n == "LICENSE.pynvml" for n in names)
    assert names == sorted(names)
    assert "nvidia-ml-py 1" in licence and "Redistributions in binary form must reproduce" in licence


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_it_runs_on_every_python_of_a_node(archive: Path, version: str) -> None:
    """Isolated from everything that is installed beside that interpreter."""
    interpreter = shutil.which(f"python{version}")
    probe = [interpreter or "", "-I", "-S", "-c", "import sys; print(sys.version_info >= (3, 10))"]
    if interpreter is None or subprocess.run(probe, capture_output=True, check=False).stdout != b"True\n":
        pytest.skip(f"no python{version} here")
    answer = subprocess.run([interpreter, "-I", "-S", str(archive), "version"], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == burnin.VERSION
    program = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "from burnin.device.kernels import packaged_images\n"
        "print(sorted(n for n, image in packaged_images().items() if image[:4] == bytes([0x50, 0xed, 0x55, 0xba])))"
    )
    kernels = subprocess.run([interpreter, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert "'hbm'" in kernels.stdout, "they are read out of the archive"


def test_burnin_and_toolkit_are_of_one_version() -> None:
    """The records name the version that measured."""
    assert toolkit.__version__ == burnin.VERSION

"""The kernels' binaries: compiled once for all GPUs, the same bytes from the same sources, or taken from a release."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import burnin
from toolkit.errors import UsageError
from toolkit.stages import fatbin
from toolkit.stages.fatbin import build_kernels, prebuild

MAGIC = bytes([0x50, 0xED, 0x55, 0xBA])


def sources(folder: Path, monkeypatch: pytest.MonkeyPatch, factor: int = 2) -> Path:
    """A burn-in with two small kernels, one of them for a single architecture."""
    kernels = folder / "burnin/kernels"
    kernels.mkdir(parents=True)
    (kernels / "device.h").write_bytes((Path(burnin.__file__).parent / "kernels/device.h").read_bytes())
    for name in ("double.cu", "fp8_sm90.cu"):
        (kernels / name).write_text(
            f'#include "device.h"\nKERNEL scale_{name[:-3]}(u64 *x) {{ x[threadIdx.x] *= {factor}; }}\n'
        )
    monkeypatch.setattr(burnin, "__file__", str(folder / "burnin/__init__.py"))
    return kernels


def targets(image: bytes) -> list[str]:
    """What a fat binary has in it: `sm_N` for machine code, `compute_N` for PTX.

    After a header of 16 bytes come entries: kind, then at 4 the header's size, at 8 the content's, at 28 the target.
    """
    found, at = [], 16
    while at < len(image):
        kind, _, header, size = struct.unpack_from("<HHIQ", image, at)
        (number,) = struct.unpack_from("<I", image, at + 28)
        found.append(f"{'sm' if kind == 2 else 'compute'}_{number}")
        at += header + size
    return found


def test_every_source_is_one_image_with_code_for_its_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is built; what was built is not built again."""
    sources(tmp_path / "one", monkeypatch)
    first = build_kernels(tmp_path / "cache")
    assert sorted(first) == ["double.fatbin", "fp8_sm90.fatbin"] and all(i[:4] == MAGIC for i in first.values())
    assert set(targets(first["double.fatbin"])) == {"sm_80", "sm_90", "sm_100", "sm_103", "sm_120", "compute_100"}
    assert targets(first["fp8_sm90.fatbin"]) == ["sm_90"]

    sources(tmp_path / "another/place", monkeypatch)
    assert build_kernels(tmp_path / "other") == first, "the same bytes"
    monkeypatch.setattr(fatbin, "_build", lambda *_: pytest.fail("built again"))
    assert build_kernels(tmp_path / "cache") == first
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.name.startswith(".")] == []


def test_a_release_needs_no_compiler_until_its_sources_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prebuilt images are used as long as they are of these very sources."""
    kernels = sources(tmp_path, monkeypatch)
    prebuild()
    built = {p.name: p.read_bytes() for p in kernels.glob("*.fatbin")}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert build_kernels(tmp_path / "cache") == built and len(built) == 2
    assert not (tmp_path / "cache").exists()
    (kernels / "double.cu").write_text((kernels / "double.cu").read_text().replace("*= 2", "*= 3"))
    with pytest.raises(UsageError, match="the CUDA compiler is not installed") as raised:
        build_kernels(tmp_path / "cache")
    assert "rackproof[kernels]" in raised.value.hint


def test_a_source_that_does_not_compile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler's words; nothing half-built is kept."""
    kernels = sources(tmp_path, monkeypatch)
    (kernels / "double.cu").write_text("not C++")
    with pytest.raises(fatbin.RackproofError, match=r"double\.cu does not compile: .*error"):
        build_kernels(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []

"""A node's hardware folder, and the device libraries built once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from toolkit.rack.model import Hca, Mode, Profile, Unit, UnitKind
from toolkit.virtual.device_libraries import CUDA, NVML, compile_library
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state

PROBE = Path(__file__).parent / "kernels/probe.cu"
NODE = Unit(
    name="node1",
    kind=UnitKind.NODE,
    serial="VR00000001",
    slot=1,
    hcas=tuple(Hca(f"mlx5_{rail}", f"0xb83fd20300a1c2{rail:02x}", rail) for rail in range(8)),
)
PROFILE = Profile(
    name="virtual-dgx-h100",
    sku="Virtual DGXH100",
    mode=Mode.NVSWITCH_GEN3,
    gpus_per_node=8,
    nvlinks_per_gpu=18,
    nvlink_gb_per_s=26.562,
    hcas_per_node=8,
    units=((UnitKind.NODE, 1),),
    image="virtual-dgx.img.zst",
    expected=(("driver_version", "580.95.05"),),
    versions=(("nvidia-driver-580-open", "580.95.05"),),
    gates=(),
    certificate_lifetime=timedelta(days=30),
    virtual=True,
)


class Node:
    """A hardware folder as the virtual daemon keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "load").mkdir(parents=True)
        (folder / "kmsg").touch()
        self.set()

    def set(self, *faults: Fault) -> None:
        """Replaces the state by one with these faults, atomically."""
        aside = self.folder / "state.new"
        aside.write_text(render_state(NODE, PROFILE, faults))
        aside.replace(self.folder / "state")

    def moved(self, gpu: int) -> int:
        """Bytes the GPU has moved."""
        path = self.folder / f"load/gpu{gpu}"
        return int(path.read_text()) if path.exists() else 0

    def kernel_log(self) -> list[str]:
        """Records of the kernel log."""
        return (self.folder / "kmsg").read_text().splitlines()


def fault(kind: FaultKind, gpu: int | None = 3, value: float | None = None, **more: object) -> Fault:
    """A fault on the node of these tests."""
    return Fault(kind, NODE.name, gpu=gpu, value=value, **more)  # type: ignore[arg-type]


@pytest.fixture(name="make_fault")
def _make_fault() -> Callable[..., Fault]:
    return fault


@pytest.fixture(name="node")
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    folder = tmp_path / "hardware"
    monkeypatch.setenv("RACKPROOF_HARDWARE", str(folder))
    return Node(folder)


@pytest.fixture(name="probing", scope="session")
def _probing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libcuda.so.1 that runs the kernels of kernels/probe.cu."""
    return compile_library(CUDA, tmp_path_factory.mktemp("probing"), kernels=[PROBE])


@pytest.fixture(name="libraries", scope="session")
def _libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with libnvidia-ml.so.1 and libcuda.so.1, compiled with -Wall -Wextra -Werror."""
    folder = tmp_path_factory.mktemp("libraries")
    for library in (NVML, CUDA):
        compile_library(library, folder)
    return folder

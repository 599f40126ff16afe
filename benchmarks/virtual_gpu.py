"""A virtual GPU for benchmarks: its libraries and our burn-in in a folder, and the state that says how it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.rack.loading import load_rack
from toolkit.virtual.device_libraries import CUDA, NVML, compile_library, kernel_sources
from toolkit.virtual.hardware import render_state

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "RACKPROOF_HARDWARE"
_INSIDE = "RACKPROOF_BENCHMARK"
# What a driver takes for a fat binary (fatbinary_section.h); the virtual one has the kernels already.
IMAGE = bytes.fromhex("50ed55ba") + bytes(60)


def inside() -> bool:
    """Whether this process was started by `run_again`."""
    return _INSIDE in os.environ


def run_again(script: Path, arguments: Sequence[str], kernels: Sequence[Path] = ()) -> int:
    """Run a script anew where libcuda and NVML are virtual; `kernels` are added to the burn-in's. Its exit status."""
    with tempfile.TemporaryDirectory(prefix="rackproof-benchmark-") as name:
        folder = Path(name)
        for library in (CUDA, NVML):
            compile_library(library, folder, kernels=(*kernel_sources(), *kernels))
        _copy_burnin(folder)
        hardware = folder / "hardware"
        (hardware / "load").mkdir(parents=True)
        (hardware / "kmsg").touch()
        State(hardware).set({})
        environment = {
            **os.environ, _INSIDE: "1", FOLDER: str(hardware), "LD_LIBRARY_PATH": name,
            "PYTHONPATH": os.pathsep.join((name, str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        return subprocess.run([sys.executable, str(script), *arguments], env=environment, check=False).returncode


def _copy_burnin(folder: Path) -> None:
    """Our burn-in as it is shipped: with an image for each source of kernels."""
    shutil.copytree(ROOT / "burnin", folder / "burnin", ignore=shutil.ignore_patterns("__pycache__", "*.fatbin"))
    for source in kernel_sources():
        (folder / "burnin/kernels" / f"{source.stem}.fatbin").write_bytes(IMAGE)


class State:
    """The state file of a hardware folder, by default the one this process was started with. GPU 0 alone is used."""

    def __init__(self, folder: Path | None = None) -> None:
        rack = load_rack("demo", ROOT / "inventory")
        self._healthy = render_state(rack.nodes[0], rack.profile, ())
        self._folder = folder or Path(os.environ[FOLDER])
        self.pci = next(line.split(" ", 1)[1] for line in self._healthy.splitlines() if line.startswith("gpu0.pci "))

    def set(self, keys: Mapping[str, int | str]) -> None:
        """Replace the state by a healthy one with these keys of GPU 0, e.g. `memory.stuck_bit`."""
        aside = self._folder / "state.new"
        # the first line of a key counts
        aside.write_text("".join(f"gpu0.{key} {value}\n" for key, value in keys.items()) + self._healthy)
        aside.replace(self._folder / "state")

    def moved(self) -> int:
        """Bytes that GPU 0 has read and written so far."""
        path = self._folder / "load/gpu0"
        return int(path.read_text()) if path.exists() else 0

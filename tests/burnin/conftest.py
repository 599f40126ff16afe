"""A node's GPUs for the burn-in: the virtual rack's real libraries over a folder of hardware state."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from burnin import record
from burnin.nccl.collective import Kind
from toolkit.rack.loading import load_rack
from toolkit.rack.model import Rack
from toolkit.stages.archive import build_archive
from toolkit.virtual.device_libraries import CUDA, NVML, compile_library
from toolkit.virtual.faults import Fault
from toolkit.virtual.hardware import render_state

ROOT = Path(__file__).resolve().parents[2]
DEVICES = ROOT / "toolkit/virtual/devices"


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with libnvidia-ml.so.1, libcuda.so.1 and the programs of nccl-tests."""
    folder = tmp_path_factory.mktemp("vendor")
    for library in (NVML, CUDA):
        compile_library(library, folder)
    for kind in Kind:
        program(
            folder / kind.program,
            f"import sys; sys.path.insert(0, {str(DEVICES.parent)!r})\n"
            "from devices.nccl_tests import main\nsys.exit(main())\n",
        )
    return folder


def program(path: Path, text: str) -> Path:
    """A Python program that can be executed by its path."""
    path.write_text(f"#!{sys.executable} -S\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@dataclass
class Node:
    """A node with virtual GPUs, and the burn-in's command line on it."""

    folder: Path
    vendor: Path
    archive: Path
    rack: Rack
    path: str = field(default_factory=lambda: os.environ["PATH"])

    @property
    def kmsg(self) -> Path:
        """Its kernel log."""
        return self.folder / "hardware/kmsg"

    @property
    def out(self) -> Path:
        """Where its runs are recorded."""
        return self.folder / "out"

    def break_by(self, *faults: Fault) -> None:
        """Set the node's faults; `node` in each is node1."""
        state = self.folder / "hardware/state"
        unit = next(u for u in self.rack.units if u.name == "node1")
        (state.with_suffix(".new")).write_text(render_state(unit, self.rack.profile, faults))
        state.with_suffix(".new").replace(state)

    def environment(self) -> dict[str, str]:
        """What the node's environment holds."""
        return {
            "PATH": f"{self.vendor}:{self.path}",
            "LD_LIBRARY_PATH": str(self.vendor),
            "RACKPROOF_HARDWARE": str(self.folder / "hardware"),
        }

    def command(self, *arguments: str) -> list[str]:
        """argv of the burn-in."""
        return [sys.executable, str(self.archive), *arguments]

    def arguments(self, run: str, suite: str = "rehearsal") -> list[str]:
        """Arguments of a run on this node."""
        hardware = f"RACKPROOF_HARDWARE={self.folder / 'hardware'}"
        return ["run", "--run", run, "--suite", suite, "--out", str(self.out), "--kernel-log", str(self.kmsg),
                "--env", hardware]  # fmt: skip

    def run(self, run: str = "r1", *more: str) -> subprocess.CompletedProcess[str]:
        """Run a suite to its end."""
        command = self.command(*self.arguments(run), *more)
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=300, check=False)

    def records(self) -> list[record.Record]:
        """What was recorded, read as the toolkit reads it."""
        with (self.out / "records.jsonl").open("rb") as stream:
            return list(record.read(stream))

    def values(self, metric: str) -> dict[int | None, float | int | str]:
        """A metric's values by GPU."""
        return {r.gpu: r.value for r in self.records() if isinstance(r, record.Measured) and r.metric == metric}

    def ends(self, workload: str) -> dict[int | None, record.WorkloadEnded]:
        """How a workload ended, by GPU."""
        return {r.gpu: r for r in self.records() if isinstance(r, record.WorkloadEnded) and r.workload == workload}


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """burnin.pyz, as it is shipped. Its kernels, half a minute of compiling, are kept for the next session."""
    kept = request.config.cache.mkdir("burnin") / "burnin.pyz"
    build_archive(kept)
    return shutil.copy2(kept, tmp_path_factory.mktemp("archive") / "burnin.pyz")


@pytest.fixture(scope="session")
def rack() -> Rack:
    """The rack whose first node is tested."""
    return load_rack("demo", ROOT / "inventory")


def make_node(folder: Path, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A healthy node with eight GPUs, its state in `folder`."""
    (folder / "hardware/load").mkdir(parents=True)
    (folder / "hardware/kmsg").touch()
    made = Node(folder, vendor, archive, rack)
    made.break_by()
    return made


@pytest.fixture
def node(tmp_path: Path, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A healthy node with eight GPUs."""
    return make_node(tmp_path, vendor, archive, rack)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A healthy node on which a rehearsal has run."""
    made = make_node(tmp_path_factory.mktemp("healthy"), vendor, archive, rack)
    done = made.run()
    assert (done.returncode, done.stderr) == (0, "")
    return made

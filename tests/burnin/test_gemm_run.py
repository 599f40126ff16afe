"""The gemm workload on a virtual GPU: the burn-in's own kernels, with arithmetic that is wrong on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from burnin import record
from toolkit.rack.loading import load_rack
from toolkit.virtual.device_libraries import CUDA, compile_library
from toolkit.virtual.hardware import render_state

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "burnin/kernels"
IMAGE = bytes.fromhex("50ed55ba") + bytes(60)  # what a virtual GPU's driver takes for a fat binary
RUN = """
import sys, pathlib
from burnin.child import Reporter
from burnin.gemm import run
gpu, pci, seed, unproven, folder = sys.argv[1:]
sys.exit(run.run(Reporter("gemm", int(gpu)), pci, seed=seed, seconds=0, unproven=unproven == "1",
                 folder=pathlib.Path(folder), prefix="", patience_s=1))
"""
# A fault that every SM has and that is always the same: invisible to any comparison of GPUs or SMs.
EVERYWHERE = """
template <class T> DEVICE T broken(T value) { return (long long)value % 64 == 5 ? value + 1 : value; }
#define faulty_result broken
#include "gemm.cu"
"""


@dataclass(frozen=True)
class Result:
    """What a run recorded."""

    values: dict[str, float | int | str]
    end: record.WorkloadEnded
    artifact: dict[str, object]


@dataclass(frozen=True)
class Gpu:
    """A virtual node; its GPU's state is the demo rack's with more lines."""

    folder: Path
    libraries: Path

    def run(self, *state: str, gpu: int = 0, seed: str = "run-1", unproven: bool = False) -> Result:
        """One process of the workload, from a copy of the burn-in that holds kernel images."""
        package, hardware, out = (self.folder / name for name in ("package", "hardware", "out"))
        for folder in (package, hardware, out):
            shutil.rmtree(folder, ignore_errors=True)
        (hardware / "load").mkdir(parents=True)
        (hardware / "kmsg").touch()
        out.mkdir()
        shutil.copytree(ROOT / "burnin", package / "burnin", ignore=shutil.ignore_patterns("*.fatbin", "__pycache__"))
        (package / "burnin/kernels/gemm.fatbin").write_bytes(IMAGE)
        healthy = _healthy_state()
        (hardware / "state").write_text(healthy + "".join(f"{line}\n" for line in state))
        pci = next(line.split()[1] for line in healthy.splitlines() if line.startswith(f"gpu{gpu}.pci "))
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(gpu), pci, seed, str(int(unproven)), str(out)],
            env={
                "PYTHONPATH": str(package),
                "LD_LIBRARY_PATH": str(self.libraries),
                "RACKPROOF_HARDWARE": str(hardware),
                "PATH": os.environ["PATH"],
            },
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        records = list(record.load(done.stdout.splitlines()))
        artifact = out / f"gemm_gpu{gpu}.json"
        return Result(
            {r.metric: r.value for r in records if isinstance(r, record.Measured)},
            next(r for r in records if isinstance(r, record.WorkloadEnded)),
            json.loads(artifact.read_text()) if artifact.exists() else {},
        )


def _healthy_state() -> str:
    rack = load_rack("demo", ROOT / "inventory")
    return render_state(next(u for u in rack.units if u.name == "node1"), rack.profile, ())


def _built(folder: Path, *kernels: Path) -> Path:
    compile_library(CUDA, folder, kernels=kernels)
    return folder


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual driver with the products, and with those of FP8 on Hopper."""
    return _built(tmp_path_factory.mktemp("libraries"), KERNELS / "gemm.cu", KERNELS / "fp8_sm90.cu")


@pytest.fixture
def gpu(tmp_path: Path, libraries: Path) -> Gpu:
    """A healthy virtual GPU."""
    return Gpu(tmp_path, libraries)


def test_a_healthy_gpu_has_no_wrong_tile_on_any_sm_of_any_unit(gpu: Gpu) -> None:
    """The report says which units and SMs were exercised, which were not, and that all agreed."""
    found = gpu.run()
    assert found.end.outcome is record.Outcome.COMPLETED
    assert found.values["gemm_wrong_tiles"] == 0
    assert found.values["gemm_units"] == "bf16 fp16 fp64 int8 tf32"
    assert found.values["gemm_units_not_exercised"] == "fp8: kernel never ran on this chip"
    assert found.values["gemm_sms_covered"] == 1.0
    assert found.values["gemm_sms_suspect"] == "none"
    assert found.values["cuda_result"] == "ok"
    # 5 units, 2 kinds of operands, 4 SMs: 3 attempts and 4 iterations of 4 tiles
    assert found.values["gemm_runs"] == 5 * 2 * 4 * (3 + 4)
    assert all(float(found.values[f"gemm_{unit}_tflop_per_s"]) > 0 for unit in ("fp64", "tf32", "bf16", "fp16", "int8"))


def test_gpus_of_a_kind_agree_on_the_digest_and_other_data_gives_another(gpu: Gpu) -> None:
    """One seed, one digest on every GPU; it depends on the data."""
    first, second, other = gpu.run(gpu=0), gpu.run(gpu=5), gpu.run(seed="run-2")
    assert first.values["gemm_digest"] == second.values["gemm_digest"]
    assert len(str(first.values["gemm_digest"])) == 16
    assert first.values["gemm_digest"] != other.values["gemm_digest"]


def test_boards_of_different_shape_never_agree_by_accident(gpu: Gpu) -> None:
    """Fewer SMs compute something else: the digest says so."""
    assert gpu.run().values["gemm_digest"] != gpu.run("gpu0.sm_count 9").values["gemm_digest"]


def test_a_wrong_multiply_and_add_on_one_sm_is_found_and_the_sm_is_named(gpu: Gpu) -> None:
    """A few results in thousands are off by a bit."""
    found = gpu.run("gpu0.compute.wrong_fma_sm 2")
    assert found.values["gemm_wrong_tiles"] != 0
    assert found.values["gemm_sms_suspect"] == "2"
    assert found.end.outcome is record.Outcome.COMPLETED


def test_wrong_rounding_on_one_sm_changes_the_digest_and_names_the_sm(gpu: Gpu) -> None:
    """Whole numbers know no rounding; full mantissas do."""
    healthy, found = gpu.run(), gpu.run("gpu0.compute.rounding_sm 1")
    assert found.values["gemm_digest"] != healthy.values["gemm_digest"]
    assert found.values["gemm_sms_suspect"] == "1"
    assert found.values["gemm_wrong_tiles"] != 0


def test_a_nan_is_a_wrong_tile(gpu: Gpu) -> None:
    """A comparison with NaN would say nothing; a comparison of bits does."""
    found = gpu.run("gpu0.compute.nan_sm 3")
    assert found.values["gemm_wrong_tiles"] != 0
    assert found.values["gemm_sms_suspect"] == "3"


def test_a_fault_that_all_sms_share_is_refuted_by_freivalds(tmp_path: Path) -> None:
    """Every SM gives the same wrong answer every time, so only the proof can tell."""
    source = tmp_path / "everywhere.cu"
    source.write_text(EVERYWHERE)
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    found = Gpu(tmp_path, _built(libraries, source)).run()
    assert found.values["gemm_wrong_tiles"] != 0
    assert found.values["gemm_sms_suspect"] == "all"
    units = found.artifact["units"]
    assert isinstance(units, list)
    assert sum(unit["unanimous_and_wrong"] for unit in units) > 0


def test_a_hanging_kernel_is_a_finding_and_not_a_hanging_process(gpu: Gpu) -> None:
    """The process says so and leaves; what no unit got to is not reported as right."""
    found = gpu.run("gpu0.hangs_after_bytes 100000")
    assert found.values["cuda_result"] == "hung"
    assert found.end.outcome is record.Outcome.CRASHED
    assert "gemm_wrong_tiles" not in found.values


def test_an_uncorrectable_memory_error_ends_the_workload_with_its_word(gpu: Gpu) -> None:
    """CUDA 214 in the middle: named, and no result is made up."""
    found = gpu.run("gpu0.double_bit_after_bytes 1000000", "gpu0.double_bit_times 1")
    assert found.values["cuda_result"] == "ecc_uncorrectable"
    assert found.end.outcome is record.Outcome.CRASHED
    assert "gemm_wrong_tiles" not in found.values
    assert "gemm_digest" not in found.values


def test_a_fabric_that_is_not_ready_makes_the_workload_unavailable(gpu: Gpu) -> None:
    """CUDA 802 at the first call."""
    found = gpu.run("cuda_init_error 802")
    assert found.values == {"cuda_result": "fabric_not_ready"}
    assert found.end.outcome is record.Outcome.UNAVAILABLE


def test_an_unproven_kernel_runs_when_asked_for(gpu: Gpu) -> None:
    """FP8 counts as exercised then, and changes nothing that is compared between GPUs."""
    plain, found = gpu.run(), gpu.run(unproven=True)
    assert found.values["gemm_units"] == "bf16 fp16 fp64 fp8 int8 tf32"
    assert found.values["gemm_units_not_exercised"] == "none"
    assert found.values["gemm_digest"] == plain.values["gemm_digest"]


def test_an_unproven_kernel_that_is_wrong_accuses_itself_and_no_gpu(gpu: Gpu) -> None:
    """Its wrong tiles are not the GPU's: it is listed as not exercised, with what it did."""
    proven = gpu.run("gpu0.compute.wrong_fma_sm 2")
    found = gpu.run("gpu0.compute.wrong_fma_sm 2", unproven=True)
    assert str(found.values["gemm_units_not_exercised"]).startswith("fp8: unproven kernel gave ")
    assert found.values["gemm_wrong_tiles"] == proven.values["gemm_wrong_tiles"]


def test_an_unproven_kernel_that_is_missing_is_left_out_with_the_reason(tmp_path: Path) -> None:
    """The fat binary may lack it: the others have spoken."""
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    found = Gpu(tmp_path, _built(libraries, KERNELS / "gemm.cu")).run(unproven=True)
    assert found.values["gemm_units_not_exercised"] == "fp8: unproven kernel failed: not_found"
    assert found.values["gemm_wrong_tiles"] == 0
    assert found.end.outcome is record.Outcome.COMPLETED

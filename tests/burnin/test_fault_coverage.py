"""The benchmarks of the burn-in: fault coverage on a virtual GPU, and the figures of a GPU where there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LIMIT_S = 400
# With this one no instance is drawn so that a tool needs luck: in memory the driver keeps, or once in 2,000 reads.
SEED = "2"


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A benchmark's script to its end."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def coverage() -> dict[str, Any]:
    """A small run's figures."""
    done = run("hbm_fault_coverage.py", "--quick", "--seed", SEED, "--json")
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def caught(coverage: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Instances that each tool caught, by class."""
    return {row["name"]: row["caught"] for row in coverage["classes"]}


def test_our_suite_catches_every_class(coverage: dict[str, Any], caught: dict[str, dict[str, int]]) -> None:
    """The instance of each class is seen by the quick or the long suite, and nothing fails to get through."""
    assert {name for name, tools in caught.items() if tools["ours (long)"] == 1} == set(caught)
    assert len(caught) == 12
    assert [row["failures"] for row in coverage["classes"]] == [[]] * 12


def test_the_quick_suite_catches_what_needs_no_time(caught: dict[str, dict[str, int]]) -> None:
    """All but weak cells, which need a rest, and disturbed rows, which need to be opened often."""
    missed = {name for name, tools in caught.items() if tools["ours (quick)"] == 0}
    assert "row disturb" in missed
    assert missed <= {"row disturb", "retention"}


def test_healthy_gpus_raise_no_alarm(coverage: dict[str, Any]) -> None:
    """Nothing is said of healthy GPUs of different sizes."""
    assert coverage["clean_runs"] == 10
    assert coverage["alarms"] == []


def test_tools_that_cannot_see_a_class_do_not(caught: dict[str, dict[str, int]]) -> None:
    """Equal words hide an address line; comparing with NaN, or with the same wrong answer, says nothing."""
    assert caught["stuck address line"]["DCGM memory"] == 0
    assert caught["stuck address line"]["cuda_memtest"] == 1
    assert caught["NaN, 1 SM"]["gpu-burn"] == 0
    assert caught["rounding, every SM"]["gpu-burn"] == 0
    assert caught["wrong multiply-add, 1 SM"]["gpu-burn"] == 1


def test_no_tool_moves_less_than_the_minimum(coverage: dict[str, Any]) -> None:
    """A byte that is verified was written and read; ours comes within a tenth of that."""
    per_byte = {tool: effort["moved"] / effort["verified"] for tool, effort in coverage["efforts"].items()}
    assert min(per_byte.values()) > 1.99
    assert per_byte["ours (quick)"] < 2.2


def test_the_figures_of_a_virtual_gpu_mean_nothing_and_say_so(tmp_path: Path) -> None:
    """The GPU's benchmark comes to its end on a virtual one, and what does not depend on rates is as it must be."""
    figures = tmp_path / "figures.json"
    done = run("gpu.py", "--virtual", "--seconds", "0", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "virtual GPU: rates mean nothing" in done.stdout
    ratios = {line["what"]: line["ratio"] for line in json.loads(figures.read_text())["lines"]}
    assert ratios["found at their place"] == 1.0
    assert ratios["covered of free memory"] >= 0.97
    assert ratios["SMs covered by every unit"] == 1.0
    assert ratios["digest, same in a second run"] == 1.0


def test_without_a_gpu_nothing_is_measured(vendor: Path, tmp_path: Path) -> None:
    """Where no driver is loaded the GPU's benchmark says so, by its exit status too."""
    done = run(
        "gpu.py", RACKPROOF_BENCHMARK="1", RACKPROOF_HARDWARE=str(tmp_path), LD_LIBRARY_PATH=str(vendor),
        PYTHONPATH=str(BENCHMARKS.parent),
    )  # fmt: skip
    assert done.returncode == 3
    assert "driver_not_loaded" in done.stdout
    assert "nothing was measured" in done.stdout

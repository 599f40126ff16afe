"""The host link's copies on a virtual GPU: rates, data, link state under load, and how failures are told."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from burnin.record import Measured, Outcome, Record, WorkloadEnded, load
from toolkit.virtual.faults import Fault, FaultKind

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (
    "import sys; from pathlib import Path; from burnin.child import Reporter; from burnin.pcie import copies\n"
    "sys.exit(copies.run(Reporter('pcie', 3), sys.argv[1], seed='s', seconds=float(sys.argv[2]), "
    "folder=Path(sys.argv[3]), prefix='a1_'))"
)


@dataclass
class Said:
    """What the process reported."""

    records: list[Record]

    def value(self, metric: str) -> float | int | str | None:
        return next((r.value for r in self.records if isinstance(r, Measured) and r.metric == metric), None)

    @property
    def end(self) -> WorkloadEnded:
        (end,) = (r for r in self.records if isinstance(r, WorkloadEnded))
        return end


def pcie(node, seconds: float = 0.3) -> Said:
    pci = subprocess.run(
        [sys.executable, "-c", "from burnin.device.nvml import Nvml; print(Nvml().gpu(3).call('GetPciInfo').busId)"],
        env=node.environment(), cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    return copies_of(node, pci, seconds)


def copies_of(node, pci: str, seconds: float) -> Said:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, pci, str(seconds), str(node.folder)],
        env=node.environment(), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return Said(list(load(done.stdout.splitlines())))


def break_gpu(node, kind: FaultKind, value: float | None = None) -> None:
    node.break_by(Fault(kind, "node1", gpu=3, value=value))


def test_a_healthy_link_gives_both_rates_and_right_data(node):
    """Five trains and more each way, every byte that came back compared, the link read while copies ran."""
    said = pcie(node)
    kept = json.loads((node.folder / "a1_pcie_gpu3.json").read_text())
    assert said.end.outcome is Outcome.COMPLETED and said.value("cuda_result") == "ok"
    assert said.value("pcie_miscompares") == 0
    assert said.value("h2d_gb_per_s") > 0 and said.value("d2h_gb_per_s") > 0
    assert len(kept["h2d"]) == len(kept["d2h"]) == len(kept["both"]) >= 5
    assert kept["bytes_verified"] == 2 * len(kept["h2d"]) * kept["bytes_per_copy"]
    assert (said.value("pcie_width_loaded"), said.value("pcie_generation_loaded")) == (16, 5)
    assert kept["link"] and kept["nvml"] == ""


def test_a_narrow_link_is_read_under_load(node):
    """Eight lanes of sixteen are the lowest reading."""
    break_gpu(node, FaultKind.PCIE_NARROW, 8)
    assert pcie(node).value("pcie_width_loaded") == 8


def test_a_bit_that_changes_on_the_way_is_counted_and_kept(node):
    """A bit of the GPU's memory that reads as 1: half of what passes it comes back wrong, and only that bit."""
    break_gpu(node, FaultKind.HBM_STICKY_BIT, 0.05)
    said = pcie(node)
    kept = json.loads((node.folder / "a1_pcie_gpu3.json").read_text())
    assert said.end.outcome is Outcome.COMPLETED
    assert said.value("pcie_miscompares") == len({m["round"] for m in kept["first"]}) > 0
    assert {int(m["xor"], 16).bit_count() for m in kept["first"]} == {1}
    assert len({m["word"] for m in kept["first"]}) == 1


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        (FaultKind.HBM_DOUBLE_BIT, 20, "ecc_uncorrectable"),
        (FaultKind.CUDA_ERROR, 802, "fabric_not_ready"),
        (FaultKind.CUDA_ERROR, 999, "unknown_error"),
    ],
)
def test_what_cuda_answers_is_told_by_its_word_and_costs_no_record(node, kind, value, word):
    """The end is a record, not a traceback; no rate is made up."""
    break_gpu(node, kind, value)
    said = pcie(node)
    assert said.value("cuda_result") == word and said.end.outcome is not Outcome.COMPLETED
    assert said.value("pcie_miscompares") in (None, 0)


def test_a_gpu_that_cuda_does_not_list_is_unavailable(node):
    """No traceback, no rate, no zero."""
    said = copies_of(node, "00000000:FE:00.0", 0.1)
    assert said.end.outcome is Outcome.UNAVAILABLE and said.value("cuda_result") == "gpu_absent"
    assert said.value("h2d_gb_per_s") is None and said.value("pcie_miscompares") is None

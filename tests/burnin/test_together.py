"""Memory and products in turn on one virtual GPU: what is wrong is found, and counted where it belongs."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass

import pytest

from burnin.record import Measured, Outcome, Progress, Record, WorkloadEnded, load
from tests.burnin.conftest import Node
from toolkit.virtual.faults import Fault, FaultKind

PCI_3 = "00000000:61:00.0"


@dataclass
class Said:
    """What the process of GPU 3 reported, and its file."""

    records: list[Record]
    file: dict

    def value(self, metric: str) -> float | int | str | None:
        return next((r.value for r in self.records if isinstance(r, Measured) and r.metric == metric), None)

    @property
    def end(self) -> WorkloadEnded:
        (end,) = (r for r in self.records if isinstance(r, WorkloadEnded))
        return end


def together(node: Node, *more: str, seconds: float = 0.5) -> Said:
    done = subprocess.run(
        node.command("workload", "together", "--run", "r1", "--suite", "s", "--out", str(node.folder), "--gpu", "3",
                     "--pci", PCI_3, "--seconds", str(seconds), *more),
        env=node.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    path = node.folder / "together_gpu3.json"
    return Said(list(load(done.stdout.splitlines())), json.loads(path.read_text()) if path.exists() else {})


def test_a_healthy_gpu_takes_both_loads_in_turn(node: Node) -> None:
    """Bursts of a fifth of a second each; every byte and every tile was looked at; the time is the load's."""
    said = together(node, "--retention", "0.6", seconds=3)
    assert said.end.outcome is Outcome.COMPLETED and said.value("cuda_result") == "ok"
    assert said.value("together_miscompares") == said.value("together_wrong_tiles") == 0
    assert 3 <= said.value("together_seconds") < 6
    assert said.file["tiles"] > 0 and said.file["sweeps"] > 1
    memory, products = said.file["bursts"]["memory"], said.file["bursts"]["products"]
    assert memory["count"] >= 2 and products["count"] >= memory["count"], "retention is products alone"
    assert memory["median_ms"] >= 200 and 80 < products["median_ms"] < 500


def test_cycles_cool_down_between(node: Node) -> None:
    """Load, rest, load: the rest is said to be one, and is no load."""
    begun = time.monotonic()
    said = together(node, "--cycles", "2", "--rest", "1.5")
    took = time.monotonic() - begun
    assert said.file["cycles"] == 2 and said.file["bursts"]["memory"]["count"] >= 4
    assert said.value("together_seconds") + 1.5 <= took
    assert any(isinstance(r, Progress) and r.text == "cooling down" for r in said.records)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (FaultKind.HBM_ADDRESS_LINE, "together_miscompares"),
        (FaultKind.HBM_FLIP, "together_miscompares"),
        (FaultKind.HBM_LOST_WRITE, "together_miscompares"),
        (FaultKind.HBM_RETENTION, "together_miscompares"),
        (FaultKind.GEMM_WRONG_FMA, "together_wrong_tiles"),
        (FaultKind.GEMM_NAN, "together_wrong_tiles"),
    ],
)
def test_a_fault_is_counted_where_it_belongs(node: Node, kind: FaultKind, wrong: str) -> None:
    """Memory's by the sweeps, the SMs' by the products, never by both."""
    node.break_by(Fault(kind, "node1", gpu=3))
    said = together(node, "--retention", "1")
    counts = {m: said.value(m) for m in ("together_miscompares", "together_wrong_tiles")}
    assert counts.pop(wrong) > 0 and set(counts.values()) == {0}
    assert said.end.outcome is Outcome.COMPLETED, "how good it is is not said here"


def test_a_gpu_that_hangs_is_told_with_what_was_done_before(node: Node) -> None:
    """The process leaves; the miscompares it knew of are kept."""
    node.break_by(Fault(FaultKind.KERNEL_HANG, "node1", gpu=3), Fault(FaultKind.HBM_FLIP, "node1", gpu=3, value=1))
    said = together(node, seconds=2)
    assert said.value("cuda_result") == "hung" and said.end.outcome is Outcome.TIMED_OUT
    assert said.value("together_miscompares") > 0 and said.value("together_seconds") is None


def test_an_uncorrectable_error_ends_it_by_its_name(node: Node) -> None:
    """CUDA 214 in the middle of the load."""
    node.break_by(Fault(FaultKind.HBM_DOUBLE_BIT, "node1", gpu=3))
    said = together(node, seconds=2)
    assert said.value("cuda_result") == "ecc_uncorrectable" and said.end.outcome is Outcome.CRASHED


def test_a_gpu_that_is_not_there_measures_nothing(node: Node) -> None:
    """Unavailable, and no zero is made up."""
    node.break_by(Fault(FaultKind.FABRIC_MANAGER_SKEW, "node1"))
    said = together(node)
    assert said.end.outcome is Outcome.UNAVAILABLE and said.value("cuda_result") == "fabric_not_ready"
    assert {r.metric for r in said.records if isinstance(r, Measured)} == {"cuda_result"} and said.file == {}

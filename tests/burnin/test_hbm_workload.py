"""The memory's workload as a suite starts it: one process, one virtual GPU, healthy and broken."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import pytest

from burnin.record import Artifact, Measured, Outcome, Progress, Record, WorkloadEnded, load
from toolkit.virtual.faults import Fault, FaultKind

PCI = "00000000:61:00.0"  # gpu 3
BYTES = 15 << 20  # what the driver leaves of the virtual GPU's memory


@dataclass
class Said:
    """What the process reported, and how long it took."""

    status: int
    records: list[Record]
    seconds: float
    node: Any

    @property
    def values(self) -> dict[str, float | int | str]:
        return {r.metric: r.value for r in self.records if isinstance(r, Measured)}

    @property
    def end(self) -> WorkloadEnded:
        (end,) = (r for r in self.records if isinstance(r, WorkloadEnded))
        return end

    def file(self, name: str) -> Any:
        """A file it reported, as JSON."""
        assert name in {r.name for r in self.records if isinstance(r, Artifact)}
        return json.loads((self.node.out / name).read_text())


def hbm(node: Any, *options: str, pci: str = PCI, **environment: str) -> Said:
    node.out.mkdir(exist_ok=True)
    begun = time.monotonic()
    done = subprocess.run(
        node.command("workload", "hbm", "--run", "r", "--suite", "s", "--out", str(node.out), "--prefix", "a1_",
                     "--gpu", "3", "--pci", pci, "--seconds", "0", "--rounds", "1", *options),
        env={**node.environment(), **environment}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return Said(done.returncode, list(load(done.stdout.splitlines())), time.monotonic() - begun, node)


def break_gpu(node: Any, kind: FaultKind, **more: Any) -> None:
    node.break_by(Fault(kind, "node1", gpu=3, **more))


def test_a_healthy_gpu_is_covered_by_every_step(node: Any) -> None:
    """All free memory written and verified with every pattern, no error, and the time it took is told."""
    said = hbm(node, "--thorough", "--retention", "0.2")
    values = said.values
    assert (said.status, said.end.outcome, said.end.detail) == (0, Outcome.COMPLETED, "")
    assert (values["cuda_result"], values["hbm_miscompares"], values["hbm_miscompares_transient"]) == ("ok", 0, 0)
    assert 0.97 <= values["hbm_coverage"] < 1 and values["hbm_coverage_of_total"] < values["hbm_coverage"]
    assert "hbm_first_miscompare" not in values
    assert values["hbm_peak_gb_per_s"] == 3352.32, "2 x 2619 MHz x 5120 bit / 8"
    assert 0 < values["hbm_sweep_gb_per_s_min"] <= values["hbm_sweep_gb_per_s_median"]
    assert values["hbm_verify_gb_per_s_median"] > 0 and values["hbm_copy_gb_per_s"] > 0
    fraction = values["hbm_sweep_gb_per_s_median"] / 3352.32
    assert values["hbm_sweep_fraction_of_peak"] == pytest.approx(fraction, abs=1e-6)
    document = said.file("a1_hbm_steps_gpu3.json")
    passes, taken = document["passes"], round(values["hbm_coverage"] * BYTES)
    written = [p["written"] for p in passes if p["written"]]
    checked = [p["checked"] for p in passes if p["checked"]]
    assert written == checked and len(written) == values["hbm_steps"] == 24 + 1 + 20 + 2 + 2
    assert all(abs(p["bytes_verified"] - taken) < 100 for p in passes if p["checked"])
    assert values["hbm_bytes_verified"] == sum(p["bytes_verified"] for p in passes)
    assert values["hbm_bytes_written"] == sum(p["bytes_written"] for p in passes)
    directions = [p["direction"] for p in passes if p["action"] in ("write", "sweep", "verify")]
    assert all(a != b for a, b in itertools.pairwise(directions))


def test_progress_is_said_at_least_once_a_second(node: Any) -> None:
    """An operator sees that a GPU lives, and in which step it is; it never goes back."""
    said = hbm(node, "--seconds", "6.5", "--rounds", "1000")
    shown = [r for r in said.records if isinstance(r, Progress)]
    assert len(shown) >= 3 and shown[0].text == "round 1: address"
    assert [r.done for r in shown] == sorted(r.done for r in shown)
    assert said.values["hbm_steps"] > 25, "further rounds are done while there is time"
    assert "rounds left out: 6 s were given" in said.end.detail


def test_the_first_round_is_done_whatever_the_time(node: Any) -> None:
    """Coverage is not bought by the clock; what was not done of the plan is told."""
    said = hbm(node, "--rounds", "3")
    assert said.values["hbm_coverage"] >= 0.97
    assert said.end.detail == "2 of 3 rounds left out: 0 s were given"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FaultKind.HBM_STICKY_BIT, ()),
        (FaultKind.HBM_ADDRESS_LINE, ()),
        (FaultKind.HBM_FLIP, ()),
        (FaultKind.HBM_COUPLING, ()),
        (FaultKind.HBM_LOST_WRITE, ()),
        (FaultKind.HBM_RETENTION, ("--retention", "0.8")),
        (FaultKind.HBM_ROW_DISTURB, ("--thorough",)),
    ],
)
def test_a_memory_fault_is_found_in_one_round(node: Any, kind: FaultKind, options: tuple[str, ...]) -> None:
    """Every kind of fault that a virtual memory can have; the file says where it is and what came back."""
    break_gpu(node, kind)
    said = hbm(node, *options)
    values = said.values
    assert values["hbm_miscompares"] > 0 and values["hbm_coverage"] >= 0.97
    assert (said.end.outcome, values["cuda_result"]) == (Outcome.COMPLETED, "ok")
    first = said.file("a1_hbm_miscompares_gpu3.json")[0]
    assert first["xor"] != f"{0:016x} {0:016x}"
    assert str(values["hbm_first_miscompare"]).startswith(f"vector {first['index']} xor ")
    assert (values["hbm_miscompares_transient"] > 0) == (kind is FaultKind.HBM_FLIP), "the memory itself stayed right"


def test_hopeless_memory_ends_the_rounds(node: Any) -> None:
    """After the first round more than a million wrong words tell nothing new; the list stays short."""
    break_gpu(node, FaultKind.HBM_ADDRESS_LINE)
    said = hbm(node, "--seconds", "60", "--rounds", "9")
    assert said.end.detail.startswith("stopped after 1 of 9 rounds and ") and said.values["hbm_coverage"] >= 0.97
    assert len(said.file("a1_hbm_miscompares_gpu3.json")) == 256


def test_a_sticky_bit_is_named_by_place_and_bit(node: Any) -> None:
    """One vector, one bit, in every pattern that wants it 0."""
    break_gpu(node, FaultKind.HBM_STICKY_BIT)
    found = hbm(node).file("a1_hbm_miscompares_gpu3.json")
    assert len({m["index"] for m in found}) == 1 and {m["xor"] for m in found} == {f"{1 << 36:016x} {0:016x}"}
    assert len({m["pattern"] for m in found}) >= 10


def test_a_gpu_that_hangs_is_reported_with_what_was_done(node: Any) -> None:
    """The deadline of one sweep ends it, not the suite's; nothing waits for the GPU."""
    break_gpu(node, FaultKind.KERNEL_HANG, value=200)
    said = hbm(node)
    assert said.values["cuda_result"] == "hung" and said.end.outcome is Outcome.TIMED_OUT
    assert "did not end its work within 10.0 s" in said.end.detail
    assert said.values["hbm_bytes_verified"] > 5 * BYTES and said.values["hbm_coverage"] == 0
    assert said.seconds < 30


def test_an_uncorrectable_error_ends_it_with_its_word(node: Any) -> None:
    """CUDA 214 in the middle: what was measured is told, coverage is not claimed."""
    break_gpu(node, FaultKind.HBM_DOUBLE_BIT, value=200)
    said = hbm(node)
    assert (said.values["cuda_result"], said.end.outcome) == ("ecc_uncorrectable", Outcome.CRASHED)
    assert said.values["hbm_coverage"] == 0 and said.values["hbm_bytes_verified"] > 0
    assert said.file("a1_hbm_steps_gpu3.json")["passes"]


def test_a_fabric_that_is_not_ready_is_no_crash(node: Any) -> None:
    """CUDA 802 at the start: the GPU could not be used, and why."""
    node.break_by(Fault(FaultKind.CUDA_ERROR, "node1", value=802))
    said = hbm(node)
    assert (said.values, said.end.outcome) == ({"cuda_result": "fabric_not_ready"}, Outcome.UNAVAILABLE)


def test_a_gpu_that_falls_off_the_bus_is_told(node: Any) -> None:
    """Whatever word CUDA has for it, it is never a pass."""
    break_gpu(node, FaultKind.XID_79, value=200)
    said = hbm(node)
    assert said.values["cuda_result"] != "ok" and said.end.outcome is Outcome.CRASHED
    assert said.values["hbm_coverage"] == 0


def test_an_address_without_a_gpu_is_unavailable(node: Any) -> None:
    """NVML listed it and CUDA does not."""
    said = hbm(node, pci="00000000:FF:00.0")
    assert (said.values["cuda_result"], said.end.outcome) == ("gpu_absent", Outcome.UNAVAILABLE)


def test_a_node_without_a_driver_is_unavailable(node: Any) -> None:
    """CUDA said nothing, so nothing is said of CUDA."""
    said = hbm(node, LD_LIBRARY_PATH="/nowhere")
    assert (said.status, said.values, said.end.outcome) == (0, {}, Outcome.UNAVAILABLE)
    assert "libcuda.so.1" in said.end.detail

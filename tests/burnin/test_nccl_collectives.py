"""The five collectives on a node of the virtual rack: measured, and the way they took proved from what was kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from burnin import record
from burnin.journal import Journal
from burnin.nccl.collective import GIB, MIB, Collective, Kind, collectives
from burnin.record import GpuIdentity, Measured, Outcome, WorkloadEnded
from burnin.supervise import Supervisor
from burnin.workload import Bench
from toolkit.facts import nccl_node
from toolkit.facts.nccl_path import Answer
from toolkit.rack.model import Rack
from toolkit.virtual.faults import Fault, FaultKind
from toolkit.virtual.hardware import render_state

GPUS = tuple(GpuIdentity(i, f"GPU-{i}", f"S{i}", f"0000:0{i}:00.0") for i in range(8))
Run = Callable[..., tuple[WorkloadEnded, dict[str, object], dict[str, str]]]


@pytest.fixture
def run(tmp_path: Path, vendor: Path, rack: Rack) -> Run:
    """Runs a collective on a node with these faults: how it ended, what was measured, the text of what was kept."""
    bin_folder, hardware = tmp_path / "bin", tmp_path / "hardware"
    bin_folder.mkdir()
    (hardware / "load").mkdir(parents=True)
    for kind in Kind:
        (bin_folder / kind.program).write_text((vendor / kind.program).read_text())
        (bin_folder / kind.program).chmod(0o755)
    env = {
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(vendor),
        "RACKPROOF_HARDWARE": str(hardware),
        "PYTHONPATH": str(Path(pynvml.__file__).parent),  # a checkout has no pynvml of its own, as the archive does
    }

    def start(workload: Collective, *faults: Fault) -> tuple[WorkloadEnded, dict[str, object], dict[str, str]]:
        (hardware / "state").write_text(render_state(rack.nodes[0], rack.profile, faults))
        out = tmp_path / "out"
        bench = Bench("r1", "standard", Journal(out, "r1"), env, GPUS)
        supervisor = Supervisor(lambda: None)
        job, sink = workload.prepare(bench, None)
        running = supervisor.start(job, sink)
        supervisor.wait([running])
        assert running.ended is not None
        end = workload.conclude(bench, job, sink, running.ended)
        supervisor.close()
        with (out / "records.jsonl").open("rb") as stream:
            values = {r.metric: r.value for r in record.read(stream) if isinstance(r, Measured)}
        return end, values, {p.name: p.read_text() for p in out.iterdir() if nccl_node.kept(p.name)}

    return start


def fault(rack: Rack, kind: FaultKind, **more: object) -> Fault:
    """A fault on the node."""
    return Fault(kind, rack.nodes[0].name, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "lowest", "fraction"),
    # in the table's order; 21 operations are counted where 20 are timed
    [
        (Kind.ALL_REDUCE, 440, 1.05),
        (Kind.ALL_GATHER, 350, 1.05),
        (Kind.REDUCE_SCATTER, 350, 1.05),
        (Kind.ALLTOALL, 350, 1.05),
        (Kind.SENDRECV, 350, 1.05),
    ],
)
def test_each_collective_is_measured_and_its_way_proved(run: Run, kind: Kind, lowest: int, fraction: float) -> None:
    """Bandwidth of the rows of 1 GiB and more, no wrong value, and NVLink counted the bytes it had to carry."""
    end, values, kept = run(Collective(kind, 60, smallest=64 * MIB, largest=4 * GIB))
    assert (end.outcome, end.detail) == (Outcome.COMPLETED, "")
    name = kind.metric
    assert values[f"{name}_ranks"] == 8 and values[f"{name}_wrong_values"] == 0
    assert values[f"{name}_largest_bytes"] == 4 * GIB
    least, half = values[f"{name}_busbw_gb_per_s"], values[f"{name}_busbw_p50_gb_per_s"]
    assert isinstance(least, float) and isinstance(half, float) and lowest < least <= half < 490
    proof = nccl_node.proofs("node1", kept)[kind.value]
    assert proof.answer is Answer.PROVEN, proof.text
    assert proof.fraction == pytest.approx(fraction, abs=0.002)
    assert len(proof.fractions) == 8


def test_a_collective_over_sockets_measured_the_wrong_fabric(run: Run, rack: Rack) -> None:
    """The log names sockets and no NVLink counted a byte; both are said, with the pairs."""
    end, values, kept = run(
        Collective(Kind.ALL_REDUCE, 60, smallest=GIB, largest=GIB), fault(rack, FaultKind.WRONG_TRANSPORT)
    )
    assert end.outcome is Outcome.COMPLETED and values["nccl_transport"] == "Socket"
    found = nccl_node.proofs("node1", kept)
    assert found["all_reduce"].answer is Answer.WRONG and found["all_reduce"].fraction == 0
    said = nccl_node.complaint(found)
    assert "measured the wrong fabric: NET/Socket between ranks 0 and 1 and 7 other pairs" in said
    assert "node1/gpu0 counted 0.00 of the bytes it had to carry, and so 7 others" in said
    assert nccl_node.measured(found) == [
        ("nccl_path", "word", "wrong", None),
        ("nccl_path_bytes_fraction", "fraction", 0.0, None),
    ]


def test_counters_belie_a_log_that_names_the_right_way(run: Run, rack: Rack) -> None:
    """P2P over PCIe looks like P2P over NVLink: only the counters tell."""
    _, _, kept = run(Collective(Kind.ALL_GATHER, 60, smallest=GIB, largest=GIB))
    readings = json.loads(kept["all_gather_perf.counters.json"])
    readings["after"]["gpus"][5] = readings["before"]["gpus"][5]
    kept["all_gather_perf.counters.json"] = json.dumps(readings)
    proof = nccl_node.proofs("node1", kept)["all_gather"]
    assert proof.answer is Answer.WRONG
    assert proof.text == "measured the wrong fabric: node1/gpu5 counted 0.00 of the bytes it had to carry"


@pytest.mark.parametrize("lost", ["counters.json", "nccl.txt", "command.json"])
def test_without_a_witness_nothing_is_proved(run: Run, lost: str) -> None:
    """A missing file is no proof and no zero."""
    _, _, kept = run(Collective(Kind.ALL_GATHER, 60, smallest=GIB, largest=GIB))
    del kept[f"all_gather_perf.{lost}"]
    found = nccl_node.proofs("node1", kept)
    assert found["all_gather"].answer is Answer.UNPROVEN, found["all_gather"].text
    assert ("nccl_all_gather_path", "word", "unproven", None) in nccl_node.measured(found)
    assert nccl_node.complaint(found) == ""


def test_a_hang_over_sockets_is_the_wrong_fabric_by_the_log_alone(run: Run, rack: Rack) -> None:
    """A collective that is too slow for its deadline says by its log why; there is no count to go by."""
    faults = (fault(rack, FaultKind.WRONG_TRANSPORT), fault(rack, FaultKind.NCCL_HANG))
    end, _, kept = run(Collective(Kind.ALLTOALL, 3, largest=GIB), *faults)
    assert end.outcome is Outcome.TIMED_OUT
    said = nccl_node.complaint(nccl_node.proofs("node1", kept))
    assert said == "alltoall measured the wrong fabric: NET/Socket between ranks 0 and 1 and 7 other pairs"


def test_a_hang_ends_at_the_deadline_with_nothing_left(run: Run, rack: Rack) -> None:
    """nccl-tests' own limit does not cover the time in which the ranks find one another: ours does."""
    end, values, kept = run(Collective(Kind.ALLTOALL, 3, largest=GIB), fault(rack, FaultKind.NCCL_HANG))
    assert end.outcome is Outcome.TIMED_OUT and "did not die" not in end.detail
    assert "nccl_alltoall_busbw_gb_per_s" not in values
    assert set(json.loads(kept["alltoall_perf.counters.json"])) == {"before"}
    left = [p for p in Path("/proc").glob("[0-9]*/cmdline") if _is_ours(p)]
    assert left == []


def _is_ours(cmdline: Path) -> bool:
    try:
        return b"alltoall_perf" in cmdline.read_bytes() and b"-e\x001073741824" in cmdline.read_bytes()
    except OSError:
        return False


def test_a_crash_of_the_program_is_a_crash_of_the_workload(run: Run, tmp_path: Path) -> None:
    """The program that stands between, reading counters, comes to the same end: by the same signal."""
    (tmp_path / "bin/sendrecv_perf").write_text("#!/bin/sh\nkill -SEGV $$\n")
    end, _, _ = run(Collective(Kind.SENDRECV, 20))
    assert end.outcome is Outcome.CRASHED and "SIGSEGV" in end.detail


def test_a_lost_gpu_ends_the_collective_and_is_not_taken_for_the_wrong_fabric(run: Run, rack: Rack) -> None:
    """NCCL failed: no bandwidth, and no count to be compared with a table that is not whole."""
    end, values, kept = run(
        Collective(Kind.REDUCE_SCATTER, 60, smallest=GIB, largest=4 * GIB),
        fault(rack, FaultKind.XID_79, gpu=3, value=4096),
    )
    assert end.outcome is Outcome.CRASHED and "exit status 2" in end.detail
    assert "nccl_reduce_scatter_busbw_gb_per_s" not in values
    assert "reduce_scatter_perf.nccl.txt" in kept
    assert nccl_node.proofs("node1", kept) == {}


def test_the_list_has_every_collective_once_from_small_sizes_to_the_plateau() -> None:
    """Protocols LL and LL128 are at small sizes, bandwidth at large ones."""
    planned = collectives(300)
    assert [w.name for w in planned] == [f"nccl_{k.value}" for k in Kind]
    assert all(w.smallest < MIB and w.largest >= GIB for w in planned)
    assert [w.kind for w in collectives(90, kinds=(Kind.ALL_REDUCE, Kind.ALLTOALL))] == [Kind.ALL_REDUCE, Kind.ALLTOALL]

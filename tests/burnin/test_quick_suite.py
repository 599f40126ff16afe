"""A whole suite, as shipped, on a node whose NVML, CUDA and nccl-tests are the virtual rack's."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from burnin import record
from burnin.ends import FLAGS
from burnin.nccl.collective import Kind
from burnin.record import Artifact, End, Measured, Outcome, Progress, Start
from tests.burnin.conftest import Node, make_node
from toolkit.facts import nccl_node
from toolkit.facts.nccl_path import Answer
from toolkit.rack.model import Rack
from toolkit.virtual.faults import Fault, FaultKind

ON_EACH = ("hbm", "gemm", "together", "pcie")
NCCL = tuple(f"nccl_{kind.value}" for kind in Kind)
OURS = ("nvml", *ON_EACH, *NCCL, "kernel_log")
NOT_INSTALLED = ("nvbandwidth", "dcgm_diag")
PLANNED = ("nvml", *ON_EACH, *NCCL, *NOT_INSTALLED, "kernel_log")
EACH = set(range(8))
# of a GPU that has nothing
QUIET = (
    "hbm_corrected_errors_delta", "hbm_uncorrected_errors_delta", "row_remaps_delta", "hbm_miscompares",
    "gemm_wrong_tiles", "together_miscompares", "together_wrong_tiles", "pcie_miscompares", "pcie_replays_delta",
    "nvlink_errors_delta", "nvlink_recoveries_delta", "hw_slowdown_ms_delta", "recovery_action_after",
    "remap_banks_exhausted", "sram_threshold_exceeded", "channel_repair_pending", "tpc_repair_pending",
    *FLAGS,
)  # fmt: skip


def fault(kind: FaultKind, gpu: int | None = None, **more: object) -> Fault:
    return Fault(kind, "node1", gpu=gpu, **more)  # type: ignore[arg-type]


# no workload of a GPU takes its time: the node's driver and its CUDA library are of two versions
WITHOUT_CUDA = fault(FaultKind.CUDA_ERROR, value=803)


def read(path: Path) -> list[record.Record]:
    with path.open("rb") as stream:
        return list(record.read(stream))


def test_a_healthy_node_measures_everything(healthy) -> None:
    """Every workload completes on every GPU, and the vocabulary of the gates is there with its units."""
    records = healthy.records()
    start, end = records[0], records[-1]
    assert isinstance(start, Start) and [g.serial for g in start.gpus] == [f"16500000{i:03}" for i in range(100, 108)]
    assert isinstance(end, End) and end.planned == PLANNED and set(end.ended) == set(PLANNED)
    assert all(e.outcome is Outcome.COMPLETED for w in OURS for e in healthy.ends(w).values())
    for workload in NOT_INSTALLED:  # planned and ended: nothing is incomplete for want of a program that sites may lack
        end = healthy.ends(workload)[None]
        assert end.outcome is Outcome.UNAVAILABLE and end.detail.startswith("not installed")
    assert all(set(healthy.ends(workload)) == EACH for workload in ON_EACH)

    for metric in QUIET:
        assert healthy.values(metric) == dict.fromkeys(EACH, 0), metric
    assert all(0.97 <= v <= 1 for v in healthy.values("hbm_coverage").values())
    assert healthy.values("hbm_coverage").keys() == EACH
    assert healthy.values("nvlinks_active") == dict.fromkeys(EACH, 18)
    assert healthy.values("cuda_result") == {}, "for the suite alone, which makes flags of it"
    assert len(set(healthy.values("gemm_digest").values())) == 1 and set(healthy.values("gemm_digest")) == EACH
    assert healthy.values("safety_stop") == {None: "none"}
    assert healthy.values("inforom_valid") == dict.fromkeys(EACH, 1)
    assert set(healthy.values("throttle_reasons")) == set(healthy.values("margin_celsius_min")) == EACH
    assert set(healthy.values("gpu_watts_mean_loaded")) == EACH, "it was busy when it was sampled"
    assert healthy.values("telemetry_busy")[None] < 0.25
    assert all(30 < v < 120 for m in ("gpu_celsius_max", "hbm_celsius_max") for v in healthy.values(m).values())
    assert healthy.values("nccl_ranks") == {None: 8}
    assert healthy.values("nccl_transport") == {None: "NVLS"}
    assert healthy.values("nccl_busbw_gb_per_s")[None] > 440
    for kind in Kind:
        assert healthy.values(f"{kind.metric}_wrong_values") == {None: 0}
        assert healthy.values(f"{kind.metric}_largest_bytes") == {None: 8 << 30}
        assert healthy.values(f"{kind.metric}_busbw_p50_gb_per_s")[None] > 350
    assert healthy.values("gpus_lost") == healthy.values("xid_events") == healthy.values("sxid_events") == {None: 0}
    assert healthy.values("gpu_count") == {None: 8}
    units = {r.metric: r.unit for r in records if isinstance(r, Measured)}
    assert units["hbm_coverage"] == "fraction" and units["nccl_busbw_gb_per_s"] == "GB/s"
    assert units["hw_slowdown_ms_delta"] == "ms" and units["gpu_celsius_max"] == "celsius"


def test_every_artifact_is_what_its_record_says(healthy) -> None:
    """Raw outputs lie beside the records, with the size and digest recorded; the command line and environment too."""
    artifacts = [r for r in healthy.records() if isinstance(r, Artifact)]
    for artifact in artifacts:
        content = (healthy.out / artifact.name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (artifact.sha256, artifact.bytes)
    names = {a.name for a in artifacts}
    assert {
        "nvml_before.json",
        "nvml_after.json",
        "all_reduce_perf.txt",
        "all_reduce_perf.nccl.txt",
        "alltoall_perf.counters.json",
        "sendrecv_perf.command.json",
        "kernel_log.txt",
        "nvml_samples.csv",
        "hbm_steps_gpu0.json",
        "gemm_gpu7.json",
        "together_gpu3.json",
    } <= names
    command = json.loads((healthy.out / "all_reduce_perf.command.json").read_text())
    assert command["argv"][1:] == ["-b", "8", "-e", "8589934592", "-f", "2", "-g", "8", "-n", "20", "-c", "1"]


def test_nvlink_is_proven_to_have_carried_every_collective_after_a_whole_suite(healthy) -> None:
    """From what the shipped archive kept: NCCL's log, and counters that other workloads have used before."""
    kept = {p.name: p.read_text() for p in healthy.out.iterdir() if nccl_node.kept(p.name)}
    found = nccl_node.proofs("node1", kept)
    assert set(found) == {kind.value for kind in Kind}
    assert {proof.answer for proof in found.values()} == {Answer.PROVEN}, found
    assert all(1 <= proof.fraction < 1.2 for proof in found.values() if proof.fraction is not None)


@pytest.fixture(scope="module")
def without_cuda(tmp_path_factory: pytest.TempPathFactory, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A node with a driver of two versions, NCCL on sockets, and two GPUs less than were planned."""
    made = make_node(tmp_path_factory.mktemp("without_cuda"), vendor, archive, rack)
    made.break_by(fault(FaultKind.WRONG_TRANSPORT), WITHOUT_CUDA)
    env = made.environment() | {"NCCL_P2P_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "0", "SECRET": "canary"}
    command = made.command(*made.arguments("r1"), "--gpus", "10", "--env", "NCCL_IB_HCA=mlx5_0")
    subprocess.run(command, env=env, check=True, timeout=300)
    return made


def test_the_workloads_environment_is_clean(without_cuda) -> None:
    """What the caller exported does not reach NCCL: it could make the wrong fabric be measured."""
    recorded = json.loads((without_cuda.out / "all_reduce_perf.command.json").read_text())["env"]
    assert set(recorded) <= {"PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS",
                             "NCCL_DEBUG_FILE", "NCCL_IB_HCA", "RACKPROOF_HARDWARE"}  # fmt: skip
    assert recorded["NCCL_IB_HCA"] == "mlx5_0"


def test_a_collective_over_sockets_is_named(without_cuda) -> None:
    """The transport is read from NCCL's own channel lines."""
    assert without_cuda.values("nccl_transport") == {None: "Socket"}
    assert without_cuda.values("nccl_busbw_gb_per_s")[None] < 20


def test_a_driver_of_another_version_says_nothing_of_a_gpu(without_cuda) -> None:
    """Unavailable, without a flag: neither good nor bad."""
    ends = without_cuda.ends("hbm")
    assert {ends[gpu].outcome for gpu in EACH} == {Outcome.UNAVAILABLE}
    assert all("driver_mismatch" in ends[gpu].detail for gpu in EACH)
    assert all(without_cuda.values(flag) == {} for flag in FLAGS)


def test_a_gpu_that_the_driver_does_not_list_is_missed(without_cuda) -> None:
    """Planned GPUs that are not there are recorded as unavailable, not passed over."""
    ends = without_cuda.ends("hbm")
    assert {e.detail for g, e in ends.items() if g in (8, 9)} == {"the driver does not list this GPU"}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A node with a fault on each GPU but the first, on which a rehearsal has run."""
    made = make_node(tmp_path_factory.mktemp("broken"), vendor, archive, rack)
    made.break_by(
        fault(FaultKind.NVLINK_LANE_DOWN, 1, link=3),
        fault(FaultKind.ECC_DRIP, 2),
        fault(FaultKind.XID_79, 3, value=100),
        fault(FaultKind.KERNEL_HANG, 4),
        fault(FaultKind.HBM_STICKY_BIT, 5),
        fault(FaultKind.HOT_GPU, 6, value=200),
        fault(FaultKind.GEMM_WRONG_FMA, 7),
    )
    done = made.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(made.records()[-1], End)
    return made


def others(values: dict, *gpus: int) -> dict:
    return {gpu: value for gpu, value in values.items() if gpu not in gpus}


def test_errors_that_were_corrected_are_counted_and_no_wrong_data(broken) -> None:
    """On their own GPU alone; the GPU that was lost has no difference."""
    deltas = broken.values("hbm_corrected_errors_delta")
    assert deltas[2] > 0 and others(deltas, 2) == dict.fromkeys(EACH - {2, 3}, 0)
    assert broken.values("hbm_miscompares")[2] == 0


def test_the_next_run_does_not_count_the_last_ones_errors(broken, tmp_path: Path) -> None:
    """Counters are differences over the run, never lifetime values."""
    arguments = broken.arguments("r2")
    arguments[arguments.index("--out") + 1] = str(tmp_path)
    subprocess.run(broken.command(*arguments, "--deadline", "0"), env=broken.environment(), check=True, timeout=60)
    before = json.loads((tmp_path / "nvml_before.json").read_text())["gpus"][2]
    assert before["ecc_dram_corrected"] > 0
    measured = [r for r in read(tmp_path / "records.jsonl") if isinstance(r, Measured) and r.gpu == 2]
    assert next(r.value for r in measured if r.metric == "hbm_corrected_errors_delta") == 0


def test_a_stuck_bit_is_found_where_it_is(broken) -> None:
    """One bit, stored wrong and not read wrong, by both workloads that know what they wrote."""
    found = broken.values("hbm_miscompares")
    assert found[5] > 0 and set(others(found, 5).values()) == {0}
    assert broken.values("together_miscompares")[5] > 0
    kept = json.loads((broken.out / "hbm_miscompares_gpu5.json").read_text())
    assert {sum(int(word, 16).bit_count() for word in m["xor"].split()) for m in kept} == {1}
    assert not any(m["transient"] for m in kept)
    assert broken.ends("hbm")[5].outcome is Outcome.COMPLETED, "how good it is is not said here"


def test_wrong_products_are_found_by_both_workloads_that_multiply(broken) -> None:
    """With the SM that made them."""
    for metric in ("gemm_wrong_tiles", "together_wrong_tiles"):
        found = broken.values(metric)
        assert found[7] > 0 and set(others(found, 7).values()) == {0}
    by_sm = json.loads((broken.out / "together_gpu7.json").read_text())["wrong_tiles_by_sm"]
    assert set(by_sm) == {"2"}


def test_a_link_that_is_down_is_missed(broken) -> None:
    """And has no counters to add."""
    assert others(broken.values("nvlinks_active"), 3) == {**dict.fromkeys(EACH - {3}, 18), 1: 17}
    assert broken.values("nvlink_errors_delta") == dict.fromkeys(EACH - {3}, 0)


def test_a_gpu_that_falls_off_the_bus_is_lost_and_stopped(broken) -> None:
    """NVML counts it lost, its Xid stops what would follow on it; no difference is made up; the others go on."""
    assert broken.values("gpus_lost") == {None: 1}
    assert broken.values("xid_events")[None] >= 1 and b"Xid" in (broken.out / "kernel_log.txt").read_bytes()
    assert 3 not in broken.values("hbm_corrected_errors_delta")
    assert broken.ends("hbm")[3].outcome is not Outcome.COMPLETED
    for workload in ("gemm", "together", "pcie"):
        assert broken.ends(workload)[3].outcome is Outcome.STOPPED and "Xid 79" in broken.ends(workload)[3].detail
        assert broken.ends(workload)[0].outcome is Outcome.COMPLETED
    assert "gpu 3: Xid 79: GPU has fallen off the bus" in broken.values("safety_stop")[None]


def test_a_gpu_that_gets_too_hot_is_stopped(broken) -> None:
    """At its own limit, by what telemetry read; what follows does not begin."""
    assert broken.values("margin_celsius_min")[6] <= 0 and broken.values("margin_celsius_min")[0] > 0
    assert "gpu 6: GPU at thermal margin" in broken.values("safety_stop")[None]
    assert broken.ends("pcie")[6].outcome is Outcome.STOPPED


def test_a_gpu_that_hangs_is_found_and_gets_no_more_work(broken) -> None:
    """Its flag is up, and no other GPU's; that is no safety stop."""
    hung = broken.values("cuda_hung")
    assert hung[4] == 1 and set(others(hung, 4).values()) == {0}
    assert broken.ends("hbm")[4].outcome is Outcome.TIMED_OUT
    assert "work on it hung" in broken.ends("gemm")[4].detail
    assert "gpu 4" not in broken.values("safety_stop")[None]


def test_a_collective_is_not_begun_with_a_gpu_that_must_not_go_on(broken) -> None:
    """It would hang or measure another thing; it says which GPUs and why."""
    end = broken.ends("nccl_all_reduce")[None]
    assert end.outcome is Outcome.STOPPED and all(f"GPU {gpu} must not go on" in end.detail for gpu in (3, 4, 6))
    assert broken.values("nccl_busbw_gb_per_s") == {}


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory, vendor: Path, archive: Path, rack: Rack) -> Node:
    """A node whose fabric is not ready for CUDA, and on which a collective never returns."""
    made = make_node(tmp_path_factory.mktemp("hanging"), vendor, archive, rack)
    made.break_by(fault(FaultKind.NCCL_HANG), fault(FaultKind.CUDA_ERROR, value=802))
    assert made.run("r1", "--deadline", "20").returncode == 0
    return made


def test_a_fabric_that_is_not_ready_has_its_own_flag(hanging) -> None:
    """CUDA 802 is a fabric manager's matter, not a GPU's: unavailable, with the flag a finding can be made of."""
    assert {e.outcome for e in hanging.ends("hbm").values()} == {Outcome.UNAVAILABLE}
    assert hanging.values("cuda_fabric_not_ready") == dict.fromkeys(EACH, 1)
    assert hanging.values("cuda_failed") == hanging.values("cuda_hung") == dict.fromkeys(EACH, 0)
    assert hanging.values("hbm_coverage") == hanging.values("hbm_miscompares") == {}


def test_a_collective_that_hangs_is_stopped_and_the_rest_is_recorded(hanging) -> None:
    """No number is made of a table that was cut; the process is gone; telemetry still comes to its end."""
    end = hanging.ends("nccl_all_reduce")[None]
    assert end.outcome is Outcome.TIMED_OUT
    assert hanging.values("nccl_busbw_gb_per_s") == hanging.values("nccl_wrong_values") == {}
    assert hanging.ends("nvml")[None].outcome is Outcome.COMPLETED
    assert subprocess.run(["pgrep", "-f", f"{hanging.vendor}/all_reduce_perf"], check=False).returncode == 1


def test_a_workload_for_which_no_time_is_left_is_planned_and_not_ended(node) -> None:
    """A suite whose deadline has passed says what it did not do."""
    assert node.run("r1", "--deadline", "0").returncode == 0
    end = node.records()[-1]
    assert isinstance(end, End) and end.planned == PLANNED and set(end.ended) == {"nvml", "kernel_log"}


def test_a_node_without_a_driver_says_so(node) -> None:
    """No libraries: everything is unavailable with the reason, nothing is measured, the suite still ends."""
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(node.command(*node.arguments("r1")), env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    assert node.ends("nvml")[None].detail.startswith("NVML: library_not_found")
    assert node.ends("hbm")[None].detail == "no GPU was found"
    measured = {r.metric for r in node.records() if isinstance(r, Measured)}
    assert measured == {"xid_events", "sxid_events"}


def test_progress_goes_up_for_each_gpu(healthy) -> None:
    """The controller shows progress per GPU and workload while it runs."""
    said = [r for r in healthy.records() if isinstance(r, Progress)]
    for gpu in EACH:
        for workload in ("hbm", "together"):
            done = [r.done for r in said if (r.gpu, r.workload) == (gpu, workload)]
            assert done and done == sorted(done)


@pytest.mark.parametrize("command", ["facts", "version"])
def test_facts_and_version_answer_at_once(healthy, command: str) -> None:
    """One JSON of identity and health; one version."""
    done = subprocess.run(
        healthy.command(command), env=healthy.environment(), capture_output=True, text=True, check=True
    )
    if command == "facts":
        facts = json.loads(done.stdout)
        assert len(facts["gpus"]) == 8 and facts["driver"] == "580.95.05"
        assert facts["gpus"][0]["recovery_action"] == 0 and facts["gpus"][0]["fabric_state"] == 3
    else:
        assert done.stdout == "0.1.0\n"

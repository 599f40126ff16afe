"""The quick suite, as shipped, on a node whose NVML, CUDA and nccl-tests are the virtual rack's."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from burnin.record import Artifact, End, Measured, Outcome, Progress, Start
from toolkit.virtual.faults import Fault, FaultKind

PLANNED = ("nvml", "hbm", "nccl_all_reduce", "kernel_log")
EACH = set(range(8))
# of a GPU that has nothing
QUIET = ("hbm_corrected_errors_delta", "hbm_uncorrected_errors_delta", "row_remaps_delta", "hbm_miscompares",
         "pcie_replays_delta", "nvlink_errors_delta", "hw_slowdown_ms_delta", "recovery_action_after")  # fmt: skip


def fault(kind: FaultKind, gpu: int | None = None, **more: object) -> Fault:
    return Fault(kind, "node1", gpu=gpu, **more)  # type: ignore[arg-type]


def test_a_healthy_node_measures_everything(healthy) -> None:
    """Every workload completes on every GPU, and the vocabulary of the gates is there with its units."""
    records = healthy.records()
    start, end = records[0], records[-1]
    assert isinstance(start, Start) and [g.serial for g in start.gpus] == [f"16500000{i:03}" for i in range(100, 108)]
    assert isinstance(end, End) and end.planned == PLANNED and set(end.ended) == set(PLANNED)
    assert all(e.outcome is Outcome.COMPLETED for w in PLANNED for e in healthy.ends(w).values())
    assert set(healthy.ends("hbm")) == EACH

    for metric in QUIET:
        assert healthy.values(metric) == dict.fromkeys(EACH, 0), metric
    assert all(0.97 <= v <= 1 for v in healthy.values("hbm_coverage").values())
    assert healthy.values("hbm_coverage").keys() == EACH
    assert healthy.values("nvlinks_active") == dict.fromkeys(EACH, 18)
    assert healthy.values("cuda_result") == dict.fromkeys(EACH, "ok")
    assert all(30 < v < 120 for m in ("gpu_celsius_max", "hbm_celsius_max") for v in healthy.values(m).values())
    assert healthy.values("nccl_ranks") == {None: 8}
    assert healthy.values("nccl_transport") == {None: "NVLS"}
    assert healthy.values("nccl_busbw_gb_per_s")[None] > 440
    assert healthy.values("nccl_wrong_values") == {None: 0}
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
    assert {"nvml_before.json", "nvml_after.json", "all_reduce_perf.txt", "nccl_debug.txt", "kernel_log.txt"} <= names
    command = json.loads((healthy.out / "all_reduce_perf.command.json").read_text())
    assert command["argv"][1:] == ["-b", "8388608", "-e", "8589934592", "-f", "2", "-g", "8", "-n", "20", "-c", "1"]


def test_the_workloads_environment_is_clean(node) -> None:
    """What the caller exported does not reach NCCL: it could make the wrong fabric be measured."""
    env = node.environment() | {"NCCL_P2P_DISABLE": "1", "CUDA_VISIBLE_DEVICES": "0", "SECRET": "canary"}
    command = node.command(*node.arguments("r1"), "--env", "NCCL_IB_HCA=mlx5_0")
    subprocess.run(command, env=env, check=True, timeout=120)
    recorded = json.loads((node.out / "all_reduce_perf.command.json").read_text())["env"]
    assert set(recorded) <= {"PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "NCCL_DEBUG", "NCCL_DEBUG_SUBSYS",
                             "NCCL_DEBUG_FILE", "NCCL_IB_HCA", "RACKPROOF_HARDWARE"}  # fmt: skip
    assert recorded["NCCL_IB_HCA"] == "mlx5_0"


def test_each_fault_shows_on_its_own_gpu_alone(node) -> None:
    """Corrected errors, a stuck bit and a link that is down, on three GPUs in one run."""
    node.break_by(
        fault(FaultKind.ECC_DRIP, 2), fault(FaultKind.HBM_STICKY_BIT, 5), fault(FaultKind.NVLINK_LANE_DOWN, 1, link=3)
    )
    node.run()
    deltas = node.values("hbm_corrected_errors_delta")
    assert deltas.pop(2) > 0 and set(deltas.values()) == {0}
    found = node.values("hbm_miscompares")
    assert found.pop(5) > 0 and set(found.values()) == {0}, "what ECC corrected is no wrong data"
    assert node.values("nvlinks_active") == {**dict.fromkeys(EACH, 18), 1: 17}
    assert node.values("nvlink_errors_delta") == dict.fromkeys(EACH, 0), "a dead link has no counters to add"

    kept = json.loads((node.out / "hbm_miscompares_gpu5.json").read_text())
    assert len({m["xor"] for m in kept}) == 1 and int(kept[0]["xor"], 16).bit_count() == 1
    assert all(m["again"] == m["got"] for m in kept), "stored wrong, not read wrong"
    assert node.ends("hbm")[5].outcome is Outcome.COMPLETED, "how good it is is not said here"


def test_a_second_run_does_not_count_the_first_ones_errors(node) -> None:
    """Counters are differences over the run, never lifetime values."""
    node.break_by(fault(FaultKind.ECC_DRIP, 2))
    node.run()
    first = node.values("hbm_corrected_errors_delta")[2]
    for path in node.out.iterdir():
        path.unlink()
    node.run("r2")
    assert 0 < node.values("hbm_corrected_errors_delta")[2] < 1.5 * first


def test_a_gpu_that_falls_off_the_bus_is_lost_and_the_others_go_on(node) -> None:
    """Its workload ends in CUDA's word for it, NVML counts it lost, the Xid is in the log; no difference is made up."""
    node.break_by(fault(FaultKind.XID_79, 3, value=100))
    node.run()
    assert node.values("gpus_lost") == {None: 1}
    assert node.values("xid_events")[None] >= 1 and b"Xid" in (node.out / "kernel_log.txt").read_bytes()
    assert 3 not in node.values("hbm_corrected_errors_delta")
    ends = node.ends("hbm")
    assert ends.pop(3).outcome is not Outcome.COMPLETED
    assert {e.outcome for e in ends.values()} == {Outcome.COMPLETED} and set(ends) == EACH - {3}
    assert node.values("cuda_result")[3] != "ok"
    assert node.values("nccl_busbw_gb_per_s") == {}
    assert isinstance(node.records()[-1], End)


def test_a_fabric_that_is_not_ready_has_its_own_word(node) -> None:
    """CUDA 802 is a fabric manager's matter, not a GPU's: unavailable, with the word a finding can be made of."""
    node.break_by(fault(FaultKind.FABRIC_MANAGER_SKEW))
    node.run()
    assert {e.outcome for e in node.ends("hbm").values()} == {Outcome.UNAVAILABLE}
    assert set(node.values("cuda_result").values()) == {"fabric_not_ready"}
    assert node.values("hbm_coverage") == node.values("hbm_miscompares") == {}


def test_a_collective_over_sockets_is_named(node) -> None:
    """The transport is read from NCCL's own channel lines."""
    node.break_by(fault(FaultKind.WRONG_TRANSPORT))
    node.run()
    assert node.values("nccl_transport") == {None: "Socket"}
    assert node.values("nccl_busbw_gb_per_s")[None] < 20


def test_a_collective_that_hangs_is_stopped_and_the_rest_is_recorded(node) -> None:
    """No number is made of a table that was cut; the process is gone; telemetry still comes to its end."""
    node.break_by(fault(FaultKind.NCCL_HANG))
    assert node.run("r1", "--deadline", "9").returncode == 0
    end = node.ends("nccl_all_reduce")[None]
    assert end.outcome is Outcome.TIMED_OUT
    assert node.values("nccl_busbw_gb_per_s") == node.values("nccl_wrong_values") == {}
    assert node.ends("nvml")[None].outcome is Outcome.COMPLETED
    assert subprocess.run(["pgrep", "-f", f"{node.vendor}/all_reduce_perf"], check=False).returncode == 1


def test_a_workload_for_which_no_time_is_left_is_planned_and_not_ended(node) -> None:
    """A suite whose deadline has passed says what it did not do."""
    assert node.run("r1", "--deadline", "0").returncode == 0
    end = node.records()[-1]
    assert isinstance(end, End) and end.planned == PLANNED and set(end.ended) == {"nvml", "kernel_log"}


def test_a_gpu_that_the_driver_does_not_list_is_missed(node) -> None:
    """Planned GPUs that are not there are recorded as unavailable, not passed over."""
    node.run("r1", "--gpus", "10")
    assert {e.detail for g, e in node.ends("hbm").items() if g in (8, 9)} == {"the driver does not list this GPU"}


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
    """The controller shows progress per GPU while it runs."""
    for gpu in EACH:
        done = [r.done for r in healthy.records() if isinstance(r, Progress) and r.gpu == gpu]
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

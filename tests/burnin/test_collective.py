"""The collective's wrapper over programs that behave as nccl-tests does when things go wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin import record
from burnin.journal import Journal
from burnin.nccl.collective import GIB, Collective, Kind
from burnin.record import GpuIdentity, Measured, Outcome, WorkloadEnded
from burnin.supervise import Supervisor
from burnin.workload import Bench, UnavailableError

GPUS = tuple(GpuIdentity(i, f"GPU-{i}", f"S{i}", f"0000:0{i}:00.0") for i in range(2))
HEAD = """\
#  Rank  0 Group  0 Pid 1 on n device  0 [0000:00:00] X
#  Rank  1 Group  0 Pid 1 on n device  1 [0000:01:00] X
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
"""
ROW = "  1073741824  268435456  float  sum  -1  4029.4  266.48  466.33  {wrong}  4016.4  267.34  467.85  0\n"
FOOT = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 467.09\n"


def collective(folder: Path, text: str, status: int) -> tuple[WorkloadEnded, dict[str, object]]:
    """Run a program that prints `text` and exits with `status` in place of all_reduce_perf."""
    program = folder / "all_reduce_perf"
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}E\necho 'node1: Test failure common.cu:844' >&2\nexit {status}\n")
    program.chmod(0o755)
    journal = Journal(folder / "out", "r")
    bench = Bench("r", "quick", journal, {"PATH": f"{folder}:/usr/bin:/bin"}, GPUS)
    workload = Collective(Kind.ALL_REDUCE, 10, smallest=GIB, largest=GIB)
    supervisor = Supervisor(lambda: None)
    job, sink = workload.prepare(bench, None)
    running = supervisor.start(job, sink)
    supervisor.wait([running])
    assert running.ended is not None
    end = workload.conclude(bench, job, sink, running.ended)
    supervisor.close()
    with (folder / "out/records.jsonl").open("rb") as stream:
        return end, {r.metric: r.value for r in record.read(stream) if isinstance(r, Measured)}


def test_a_complete_table_is_measured(tmp_path: Path) -> None:
    """Bandwidth, ranks, correctness."""
    end, values = collective(tmp_path, HEAD + ROW.format(wrong=0) + FOOT, 0)
    assert end.outcome is Outcome.COMPLETED
    assert values == {"nccl_ranks": 2, "nccl_largest_bytes": 1 << 30, "nccl_busbw_gb_per_s": 466.33,
                      "nccl_busbw_p50_gb_per_s": 467.09, "nccl_wrong_values": 0}  # fmt: skip


@pytest.mark.parametrize("status", [7, 6, 1])
def test_wrong_values_are_a_measurement_not_a_crash(tmp_path: Path, status: int) -> None:
    """nccl-tests exits non-zero for them; which number depends on its version."""
    end, values = collective(tmp_path, HEAD + ROW.format(wrong=763876) + FOOT, status)
    assert end.outcome is Outcome.COMPLETED and values["nccl_wrong_values"] == 763876


def test_a_usage_text_with_status_0_is_a_crash(tmp_path: Path) -> None:
    """An unknown option exits with 0 in every version."""
    end, values = collective(tmp_path, "Usage: all_reduce_perf \n", 0)
    assert end.outcome is Outcome.CRASHED and "table incomplete" in end.detail and values == {}


def test_a_failure_after_good_rows_gives_no_bandwidth(tmp_path: Path) -> None:
    """The rows that came are kept raw; the number needs the whole table."""
    end, values = collective(tmp_path, HEAD + ROW.format(wrong=0), 3)
    assert end.outcome is Outcome.CRASHED and "exit status 3" in end.detail and "common.cu:844" in end.detail
    assert "nccl_busbw_gb_per_s" not in values and "nccl_wrong_values" not in values
    assert (tmp_path / "out/all_reduce_perf.txt").read_text().startswith("#  Rank  0")


def test_a_failure_after_the_last_footer_is_still_a_failure(tmp_path: Path) -> None:
    """A complete table and an exit status that nothing in it explains."""
    end, _ = collective(tmp_path, HEAD + ROW.format(wrong=0) + FOOT, 3)
    assert end.outcome is Outcome.CRASHED and "table complete" in end.detail


def test_a_node_without_nccl_tests_is_unavailable(tmp_path: Path) -> None:
    """What is missing is named."""
    bench = Bench("r", "quick", Journal(tmp_path, "r"), {"PATH": str(tmp_path)}, GPUS)
    with pytest.raises(UnavailableError, match="all_reduce_perf of nccl-tests"):
        Collective(Kind.ALL_REDUCE, 10).prepare(bench, None)
    with pytest.raises(UnavailableError, match="no GPU"):
        Collective(Kind.ALL_REDUCE, 10).prepare(Bench("r", "quick", bench.journal), None)


def test_output_without_end_is_stopped(tmp_path: Path) -> None:
    """A program that prints for ever is bounded on disk and in memory."""
    program = tmp_path / "all_reduce_perf"
    program.write_text("#!/bin/sh\nexec yes\n")
    program.chmod(0o755)
    bench = Bench("r", "quick", Journal(tmp_path / "out", "r"), {"PATH": f"{tmp_path}:/usr/bin:/bin"}, GPUS)
    workload = Collective(Kind.ALL_REDUCE, 10)
    supervisor = Supervisor(lambda: None)
    job, sink = workload.prepare(bench, None)
    running = supervisor.start(job, sink)
    supervisor.wait([running])
    assert running.ended is not None
    end = workload.conclude(bench, job, sink, running.ended)
    supervisor.close()
    assert end.outcome is Outcome.CRASHED and "more than 4 MiB" in end.detail
    assert (tmp_path / "out/all_reduce_perf.txt").stat().st_size <= 4 << 20

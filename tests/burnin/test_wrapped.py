"""Foreign programs as workloads: their output is kept, their end is told, and not having them is no failure."""

from __future__ import annotations

from pathlib import Path

import pytest

from burnin import record
from burnin.journal import Journal
from burnin.record import Artifact, GpuIdentity, Outcome, WorkloadEnded
from burnin.supervise import Supervisor
from burnin.workload import Bench, UnavailableError
from burnin.wrapped.dcgm_diag import dcgm_diag
from burnin.wrapped.nvbandwidth import nvbandwidth
from burnin.wrapped.program import Program

GPUS = (GpuIdentity(0, "GPU-0", "S0", "00000000:1B:00.0"),)
WHOLE = 'words before\n{"DCGM Diagnostic": {"test_categories": []}}'


def ran(folder: Path, workload: Program, text: str, status: int) -> tuple[WorkloadEnded, set[str]]:
    """Run a program that prints `text` and exits with `status` in place of the workload's."""
    program = folder / workload.program
    program.write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\necho \"$@\" >&2\nexit {status}\n")
    program.chmod(0o755)
    journal = Journal(folder / "out", "r")
    bench = Bench("r", "standard", journal, {"PATH": f"{folder}:/usr/bin:/bin"}, GPUS)
    supervisor = Supervisor(lambda: None)
    job, sink = workload.prepare(bench, None)
    running = supervisor.start(job, sink)
    supervisor.wait([running])
    assert running.ended is not None
    end = workload.conclude(bench, job, sink, running.ended)
    supervisor.close()
    with (folder / "out/records.jsonl").open("rb") as stream:
        return end, {r.name for r in record.read(stream) if isinstance(r, Artifact)}


@pytest.mark.parametrize("status", [0, 1, 205, 226])
def test_a_diagnostic_that_said_its_result_has_ended_whatever_its_status(tmp_path: Path, status: int) -> None:
    """dcgmi's status is its result's, and the result is read elsewhere."""
    end, kept = ran(tmp_path, dcgm_diag(2), WHOLE, status)
    assert end.outcome is Outcome.COMPLETED and end.gpu is None
    assert {name.split("-")[-1] for name in kept} >= {"dcgm_diag.json", "dcgm_diag.command.json"}
    assert any("stderr" in name for name in kept)


@pytest.mark.parametrize(
    "text", ["", "Error: unable to establish a connection", WHOLE[:-3]], ids=["none", "error", "cut"]
)
def test_a_diagnostic_without_a_result_has_crashed_even_with_status_0(tmp_path: Path, text: str) -> None:
    """Silence and half a result prove nothing."""
    end, _ = ran(tmp_path, dcgm_diag(1), text, 0)
    assert end.outcome is Outcome.CRASHED and "exit status 0" in end.detail


def test_bandwidth_needs_status_0(tmp_path: Path) -> None:
    """nvbandwidth leaves with another when data was wrong; its output is kept all the same."""
    end, kept = ran(tmp_path, nvbandwidth(tests=("a",)), "Running a.\nERROR: pattern", 1)
    assert end.outcome is Outcome.CRASHED and any(name.endswith("nvbandwidth.txt") for name in kept)
    (tmp_path / "again").mkdir()
    end, _ = ran(tmp_path / "again", nvbandwidth(), "Running a.", 0)
    assert end.outcome is Outcome.COMPLETED


def test_a_program_that_is_not_installed_is_unavailable(tmp_path: Path) -> None:
    """The record says so and names the package."""
    bench = Bench("r", "standard", Journal(tmp_path, "r"), {"PATH": str(tmp_path)}, GPUS)
    with pytest.raises(UnavailableError, match="not installed: nvbandwidth"):
        nvbandwidth().prepare(bench, None)


def test_a_level_that_dcgm_does_not_have_is_refused() -> None:
    """A misspelt suite is found before a run, not in it."""
    with pytest.raises(ValueError, match="levels 1 to 4"):
        dcgm_diag(5)

"""What an attempt takes over from one that was cut: whole cells, of the same boot and GPUs, and not for long."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from burnin import record, takeover, telemetry
from burnin.journal import Journal, utc_now
from burnin.kernel_log import KernelLog
from burnin.record import End, Measured, Start, WorkloadEnded
from burnin.samples import Samples
from burnin.suite import Suite, run
from tests.burnin.test_suite import UNTIL_THE_END, Script, on_each_gpu

# Every run of it leaves a line; it measures its own number.
WORKS = (
    "(FOLDER / f'ran-{r.workload}').open('a').write('x')\nr.measured('hbm_steps', 'count', 7 + GPU)\n"
    "r.measured('cuda_result', 'word', 'ok')\nr.ended(Outcome.COMPLETED)\n"
)
SNAPSHOT = "(FOLDER / 'nvml_before.json').write_text('{}')\n(FOLDER / 'attempt2-nvml_before.json').write_text('{}')\n"
XID = b"4,9,1000,-;NVRM: Xid (PCI:0000:01:00): 31, pid=1, name=python3, MMU Fault\n"
ENOUGH_S = 3600.0


class Cut:
    """A run of two workloads on three GPUs that was killed when the first had ended."""

    workloads = (on_each_gpu("first", WORKS), on_each_gpu("second", WORKS.replace("hbm_steps", "gemm_runs")))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records.jsonl"

    def kill(self) -> None:
        """As if it had been killed when the first workload had ended."""
        lines = self.records.read_bytes().splitlines(keepends=True)
        last = max(n for n, line in enumerate(lines) if b'"workload":"first","outcome"' in line)
        self.records.write_bytes(b"".join(lines[: last + 1]))

    def earlier(self) -> takeover.Earlier | None:
        """What the next attempt would go on from."""
        return takeover.earlier(self.folder, "small", self.workloads, 3, ENOUGH_S)

    def attempt(self, take_over_s: float = 0.0) -> list[record.Record]:
        """One attempt at it, to its end; its records."""
        watcher = Script("nvml", False, 0, listens=True, silence_s=0, text=SNAPSHOT + UNTIL_THE_END)
        journal = Journal(self.folder, "r1")
        (self.folder / "kmsg").touch()
        suite = Suite("small", self.workloads, 60, 0, watcher)
        run(suite, journal, "r1", log=self.folder / "kmsg", take_over_s=take_over_s)
        journal.close()
        with self.records.open("rb") as stream:
            return record.attempts(record.read(stream))[-1]

    def ran(self, workload: str) -> int:
        """How often a workload was run, on all GPUs together."""
        return len((self.folder / f"ran-{workload}").read_text())


@pytest.fixture(scope="module")
def cut_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Cut(tmp_path_factory.mktemp("cut") / "out")
    made.attempt()
    made.kill()
    return made.folder


@pytest.fixture
def cut(tmp_path: Path, cut_once: Path) -> Cut:
    """A copy of the same run."""
    shutil.copytree(cut_once, tmp_path / "out")
    return Cut(tmp_path / "out")


def test_a_whole_cell_is_not_run_again_and_each_number_is_there_once(cut: Cut) -> None:
    """The second attempt says what the first one measured, with its time, and measures the rest."""
    before = [r for r in record.load(cut.records.read_text().splitlines()) if isinstance(r, Measured)]
    told = cut.attempt(ENOUGH_S)
    assert (cut.ran("first"), cut.ran("second")) == (3, 6)
    steps = [r for r in told if isinstance(r, Measured) and r.metric == "hbm_steps"]
    assert [(r.gpu, r.value, r.at) for r in steps] == [
        (r.gpu, r.value, r.at) for r in before if r.metric == "hbm_steps"
    ]
    assert sorted(r.gpu for r in told if isinstance(r, WorkloadEnded) and r.workload == "second") == [0, 1, 2]
    assert isinstance(told[-1], End)
    assert set(told[-1].ended) == set(told[-1].planned) == {"nvml", "first", "second", "kernel_log"}
    failed = [r for r in told if isinstance(r, Measured) and r.metric == "cuda_failed"]
    assert [(r.gpu, r.value) for r in failed] == [(0, 0), (1, 0), (2, 0)]


def test_what_the_kernel_said_between_two_attempts_is_not_missed(cut: Cut) -> None:
    """The log is read on from where the first attempt began."""
    with (cut.folder / "kmsg").open("ab") as log:
        log.write(XID)
    told = cut.attempt(ENOUGH_S)
    assert [r.value for r in told if isinstance(r, Measured) and r.metric == "xid_events"] == [1]


def no_mark(cut: Cut) -> None:
    (cut.folder / takeover.MARK).unlink()


def no_snapshot(cut: Cut) -> None:
    (cut.folder / "nvml_before.json").unlink()


def crashed_on_one(cut: Cut) -> None:
    text = cut.records.read_text()
    cut.records.write_text(text.replace('"outcome":"completed"', '"outcome":"crashed"', 1))


def of_an_hour_ago(cut: Cut) -> None:
    text = cut.records.read_text()
    cut.records.write_text(text.replace(utc_now()[:13], "2026-01-01T00"))


def of_tomorrow(cut: Cut) -> None:
    text = cut.records.read_text()
    cut.records.write_text(text.replace(utc_now()[:10], "2099-01-01"))


def of_another_program(cut: Cut) -> None:
    text = cut.records.read_text()
    start = next(r for r in record.load(text.splitlines()) if isinstance(r, Start))
    cut.records.write_text(text.replace(f'"version":"{start.version}"', '"version":"0.0.1"'))


def after_a_reboot(cut: Cut) -> None:
    text = cut.records.read_text()
    cut.records.write_text(text.replace(takeover.boot_id(), "0" * 36))


CHANGED = [no_mark, no_snapshot, crashed_on_one, of_an_hour_ago, of_tomorrow, of_another_program, after_a_reboot]


def test_an_untouched_run_is_gone_on_with(cut: Cut) -> None:
    """What the next test changes is all that stands in the way."""
    found = cut.earlier()
    assert found is not None and set(found.cells) == {"first"}


@pytest.mark.parametrize("happened", CHANGED)
def test_where_anything_has_changed_all_is_measured_again(cut: Cut, happened: Callable[[Cut], None]) -> None:
    """Rather a test too often than evidence of another machine, of another time, or with a gap in it."""
    happened(cut)
    assert cut.earlier() is None


def test_a_log_that_does_not_reach_back_costs_the_cells(cut: Cut) -> None:
    """What was logged meanwhile is lost: everything is measured again, with a log from now on."""
    (cut.folder / takeover.MARK).write_text('{"offset": 100}')
    told = cut.attempt(ENOUGH_S)
    assert (cut.ran("first"), cut.ran("second")) == (6, 6)
    assert sorted(r.gpu for r in told if isinstance(r, Measured) and r.metric == "hbm_steps") == [0, 1, 2]
    assert [r.value for r in told if isinstance(r, Measured) and r.metric == "xid_events"] == [0]


def test_other_gpus_are_measured_themselves(cut: Cut) -> None:
    """A board was swapped while the machine ran: what the other one did is not its."""
    text = cut.records.read_text()
    cut.records.write_text(text.replace('"serial":"s1"', '"serial":"s9"'))
    cut.attempt(ENOUGH_S)
    assert cut.ran("first") == 6


def test_nobody_takes_over_who_was_not_told_to(cut: Cut) -> None:
    """Bring-up measures everything in one go."""
    assert takeover.earlier(cut.folder, "small", cut.workloads, 3, 0.0) is None


def test_a_third_attempt_goes_on_from_the_second(cut: Cut) -> None:
    """Cut once more before anything new had ended: the cell is carried along."""
    cut.attempt(ENOUGH_S)
    cut.kill()
    told = cut.attempt(ENOUGH_S)
    assert (cut.ran("first"), cut.ran("second")) == (3, 9)
    assert len([r for r in told if isinstance(r, Measured) and r.metric == "hbm_steps"]) == 3


def test_the_kernels_own_log_is_gone_on_with_by_record() -> None:
    """On a machine that has one: the second look begins where the first one did, and sees no less."""
    path = Path("/dev/kmsg")
    first = KernelLog(path)
    if first.unreadable or "record" not in first.mark:
        pytest.skip(f"no kernel log here: {first.unreadable or 'it is a file'}")
    again = KernelLog(path, first.mark)
    first.drain()
    again.drain()
    assert (again.unreadable, again.mark) == ("", first.mark)
    assert again.text().startswith(first.text())
    assert "no longer reaches back" in KernelLog(path, {"record": -5}).unreadable
    first.close()
    again.close()


def test_counters_are_compared_with_what_they_were_before_the_first_attempt(tmp_path: Path) -> None:
    """Errors of an attempt that was cut are in the difference; of other boards they are not."""
    board = {"index": 0, "uuid": "GPU-0", "serial": "s0", "pci": "p0", "ecc_dram_corrected": 3,
             "ecc_sram_corrected": {"missing": "not supported", "code": 3}}  # fmt: skip
    (tmp_path / "nvml_before.json").write_text(json.dumps({"gpus": [board]}))
    samples = Samples()
    samples.add(utc_now(), {0: {"gpu_celsius": 91, "throttle_reasons": 4}})
    (tmp_path / "nvml_ranges.json").write_text(json.dumps(samples.state()))
    now = {0: {k: v for k, v in board.items() if k != "index"} | {"ecc_dram_corrected": 8}}
    begun = telemetry._begun(now, tmp_path, "")
    assert begun is not None
    told = {m.name: m.value for m in telemetry.differences(begun[0], now)}
    assert told["hbm_corrected_errors_delta"] == 5
    assert "sram_corrected_errors_delta" not in told
    restored = Samples()
    restored.go_on(begun[1])
    assert {m.name: m.value for m in restored.metrics()}["gpu_celsius_max"] == 91
    assert telemetry._begun({0: now[0] | {"serial": "s9"}}, tmp_path, "") is None

"""The suite over small workloads of its own: GPUs that must not go on, starts in steps, last words of CUDA."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from burnin import record
from burnin.journal import Journal
from burnin.record import End, GpuIdentity, Measured, Outcome, Progress, WorkloadEnded
from burnin.suite import Suite, Timing, run
from burnin.suites import SUITES
from burnin.supervise import Job, Sink
from burnin.workload import Bench, OwnProcess

ROOT = Path(__file__).resolve().parents[2]
SPEAK = (
    f"import os, sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
    "from pathlib import Path\nfrom burnin.child import Reporter\nfrom burnin.record import *\n"
)
# telemetry of three GPUs: greets, then does what the test says, then waits for the end of its input
GREET = (
    "r = Reporter('nvml'); GPUS = tuple(GpuIdentity(i, f'GPU-{i}', f's{i}', f'00000000:{i + 1:02X}:00.0') "
    "for i in range(3))\nr.hello(Start('r1', 't', 'small', 'v', GPUS))\n"
)
UNTIL_THE_END = "sys.stdin.read()\nr.ended(Outcome.COMPLETED)\n"
OK = "r.measured('cuda_result', 'word', 'ok')\nr.ended(Outcome.COMPLETED)\n"
SITS = "r.progress(0.1, 'at work')\ntime.sleep(600)\n"


@dataclass(frozen=True)
class Script(OwnProcess):
    """A process that speaks records, as every workload of ours."""

    text: str = ""

    def prepare(self, bench: Bench, gpu: GpuIdentity | None) -> tuple[Job, Sink]:
        job, sink = super().prepare(bench, gpu)
        given = f"GPU = {gpu.index if gpu else None}\nFOLDER = Path({str(bench.journal.folder)!r})\n"
        greet = GREET if self.listens else f"r = Reporter({self.name!r}, GPU)\n"
        return replace(job, argv=(sys.executable, "-S", "-c", SPEAK + given + greet + self.text)), sink


def on_each_gpu(name: str, text: str, **options: float) -> Script:
    return Script(name, True, options.get("deadline_s", 30), silence_s=options.get("silence_s", 0), text=text)


@dataclass
class Bed:
    """Runs suites in a folder, with a kernel log of its own."""

    folder: Path

    def run(self, *workloads: Script, watch: str = UNTIL_THE_END, timing: Timing | None = None) -> list[record.Record]:
        watcher = Script("nvml", False, 0, listens=True, silence_s=0, text=watch)
        journal = Journal(self.folder, "r1")
        (self.folder / "kmsg").touch()
        run(Suite("small", workloads, 60, 0, watcher), journal, "r1", log=self.folder / "kmsg", timing=timing)
        journal.close()
        with (self.folder / "records.jsonl").open("rb") as stream:
            return list(record.read(stream))


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path / "out")


def ends(records: list[record.Record], workload: str) -> dict[int | None, WorkloadEnded]:
    return {r.gpu: r for r in records if isinstance(r, WorkloadEnded) and r.workload == workload}


def values(records: list[record.Record], metric: str) -> dict[int | None, float | str]:
    found = [r for r in records if isinstance(r, Measured) and r.metric == metric]
    assert len(found) == len({r.gpu for r in found}), "a metric is measured once a run and subject"
    return {r.gpu: r.value for r in found}


def test_a_gpu_at_its_limit_is_stopped_and_the_others_go_on(bed: Bed) -> None:
    """What runs on it ends, what would follow does not begin, nor does what needs all GPUs; each says why."""
    watch = (
        "while not (FOLDER / 'busy').exists(): time.sleep(0.01)\n"
        "r.measured('safety_stop', 'word', 'GPU at 93 celsius, limit 92', gpu=1)\n"
    )
    records = bed.run(
        on_each_gpu(
            "burn", f"if GPU == 1: (FOLDER / 'busy').touch(); {SITS.replace(chr(10), ';')}\ntime.sleep(0.3)\n{OK}"
        ),
        on_each_gpu("more", OK),
        Script("all", False, 30, text="r.ended(Outcome.COMPLETED)"),
        watch=watch + UNTIL_THE_END,
    )
    why = "GPU 1 must not go on: GPU at 93 celsius, limit 92"
    for workload in ("burn", "more"):
        found = ends(records, workload)
        assert (found[1].outcome, found[1].detail) == (Outcome.STOPPED, why)
        assert found[0].outcome is found[2].outcome is Outcome.COMPLETED
    assert (ends(records, "all")[None].outcome, ends(records, "all")[None].detail) == (Outcome.STOPPED, why)
    assert values(records, "safety_stop") == {None: "gpu 1: GPU at 93 celsius, limit 92"}
    end = records[-1]
    assert isinstance(end, End) and set(end.ended) == set(end.planned), "stopped is an end, and recorded as that"


def test_an_xid_stops_the_gpu_at_its_address(bed: Bed) -> None:
    """After a moment in which CUDA can tell the process, whose word is kept; another board's Xid stops nothing."""
    text = (
        "if GPU == 0:\n"
        "  with (FOLDER / 'kmsg').open('a') as log:\n"
        "    log.write('4,1,1,-;NVRM: Xid (PCI:0000:03:00): 119, pid=1, Timeout after 6s of waiting for RPC\\n')\n"
        "    log.write('4,2,2,-;NVRM: Xid (PCI:0000:99:00): 79, pid=1, GPU has fallen off the bus.\\n')\n"
        "    log.write('4,3,3,-;NVRM: Xid (PCI:0000:02:00): 31, pid=1, name=x, MMU Fault\\n')\n"
        "if GPU == 2:\n  r.measured('cuda_result', 'word', 'unknown_error')\n  time.sleep(600)\n"
    )
    records = bed.run(on_each_gpu("burn", text + OK))
    found = ends(records, "burn")
    assert found[2].outcome is Outcome.STOPPED and "Xid 119: GSP RPC timeout" in found[2].detail
    assert found[2].seconds >= 2 and found[0].outcome is found[1].outcome is Outcome.COMPLETED
    assert values(records, "safety_stop") == {None: "gpu 2: Xid 119: GSP RPC timeout"}
    assert values(records, "cuda_failed") == {0: 0, 1: 0, 2: 1}
    assert values(records, "xid_events") == {None: 3}


def test_a_gpu_whose_work_hung_gets_no_more(bed: Bed) -> None:
    """By the process's own word, or by its silence; that is no safety stop."""
    hangs = (
        "if GPU == 0: r.measured('cuda_result', 'word', 'hung'); r.ended(Outcome.CRASHED, 'hung'); os._exit(1)\n"
        "if GPU == 1: time.sleep(600)\n"
    )
    records = bed.run(on_each_gpu("burn", hangs + OK, silence_s=4), on_each_gpu("more", OK))
    assert {g: e.outcome for g, e in ends(records, "burn").items()} == {
        0: Outcome.CRASHED, 1: Outcome.TIMED_OUT, 2: Outcome.COMPLETED
    }  # fmt: skip
    assert {g: e.outcome for g, e in ends(records, "more").items()} == {
        0: Outcome.STOPPED, 1: Outcome.STOPPED, 2: Outcome.COMPLETED
    }  # fmt: skip
    assert values(records, "cuda_hung") == {0: 1, 1: 1, 2: 0}
    assert values(records, "cuda_failed") == {0: 0, 1: 0, 2: 0}
    assert values(records, "safety_stop") == {None: "none"}
    assert values(records, "cuda_result") == {}, "the words are the suite's; the flags are the reader's"


def test_what_nobody_watched_or_said_is_not_claimed(bed: Bed) -> None:
    """Telemetry that died cannot say that nothing was too hot; a process that crashed said nothing of its GPU."""
    records = bed.run(on_each_gpu("burn", "if GPU == 1: os.abort()\n" + OK), watch="os.abort()")
    assert values(records, "safety_stop") == {}
    assert values(records, "cuda_hung") == {0: 0, 2: 0}


def test_the_load_begins_when_it_was_asked_to_and_gpu_after_gpu(bed: Bed) -> None:
    """Bounded power ramps: progress says what is waited for, and the time waited counts in no deadline."""
    begin = time.time() + 2.2
    text = "r.measured('begun', 's', time.time())\n" + OK
    records = bed.run(on_each_gpu("burn", text, deadline_s=2), timing=Timing(begin, gpu_stagger_s=1.2))
    begun = [v for _, v in sorted(values(records, "begun").items())]
    assert begun[0] >= begin and begun[1] - begun[0] > 0.8 and begun[2] - begun[1] > 0.8
    assert {e.outcome for e in ends(records, "burn").values()} == {Outcome.COMPLETED}
    said = [r.text for r in records if isinstance(r, Progress)]
    assert "load begins in 2 s" in said and "burn: gpu 2 begins in 1 s" in said


def test_a_time_that_has_passed_is_now(bed: Bed) -> None:
    """A node that comes late begins at once."""
    begun = time.monotonic()
    records = bed.run(on_each_gpu("burn", OK), timing=Timing(time.time() - 1000))
    assert time.monotonic() - begun < 10 and set(ends(records, "burn")) == {0, 1, 2}


@pytest.mark.parametrize("suite", SUITES, ids=lambda s: s.name)
def test_suites_are_whole(suite: Suite) -> None:
    """Every suite runs each workload once, so that a metric is measured once; its deadline leaves room for its load."""
    assert len(suite.planned) == len(set(suite.planned))
    assert {"nvml", "hbm", "gemm", "together", "pcie", "nccl_all_reduce", "kernel_log"} <= set(suite.planned)
    load = 0.0
    for workload in suite.workloads:
        if isinstance(workload, OwnProcess):
            seconds = float(workload.arguments[workload.arguments.index("--seconds") + 1])
            assert workload.deadline_s >= seconds + 30
            load += seconds
    assert load < suite.deadline_s
    assert load == {"rehearsal": 0, "quick": 53, "standard": 555, "long": 6360}[suite.name]

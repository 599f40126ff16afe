"""Programs that crash, hang, flood or leave children behind: each comes to a recorded end, and is really gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from burnin.child import RecordSink, workload_end
from burnin.record import Outcome, Record, WorkloadEnded
from burnin.supervise import How, Job, Running, Supervisor

ROOT = Path(__file__).resolve().parents[2]
SPEAK = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom burnin.child import Reporter\nr = Reporter('w', 0)\n"


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor(lambda: None)
    yield made
    made.close()


class Bench:
    """Runs Python programs as workload `w` on GPU 0."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.records: list[Record] = []

    def start(self, text: str, deadline_s: float = 20) -> Running:
        job = Job("w", (sys.executable, "-S", "-c", text), {"PATH": "/usr/bin:/bin"}, deadline_s, 0)
        return self.supervisor.start(job, RecordSink("w", 0, self.records.append))

    def end(self, running: Running) -> WorkloadEnded:
        self.supervisor.wait([running])
        assert running.ended is not None and isinstance(running.sink, RecordSink)
        return workload_end("w", 0, running.ended, running.sink.said)

    def run(self, text: str, deadline_s: float = 20) -> WorkloadEnded:
        return self.end(self.start(text, deadline_s))


@pytest.fixture
def bench(supervisor: Supervisor) -> Bench:
    return Bench(supervisor)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_workload_that_says_its_end_has_completed(bench: Bench) -> None:
    """The plain case: records pass, the end is what it said."""
    end = bench.run(
        SPEAK + "from burnin.record import Outcome\nr.measured('m','u',1)\nr.ended(Outcome.COMPLETED,'all')"
    )
    assert (end.outcome, end.detail, len(bench.records)) == (Outcome.COMPLETED, "all", 1)


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import sys; sys.exit('the driver\\x1b[31m said no')", "exit status 1: the driver [31m said no"),
        ("raise RuntimeError('x')", "RuntimeError: x"),
        ("pass", "ended without saying how"),
        (SPEAK + "from burnin.record import Outcome\nr.ended(Outcome.COMPLETED)\nsys.exit(3)", "exit status 3"),
    ],
)
def test_a_workload_that_crashes_is_recorded_as_that(bench: Bench, program: str, detail: str) -> None:
    """Whatever it claimed before: the process's end counts, with its last words made printable."""
    end = bench.run(program)
    assert end.outcome is Outcome.CRASHED and detail in end.detail and end.detail.isprintable()


def test_a_workload_that_measured_before_it_died_keeps_what_it_measured(bench: Bench) -> None:
    """Numbers pass as they come, not at the end."""
    bench.run(SPEAK + "import os\nr.measured('m','u',7)\nos.abort()")
    assert [r.value for r in bench.records] == [7]  # type: ignore[union-attr]


def test_a_workload_that_hangs_is_stopped_at_its_deadline(bench: Bench) -> None:
    """SIGTERM ends a plain sleeper."""
    begun = time.monotonic()
    end = bench.run("import time; time.sleep(600)", 0.5)
    assert end.outcome is Outcome.TIMED_OUT and "still running" in end.detail
    assert time.monotonic() - begun < 2.5


def test_a_workload_that_falls_silent_is_stopped_before_its_deadline(supervisor: Supervisor) -> None:
    """One that speaks goes on; one that sits in a call to the driver is found long before its time is over."""

    def job(text: str) -> Running:
        wanted = Job("w", (sys.executable, "-S", "-c", text), {"PATH": "/usr/bin:/bin"}, 60, 0, silence_s=3.0)
        return supervisor.start(wanted, RecordSink("w", 0, lambda record: None))

    speaks = job(
        SPEAK + "import time\nfrom burnin.record import Outcome\n"
        "for i in range(8): r.measured('m', 'u', i); time.sleep(0.5)\n"
        "r.ended(Outcome.COMPLETED)"
    )
    sits = job(SPEAK + "import time\nr.measured('m', 'u', 0)\ntime.sleep(600)")
    supervisor.wait([speaks, sits])
    assert speaks.ended is not None and speaks.ended.how is How.EXITED
    assert sits.ended is not None and sits.ended.how is How.SILENT and 3 <= sits.ended.silent_s < 5
    end = workload_end("w", 0, sits.ended, None)
    assert end.outcome is Outcome.TIMED_OUT and end.detail == "said nothing for 3 s"


def test_a_workload_that_is_stopped_says_why(bench: Bench) -> None:
    """Neither crashed nor timed out: the suite took the load off."""
    running = bench.start("import time; time.sleep(600)")
    bench.supervisor.stop(running, "too hot")
    bench.supervisor.stop(running, "another reason, later")
    end = bench.end(running)
    assert (end.outcome, end.detail) == (Outcome.STOPPED, "too hot")


def test_one_that_ignores_sigterm_is_killed_with_all_its_children(bench: Bench) -> None:
    """The whole process group is gone, by proof, when the end is recorded."""
    running = bench.start(
        "import os, signal, time, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import signal, time; "
        "signal.signal(15, signal.SIG_IGN); time.sleep(600)'])\n"
        "sys.stderr.write(str(p.pid)); sys.stderr.flush()\ntime.sleep(600)",
        1.5,
    )
    end = bench.end(running)
    assert running.ended is not None and running.ended.how is How.DEADLINE and running.ended.stuck == ()
    assert end.outcome is Outcome.TIMED_OUT
    assert running.process is not None and not alive(running.process.pid) and not alive(int(running.ended.stderr))


def test_children_that_outlive_a_workload_are_stopped(bench: Bench) -> None:
    """A program that ends well and leaves a child that holds its pipe neither blocks the suite nor leaks the child."""
    begun = time.monotonic()
    running = bench.start(
        SPEAK + "import subprocess\nfrom burnin.record import Outcome\n"
        "p = subprocess.Popen(['sleep', '600'])\nsys.stderr.write(str(p.pid))\nr.ended(Outcome.COMPLETED)"
    )
    assert bench.end(running).outcome is Outcome.COMPLETED
    assert running.ended is not None and not alive(int(running.ended.stderr))
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("program", "detail"),
    [
        ("while True: print('x' * 1000)", "wrote what is not a record"),
        ("import sys\nwhile True: sys.stdout.write('x' * 9999)", "a line of more than"),
        ("print('\\x1b[2J{}')", "wrote what is not a record"),
        (SPEAK + "while True: r.measured('m','u',1)", "more than 10000 records"),
        (SPEAK + "Reporter('other', 0).measured('m','u',1)\nimport time; time.sleep(9)", "a record of w was expected"),
        (SPEAK + "Reporter('w', 5).measured('m','u',1)\nimport time; time.sleep(9)", "a record of gpu 0"),
        ("import sys\nwhile True: sys.stderr.write('x' * (1 << 16))", "64 MiB to standard error"),
    ],
)
def test_a_workload_that_floods_or_lies_is_stopped(bench: Bench, program: str, detail: str) -> None:
    """Neither volume nor nonsense on the pipe gets into the records."""
    end = bench.run(program)
    assert end.outcome is Outcome.CRASHED and detail in end.detail
    assert len(bench.records) <= 10_000


def test_one_that_cannot_be_started_is_unavailable(supervisor: Supervisor) -> None:
    """A missing program is the node's lack, not a crash."""
    running = supervisor.start(Job("w", ("/no/such/program",), {}, 5), RecordSink("w", None, print))
    supervisor.wait([running])
    assert running.ended is not None and running.ended.how is How.NOT_STARTED
    end = workload_end("w", None, running.ended, None)
    assert end.outcome is Outcome.UNAVAILABLE and "No such file" in end.detail


def test_a_crash_beside_does_not_touch_the_others(bench: Bench) -> None:
    """Eight at once, one of them dies: seven complete."""
    good = SPEAK + "from burnin.record import Outcome\nimport time; time.sleep(0.2)\nr.ended(Outcome.COMPLETED)"
    started = [bench.start("import os; os.abort()" if i == 3 else good) for i in range(8)]
    ends = [bench.end(r).outcome for r in started]
    assert ends.count(Outcome.COMPLETED) == 7 and ends[3] is Outcome.CRASHED


def test_programs_die_with_the_suite(tmp_path: Path) -> None:
    """SIGKILL of the supervising process leaves no workload behind."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from burnin.supervise import *\nfrom burnin.child import RecordSink\n"
        "s = Supervisor(lambda: None)\n"
        "r = s.start(Job('w', ('sleep', '600'), {'PATH': '/usr/bin:/bin'}, 600), RecordSink('w', None, print))\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(r.process.pid))\ns.wait([r])\n"
    )
    parent = subprocess.Popen([sys.executable, "-S", "-c", script])
    limit = time.monotonic() + 10
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < limit
        time.sleep(0.02)
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    parent.kill()
    parent.wait()
    while alive(pid):
        assert time.monotonic() < limit
        time.sleep(0.02)

"""Runs programs so that none can hang, flood or outlive the suite. One thread, no vendor library in this process.

Every program gets its own session: one signal reaches all it started. It is stopped with SIGTERM, then SIGKILL,
and the stop is proved by looking for members of its process group that are still alive.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Protocol

_GRACE_S = 2.0  # between SIGTERM and SIGKILL
_PROOF_S = 5.0  # a process still there so long after SIGKILL is stuck in the kernel
_LINGER_S = 1.0  # for output still in the pipe when something else holds its other end
_STDERR_TAIL = 4096
_STDERR_FLOOD = 64 << 20
_CHUNK = 1 << 16
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_libc = ctypes.CDLL(None, use_errno=True)


class How(Enum):
    """How a program came to its end."""

    EXITED = "exited"
    SIGNALLED = "signalled"  # by somebody else, or by its own fault (SIGSEGV)
    DEADLINE = "deadline"  # stopped by us
    SILENT = "silent"  # stopped by us: it said nothing for too long
    STOPPED = "stopped"  # by us, for a reason outside it
    REFUSED = "refused"  # stopped by us for what it wrote
    NOT_STARTED = "not started"


@dataclass(frozen=True)
class Job:
    """A program to run: on one GPU or (None) for the node. `env` is its whole environment.

    `silence_s` is the longest it may say nothing on its standard output; 0: as long as it likes.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    deadline_s: float
    gpu: int | None = None
    listens: bool = False  # its input stays open until `Running.close_stdin`
    silence_s: float = 0.0


@dataclass(frozen=True)
class Ended:
    """The end of a program.

    `status` is its exit status or the signal's number; `stuck` are processes that we could not stop; `silent_s` is
    how long it had said nothing when we began to stop it, or when it ended.
    """

    how: How
    seconds: float
    status: int = 0
    reason: str = ""
    stderr: str = ""
    stuck: tuple[int, ...] = ()
    silent_s: float = 0.0


class Sink(Protocol):
    """Takes a program's standard output."""

    def write(self, data: bytes) -> str:
        """Take the bytes. Returns why the program must be stopped, or the empty string."""


@dataclass
class Running:
    """A started program; `ended` is set once it is gone."""

    job: Job
    sink: Sink
    process: subprocess.Popen[bytes] | None
    started: float
    deadline: float
    stderr: bytearray = field(default_factory=bytearray)
    stderr_bytes: int = 0
    open_pipes: int = 0
    heard: float = 0.0  # when it last wrote to its standard output
    stopping: tuple[How, str] | None = None
    term_at: float = 0.0
    killed_at: float = 0.0
    gone_at: float = 0.0
    ended: Ended | None = None

    def close_stdin(self) -> None:
        """Tell the program, by the end of its input, that it is time to come to its end."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()

    def allow(self, seconds: float) -> None:
        """Give the program so long from now, whatever it was given before."""
        self.deadline = time.monotonic() + seconds


class Supervisor:
    """Starts jobs and pumps their output until they end. `tick` is called a few times a second meanwhile."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._running: list[Running] = []
        self._tick = tick

    def start(self, job: Job, sink: Sink) -> Running:
        """Start a job. A program that cannot be executed is a Running that has ended NOT_STARTED."""
        now = time.monotonic()
        try:
            process = subprocess.Popen(
                job.argv,
                env=dict(job.env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            ended = Ended(How.NOT_STARTED, 0.0, reason=f"{job.argv[0]}: {error.strerror or error}")
            return Running(job, sink, None, now, now, ended=ended)
        running = Running(job, sink, process, now, now + job.deadline_s, heard=now)
        if not job.listens:
            running.close_stdin()
        assert process.stdout is not None and process.stderr is not None  # noqa: S101 - both are PIPE above
        self._watch(running, process.stdout, self._take_output)
        self._watch(running, process.stderr, self._take_stderr)
        self._running.append(running)
        return running

    def wait(self, jobs: Iterable[Running]) -> None:
        """Pump until all of `jobs` have ended; other started jobs go on being served."""
        waiting = list(jobs)
        while any(r.ended is None for r in waiting):
            self.pump(0.2)

    def wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Pump until `done()` or until the time is over; says which."""
        limit = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= limit:
                return False
            self.pump(0.05)
        return True

    def pump(self, timeout_s: float) -> None:
        """Serve every started job once: take output, enforce deadlines, notice ends."""
        for key, _ in self._selector.select(timeout_s):
            key.data(key.fileobj)
        for running in list(self._running):
            self._step(running, time.monotonic())
        self._tick()

    def stop(self, running: Running, reason: str) -> None:
        """Begin to stop a program that still runs; `wait` for its end."""
        self._ask_to_stop(running, How.STOPPED, reason)

    def close(self) -> None:
        """Stop everything that still runs, with proof, and let go. Output that comes now is dropped."""
        self._tick = _do_nothing
        for running in self._running:
            running.sink = _Discard()
            self._ask_to_stop(running, How.SIGNALLED, "the suite was stopped")
        self.wait(list(self._running))
        self._selector.close()

    def _watch(self, running: Running, pipe: IO[bytes], take: Callable[[Running, bytes], None]) -> None:
        os.set_blocking(pipe.fileno(), False)
        running.open_pipes += 1

        def ready(_: object) -> None:
            data = os.read(pipe.fileno(), _CHUNK)
            if data:
                take(running, data)
                return
            self._selector.unregister(pipe)
            pipe.close()
            running.open_pipes -= 1

        self._selector.register(pipe, selectors.EVENT_READ, ready)

    def _take_output(self, running: Running, data: bytes) -> None:
        if running.stopping is not None and running.stopping[0] is How.REFUSED:
            return
        if running.stopping is None:
            running.heard = time.monotonic()
        refused = running.sink.write(data)
        if refused:
            self._ask_to_stop(running, How.REFUSED, refused)

    def _take_stderr(self, running: Running, data: bytes) -> None:
        running.stderr_bytes += len(data)
        running.stderr = (running.stderr + data)[-_STDERR_TAIL:]
        if running.stderr_bytes > _STDERR_FLOOD:
            self._ask_to_stop(running, How.REFUSED, f"wrote more than {_STDERR_FLOOD >> 20} MiB to standard error")

    def _ask_to_stop(self, running: Running, how: How, reason: str) -> None:
        if running.stopping is None and running.ended is None and running.process is not None:
            running.stopping = (how, reason)
            running.term_at = time.monotonic()
            _signal_group(running.process.pid, signal.SIGTERM)

    def _step(self, running: Running, now: float) -> None:
        process = running.process
        if process is None or running.ended is not None:
            return
        if not running.gone_at and _has_exited(process.pid):
            running.gone_at = now
            # the leader is not reaped yet, so its number cannot mean another group
            _signal_group(process.pid, signal.SIGKILL)
        if running.gone_at:
            if running.open_pipes == 0 or now - running.gone_at > _LINGER_S:
                self._finish(running)
            return
        if running.stopping is None:
            self._check_time(running, now)
        elif not running.killed_at and now - running.term_at > _GRACE_S:
            running.killed_at = now
            _signal_group(process.pid, signal.SIGKILL)
        elif running.killed_at and now - running.killed_at > _PROOF_S:
            self._finish(running)

    def _check_time(self, running: Running, now: float) -> None:
        silence = now - running.heard
        if now > running.deadline:
            self._ask_to_stop(running, How.DEADLINE, f"still running after {now - running.started:.0f} s")
        elif running.job.silence_s and silence > running.job.silence_s:
            self._ask_to_stop(running, How.SILENT, f"said nothing for {silence:.0f} s")

    def _finish(self, running: Running) -> None:
        """Reap the program and prove that nothing of its group is left."""
        process = running.process
        assert process is not None  # noqa: S101 - only started jobs come here
        stuck = _await_empty_group(process.pid)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None and not pipe.closed:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(pipe)
                with suppress(BrokenPipeError):
                    pipe.close()
        code = process.poll()
        how, reason = running.stopping or (How.EXITED if code is not None and code >= 0 else How.SIGNALLED, "")
        running.ended = Ended(
            how=how,
            seconds=time.monotonic() - running.started,
            status=abs(code) if code is not None else 0,
            reason=reason,
            stderr=running.stderr.decode("utf-8", "replace"),
            stuck=stuck,
            silent_s=(running.term_at or time.monotonic()) - running.heard,
        )
        self._running.remove(running)


class _Discard:
    def write(self, data: bytes) -> str:
        return ""


def _do_nothing() -> None:
    """Nothing to serve while stopping."""


def _die_with_parent() -> None:
    """In the child: no GPU program outlives a suite that was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _has_exited(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _await_empty_group(group: int) -> tuple[int, ...]:
    limit = time.monotonic() + _PROOF_S
    while alive := _alive_in_group(group):
        if time.monotonic() > limit:
            break
        time.sleep(0.02)
    return alive


def _alive_in_group(group: int) -> tuple[int, ...]:
    """Processes of the group that are neither dead nor zombies."""
    alive = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # proc(5): pid (comm) state ppid pgrp ...; comm may hold spaces and brackets
            state, _, pgrp = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it ended while we looked
        if int(pgrp) == group and state not in "ZX":
            alive.append(int(entry.name))
    return tuple(alive)

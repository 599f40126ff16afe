"""Runs a command on a lifeline: when the controller dies, lets go, or the time is over, the whole process tree dies.

Started by file name with an isolated interpreter (standard library only):

    python -I -S lifeline.py FIFO CONTROLLER_PID SECONDS COMMAND ...

The controller holds FIFO open for writing, in a scratch folder that dies with it. The kernel closes it when the
controller dies, also by SIGKILL. Killing the process group would not do: the workers of ansible-playbook and the
masters of ssh live in sessions of their own. So this process adopts orphans (PR_SET_CHILD_SUBREAPER) and kills what
descends from it, and it does that at a normal end too: no ssh master stays behind to be found dead after the node
rebooted.

Exit status: the command's; TIME_OVER; LET_GO. Linux >= 5.3 (pidfd_open).
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

TIME_OVER = 124
LET_GO = 125

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 10.0  # a process in uninterruptible sleep cannot be killed; we do not wait for it for ever


def command(fifo: Path, controller_pid: int, seconds: float, argv: list[str]) -> list[str]:
    """The command line that runs `argv` on the lifeline."""
    return [sys.executable, "-I", "-S", __file__, str(fifo), str(controller_pid), f"{seconds:.3f}", *argv]


def main(arguments: list[str]) -> int:
    """Runs the command; returns the exit status."""
    fifo, controller_pid, seconds, *argv = arguments
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    line = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    # Opened first, asked second: a controller alive now has had the other end open before, so its end will be seen.
    if os.getppid() != int(controller_pid):
        return LET_GO
    try:
        return _watch(line, float(seconds), argv, prctl)
    finally:
        _kill_descendants()
        if os.getppid() != int(controller_pid):  # nobody is left to clear away what tasks wrote for their modules
            shutil.rmtree(Path(fifo).parent, ignore_errors=True)


def _watch(line: int, seconds: float, argv: list[str], prctl: Callable[..., int]) -> int:
    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # for the case that this process is killed itself

    child = subprocess.Popen(argv, preexec_fn=die_with_parent)  # noqa: PLW1509  this process has one thread
    ended = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(line, select.POLLIN)  # POLLHUP comes unasked
    poll.register(ended, select.POLLIN)
    deadline = time.monotonic() + seconds
    ready: set[int] = set()
    while not ready and time.monotonic() < deadline:
        ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
    if ended in ready:
        status = child.wait()
        return status if status >= 0 else 128 - status
    return LET_GO if ready else TIME_OVER


def _kill_descendants() -> None:
    give_up = time.monotonic() + _KILL_SECONDS
    while (found := _descendants(os.getpid())) and time.monotonic() < give_up:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap()
        time.sleep(0.01)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # pid (comm) state ppid ...; comm may hold spaces and brackets, so the last bracket counts
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs a program between two readings of the byte counters: `counted FILE PROGRAM ARGUMENT ...`.

The program writes to our own outputs and its end is ours: the same exit status, or the same signal. It is of our
process group, so that whoever stops us stops it, and it does not outlive us. FILE gets both readings as JSON; the
second is there only if the program came to its end.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import burnin
from burnin.nccl import counters

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_CANNOT_START = 127

_libc = ctypes.CDLL(None, use_errno=True)


def command(readings: Path, program: tuple[str, ...]) -> tuple[str, ...]:
    """argv that runs `program` so, from this very archive or folder."""
    here = str(Path(burnin.__file__).parent.parent)
    # sys.path begins with the folder we stand in, which may hold another `burnin`: ours takes its place
    code = f"import sys; sys.path[0] = {here!r}; from burnin.nccl import counted; sys.exit(counted.main())"
    return (sys.executable, "-S", "-c", code, str(readings), *program)


def program_of(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The program's own argv in what `command` made of it."""
    return argv[len(command(Path(), ())) :]


def main(arguments: list[str] | None = None) -> int:
    """Run, and come to the program's own end."""
    file, *program = sys.argv[1:] if arguments is None else arguments
    taken = {"before": counters.read()}
    _write(Path(file), taken)
    try:
        process = subprocess.Popen(program, preexec_fn=_die_with_parent)  # noqa: PLW1509 - one thread
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error.strerror or error}\n")
        return _CANNOT_START
    status = process.wait()
    taken["after"] = counters.read()
    _write(Path(file), taken)
    return status if status >= 0 else _end_by(-status)


def _write(file: Path, taken: Mapping[str, object]) -> None:
    file.write_text(json.dumps(taken, indent=1))


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_by(number: int) -> int:
    """Die of the signal the program died of, without a core of our own."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


if __name__ == "__main__":
    sys.exit(main())

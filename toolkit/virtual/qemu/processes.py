"""Starting a program of the rack: in its network namespace and control groups, and never outliving us."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit.virtual.cgroups import ControlGroup
from toolkit.virtual.programs import environment as small_environment

_NICENESS = 10  # an emulated processor takes whatever it is given: what runs beside it comes first
# argv is GROUP-FOLDER... -- PROGRAM ARGUMENT...: joins the control groups, then becomes the program
# (subprocess's preexec_fn is not safe in a process with threads).
_JOIN_AND_EXEC = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


def start(
    argv: Sequence[str], namespace: Path, group: ControlGroup, *, log: Path,
    stdout: int | None = None, pass_fds: Sequence[int] = (), environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:  # fmt: skip
    """Starts the program; the kernel ends it when the calling *thread* ends (prctl(2), PR_SET_PDEATHSIG).

    `log` gets its standard error, and its output unless `stdout` says otherwise.
    """
    group.create()
    with log.open("wb") as file:
        return subprocess.Popen(
            [
                "/bin/sh", "-ec", _JOIN_AND_EXEC, "start", *(str(folder) for folder in group.folders), "--",
                "nice", f"-n{_NICENESS}", "setpriv", "--pdeathsig", "KILL", "nsenter", f"--net={namespace}", "--",
                *argv,
            ],
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            env=small_environment(**(environment or {})),
        )  # fmt: skip

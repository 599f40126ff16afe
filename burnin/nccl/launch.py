"""Runs a launcher of ranks (mpirun, srun) on this node to its end or its deadline: `launch FOLDER`.

FOLDER/job.json is {"argv", "env", "deadline_s"}: the whole environment, nothing is inherited. FOLDER gets output.txt,
what the launcher and rank 0 wrote, as it comes, and at the end end.json: {"how", "status", "seconds", "stuck"}. The
deadline covers all of it: starting the daemons, the ranks' finding one another, the collective. What runs on other
nodes is stopped by whoever follows us.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from burnin.supervise import Job, Supervisor

MOST_BYTES = 4 << 20  # of output: a table has some 40 lines, and each rank says one
# both outputs in the order they were written, for an error stands between rows
_MERGED = ("/bin/sh", "-c", 'exec "$@" 2>&1', "sh")


class _File:
    """The output's file, bounded."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb", buffering=0)
        self._left = MOST_BYTES

    def write(self, data: bytes) -> str:
        """Take output; why the program must be stopped, or the empty string."""
        self._stream.write(data[: self._left])
        self._left -= len(data)
        return "" if self._left > 0 else f"wrote more than {MOST_BYTES >> 20} MiB"


def main(arguments: list[str] | None = None) -> int:
    """Run; 0 when the end is written, whatever it was."""
    folder = Path((sys.argv[1:] if arguments is None else arguments)[0])
    told = json.loads((folder / "job.json").read_text())
    supervisor = Supervisor(_nothing)
    job = Job("launch", (*_MERGED, *told["argv"]), told["env"], float(told["deadline_s"]))
    running = supervisor.start(job, _File(folder / "output.txt"))
    supervisor.wait([running])
    supervisor.close()
    ended = running.ended
    assert ended is not None  # noqa: S101 - it was waited for
    end = {"how": ended.how.value, "status": ended.status, "seconds": ended.seconds, "stuck": list(ended.stuck)}
    aside = folder / "end.json.new"
    aside.write_text(json.dumps(end))
    aside.replace(folder / "end.json")
    return 0


def _nothing() -> None:
    """Nothing to do beside."""


if __name__ == "__main__":
    sys.exit(main())

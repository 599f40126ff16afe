"""Running the host's programs (ip, mount, zstd): by argv, with a deadline, and an error that quotes what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import RackproofError
from toolkit.virtual.requirements import SEARCH_PATH

_DEADLINE_S = 60.0
_QUOTED_CHARS = 600


def environment(**extra: str) -> dict[str, str]:
    """A small environment: nothing of the operator's shell reaches the rack's processes."""
    locale = {"LC_ALL": "C.UTF-8"}
    return {"PATH": SEARCH_PATH, "HOME": os.environ.get("HOME", "/root"), **locale, **extra}


def run(argv: Sequence[str], text: str | None = None, cwd: Path | None = None) -> str:
    """Runs a program to its end; its stdout. Raises RackproofError with its own words when it fails."""
    try:
        done = subprocess.run(
            argv,
            input=text,
            cwd=cwd,
            env=environment(),
            text=True,
            capture_output=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RackproofError(f"`{' '.join(argv)}` did not run to its end: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-_QUOTED_CHARS:]
        raise RackproofError(f"`{' '.join(argv)}` ended with {done.returncode}: {said}")
    return done.stdout

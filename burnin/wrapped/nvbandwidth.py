"""`nvbandwidth`: copy rates between host and GPUs and among GPUs, where the site has it.

Its text form is asked for: every version prints it (`-j` came with 0.6), and a run that is cut keeps what it had.
"""

from __future__ import annotations

from burnin.wrapped.program import Program

NAME = "nvbandwidth"


def nvbandwidth(deadline_s: float = 600.0, tests: tuple[str, ...] = ()) -> Program:
    """All its tests, or those named (`device_to_device_memcpy_write_ce`). Minutes on a node of eight GPUs."""
    options = ("-t", *tests) if tests else ()
    return Program(
        name=NAME,
        program="nvbandwidth",
        options=options,
        deadline_s=deadline_s,
        suffix="txt",
        package="github.com/NVIDIA/nvbandwidth",
    )

"""`dcgmi diag -r LEVEL -j`: DCGM's own diagnostic, where the site runs DCGM.

A pass of it is recorded and never trusted for ours: its memory test leaves a part of the memory out and has no address
pattern, and some of its floors cannot fail.
"""

from __future__ import annotations

from burnin.wrapped.program import Program

NAME = "dcgm_diag"
# About twice what a level takes on a node of eight GPUs: seconds, 2, 15 and 90 minutes (DCGM user guide, Diagnostics).
_DEADLINES_S = {1: 120.0, 2: 300.0, 3: 1800.0, 4: 3 * 3600.0}


def dcgm_diag(level: int, deadline_s: float | None = None) -> Program:
    """The diagnostic at a level, 1 to 4. Raises ValueError for another."""
    if level not in _DEADLINES_S:
        raise ValueError(f"dcgmi diag has levels 1 to 4, not {level}")
    return Program(
        name=NAME,
        program="dcgmi",
        options=("diag", "-r", str(level), "-j"),
        deadline_s=_DEADLINES_S[level] if deadline_s is None else deadline_s,
        suffix="json",
        package="datacenter-gpu-manager",
        ends_with_json=True,
    )

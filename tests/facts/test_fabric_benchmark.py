"""The benchmark of the fabric's judge: that it runs, and that swaps among 1,152 HCAs come out as planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "fabric.py"


def test_ten_swaps_among_a_thousand_cables_are_ten_swaps_in_little_memory() -> None:
    """One seed: each swap once, nothing else, with one tool's output and with all of them."""
    argv = [sys.executable, BENCHMARK, "--json", "--hcas", "1152", "--seeds", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    (found,) = json.loads(done.stdout)
    assert found["runs_all_right"] == {"rackproof": 1, "all tools": 1}
    assert found["links"] == 2_304
    assert found["all tools"]["peak_mb"] < 200
    assert found["rackproof"]["cpu_s"] < found["goal_s"]

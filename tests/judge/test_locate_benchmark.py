"""The benchmark of the locator: what it counts, and that it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "locate.py"


def run(*options: str) -> dict[str, dict[str, object]]:
    """The places it measured."""
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--json", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    return json.loads(done.stdout)["places"]


def counted(place: dict[str, object]) -> dict[str, object]:
    """Without what a clock measured."""
    rows = {"all": place["all"], **place["classes"], **place["baselines"]}
    return json.loads(json.dumps(rows), object_hook=lambda row: {k: v for k, v in row.items() if "cpu" not in k})


def test_a_seed_draws_the_same_racks_and_says_what_is_found_and_what_no_test_can_see() -> None:
    """Two runs agree but for their clock; what no test can see is kept out of the sum; a transport blames no part."""
    chosen = ("slow GPU", "wrong transport", "cables of one leaf swapped", "none")
    options = [o for fault in chosen for o in ("--fault", fault)]
    options += ["--place", "6 nodes, rails apart", "--trials", "3", "--clean", "2", "--seed", "5"]
    (one,), (other,) = run(*options).values(), run(*options).values()
    assert counted(one) == counted(other)
    assert one["not_seen_by_tests"] == ["cables of one leaf swapped"]
    assert one["classes"]["cables of one leaf swapped"]["recall"] == 0.0
    assert (one["all"]["trials"], one["all"]["faults"], one["all"]["recall"]) == (8, 6, 1.0)
    assert one["classes"]["wrong transport"]["racks_with_healthy_parts_blamed"] == 0
    assert one["classes"]["slow GPU"]["part_precision"] == 1.0
    assert one["classes"]["none"]["false_alarms_per_1000_clean"] == 0.0
    assert one["baselines"]["bisection"]["classes"]["wrong transport"]["recall"] == 0.0
    assert one["rounds_of_all_pairs"] == {"all pairs in sequence": 288, "circle-method pairs": 12}
